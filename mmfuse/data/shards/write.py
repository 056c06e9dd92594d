"""A manifest's rows and images to a folder of shards (see `mmfuse.data.shards.folder`); killed half-way, it goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse.config import read_yaml
from mmfuse.data.files.locations import read_location
from mmfuse.data.files.read import read_bytes
from mmfuse.data.files.stores import FetchError, folder_url, is_local, list_sizes, patiently, put, stored
from mmfuse.data.readers.features import FeatureOptions, read_features
from mmfuse.data.readers.images import read_image
from mmfuse.data.shards.folder import (
    DAMAGED,
    IMAGES,
    ROW_GROUP,
    SHARD_FILE,
    VERSION,
    Shard,
    Shards,
    index_bytes,
    open_shards,
)
from mmfuse.data.tables.blocks import Blocks, TableBlocks
from mmfuse.data.tables.leaks import records
from mmfuse.data.tables.manifest import INDEX, Manifest, parse_manifest
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table
from mmfuse.tasks import TaskKind, TaskSpec, task_of
from mmfuse.types import MmfuseError

SHARD_BYTES = 128 * 10**6
"""Default size of a shard."""
SHARD_ROWS = 1024 * ROW_GROUP
"""The most rows of a shard: of short texts alone, more would make a footer of many megabytes, which readers hold."""
ERRORS, MANIFEST = "errors.jsonl", "manifest.yaml"
_STARTED, _RECORD = "shards.started.json", ".written.json"
_NAMES = "|".join(map(re.escape, (INDEX, _STARTED, ERRORS, MANIFEST, DAMAGED)))
_FILES = rf"(?:{SHARD_FILE.pattern}(?:{re.escape(_RECORD)})?|{_NAMES})"
_OURS = re.compile(rf"{_FILES}|\.{_FILES}\.[0-9a-f]{{32}}\.tmp")  # the latter as `put` names what is not yet whole
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([KMG]?)(i?)B", re.IGNORECASE)
_LEGAL_SIZE = (10**3, 2**30)
_MAX_IMAGE_BYTES = 512 * 2**20
_THREADS = min(32, (os.cpu_count() or 1) + 4)
_AHEAD = 2 * _THREADS


def parse_size(text: str) -> int:
    """Bytes of a size such as 128MB (10**6 each) or 64MiB (2**20 each).

    Raises:
        MmfuseError: It is no size, or less than 1KB or more than 1GiB.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise MmfuseError(f"size {text!r}: a number with KB, MB, GB, KiB, MiB or GiB is expected, such as 128MB")
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMG".index(found[2].upper() or " "))
    if not _LEGAL_SIZE[0] <= size <= _LEGAL_SIZE[1]:
        raise MmfuseError(f"size {text!r} is out of range; it must be at least 1KB and at most 1GiB")
    return size


def write_shards(
    rows: Table | Blocks,
    out: str,
    *,
    size: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Shards:
    """Write rows, with their images, as shards, each image decoded once to see that it can be.

    A row with an image that cannot be read is in no shard but in `errors.jsonl`, with the reason; `Shards.errors`
    counts them. A shard is put in place whole, and after it a record of it; the index comes last, and the records go.
    After a kill the same call goes on after the last record, with the same result to the byte.

    Args:
        rows: As `open_blocks` or `load_table` gave them; of both, the shards are the same to the byte.
        out: A new or empty folder, or one that the same call began: a path or an fsspec URL. A bucket must exist.
        size: Bytes of a file after which the next one is begun, as it is after `SHARD_ROWS` rows.
        overwrite: Delete the shards in `out` first, unless this very call was killed there. Other files stay; where
            there are no shards, files that have the names of theirs are refused.
        progress: Called with (rows done, rows, errors among them).
        tell: Called with a sentence where an earlier call's work is used.

    Returns:
        The shards, opened.

    Raises:
        MmfuseError: `out` holds other data, or cannot be written; an image's URL cannot be fetched, though it may be
            there.
    """
    data: Blocks = TableBlocks(rows) if isinstance(rows, Table) else rows
    url, tell = folder_url(str(out)), tell or (lambda line: None)
    source, counts = _source(data, size)
    if _place(f"{url}/{MANIFEST}") == _place(data.manifest.source):
        raise MmfuseError(f"{url}: its {MANIFEST} is what is to be sharded, and the shards have one too; {_ANOTHER}")
    there = list_sizes(url)
    begun, finished = _STARTED in there, INDEX in there
    if overwrite and (_load(url, _STARTED) != {"source": source} if begun else finished):
        put(f"{url}/{_STARTED}", _line({"source": None}))  # killed from here on, the rest is still known as ours
        _remove(url, sorted(_ours(there) - {_STARTED}, key=INDEX.__ne__))  # the index first
        there = {name: size for name, size in there.items() if not _OURS.fullmatch(name)}
    if INDEX in there:
        found = open_shards(url)
        if found.source != source:
            raise MmfuseError(f"{url}: holds shards of other data, or of another size; {_ELSEWHERE}")
        tell(f"{url}: finished before, and the data has not changed: nothing to do")
    else:
        _start(url, there, source, overwrite)
        shards, errors = _write(data, counts, url, size, there, progress or (lambda done, total, errors: None), tell)
        if errors:
            put(f"{url}/{ERRORS}", b"".join(_line(error) for error in errors))
        plain = _unresolved(data.manifest)
        tasks = {task: plain.tasks[task].to_dict() for task in data.labels}
        put(f"{url}/{MANIFEST}", _manifest(plain))
        put(f"{url}/{INDEX}", index_bytes(shards, data.labels, tasks, source, len(errors)))
        there = list_sizes(url)
    _remove(url, _ours(there, _STARTED, _RECORD, ".tmp"))
    return open_shards(url)


_ANOTHER = "give another folder"
_ELSEWHERE = f"{_ANOTHER}, or --overwrite"


def _ours(there: Iterable[str], *ends: str) -> set[str]:
    """Of the names in a folder, those that this module gives, and what it had not finished writing."""
    return {name for name in there if _OURS.fullmatch(name) and name.endswith(ends or "")}


def _place(location: str) -> tuple[Any, str]:
    system, path = fsspec.core.url_to_fs(location)
    return system, os.path.realpath(path) if is_local(location) else path


def shard_schema(data: Table | Blocks) -> pa.Schema:
    """The columns of a shard of these rows."""
    fields = [("id", pa.string()), ("group", pa.string()), ("images", IMAGES), ("text", pa.string())]
    tasks = data.manifest.tasks
    fields += [(f"target.{task}", task_of(tasks[task], names).arrow) for task, names in data.labels.items()]
    fields += [(f"subgroup.{name}", pa.string()) for name in data.manifest.subgroups]
    return pa.schema(fields)


class _File:
    """A shard that is being written, in memory."""

    def __init__(self, schema: pa.Schema, kinds: Mapping[str, TaskKind]):
        self.schema, self.kinds, self.buffer = schema, kinds, io.BytesIO()
        self.labels: dict[str, np.ndarray] = {}
        # A page's statistics would hold its smallest and largest image, whole.
        options: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
        self.writer = pq.ParquetWriter(self.buffer, schema, compression="zstd", **options)
        self.waiting: list[dict[str, Any]] = []
        self.held = self.rows = self.without_text = self.without_image = 0

    def add(self, row: dict[str, Any]) -> int:
        """Take a row, and give the size that the file has about reached."""
        self.waiting.append(row)
        self.held += sum(map(len, row["images"])) + len(row["text"] or "")
        self.rows += 1
        self.without_text += row["text"] is None
        self.without_image += not row["images"]
        if len(self.waiting) == ROW_GROUP:
            self._flush()
        return self.buffer.tell() + self.held

    def close(self, split: str, number: int) -> tuple[Shard, bytes]:
        if self.waiting:
            self._flush()
        self.writer.close()
        data = self.buffer.getvalue()
        footer = data[-8 - int.from_bytes(data[-8:-4], "little") :]  # its size is before the last four bytes
        return Shard(
            f"{split}-{number:05d}.parquet",
            split,
            self.rows,
            len(data),
            hashlib.sha256(data).hexdigest(),
            self.without_text,
            self.without_image,
            len(footer),
            hashlib.sha256(footer).hexdigest(),
            {task: counts.tolist() for task, counts in self.labels.items()},
        ), data

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self.waiting, schema=self.schema)
        self.writer.write_table(table, row_group_size=ROW_GROUP)
        for task, kind in self.kinds.items():
            counts = kind.counted(kind.from_arrow(table[f"target.{task}"]))
            if counts is not None:
                self.labels[task] = np.array(counts) + self.labels.get(task, 0)
        self.waiting, self.held = [], 0


def _write(
    data: Blocks,
    counts: Mapping[str, int],
    url: str,
    size: int,
    there: Mapping[str, int | None],
    progress: Callable[[int, int, int], None],
    tell: Callable[[str], None],
) -> tuple[list[Shard], list[dict[str, str]]]:
    """All shards and errors: those that records tell, and then the others."""
    schema, records = shard_schema(data), _records(url, there)
    kinds = {task: task_of(data.manifest.tasks[task], names) for task, names in data.labels.items()}
    shards: list[Shard] = []
    errors: list[dict[str, str]] = []
    done = 0
    for split in SPLITS:
        number = first = 0
        while (record := records.get(f"{split}-{number:05d}.parquet")) is not None:
            shards.append(record[0])
            errors += record[1]
            first, number = record[2], number + 1
        done += first
        file, left_out, position = _File(schema, kinds), [], first
        for position, row in enumerate(_rows(data, split, first), start=first + 1):
            reached, done = 0, done + 1
            if isinstance(row, _Unreadable):
                left_out.append({"id": row.id, "split": split, "reason": row.reason})
            else:
                reached = file.add(row)
            if reached >= size or file.rows == SHARD_ROWS or (position == counts[split] and file.rows):
                shard, content = file.close(split, number)
                put(f"{url}/{shard.file}", content)
                del content  # before the next one grows
                record = {"shard": dataclasses.asdict(shard), "errors": left_out, "next": position}
                put(f"{url}/{shard.file}{_RECORD}", _line(record))
                shards.append(shard)
                errors += left_out
                file, left_out, number = _File(schema, kinds), [], number + 1
            progress(done, sum(counts.values()), len(errors) + len(left_out))
        if position != counts[split]:
            raise MmfuseError(f"{data.manifest.source}: the rows changed while they were read; {_ELSEWHERE}")
        errors += left_out
    if records:
        tell(f"{url}: went on after {len(records)} shards that an earlier run wrote")
    return shards, errors


def _records(url: str, there: Mapping[str, int | None]) -> dict[str, tuple[Shard, list[dict[str, str]], int]]:
    """By file, the shards that are committed: each one, the errors before its end, and the row after it."""
    names = sorted(_ours(there, _RECORD))
    with ThreadPoolExecutor(_THREADS) as pool:
        contents = list(pool.map(lambda name: _load(url, name), names))
    found = [(Shard(**values["shard"]), values["errors"], values["next"]) for values in contents]
    return {record[0].file: record for record in found if there.get(record[0].file) == record[0].bytes}


@dataclasses.dataclass(frozen=True)
class _Unreadable:
    id: str
    reason: str


def _rows(data: Blocks, split: str, first: int) -> Iterator[dict[str, Any] | _Unreadable]:
    """A split's rows from `first` on with their images as bytes; threads read and decode a few rows ahead."""
    urls, image = data.manifest.urls, data.manifest.image
    features = image and image.features and FeatureOptions(image.features.dim, image.features.array)
    left = (row for block in data.ordered(split, first) for row in records(block))
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = deque(pool.submit(_read, row, urls, features) for row in islice(left, _AHEAD))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(_read, row, urls, features) for row in islice(left, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _read(row: dict[str, Any], urls: Sequence[str], features: FeatureOptions | None) -> dict[str, Any] | _Unreadable:
    images = []
    for number, image in enumerate(row["images"], start=1):
        name = number if isinstance(image, bytes) else image.rsplit("/", 1)[-1]
        try:
            if isinstance(image, bytes):
                images.append(image)
            else:
                images.append(patiently(partial(read_location, image, _MAX_IMAGE_BYTES, urls), image))
            if features is None:
                read_image(images[-1])
            else:
                read_features(images[-1], features)
        except FetchError as error:
            raise MmfuseError(f"{image}: {error}; when it can be fetched, the same command resumes") from error
        except MmfuseError as error:  # its message is the reason, never the path
            return _Unreadable(row["id"], f"image {name}: {error}")
    return {**row, "images": images}


def _source(data: Blocks, size: int) -> tuple[str, Counter[str]]:
    """A hash of all that the shards depend on (of an image its name, size and time, or its URL); the rows a split."""
    digest, counts = hashlib.sha256(_line([VERSION, ROW_GROUP, size, data.labels])), Counter()
    digest.update(_manifest(_unresolved(data.manifest)))
    for block in data.blocks():
        counts.update(block["splits"])
        block["images"] = [[_stamp(path) for path in paths] for paths in block["images"]]
        digest.update(_line(block))
    return digest.hexdigest(), counts


def _stamp(path: str | bytes) -> list[Any]:
    if isinstance(path, bytes):
        return [len(path), hashlib.sha256(path).hexdigest()]
    if "://" in path:
        return [path]
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # its row will be an error; ValueError: a NUL in the name
        return [os.path.basename(path)]
    return [os.path.basename(path), status.st_size, status.st_mtime_ns]


def _unresolved(manifest: Manifest) -> Manifest:
    """The manifest as it was written, with `${data_root}` for what it stands for on this machine, without paths."""
    plain = parse_manifest(read_yaml(manifest.source), manifest.source)
    plain.rows = INDEX
    if plain.image is not None:
        plain.image.root = "."
    return plain


def _manifest(plain: Manifest) -> bytes:
    """The same manifest with its rows in the shards beside it."""
    return yaml.safe_dump(_said(plain), sort_keys=False, allow_unicode=True, width=120).encode()


def _said(spec: Any) -> Any:
    """A dataclass as a dict, without what is as it would be anyway."""
    if isinstance(spec, dict):
        return {name: _said(value) for name, value in spec.items()}
    if not dataclasses.is_dataclass(spec):
        return spec
    values = {field.name: (field, getattr(spec, field.name)) for field in dataclasses.fields(spec)}
    own = values.pop("options")[1] if isinstance(spec, TaskSpec) else {}  # the kind's keys stand beside the others
    return {name: _said(value) for name, (field, value) in values.items() if value != _default(field)} | own


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _start(url: str, there: Mapping[str, int | None], source: str, overwrite: bool) -> None:
    """Claim a folder, or see that this very run has claimed it."""
    if _STARTED not in there:
        foreign = sorted((_ours(there) if overwrite else set(there)) - _ours(there, ".tmp"))
        if foreign:
            raise MmfuseError(f"{url}: not empty ({foreign[0]!r}), and no index of shards; {_ANOTHER}")
        put(f"{url}/{_STARTED}", _line({"source": source}))
    elif _load(url, _STARTED) != {"source": source}:
        raise MmfuseError(f"{url}: holds unfinished shards of other data, or of another size; {_ELSEWHERE}")


def _load(url: str, name: str) -> Any:
    try:
        return json.loads(patiently(partial(read_bytes, f"{url}/{name}", 2**30), f"{url}/{name}"))
    except FetchError as error:
        raise MmfuseError(f"{url}/{name}: {error}") from error
    except ValueError as error:  # MmfuseError is one
        raise MmfuseError(f"{url}/{name}: {str(error).splitlines()[0]}; {_ELSEWHERE}") from error


def _remove(url: str, names: Iterable[str]) -> None:
    with stored(url, "deleted") as (system, root):
        for name in names:
            system.rm_file(f"{root}/{name}")


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
