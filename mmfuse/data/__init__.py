"""Data: files and cells to a table, a table or shards to packed batches; `load_table` is the door."""
