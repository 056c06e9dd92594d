"""Data: a manifest to a table, a table to samples, samples to packed batches."""
