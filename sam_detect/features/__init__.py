"""Features: from the masks of a frame to the vectors that a library compares."""
