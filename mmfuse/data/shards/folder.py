"""Shards: a dataset as parquet files with its images inside, at any fsspec URL, with an index that says all of them.

A folder of shards holds `shards.json` (the index), `manifest.yaml` and `SPLIT-00000.parquet`, ... A file's columns are
`id`, `group`, `images` (a list of encoded images), `text` (null where missing), `target.<task>` as a batch has it
(int64, -100 where missing; a list of float32, NaN where missing; of a captioning task the list of references) and
`subgroup.<name>`. The rows of each 20,480 of the dataset lie in the order of a hash of their ids, so that neighbours
have nothing in common; rows in an order of their own, such as all of one label first, are better shuffled before.

Parquet and not WebDataset's tar: a column can be read without the others (texts or targets without images), a row group
without those before it, types are kept, and every page has a checksum; the footer's is in the index.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.files.read import read_bytes
from mmfuse.data.files.stores import (
    FetchError,
    folder_url,
    is_absent,
    list_sizes,
    patiently,
    put,
    stored,
    true_cause,
    watched,
)
from mmfuse.data.tables.manifest import INDEX
from mmfuse.types import MmfuseError, first_line

DAMAGED = "shards.damaged.json"
VERSION = 1
ROW_GROUP = 64
"""Rows of a row group: what is read at once."""
IMAGES = pa.list_(pa.binary())
"""The type of a shard's images: encoded, never locations."""
SHARD_FILE = re.compile(r"(train|validation|test)-\d{5,}\.parquet")
_MAX_INDEX_BYTES = 2**30
_HASHED_BYTES = 8 * 2**20


class DamagedShardError(MmfuseError):
    """A shard that is gone, or whose bytes are not those that were written; the message names it."""


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
        footer_bytes: Of the file's end, which says where everything lies; 0 in an index of before it was kept.
        footer_sha256: Of that end.
        labels: By task what `TaskKind.counted` gives of its targets; lacks those of an index of before it was kept.
    """

    file: str
    split: str
    rows: int
    bytes: int
    sha256: str
    without_text: int = 0
    without_image: int = 0
    footer_bytes: int = 0
    footer_sha256: str = ""
    labels: dict[str, list[list[int]]] = field(default_factory=dict, hash=False)


@dataclass
class Shards:
    """A folder of shards, opened. It holds no handles: it can be pickled, forked and read by several threads.

    Attributes:
        url: The folder, an absolute path or an fsspec URL, without a slash at its end.
        shards: Those that are whole, in the index's order: by split, then by number.
        labels: By task, the label names in the order of the logits; none of a captioning task.
        tasks: By task, its part of the manifest that the targets were encoded with.
        identity: sha256 of the index without counts of labels; other shards have another.
        source: sha256 of what they were made of, and how.
        errors: How many rows were left out when they were made; `errors.jsonl` beside them says which, and why.
        damaged: By file, those that were left out: the shard as the index has it, and what is wrong.
    """

    url: str
    shards: list[Shard]
    labels: dict[str, list[str]]
    tasks: dict[str, dict[str, Any]]
    identity: str
    source: str = ""
    errors: int = 0
    damaged: dict[str, tuple[Shard, str]] = field(default_factory=dict)

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
            DamagedShardError: The shard is gone, or its bytes are not those that were written.
            FetchError: It cannot be fetched, after several attempts.
        """
        stop = min(stop, shard.rows)
        first, groups = start // ROW_GROUP, range(start // ROW_GROUP, -(-stop // ROW_GROUP))
        footer, source = _footer(self.url, shard), _Ranges(self.url, shard)
        try:
            with pq.ParquetFile(source, metadata=footer, pre_buffer=True, page_checksum_verification=True) as file:
                table = file.read_row_groups(list(groups), columns=list(columns) if columns else None)
        except MmfuseError:
            raise
        except Exception as error:  # damaged bytes bring various ones out of Arrow
            raise DamagedShardError(f"{self.url}/{shard.file}: cannot be read: {first_line(error)}") from error
        if "images" in table.column_names and table.schema.field("images").type != IMAGES:  # texts would be opened
            raise DamagedShardError(f"{self.url}/{shard.file}: its images are not of type {IMAGES}: it is not a shard")
        table = table.slice(start - first * ROW_GROUP, stop - start)
        if len(table) != max(0, stop - start):
            raise DamagedShardError(
                f"{self.url}/{shard.file}: rows {start} to {stop} are {len(table)} rows: it is damaged"
            )
        return table


class _Ranges(io.RawIOBase):
    """A file of known size, read by ranges: no request for its size, and nothing read ahead that nobody wants."""

    def __init__(self, url: str, shard: Shard):
        self.system, root = fsspec.core.url_to_fs(url)  # in a forked process this gives another, with its own threads
        self.path, self.size, self.position = f"{root}/{shard.file}", shard.bytes, 0
        self.where = f"{url}/{shard.file}"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self.size, self.position + size)
        data = patiently(lambda: self._fetch(stop), self.where) if stop > self.position else b""
        self.position += len(data)
        return data

    def _fetch(self, stop: int) -> bytes:
        try:
            with watched(self.where):
                data = self.system.cat_file(self.path, start=self.position, end=stop)
        except Exception as error:  # every remote file system has its own exceptions
            if is_absent(error):
                raise DamagedShardError(f"{self.where}: cannot be read: it is gone") from error
            reason = first_line(true_cause(error))
            raise FetchError(f"{self.where}: cannot be fetched: {reason}; run the same command again") from error
        return data if len(data) <= stop - self.position else data[self.position : stop]  # of a server without ranges


@functools.lru_cache(maxsize=16)  # lanes that are read side by side, twice as many as by default
def _footer(url: str, shard: Shard) -> pq.FileMetaData:
    file: Any = _Ranges(url, shard)
    try:
        if shard.footer_bytes:
            file.seek(-shard.footer_bytes, os.SEEK_END)
            end = file.read()
            if hashlib.sha256(end).hexdigest() != shard.footer_sha256:
                raise DamagedShardError(
                    f"{url}/{shard.file}: cannot be read: its footer is not the one that was written"
                )
            file = io.BytesIO(end)
        footer = pq.read_metadata(file)
    except MmfuseError:
        raise
    except Exception as error:  # damaged bytes bring various ones out of Arrow
        raise DamagedShardError(f"{url}/{shard.file}: cannot be read: {first_line(error)}") from error
    if footer.num_rows != shard.rows:
        raise DamagedShardError(f"{url}/{shard.file}: holds {footer.num_rows} rows, but the index says {shard.rows}")
    return footer


def open_shards(location: str | Path, damaged: str = "error", noted: bool = True) -> Shards:
    """Read the index of a folder of shards, and check that each file is there in its full size.

    Args:
        location: The folder, or its `shards.json`; a path or an fsspec URL.
        damaged: What is done about a file that is missing, has another size, or is noted in `shards.damaged.json`:
            "error" refuses all, "skip" leaves it out and tells it in `Shards.damaged`.
        noted: Whether that note of `verify_shards` is heeded.

    Raises:
        MmfuseError: There is no index, it is not legal, or a file is damaged.
    """
    if damaged not in ("error", "skip"):
        raise MmfuseError(f"damaged: {damaged!r} is not legal; legal: error, skip")
    location = str(location)
    url = folder_url(("." if location == INDEX else location).removesuffix(f"/{INDEX}"))
    sizes = list_sizes(url)
    try:
        content = patiently(lambda: read_bytes(f"{url}/{INDEX}", _MAX_INDEX_BYTES), f"{url}/{INDEX}")
    except FetchError as error:
        raise FetchError(f"{url}/{INDEX}: {error}") from error
    except MmfuseError as error:
        raise MmfuseError(f"{url}/{INDEX}: {error}; `mmfuse data shard` writes one") from error
    found = _parse_index(content, url)
    rotten = _read_note(found) if noted and DAMAGED in sizes else {}
    for shard in list(found.shards):
        size = sizes.get(shard.file, 0)
        whole = size in (shard.bytes, None)  # where no size is told, footer and checksums decide
        if whole and shard.file not in rotten:
            continue
        if whole:
            what = f"{rotten[shard.file]} (found by `mmfuse data verify`; run that again when it is mended)"
        else:
            what = f"{size:,} bytes, but {shard.bytes:,} were written" if shard.file in sizes else "missing"
        if damaged == "error":
            raise MmfuseError(
                f"{url}/{shard.file}: {what}; copy or write it again, or leave its {shard.rows} rows out "
                "(damaged: skip)"
            )
        found.shards.remove(shard)
        found.damaged[shard.file] = (shard, what)
    return found


def verify_shards(
    location: str | Path,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Shards:
    """Read every byte of every shard, and check its size, its sha256 and its number of rows.

    Those of the right size that are damaged are noted in `shards.damaged.json`, for `open_shards`; where there are
    none, it is deleted.

    Args:
        location: As for `open_shards`.
        progress: Called with (shards read, shards).
        tell: Called with a sentence about that file, where it is written, or cannot be.

    Returns:
        The shards; those that are not whole are in `damaged`.

    Raises:
        MmfuseError: There is no index, it is not legal, or a shard that is there cannot be fetched.
    """
    found, rotten = open_shards(location, damaged="skip", noted=False), {}
    shards = list(found.shards)
    with ThreadPoolExecutor(4) as pool:
        for number, (shard, what) in enumerate(pool.map(lambda s: (s, _changed(found.url, s)), shards), 1):
            if what:
                found.shards.remove(shard)
                found.damaged[shard.file], rotten[shard.file] = (shard, what), what
            if progress:
                progress(number, len(shards))
    try:
        line = _note(found, rotten)
    except MmfuseError as error:
        line = f"{error}: what was found is not noted for later runs"
    if tell and line:
        tell(line)
    return found


def _note(found: Shards, rotten: dict[str, str]) -> str | None:
    """Note damaged shards, or that there are none; gives what to tell."""
    if rotten:
        put(f"{found.url}/{DAMAGED}", json.dumps({"index": found.identity, "damaged": rotten}, indent=1).encode())
        return f"noted in {found.url}/{DAMAGED}; with damaged: skip they are left out"
    if DAMAGED in list_sizes(found.url):
        with stored(f"{found.url}/{DAMAGED}", "deleted") as (system, path):
            system.rm_file(path)
    return None


def _read_note(found: Shards) -> dict[str, str]:
    """By file, what `verify_shards` found wrong with shards of this very index."""
    where = f"{found.url}/{DAMAGED}"
    try:
        note = json.loads(patiently(lambda: read_bytes(where, _MAX_INDEX_BYTES), where))
        return dict(note["damaged"]) if note["index"] == found.identity else {}
    except FetchError as error:
        raise FetchError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MmfuseError(f"{where}: not as `mmfuse data verify` writes it, which can write it again") from error


def _changed(url: str, shard: Shard) -> str | None:
    """What is wrong with a shard of the right size."""
    digest, file = hashlib.sha256(), _Ranges(url, shard)
    try:
        while block := file.read(_HASHED_BYTES):
            digest.update(block)
        if digest.hexdigest() != shard.sha256:
            return "its bytes are not those that were written (sha256)"
        _footer(url, shard)
    except DamagedShardError as error:
        return str(error).removeprefix(f"{url}/{shard.file}: ")
    return None


def _parse_index(content: bytes, url: str) -> Shards:
    where = f"{url}/{INDEX}"
    try:
        values = json.loads(content)
        version = values["version"]
        if version != VERSION:
            raise MmfuseError(f"{where}: version {version!r}; this mmfuse reads {VERSION}")
        shards = [Shard(**shard) for shard in values["shards"]]
        if values["rows"] != sum(shard.rows for shard in shards):
            raise ValueError("its shards do not have its number of rows")
        labels = {str(task): list(names) for task, names in values["labels"].items()}
        for shard in shards:
            _check_counts(shard, labels)
            name = SHARD_FILE.fullmatch(shard.file)
            if not name or name[1] != shard.split or not 0 < shard.rows < 2**31 or not 0 < shard.bytes < 2**63:
                raise ValueError(f"{shard.file!r} is not a shard")
            if not 0 <= shard.footer_bytes <= shard.bytes:
                raise ValueError(f"{shard.file!r} has no footer of {shard.footer_bytes!r} bytes")
        return Shards(
            url,
            shards,
            labels,
            {str(task): dict(spec) for task, spec in values["tasks"].items()},
            _identity(content, values),
            str(values["source"]),
            int(values["errors"]),
        )
    except MmfuseError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MmfuseError(f"{where}: not an index of shards: {first_line(error)}") from error


def _identity(content: bytes, values: dict[str, Any]) -> str:
    """sha256 of the index without its counts of labels: the same rows, sharded before they were kept, have the same."""
    counts = [shard.pop("labels", None) for shard in values["shards"]]
    if any(found is not None for found in counts):  # of tasks without labels there are none, and that was not said
        content = _as_written(values)
    return hashlib.sha256(content).hexdigest()


def _as_written(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _check_counts(shard: Shard, labels: dict[str, list[str]]) -> None:
    for task, counts in shard.labels.items():
        if not counts or any(len(each) != len(labels[task]) for each in counts):
            raise ValueError(f"{shard.file!r} has not as many counts as labels")
        if not all(isinstance(n, int) and 0 <= n <= shard.rows for each in counts for n in each):
            raise ValueError(f"{shard.file!r} has counts that are not of its rows")


def index_bytes(
    shards: Sequence[Shard], labels: dict[str, list[str]], tasks: dict[str, dict[str, Any]], source: str, errors: int
) -> bytes:
    """The index as it is written."""
    values = {
        "version": VERSION,
        "rows": sum(shard.rows for shard in shards),
        "errors": errors,
        "source": source,
        "labels": labels,
        "tasks": tasks,
        "shards": [asdict(shard) for shard in shards],
    }
    return _as_written(values)
