"""``./scripts/bench``: measures time, memory and ratios of sam-detect, suite by suite."""
