"""Measures what things cost: time per stage, peak memory, ratios of pairs."""
