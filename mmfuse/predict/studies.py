"""What is to be predicted: the studies of a folder, of a table or of shards, by position, in flat memory."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from mmfuse.config import read_yaml
from mmfuse.data.files.stores import list_sizes
from mmfuse.data.readers.images import ImageError, read_image
from mmfuse.data.rows.folder import Entry, iter_folder
from mmfuse.data.rows.hugging_face import DatasetFile, is_dataset
from mmfuse.data.rows.read import find_files
from mmfuse.data.shards.folder import ROW_GROUP, DamagedShardError, Shard, open_shards
from mmfuse.data.shards.write import MANIFEST
from mmfuse.data.tables.manifest import INDEX, is_shards, load_manifest
from mmfuse.data.tables.splits import SPLITS
from mmfuse.model import FusionModel
from mmfuse.predict.reading import refuse_files
from mmfuse.predict.samples import to_sample
from mmfuse.predict.tables import Reading, TableOptions, iter_rows, plan_manifest, plan_reading
from mmfuse.types import MODALITIES, MmfuseError, Sample, first_line

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")
MANIFESTS = (".yaml", ".yml")


class Studies(Protocol):
    """Inputs in a fixed order, read when they are asked for; may be pickled, for workers on the same files.

    Attributes:
        identity: sha256 of which studies, with which files and texts, in which order; a resumed run must have the same.
    """

    identity: str

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Studies `start` to `stop`, that one not included; one that cannot be read has a `problem`."""
        ...

    def ids(self) -> Iterator[str]:
        """All ids in order, without reading any image or report."""
        ...


def open_studies(
    source: str,
    layout: str = "auto",
    options: TableOptions | None = None,
    damaged: str = "error",
    model: FusionModel | None = None,
) -> FolderStudies | TableStudies | ShardStudies:
    """The studies of a folder, of a csv, tsv, jsonl or parquet table, of a manifest, or of a folder of shards.

    Args:
        source: A path; of a table, a manifest (.yaml) or shards also an fsspec URL; or `hf:NAME@SPLIT`. A folder that
            holds a `shards.json` is one of shards. Of a manifest, all rows are predicted, as it says.
        layout: Of a folder, as `mmfuse.data.rows.folder.pair_folder` says.
        options: Of a table.
        model: Says how the texts and images of a table were made in training.
        damaged: Of shards: "error" refuses one that is missing, cut off or rotten, "skip" makes each of its rows that
            cannot be read a study with a `problem`.

    Raises:
        MmfuseError: Nothing is there, or it cannot be read.
    """
    options = options or TableOptions()
    if is_dataset(source):
        files = find_files(source, source)
        trained = model.inputs if model else None
        return TableStudies(files, plan_reading(DatasetFile.of(files[0]).path, options, trained))
    remote = "://" in source
    if remote:
        try:
            system, path = fsspec.core.url_to_fs(source)
            if isinstance(system, LocalFileSystem):
                source, remote = path, False
            elif not is_shards(source) and not source.lower().endswith((*TABLES, *MANIFESTS)):
                if not system.exists(f"{path.rstrip('/')}/{INDEX}"):
                    raise MmfuseError(
                        f"{source}: no {INDEX} there; a remote folder of loose images is not read: shard it first "
                        "(mmfuse data shard MANIFEST --out URL)"
                    )
                source = f"{source.rstrip('/')}/{INDEX}"
        except MmfuseError:
            raise
        except Exception as error:  # every remote file system has its own exceptions
            raise MmfuseError(f"{source}: cannot be read: {first_line(error)}") from error
    trained, uses = (model.inputs, model.uses) if model else (None, MODALITIES)
    if source.lower().endswith(MANIFESTS) and (remote or os.path.isfile(source)):
        manifest = load_manifest(source)
        if is_shards(manifest.rows):
            source = manifest.rows
        elif options != TableOptions():
            raise MmfuseError(f"{source}: a manifest says what its columns are: leave out --...-column and --image-...")
        else:
            files = find_files(manifest.rows, manifest.source)
            return TableStudies(files, plan_manifest(manifest, uses, trained))
    if is_shards(source) or (not remote and os.path.isfile(os.path.join(source, INDEX))):
        return ShardStudies(source, damaged)
    if remote or os.path.isfile(source):
        table = source if remote else os.path.abspath(source)
        return TableStudies(table, plan_reading(table, options, trained))
    if model is not None:
        refuse_files(model, source)
    return FolderStudies(source, layout)


class FolderStudies:
    """The studies of a folder, sorted by id; a report is read when its study is.

    Args:
        folder: As `mmfuse.data.rows.folder.pair_folder` reads it.
        layout: `auto`, `stem` or `study`.

    Attributes:
        ignored: Files that are no image and no report, relative to the folder.

    Raises:
        MmfuseError: As `pair_folder`.
    """

    def __init__(self, folder: str, layout: str = "auto"):
        entries, self.ignored = iter_folder(os.path.abspath(folder) if folder else folder, layout)  # type: ignore[arg-type]
        self._listing = _Listing((entry.id, entry.images, entry.texts, entry.problem) for entry in entries)
        self.identity = self._listing.identity

    def __len__(self) -> int:
        return len(self._listing)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Studies in the order of their ids, their reports read now."""
        for id, images, texts, problem in self._listing.read(start, stop):
            yield Entry(id, tuple(images), tuple(texts), problem).sample()

    def ids(self) -> Iterator[str]:
        """All ids, sorted."""
        return self._listing.ids()


class TableStudies:
    """The rows of a table, sorted by id.

    Args:
        files: One or several of csv, tsv, jsonl or parquet: paths or fsspec URLs.
        reading: How they are read; default: `plan_reading` of a table of which nothing is known.

    Attributes:
        files: As given, with absolute paths.
        reading: As given.
        holds_images: Whether images, and not only paths, stand in it.

    Raises:
        MmfuseError: As `mmfuse.predict.tables.iter_rows`, or an id is not unique.
    """

    def __init__(self, files: str | Sequence[str], reading: Reading | None = None):
        named = [files] if isinstance(files, str) else files
        files = self.files = [file if "://" in file or is_dataset(file) else os.path.abspath(file) for file in named]
        self.reading = reading or plan_reading(files[0], TableOptions(), None)
        self._listing = _Listing(iter_rows(files, self.reading))
        self.holds_images = self._listing.blobs > 0
        self._urls = self.reading.recipe.permitted()
        self.identity = self._listing.identity
        if self.reading.cuts_sections or self._urls:  # without, a run that an older version began goes on
            self.identity = _hash_lines([json.dumps([self.identity, self.reading.cuts_sections, self._urls]).encode()])
        if self._listing.repeated is not None:
            key = f"{self.reading.where['id']} {self.reading.id}"
            raise MmfuseError(f"{files[0]}: {key}: {self._listing.repeated!r} names more than one row")

    def __len__(self) -> int:
        return len(self._listing)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Rows in the order of their ids."""
        for id, images, text, *problem in self._listing.read(start, stop):
            whole, wrong = not self.reading.cuts_sections, next(iter(problem), None)
            yield Sample(id, tuple(images), text, group=id, problem=wrong, urls=self._urls, whole_text=whole)

    def ids(self) -> Iterator[str]:
        """All ids, sorted."""
        return self._listing.ids()


class ShardStudies:
    """The rows of a folder of shards, of all splits, in the index's order.

    Args:
        location: The folder or its `shards.json`, a path or an fsspec URL.
        damaged: "error": a shard that is missing, cut off or rotten ends the run; "skip": each of its rows that cannot
            be read is a study `FILE#ROW` (ROW from 0) whose `problem` names the shard.

    Raises:
        MmfuseError: As `mmfuse.data.shards.folder.open_shards`; while reading, as `Shards.read`.
    """

    def __init__(self, location: str, damaged: str = "error"):
        self._skip = damaged == "skip"
        self._shards = open_shards(location, damaged, noted=not self._skip)  # row groups of one that rots may be whole
        absent = [shard for shard, _ in self._shards.damaged.values()]
        self._all = sorted([*self._shards.shards, *absent], key=_place)
        self._ends = np.cumsum([shard.rows for shard in self._all], dtype=np.int64)
        self.identity = self._shards.identity
        self._whole_texts = not _are_sections(self._shards.url)
        if not self._whole_texts:  # a run that took them for whole reports must not go on
            self.identity = _hash_lines([self.identity.encode()])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Rows with their images' bytes."""
        for row in self._rows(start, stop, ["id", "images", "text"]):
            if isinstance(row, Sample):
                yield row
            else:
                images, whole = tuple(row["images"] or ()), self._whole_texts
                yield Sample(row["id"], images, row["text"], group=row["id"], whole_text=whole)

    def ids(self) -> Iterator[str]:
        """All ids; only their column is fetched."""
        for row in self._rows(0, len(self), ["id"]):
            yield row.id if isinstance(row, Sample) else row["id"]

    def _rows(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[dict[str, Any] | Sample]:
        """Rows, or studies with a problem; read a row group at a time, so that one that is damaged costs no others."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        for shard, end in zip(self._all[first:], self._ends[first:].tolist(), strict=True):
            begin = end - shard.rows
            row, last = max(start, begin) - begin, min(stop, end) - begin
            while row < last:
                until = min(last, (row // ROW_GROUP + 1) * ROW_GROUP)
                yield from self._group(shard, row, until, columns)
                row = until
            if stop <= end:
                return

    def _group(self, shard: Shard, start: int, stop: int, columns: Sequence[str]) -> Iterable[dict[str, Any] | Sample]:
        _, why = self._shards.damaged.get(shard.file, (shard, None))
        if why is None:
            try:
                return self._shards.read(shard, start, stop, columns).to_pylist()
            except DamagedShardError as error:
                if not self._skip:
                    raise
                why = str(error)
        names = [f"{shard.file}#{row}" for row in range(start, stop)]
        return [Sample(name, group=name, problem=f"shard {shard.file}: {why}") for name in names]


def _are_sections(url: str) -> bool:
    """Whether the texts of shards are sections of reports already, as the manifest that they were made by says."""
    if MANIFEST not in list_sizes(url):
        return False
    text = read_yaml(f"{url}/{MANIFEST}").get("text")
    return isinstance(text, dict) and bool(text.get("section"))


def _place(shard: Shard) -> tuple[int, int, str]:
    """Of a file in the index: by split, then by number, which may outgrow its zeros."""
    return SPLITS.index(shard.split), len(shard.file), shard.file


class SampleStudies:
    """Samples that are in memory already, in their order.

    Args:
        samples: As a `Predictor` takes them, dicts too; ids are unique.
    """

    def __init__(self, samples: Sequence[Sample | Mapping[str, Any]]):
        self._samples = [to_sample(given, position) for position, given in enumerate(samples)]
        self.identity = _hash_lines(json.dumps(_record(sample)).encode() for sample in self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Those of these positions."""
        return iter(self._samples[start:stop])

    def ids(self) -> Iterator[str]:
        """All ids."""
        return (sample.id for sample in self._samples)


class _Listing:
    """Records that begin with an id, sorted by it, in a temporary file: 12 bytes of memory a record.

    A record is a line of JSON, and behind it the images of its second field that are bytes, for each of which a
    `[size, sha256]` stands in the line.

    Args:
        records: Of what JSON can hold, and those images.

    Attributes:
        identity: sha256 of the records in order.
        repeated: An id that more than one record has, if there is one.
        blobs: How many images are bytes.
    """

    def __init__(self, records: Iterable[Sequence[Any]]):
        self._open()
        self.blobs = 0
        ids: list[str] = []
        starts, sizes, end = array("Q"), array("I"), 0
        for id, images, *rest in records:
            blobs = [image for image in images if isinstance(image, bytes)]
            kept = [[len(i), hashlib.sha256(i).hexdigest()] if isinstance(i, bytes) else i for i in images]
            ids.append(id)
            starts.append(end)
            sizes.append(
                self._file.write(json.dumps([id, kept, *rest]).encode())
            )  # ASCII: names that are not UTF-8 stay
            end += sizes[-1] + sum(map(self._file.write, blobs))
            self.blobs += len(blobs)
        self._file.flush()
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        self._starts, self._sizes = np.array(starts, dtype=np.int64)[order], np.array(sizes, dtype=np.uint32)[order]
        self.identity = _hash_lines(self._lines(0, len(self)))
        self.repeated = next((ids[a] for a, b in pairwise(order) if ids[a] == ids[b]), None)

    def _open(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this object lives
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        ends = self._starts[start:stop] + self._sizes[start:stop]
        for line, end in zip(self._lines(start, stop), ends.tolist(), strict=True):
            id, images, *rest = json.loads(line)
            yield [id, [*self._whole(images, end)], *rest]

    def _whole(self, images: Sequence[Any], position: int) -> Iterator[str | bytes]:
        for image in images:
            if isinstance(image, str):
                yield image
                continue
            yield os.pread(self._file.fileno(), image[0], position)
            position += image[0]

    def _lines(self, start: int, stop: int) -> Iterator[bytes]:
        for begin, size in zip(self._starts[start:stop].tolist(), self._sizes[start:stop].tolist(), strict=True):
            yield os.pread(self._file.fileno(), size, begin)

    def ids(self) -> Iterator[str]:
        return (json.loads(line)[0] for line in self._lines(0, len(self)))

    def __getstate__(self) -> dict[str, Any]:
        self._file.seek(0)
        return {**self.__dict__, "_file": self._file.read()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
        self._file.write(state["_file"])
        self._file.flush()


def _record(sample: Sample) -> list[Any]:
    """All of it, with a hash in place of an image that is in memory."""
    return [sample.id, [_digest(image) for image in sample.images], sample.text, sample.problem]


def _digest(image: Any) -> str:
    if isinstance(image, str):
        return image
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        levels = read_image(image)
    except ImageError as error:
        return str(error)
    return hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest()


def _hash_lines(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()
