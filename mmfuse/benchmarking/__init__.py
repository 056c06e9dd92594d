"""Benchmark: strategies and seeds on one manifest, and what may be said of their differences."""
