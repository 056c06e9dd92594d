"""Shards: a table with its images as parquet files, written, checked and read as tables."""
