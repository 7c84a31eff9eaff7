"""Models: finding their weights, reading them safely, running them. The only users of torch."""
