"""From a frame and a library to detections, and from outlines to examples."""
