"""Rows: csv, tsv, jsonl and parquet files as cells."""
