"""Batches: a table's rows, prepared and packed for a model."""
