"""Models: where they run, and how their weights are loaded."""
