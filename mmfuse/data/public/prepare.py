"""A public dataset as it is downloaded -> rows.parquet, images and a manifest; killed half-way, it goes on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.public.cards import SEPARATOR, manifest_text
from mmfuse.data.public.downloads import locate
from mmfuse.data.public.sources import SOURCES, Note, Row, Source
from mmfuse.data.public.sources.parquet import Packed, forget
from mmfuse.data.readers.images import ImageOptions, read_image
from mmfuse.types import MmfuseError

CHUNK = 512
"""Rows whose images are read before that is written down."""

_STATE, _LOCK, _CHECKED = "prepared.json", "prepare.lock", "checked"
_SMALL = ImageOptions(size=(32, 32))  # all of the file is decoded, but JPEGs at an eighth of their size
_AHEAD = 32  # rows that are read before they are asked for: images of parquet files are held until then


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        manifest: The file to train with.
        rows: How many there are in `rows.parquet`.
        skipped: Reason -> how many rows of the download it kept out.
        already: Everything was there, and nothing was done.
        notes: What must be said of this download; they stand in the manifest too.
    """

    manifest: Path
    rows: int
    skipped: dict[str, int]
    already: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Skip:
    id: str
    path: str
    reason: str
    line: int | None = None


def prepare(
    name: str, source_dir: str | Path, out_dir: str | Path, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Turn a download into `rows.parquet`, `images/`, `manifest.yaml` and `skipped.jsonl`.

    Every row of the download is in exactly one of `rows.parquet` and `skipped.jsonl`, there with the file, its line and
    the reason. Of rows with one id the first that can be used is taken. Every image is decoded once; one that is
    missing or damaged keeps its row out. Images are hard links to the download where the file system can do that, so
    they cost no disk, and copies elsewhere; either way their bytes and their paths within the download stay. An image
    inside of a parquet file becomes a file with the same bytes.

    Every file is renamed into place when it is whole. After a kill the same call goes on, with the same result to the
    byte. On a finished folder it does nothing, unless the download has changed: then it reads all of it anew.

    Args:
        name: A registered source.
        source_dir: The download.
        out_dir: A new or empty folder, or one that an earlier call wrote for the same source.
        progress: Called with (rows whose images were read, rows).

    Raises:
        MmfuseError: No such source; the folder is not its download, or a file of it is damaged; the other folder
            belongs to something else, or its manifest was changed by hand; no row can be used.
    """
    out = Path(out_dir)
    source: Source = SOURCES.get(name)()
    folder = locate(name, source, Path(source_dir))
    if out.resolve().is_relative_to(folder.resolve()):
        raise MmfuseError(f"{out}: inside of the download; give --out a folder outside of {folder}")
    _read_state(out, name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(out / _LOCK, timeout=0):
            return _prepare(name, source, folder, out, progress or (lambda done, total: None))
    except filelock.Timeout as error:
        raise MmfuseError(f"{out}: another mmfuse data prepare is at work in it") from error
    except OSError as error:  # what cannot be read of the download is a skipped row: this is about `out`
        raise MmfuseError(f"{out}: {(error.strerror or str(error)).lower()}") from error
    finally:
        forget()


def _read_state(out: Path, name: str) -> dict[str, Any]:
    """What an earlier call wrote down; {} for a new folder."""
    try:
        state = json.loads((out / _STATE).read_bytes())
        taken = state["source"]
    except FileNotFoundError:
        if out.is_dir() and not {item.name for item in out.iterdir()} - {_LOCK, f"{_STATE}.part"}:
            return {}
        if not os.path.lexists(out):
            return {}
        raise MmfuseError(
            f"{out}: not empty, and not written by mmfuse data prepare; give --out a new folder"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MmfuseError(f"{out}: {_STATE} cannot be read; give --out a new folder") from error
    if taken != name:
        raise MmfuseError(f"{out}: already holds {taken!r}, not {name!r}; give --out a new folder")
    return state


def _prepare(name: str, source: Source, folder: Path, out: Path, progress: Callable[[int, int], None]) -> Prepared:
    forget()
    rows: list[Row] = []
    notes: list[str] = []
    for item in source.rows(folder):
        if isinstance(item, Note):
            notes.append(item.text)
        else:
            rows.append(item)
    state, manifest = _read_state(out, name), manifest_text(name, folder, notes).encode()
    inputs = _fingerprint(rows, folder)
    told = tuple(notes)
    if state.get("inputs") == inputs and "rows" in state:
        shutil.rmtree(out / _CHECKED, ignore_errors=True)
        return Prepared(out / "manifest.yaml", state["rows"], state["skipped"], already=True, notes=told)
    written = {*state.get("manifests", ()), _hash(manifest)}
    _refuse_edited(out / "manifest.yaml", written)
    if state.get("inputs") != inputs:
        shutil.rmtree(out / _CHECKED, ignore_errors=True)
        for stale in ("rows.parquet", "skipped.jsonl"):
            (out / stale).unlink(missing_ok=True)
    state = {"source": name, "inputs": inputs, "manifests": sorted(written)}
    _write(out / _STATE, _json(state))
    possible, skips = _sort_out(rows, folder)
    bad = _read_images(possible, folder, out, progress)
    kept = [row for number, row in enumerate(possible) if number not in bad]
    skips += bad.values()
    if not kept:
        example = f", such as {skips[0].id!r}: {skips[0].path} {skips[0].reason}" if skips else ""
        raise MmfuseError(f"{folder}: none of its {len(rows)} rows can be used{example}")
    assert len(kept) + len(skips) == len(rows)
    _write(out / "rows.parquet", _parquet(kept, folder))
    _write(out / "skipped.jsonl", b"".join(_json(vars(skip)) for skip in skips))
    _write(out / "manifest.yaml", manifest)
    reasons = dict(Counter(skip.reason for skip in skips).most_common())
    _write(out / _STATE, _json(state | {"rows": len(kept), "skipped": reasons}))
    shutil.rmtree(out / _CHECKED)
    return Prepared(out / "manifest.yaml", len(kept), reasons, notes=told)


def _sort_out(rows: list[Row], folder: Path) -> tuple[list[Row], list[_Skip]]:
    """The rows whose images are worth reading, and the others."""
    possible, skips = [], []
    for row in rows:
        reason, path, line = row.problem, row.path, row.line
        name = row.id.strip()
        if reason is None and not (name and row.images):
            reason = "no image" if name else "no id"
        for image in row.images if reason is None else ():
            place = _within(image, folder)
            if place is None or SEPARATOR in place:
                reason = f"its path leads out of the download, or has a {SEPARATOR!r}"
                path, line = (path, line) if isinstance(image, Packed) else (image, None)
        if reason is None and not all(_is_unicode(text) for text in (row.id, *row.columns.values())):
            reason = "a text is not legal Unicode"
        if reason is None:
            possible.append(row)
        else:
            skips.append(_skip(row, reason, path, line, folder))
    return possible, skips


def _skip(row: Row, reason: str, path: Path | None, line: int | None, folder: Path) -> _Skip:
    return _Skip(row.id, _within(path, folder) or "" if path else "", reason, line)


def _read_images(rows: list[Row], folder: Path, out: Path, progress: Callable[[int, int], None]) -> dict[int, _Skip]:
    """Decode the images of all rows and put them in place; by number, the rows that are left out.

    These are the rows with an image that cannot be read, and those whose id an earlier row has, one that is kept.
    """
    (out / _CHECKED).mkdir(exist_ok=True)
    bad: dict[int, _Skip] = {}
    taken: set[str] = set()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), CHUNK):
            chunk, done = rows[start : start + CHUNK], out / _CHECKED / f"{start:09d}.json"
            found = _found_before(done)
            if found is not None:
                taken |= {row.id.strip() for number, row in enumerate(chunk, start=start) if number not in found}
                progress(start + len(chunk), len(rows))
            else:
                found = {}
                for number, (row, (skip, packed)) in enumerate(
                    zip(chunk, _in_order(pool, chunk, folder), strict=True), start=start
                ):
                    name = row.id.strip()
                    if skip is None and name in taken:
                        skip = _skip(row, "another row has the same id", row.path, row.line, folder)
                    if skip:
                        found[number] = skip
                    else:
                        taken.add(name)
                        for image, data in zip(row.images, packed, strict=True):
                            _place(image, data, out / "images" / str(_within(image, folder)))
                    progress(number + 1, len(rows))
                _write(done, _json({number: vars(skip) for number, skip in found.items()}))
            bad |= found
    return bad


def _found_before(done: Path) -> dict[int, _Skip] | None:
    """What an earlier call found in a chunk; None if it did not come so far, or was of another version."""
    skips = json.loads(done.read_bytes()) if done.exists() else None
    return {int(number): _Skip(**skip) for number, skip in skips.items()} if isinstance(skips, dict) else None


def _in_order(
    pool: ThreadPoolExecutor, rows: list[Row], folder: Path
) -> Iterator[tuple[_Skip | None, list[bytes | None]]]:
    """Of each row why it cannot be read, and the bytes of its packed images; few are read ahead."""
    waiting: deque[Future[tuple[_Skip | None, list[bytes | None]]]] = deque()
    for row in rows:
        waiting.append(pool.submit(_unreadable, row, folder))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _unreadable(row: Row, folder: Path) -> tuple[_Skip | None, list[bytes | None]]:
    read: list[bytes | None] = []
    for image in row.images:
        try:
            data = image.read() if isinstance(image, Packed) else None
            if isinstance(image, Packed) and data is None:
                return _skip(row, "no image", row.path, row.line, folder), []
            read_image(image if data is None else data, _SMALL)  # type: ignore[arg-type]
        except MmfuseError as error:  # of the image, or of the parquet file it is in
            path, line = (row.path, row.line) if isinstance(image, Packed) else (image, None)
            return _skip(row, f"image: {error}", path, line, folder), []
        read.append(data)
    return None, read


def _place(image: Path | Packed, data: bytes | None, target: Path) -> None:
    """Hard link, or copy where the file system cannot link; a file of its own for bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.part")
    scratch.unlink(missing_ok=True)
    if isinstance(image, Packed):
        scratch.write_bytes(data or b"")
        scratch.replace(target)
        return
    image = image.resolve()
    if target.exists() and target.samefile(image):
        return
    try:
        os.link(image, scratch)
    except OSError:  # another file system, or one without hard links; what fails for another reason fails again below
        shutil.copyfile(image, scratch)
    scratch.replace(target)


def _parquet(rows: list[Row], folder: Path) -> bytes:
    names = list(rows[0].columns)
    assert all(list(row.columns) == names for row in rows)
    columns = {"id": [row.id for row in rows], **{n: [row.columns[n] for row in rows] for n in names}}
    columns["images"] = [SEPARATOR.join(str(_within(image, folder)) for image in row.images) for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.table({n: pa.array(values, pa.string()) for n, values in columns.items()}), buffer)
    return buffer.getvalue()


def _fingerprint(rows: list[Row], folder: Path) -> str:
    """A hash of all that the result depends on; of an image, its size and time."""
    digest = hashlib.sha256()
    for row in rows:
        stats = [_stat(image.table if isinstance(image, Packed) else image) for image in row.images]
        names = [_within(image, folder) for image in row.images]
        digest.update(_json([row.id, row.columns, names, stats, row.problem]))
    return digest.hexdigest()


def _stat(path: Path) -> list[int]:
    with contextlib.suppress(OSError, ValueError):  # one that is not there is told when it is read
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return []


def _within(path: Path | Packed, folder: Path) -> str | None:
    """The path relative to the folder, with `/`; None if it leads out of it, or its name is not legal Unicode."""
    if isinstance(path, Packed):
        path = folder / path.name
    if ".." in path.parts or not path.is_relative_to(folder):
        return None
    name = path.relative_to(folder).as_posix()
    return name if _is_unicode(name) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_edited(manifest: Path, ours: set[str]) -> None:
    if manifest.exists() and _hash(manifest.read_bytes()) not in ours:
        raise MmfuseError(
            f"{manifest}: was changed by hand; move it elsewhere, and the new one is written in its place"
        )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f"{path.name}.part")
    with scratch.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    scratch.replace(path)
