"""Tables: a manifest and its rows as one table, encoded, split and checked."""
