"""A manifest's rows and images to a folder of shards (see `mmfuse.data.shards`)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse.data.manifest import Manifest
from mmfuse.data.shards import INDEX, ROW_GROUP, Shard, Shards, index_bytes, open_shards
from mmfuse.data.table import SPLITS, Table
from mmfuse.data.texts import read_bytes

SHARD_BYTES = 128 * 2**20
"""Default size of a shard."""
_MAX_IMAGE_BYTES = 512 * 2**20


def write_shards(
    table: Table, out: str, *, size: int = SHARD_BYTES, progress: Callable[[int, int], None] | None = None
) -> Shards:
    """Write a table's rows, with their images, as shards.

    Args:
        table: As `load_table` gave it.
        out: A new or empty folder: a path or an fsspec URL.
        size: Bytes of images and texts after which a shard is closed.
        progress: Called with (rows done, rows).

    Returns:
        The shards, opened.
    """
    system, root = fsspec.core.url_to_fs(out.rstrip("/"))
    system.makedirs(root, exist_ok=True)
    schema = shard_schema(table)
    written: list[Shard] = []
    done = 0
    for split in SPLITS:
        rows = [row for row, name in enumerate(table.splits) if name == split]
        ids = table.rows["id"][:]
        rows.sort(key=lambda row: _order(ids[row]))
        for number, block in enumerate(_blocks(table, rows, size)):
            data = _parquet(block, schema)
            shard = Shard(
                file=f"{split}-{number:05d}.parquet",
                split=split,
                rows=len(block),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                without_text=sum(row["text"] is None for row in block),
                without_image=sum(not row["images"] for row in block),
            )
            system.pipe_file(f"{root}/{shard.file}", data)
            written.append(shard)
            done += len(block)
            if progress:
                progress(done, len(table))
    tasks = {task: dataclasses.asdict(table.manifest.tasks[task]) for task in table.targets}
    system.pipe_file(f"{root}/manifest.yaml", _manifest(table.manifest))
    system.pipe_file(f"{root}/{INDEX}", index_bytes(written, table.labels, tasks))
    return open_shards(out)


def shard_schema(table: Table) -> pa.Schema:
    """The columns of a shard of this table."""
    fields = [("id", pa.string()), ("group", pa.string()), ("images", pa.list_(pa.binary())), ("text", pa.string())]
    for task in table.targets:
        kind = table.manifest.tasks[task].type
        types = {"classification": pa.int64(), "captioning": pa.list_(pa.string())}
        fields.append((f"target.{task}", types.get(kind, pa.list_(pa.float32()))))
    fields += [(f"subgroup.{name}", pa.string()) for name in table.manifest.subgroups]
    return pa.schema(fields)


def _order(id: str) -> bytes:
    return hashlib.blake2b(id.encode("utf-8", "backslashreplace"), digest_size=8).digest()


def _blocks(table: Table, rows: list[int], size: int) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        found = _row(table, row)
        block.append(found)
        held += sum(map(len, found["images"])) + len(found["text"] or "")
        if held >= size:
            yield block
            block, held = [], 0
    if block:
        yield block


def _row(table: Table, row: int) -> dict[str, Any]:
    values: dict[str, Any] = dict(table.rows[row])
    values["images"] = [read_bytes(path, _MAX_IMAGE_BYTES) for path in values["images"]]
    for task, targets in table.targets.items():
        target = targets[row]
        values[f"target.{task}"] = list(target) if isinstance(target, (np.ndarray, tuple)) else int(target)
    return values


def _parquet(block: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(block, schema=schema),
        buffer,
        row_group_size=ROW_GROUP,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _manifest(manifest: Manifest) -> bytes:
    """The same manifest with its rows in the shards beside it."""
    values = dataclasses.asdict(manifest)
    values["rows"] = INDEX
    for name in ("source", "sha256"):
        del values[name]
    return yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False).encode()
