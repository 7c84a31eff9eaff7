"""Few-shot detection, refining and stacks of microscopy images."""
