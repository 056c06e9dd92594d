"""A manifest's rows as one table, of files or of shards."""

from __future__ import annotations

from collections.abc import Sequence

from mmfuse.data.shards.table import load_shards
from mmfuse.data.tables.build import read_table
from mmfuse.data.tables.manifest import Manifest, is_shards
from mmfuse.data.tables.table import Table


def load_table(
    manifest: Manifest,
    *,
    tasks: Sequence[str] | None = None,
    labels: dict[str, list[str]] | None = None,
    fold: int | None = None,
    allow_leaks: bool = False,
    damaged: str = "error",
) -> Table:
    """Read, encode and split a manifest's rows.

    Args:
        manifest: As `load_manifest` gave it.
        tasks: Which of its tasks; default: all.
        labels: A model's label names by task; the table is then encoded with these, and any other label is an error.
        fold: Where the manifest says folds: which one is the test set, from 0.
        allow_leaks: Do not refuse groups or exact duplicates in two splits; `find_leaks` tells them.
        damaged: Where the rows are shards, what is done about damaged ones (see `open_shards`).

    Returns:
        All rows; of shards those of validation and test, as `ShardedTable` says.

    Raises:
        MmfuseError: As of `read_table` and `load_shards`.
    """
    if is_shards(manifest.rows):
        return load_shards(manifest, tasks=tasks, labels=labels, fold=fold, damaged=damaged)
    return read_table(manifest, tasks=tasks, labels=labels, fold=fold, allow_leaks=allow_leaks)
