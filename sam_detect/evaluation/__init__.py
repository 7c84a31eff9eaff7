"""Measures what is found in annotated pictures: datasets, episodes, metrics, baselines, reports."""
