"""A public dataset as it is downloaded -> rows.parquet, images and a manifest; killed half-way, it goes on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse.data.images import ImageError, ImageOptions, read_image
from mmfuse.data.sources import READY, SOURCES, Row, Source
from mmfuse.data.sources.files import find
from mmfuse.types import MmfuseError

CHUNK = 512
"""Rows whose images are read before that is written down."""

_STATE, _LOCK, _CHECKED = "prepared.json", "prepare.lock", "checked"
_SMALL = ImageOptions(size=(32, 32))  # all of the file is decoded, but JPEGs at an eighth of their size
_SEPARATOR = ";"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        manifest: The file to train with.
        rows: How many there are in `rows.parquet`.
        skipped: Reason -> how many rows of the download it kept out.
        already: Everything was there, and nothing was done.
    """

    manifest: Path
    rows: int
    skipped: dict[str, int]
    already: bool = False


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class _Skip:
    id: str
    path: str
    reason: str


def prepare(
    name: str, source_dir: str | Path, out_dir: str | Path, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Turn a download into `rows.parquet`, `images/`, `manifest.yaml` and `skipped.jsonl`.

    Every row of the download is in exactly one of `rows.parquet` and `skipped.jsonl`, there with the file and the
    reason. Every image is decoded once; one that is missing or damaged keeps its row out. Images are hard links to the
    download where the file system can do that, so they cost no disk, and copies elsewhere; either way their bytes and
    their paths within the download stay.

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
    folder, out = Path(source_dir), Path(out_dir)
    source: Source = SOURCES.get(name)()
    _check_download(name, source, folder)
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


def manifest_text(name: str, folder: Path | None = None) -> str:
    """The manifest of a source as YAML, with its traps as comments; None: of a complete download."""
    source: Source = SOURCES.get(name)()
    card, keys = source.card, source.manifest(folder)
    facts = {key: getattr(card, key) for key in ("about", "homepage", "licence", "citation", "obtain")}
    image = {"column": "images", "separator": _SEPARATOR, "root": "images"}
    manifest = {"name": name, "version": 1, **facts, "rows": "rows.parquet", "id": "id"}
    manifest |= {"group": keys["group"]} if "group" in keys else {}
    manifest |= {"image": image, **{key: value for key, value in keys.items() if key != "group"}}
    notes = [f"Written by `mmfuse data prepare {name}`.", f"Split: {card.split}", *card.traps]
    comment = "\n".join(textwrap.fill(n, 118, initial_indent="# ", subsequent_indent="#   ") for n in notes)
    body = yaml.dump(manifest, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return f"{comment}\n{body}"


def source_lines() -> list[str]:
    """A line on each source, and on each set that needs no preparing."""
    lines = {name: SOURCES.get(name)().card.about.split(". ")[0].rstrip(".") + "." for name in SOURCES.names()}
    lines |= {name: f"{about} Ready: data_manifests/{name}.yaml" for name, about in READY.items()}
    return [f"{name}: {line}" for name, line in sorted(lines.items())]


def card_text(name: str) -> str:
    """All that is known of a source, in lines.

    Raises:
        MmfuseError: No such source.
    """
    if name in READY:
        return f"{name}: {READY[name]}\nNothing to prepare: data_manifests/{name}.yaml in the repository is its card"
    source: Source = SOURCES.get(name)()
    card, keys = source.card, source.manifest(None)
    facts = {key: getattr(card, key) for key in ("about", "homepage", "licence", "citation", "obtain")}
    facts["files"] = "; ".join(" or ".join(patterns) for patterns in card.files)
    facts |= {"group": keys.get("group", "none: each row is its own"), "split": card.split}
    facts |= {
        f"task {task}": f"{spec['type']}, labels {spec['label_origin']}" for task, spec in keys.get("tasks", {}).items()
    }
    parts = [*facts.items(), *(("trap", trap) for trap in card.traps)]
    return "\n".join([name, *(textwrap.fill(f"{k}: {v}", 118, subsequent_indent="    ") for k, v in parts)])


def _check_download(name: str, source: Source, folder: Path) -> None:
    expected = ", ".join(patterns[0] for patterns in source.card.files)
    if not folder.is_dir():
        raise MmfuseError(f"{folder}: no such folder; expected is the download of {name}, with {expected}")
    missing = [" or ".join(patterns) for patterns in source.card.files if find(folder, patterns) is None]
    if missing:
        raise MmfuseError(f"{folder}: not the download of {name}: no {missing[0]}; expected are {expected}")


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
    rows = list(source.rows(folder))
    state, manifest = _read_state(out, name), manifest_text(name, folder).encode()
    inputs = _fingerprint(rows, folder)
    if state.get("inputs") == inputs and "rows" in state:
        shutil.rmtree(out / _CHECKED, ignore_errors=True)
        return Prepared(out / "manifest.yaml", state["rows"], state["skipped"], already=True)
    written = {*state.get("manifests", ()), _hash(manifest)}
    _refuse_edited(out / "manifest.yaml", written)
    if state.get("inputs") != inputs:
        shutil.rmtree(out / _CHECKED, ignore_errors=True)
        for stale in ("rows.parquet", "skipped.jsonl"):
            (out / stale).unlink(missing_ok=True)
    state = {"source": name, "inputs": inputs, "manifests": sorted(written)}
    _write(out / _STATE, _json(state))
    kept, skips = _sort_out(rows, folder)
    bad = _read_images(kept, folder, out, progress)
    kept = [row for row in kept if row.id not in bad]
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
    return Prepared(out / "manifest.yaml", len(kept), reasons)


def _sort_out(rows: list[Row], folder: Path) -> tuple[list[Row], list[_Skip]]:
    """The rows whose images are worth reading, and the others."""
    kept: dict[str, Row] = {}
    skips = []
    for row in rows:
        reason, path = row.problem, row.path
        name = row.id.strip()
        if reason is None and not (name and row.images):
            reason = "no image" if name else "no id"
        if reason is None and name in kept:
            reason = "another row has the same id"
        for image in row.images if reason is None else ():
            place = _within(image, folder)
            if place is None or _SEPARATOR in place:
                reason, path = f"its path leads out of the download, or has a {_SEPARATOR!r}", image
        if reason is None and not all(_is_unicode(text) for text in (row.id, *row.columns.values())):
            reason = "a text is not legal Unicode"
        if reason is None:
            kept[name] = row
        else:
            skips.append(_Skip(row.id, _within(path, folder) or "" if path else "", reason))
    return list(kept.values()), skips


def _read_images(rows: list[Row], folder: Path, out: Path, progress: Callable[[int, int], None]) -> dict[str, _Skip]:
    """Decode the images of all rows and put them in place; by id, the rows with one that cannot be read."""
    (out / _CHECKED).mkdir(exist_ok=True)
    bad: dict[str, _Skip] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), CHUNK):
            chunk, done = rows[start : start + CHUNK], out / _CHECKED / f"{start:09d}.json"
            if done.exists():
                found = [_Skip(**item) for item in json.loads(done.read_bytes())]
                progress(start + len(chunk), len(rows))
            else:
                found = []
                for number, (row, skip) in enumerate(
                    zip(chunk, pool.map(lambda row: _unreadable(row, folder), chunk), strict=True), start=start + 1
                ):
                    if skip:
                        found.append(skip)
                    else:
                        for image in row.images:
                            _place(image, out / "images" / str(_within(image, folder)))
                    progress(number, len(rows))
                _write(done, _json([vars(skip) for skip in found]))
            bad |= {skip.id: skip for skip in found}
    return bad


def _unreadable(row: Row, folder: Path) -> _Skip | None:
    for image in row.images:
        try:
            read_image(image, _SMALL)
        except ImageError as error:
            return _Skip(row.id, str(_within(image, folder)), f"image: {error}")
    return None


def _place(image: Path, target: Path) -> None:
    """Hard link, or copy where the file system cannot link."""
    image = image.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(image):
        return
    scratch = target.with_name(f"{target.name}.part")
    scratch.unlink(missing_ok=True)
    try:
        os.link(image, scratch)
    except OSError:  # another file system, or one without hard links; what fails for another reason fails again below
        shutil.copyfile(image, scratch)
    scratch.replace(target)


def _parquet(rows: list[Row], folder: Path) -> bytes:
    names = list(rows[0].columns)
    assert all(list(row.columns) == names for row in rows)
    columns = {"id": [row.id for row in rows], **{n: [row.columns[n] for row in rows] for n in names}}
    columns["images"] = [_SEPARATOR.join(str(_within(image, folder)) for image in row.images) for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.table({n: pa.array(values, pa.string()) for n, values in columns.items()}), buffer)
    return buffer.getvalue()


def _fingerprint(rows: list[Row], folder: Path) -> str:
    """A hash of all that the result depends on; of an image, its size and time."""
    digest = hashlib.sha256()
    for row in rows:
        stats = [_stat(image) for image in row.images]
        names = [_within(image, folder) for image in row.images]
        digest.update(_json([row.id, row.columns, names, stats, row.problem]))
    return digest.hexdigest()


def _stat(path: Path) -> list[int]:
    with contextlib.suppress(OSError, ValueError):  # one that is not there is told when it is read
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return []


def _within(path: Path, folder: Path) -> str | None:
    """The path relative to the folder, with `/`; None if it leads out of it, or its name is not legal Unicode."""
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
