"""Models: which there are, where their weights lie, how they come here and are loaded, where they
run. No torch in this file."""
