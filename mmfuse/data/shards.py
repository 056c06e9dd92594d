"""Shards: a dataset as parquet files with its images inside, at any fsspec URL, with an index that says all of them.

A folder of shards holds `shards.json` (the index), `manifest.yaml` and `SPLIT-00000.parquet`, ... A file's columns are
`id`, `group`, `images` (a list of encoded images), `text` (null where missing), `target.<task>` as a batch has it
(int64, -100 where missing; a list of float32, NaN where missing; of a captioning task the list of references) and
`subgroup.<name>`. Rows lie in the order of a hash of their ids, so that neighbours have nothing in common.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.types import MmfuseError

INDEX = "shards.json"
VERSION = 1
ROW_GROUP = 64
"""Rows of a row group: what is read at once."""


@dataclass(frozen=True)
class Shard:
    """One file of a folder of shards.

    Attributes:
        file: Its name in the folder.
        split: The split that all of its rows are in.
        rows: How many.
        bytes: The file's size.
        sha256: Of the file.
        without_text: How many of its rows have no text.
        without_image: How many have no image.
    """

    file: str
    split: str
    rows: int
    bytes: int
    sha256: str
    without_text: int = 0
    without_image: int = 0


@dataclass
class Shards:
    """A folder of shards, opened.

    Attributes:
        url: The folder, a path or an fsspec URL, without a slash at its end.
        shards: Those that are whole, in the index's order: by split, then by number.
        labels: By task, the label names in the order of the logits; none of a captioning task.
        tasks: By task, its part of the manifest that the targets were encoded with.
        identity: sha256 of the index; other shards have another.
        damaged: By file, those that were left out: the shard as the index has it, and what is wrong.
    """

    url: str
    shards: list[Shard]
    labels: dict[str, list[str]]
    tasks: dict[str, dict[str, Any]]
    identity: str
    damaged: dict[str, tuple[Shard, str]] = field(default_factory=dict)
    _open: dict[tuple[int, str], pq.ParquetFile] = field(default_factory=dict, repr=False)

    def of(self, split: str) -> list[Shard]:
        """The whole shards of a split."""
        return [shard for shard in self.shards if shard.split == split]

    def read(self, shard: Shard, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows `start` to `stop` of a shard; only the row groups they lie in are fetched.

        Args:
            shard: One of `shards`.
            start: From 0.
            stop: Not read itself.
            columns: Which; default: all.

        Raises:
            MmfuseError: The shard cannot be read, or its bytes are not those that were written; it is named.
        """
        try:
            file = self._file(shard)
            first, group = start // ROW_GROUP, range(start // ROW_GROUP, -(-stop // ROW_GROUP))
            table = file.read_row_groups(list(group), columns=list(columns) if columns else None)
        except MmfuseError:
            raise
        except Exception as error:  # every remote file system has its own exceptions
            raise MmfuseError(f"{self.url}/{shard.file}: cannot be read: {_first_line(error)}") from error
        return table.slice(start - first * ROW_GROUP, stop - start)

    def _file(self, shard: Shard) -> pq.ParquetFile:
        """Opened once a process: a forked worker must not share its parent's handle."""
        where = (os.getpid(), shard.file)
        if where not in self._open:
            if len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            handle = fsspec.open(f"{self.url}/{shard.file}", "rb").open()  # type: ignore[union-attr]
            self._open[where] = pq.ParquetFile(handle, page_checksum_verification=True)
        return self._open[where]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


_MAX_OPEN = 64


def is_shards(location: str) -> bool:
    """Whether a manifest's `rows`, or what is to be predicted, names an index of shards."""
    return location == INDEX or location.endswith(f"/{INDEX}")


def open_shards(location: str, damaged: str = "error") -> Shards:
    """Read the index of a folder of shards, and check that each file is there in its full size.

    Args:
        location: The folder, or its `shards.json`; a path or an fsspec URL.
        damaged: What is done about a file that is missing or has another size: "error" refuses all, "skip" leaves it
            out and tells it in `Shards.damaged`.

    Raises:
        MmfuseError: There is no index, it is not legal, or a file is damaged.
    """
    if damaged not in ("error", "skip"):
        raise MmfuseError(f"damaged: {damaged!r} is not legal; legal: error, skip")
    url = location.removesuffix(f"/{INDEX}") if location != INDEX else "."
    url = url.rstrip("/") or "/"
    try:
        system, root = fsspec.core.url_to_fs(url)
        content = system.cat_file(f"{root}/{INDEX}")
        sizes = {os.path.basename(item["name"]): item["size"] for item in system.ls(root, detail=True, refresh=True)}
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{url}/{INDEX}: cannot be read: {_first_line(error)}") from error
    found = _parse_index(content, url)
    for shard in list(found.shards):
        size = sizes.get(shard.file)
        if size == shard.bytes:
            continue
        what = "missing" if size is None else f"{size:,} bytes, but {shard.bytes:,} were written"
        if damaged == "error":
            raise MmfuseError(
                f"{url}/{shard.file}: {what}; copy or write it again, or leave its {shard.rows} rows out "
                "(damaged: skip)"
            )
        found.shards.remove(shard)
        found.damaged[shard.file] = (shard, what)
    return found


def _parse_index(content: bytes, url: str) -> Shards:
    where = f"{url}/{INDEX}"
    try:
        values = json.loads(content)
        version = values["version"]
        if version != VERSION:
            raise MmfuseError(f"{where}: version {version!r}; this mmfuse reads {VERSION}")
        shards = [Shard(**shard) for shard in values["shards"]]
        return Shards(url, shards, values["labels"], values["tasks"], hashlib.sha256(content).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MmfuseError(f"{where}: not an index of shards: {_first_line(error)}") from error


def index_bytes(shards: Sequence[Shard], labels: dict[str, list[str]], tasks: dict[str, dict[str, Any]]) -> bytes:
    """The index as it is written."""
    values = {
        "version": VERSION,
        "rows": sum(shard.rows for shard in shards),
        "labels": labels,
        "tasks": tasks,
        "shards": [asdict(shard) for shard in shards],
    }
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]
