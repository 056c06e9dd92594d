"""Synthetic datasets, of which the right answers are known."""
