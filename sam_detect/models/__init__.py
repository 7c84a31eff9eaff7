"""Weights of models: which there are, where they lie, how they come here. No torch in this file."""
