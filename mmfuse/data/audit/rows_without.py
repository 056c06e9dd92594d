"""Copies of files of rows without some of the rows; what is kept is kept as it stands there."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse import cells
from mmfuse.data.rows.blocks import BLOCK, is_table, open_table
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.read import RowFiles, read_rows
from mmfuse.data.tables.manifest import Manifest


def write_rows_without(manifest: Manifest, dropped: Collection[int], out: Path) -> tuple[int, str]:
    """Write a manifest's files of rows again, without some rows; some thousand rows are in memory at once.

    Lines of csv and jsonl stay as they are, to the byte but for the byte order of UTF-16; columns of parquet keep types
    and metadata.

    Args:
        manifest: Its rows were read before, so the files are legal.
        dropped: Numbers of rows, from 0 over all files.
        out: Folder that gets `rows.SUFFIX`, or of several files `rows/`.

    Returns:
        How many rows there were, and what `rows` of a manifest in `out` must be.
    """
    files = RowFiles(manifest.rows, manifest.source, manifest.csv).files
    if not all(map(is_table, files)):
        return _write_read(manifest, dropped, out)
    several, first, pattern = len(files) > 1, 0, "rows/*"
    for number, file in enumerate(files):
        suffix = file.lower().rsplit(".", 1)[-1]
        pattern = f"rows/{number:05}-{os.path.basename(file)}" if several else f"rows.{suffix}"
        (out / pattern).parent.mkdir(exist_ok=True)
        with open_table(file) as source, (out / pattern).open("xb") as target:
            if suffix == "parquet":
                first = _copy_parquet(source, target, dropped, first)
            elif suffix in ("jsonl", "ndjson"):
                first = _copy_lines(source, target, dropped, first)
            else:
                first = _copy_delimited(source, target, dropped, first, suffix, manifest.csv)
    return first, "rows/*" if several else pattern


def _write_read(manifest: Manifest, dropped: Collection[int], out: Path) -> tuple[int, str]:
    """The rows of a folder or of a dataset as they were read."""
    frame = read_rows(manifest.rows, manifest.source, csv=manifest.csv)
    kept = frame[[row not in dropped for row in range(len(frame))]]
    columns = {name: cells.to_arrow(list(kept[name]), f"{manifest.source}: {name}") for name in kept}
    pq.write_table(pa.table(columns), out / "rows.parquet")
    return len(frame), "rows.parquet"


def _copy_parquet(source: BinaryIO, target: BinaryIO, dropped: Collection[int], first: int) -> int:
    found = pq.ParquetFile(source)
    with pq.ParquetWriter(target, found.schema_arrow) as writer:
        for batch in found.iter_batches(BLOCK):
            kept = [row not in dropped for row in range(first, first + len(batch))]
            writer.write_batch(batch.filter(pa.array(kept, pa.bool_())))
            first += len(batch)
    return first


def _copy_lines(source: BinaryIO, target: BinaryIO, dropped: Collection[int], first: int) -> int:
    for line in source:
        if line.strip():
            if first not in dropped:
                target.write(line)
            first += 1
    return first


def _copy_delimited(
    source: BinaryIO, target: BinaryIO, dropped: Collection[int], first: int, suffix: str, spec: CsvSpec
) -> int:
    separator, encoding = spec.separator or ("," if suffix == "csv" else "\t"), spec.encoding
    if encoding == "utf-8" and source.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
        encoding = "utf-8-sig"
    source.seek(0)
    text, copy = (io.TextIOWrapper(file, encoding=encoding, newline="") for file in (source, target))
    lines: list[str] = []

    def taken() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    number = first - 1  # the header
    for row in csv.reader(taken(), delimiter=separator, strict=True):
        if number < first or number not in dropped:
            copy.writelines(lines)
        number += len(row) > 1 or bool(row and row[0].strip())  # as `read_rows` counts: blank lines are no rows
        lines.clear()
    text.detach()
    copy.detach()
    return number
