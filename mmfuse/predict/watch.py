"""Studies of a folder that fills: each is predicted once, when its files have settled.

The folder is looked at again and again, because a network share does not tell of what another machine writes to it.
OUT.jsonl and OUT.errors.jsonl are appended to. OUT.watch.jsonl says a line a study which files were read, and how many
bytes of the two are committed with it: a killed run cuts both back to the last of its lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import islice, pairwise
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from mmfuse.data.rows.folder import Entry, Layout, scan_folder, tell_ignored
from mmfuse.precision import FP32, Precision
from mmfuse.predict.files import FRESH, Counts, append, line, sync
from mmfuse.predict.names import Names, alone, cannot_write
from mmfuse.predict.precision import with_precision
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.reading import refuse_files
from mmfuse.types import Failure, MmfuseError, Prediction

INTERVAL = 1.0
"""Seconds between two looks at the folder; with a shorter settling time, that."""

Signature = tuple[tuple[str, int, int], ...]
"""Of each file of a study its name, its bytes and when it changed, in nanoseconds; -1 bytes where there is none."""


class Watched(NamedTuple):
    """What a watch came to: every study of the folder is predicted, an error, or left.

    Attributes:
        counts: Of all that is in the two files, those of earlier watches included.
        left: Studies that were seen and not taken, with the reason.
    """

    counts: Counts
    left: dict[str, str]


def watch_folder(
    predictor: Predictor,
    folder: Path,
    out: Path,
    *,
    layout: Layout = "stem",
    settle: float = 5.0,
    fingerprint: str = "",
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Watched:
    """Predict the studies of a folder as they appear, until KeyboardInterrupt.

    A study is taken once none of its files has changed for `settle` seconds, and nothing is written of it if one has
    changed by when it was read. One that lacks what the model cannot do without waits for it. One whose files change
    afterwards, or grow in number, is told and not predicted again.

    Args:
        predictor: Makes the predictions.
        folder: May be empty; where it cannot be read for a time, that is told and tried again.
        out: A .jsonl file, and beside it `STEM.errors.jsonl`. Both grow; what another watch of the same folder has
            written there is gone on with.
        layout: `stem` or `study`: what `auto` finds could change while the folder fills.
        settle: Seconds, above 0.
        fingerprint: Of the model and of options that change predictions.
        overwrite: Throw away what is in `out`, and predict all again.
        tell: Called with each line that the user should see.

    Raises:
        MmfuseError: A value is not legal; the folder cannot be read at the start; `out` is not of a watch of this
            folder by this model, is damaged, cannot be written, or another process is writing it.
    """
    if layout not in ("stem", "study"):
        raise MmfuseError(f"layout {layout!r}: with --watch the layout is stem or study")
    if out.suffix != ".jsonl":
        raise MmfuseError(f"--out {out}: --watch appends to a .jsonl file; csv and parquet are made of finished runs")
    refuse_files(predictor.model, str(folder))
    try:
        scan_folder(folder, layout)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MmfuseError(f"{folder}: {reason.lower()}; expected a folder to watch") from error
    identity = hashlib.sha256(json.dumps([fingerprint, os.path.abspath(folder), layout]).encode()).hexdigest()
    with alone(Names.of(out)) as names:
        try:
            with Journal(names, identity, overwrite, predictor.precision) as journal:
                watch = FolderWatch(predictor, lambda: scan_folder(folder, layout), journal, settle, tell)
                tell(f"watching {folder}, studies by {layout}; {len(journal.done)} done before; Ctrl-C ends it")
                try:
                    while True:
                        watch.look()
                        time.sleep(min(INTERVAL, settle))
                except KeyboardInterrupt:
                    left = {id: reason for id, reason in watch.left.items() if id not in journal.done}
                    return Watched(Counts.of(journal.state), left)
        except OSError as error:
            raise cannot_write(out, error) from error


class FolderWatch:
    """One look after the other at the same folder.

    Args:
        predictor: Makes the predictions.
        scan: Gives the folder's studies, and the files in it that are ignored.
        journal: Where results go.
        settle: Seconds.
        tell: Called with each line that the user should see.
        clock: Gives seconds, from any start.
    """

    def __init__(
        self,
        predictor: Predictor,
        scan: Callable[[], tuple[list[Entry], list[str]]],
        journal: Journal,
        settle: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.predictor, self.scan, self.journal, self.settle, self.tell = predictor, scan, journal, settle, tell
        self.clock = clock
        self.since: dict[str, tuple[Signature, float]] = {}
        self.left: dict[str, str] = {}
        self.ignored: set[str] = set()
        self.unreadable: str | None = None

    def look(self) -> None:
        """Take every study that has settled."""
        before_reading = self.clock()  # reading a folder takes seconds on a slow share: neither end counts as settling
        try:
            entries, ignored = self.scan()
        except OSError as error:  # a network share that is gone for a minute must not end a night
            reason = error.strerror or str(error)
            if reason != self.unreadable:
                self.tell(f"the folder cannot be read: {reason.lower()}; trying again")
            self.unreadable = reason
            return
        self.unreadable = None
        if new := [name for name in ignored if name not in self.ignored]:
            self.tell(tell_ignored(new))
        self.ignored = set(ignored)
        found = {entry.id: (entry, sign(entry)) for entry in entries}
        now = self.clock()
        for id in self.since.keys() - found.keys() - self.journal.done.keys():
            self.tell(f"{id!r} went away before it was predicted")
        self.since = {
            id: self.since[id] if id in self.since and self.since[id][0] == signature else (signature, now)
            for id, (_, signature) in found.items()
        }
        settled = [found[id] for id, (_, since) in self.since.items() if before_reading - since >= self.settle]
        before, self.left = self.left, {id: "just changed" for id in found if id not in self.journal.done}
        twins = [one.id for one, other in pairwise(entries) if one.id == other.id]  # of names that are not UTF-8
        self.left |= {f"{id} (again)": "another study has the same id" for id in twins}
        ready = []
        for entry, signature in settled:
            if entry.id in self.journal.done:
                self._compare(entry.id, signature)
                continue
            images, texts = entry.files()
            lacking = self.predictor.lacking({"text": bool(texts), "image": bool(images)})
            if lacking and entry.problem is None:
                self.left[entry.id] = lacking
                if before.get(entry.id) != lacking:
                    self.tell(f"{entry.id!r} waits: {lacking}")
            else:
                ready.append((entry, signature))
        if ready:
            self._predict(ready)

    def _compare(self, id: str, signature: Signature) -> None:
        if set(signature) - set(self.journal.done[id]):  # files that are only gone were cleared away
            self.tell(f"{id!r} changed after it was predicted; it is not predicted again")
            self.journal.done[id] = signature

    def _predict(self, ready: Sequence[tuple[Entry, Signature]]) -> None:
        rest = iter(ready)
        for results in self.predictor.chunks(entry.sample() for entry, _ in ready):
            asked = zip(islice(rest, len(results)), results, strict=True)
            taken = [(entry.id, signature, result) for (entry, signature), result in asked if sign(entry) == signature]
            with ThreadPoolExecutor(1) as worker:  # Ctrl-C is for the main thread: a commit that was begun is finished
                worker.submit(self.journal.commit, taken).result()
            for id, _, _ in taken:
                del self.left[id]
            state = self.journal.state
            self.tell(f"{len(taken)} more studies; in all {state['predictions']} predictions, {state['errors']} errors")


def sign(entry: Entry) -> Signature:
    """What its files are now: equal as long as none of them changes."""
    found = []
    for path in (*entry.images, *entry.texts, *entry.unread):
        try:
            status = os.stat(path)
            found.append((os.path.basename(path), status.st_size, status.st_mtime_ns))
        except OSError:  # a broken link, or gone since the folder was read
            found.append((os.path.basename(path), -1, 0))
    return tuple(found)


class Journal:
    """The files of a watch, always such that those who were killed can go on.

    Args:
        names: Of the files.
        identity: Of the folder, the model and options; those of an earlier watch must be the same.
        overwrite: Throw away what is there.
        precision: Of the predictor, kept for a later watch.

    Attributes:
        state: What is committed.
        done: By study, the files that its result is of.

    Raises:
        MmfuseError: The files are of something else, or damaged.
        OSError: They cannot be read or written.
    """

    def __init__(self, names: Names, identity: str, overwrite: bool, precision: Precision = FP32):
        if overwrite:
            names.forget()
        if names.progress.exists():
            raise MmfuseError(
                f"{names.progress}: a run without --watch was interrupted here; choose another --out, or --overwrite"
            )
        lines, self._size = _read_journal(names.journal, identity)
        if self._size == 0:
            names.journal.unlink(missing_ok=True)  # killed before it had a line
            names.refuse_finished()
            self._size = names.journal.write_bytes(line(with_precision({"identity": identity}, precision)))
        self.done: dict[str, Signature] = {
            entry["id"]: tuple((name, size, changed) for name, size, changed in entry["files"]) for entry in lines
        }
        self.state: dict[str, Any] = deepcopy(lines[-1]["state"] if lines else FRESH)
        for path, size in ((names.out, self.state["bytes"]), (names.errors, self.state["error_bytes"])):
            if (path.stat().st_size if path.exists() else 0) < size:
                raise MmfuseError(f"{path}: shorter than the watch left it; put it back, or --overwrite to start again")
            path.touch()
        self._writing = Lock()
        self._good, self._bad = names.out.open("r+b"), names.errors.open("r+b")
        self._journal = names.journal.open("r+b")
        self._cut_back()

    def commit(self, taken: Sequence[tuple[str, Signature, Prediction | Failure]]) -> None:
        """Write results of studies, see them on the disk, and only then say that they are done."""
        with self._writing:
            state = deepcopy(self.state)
            lines = b""
            for id, signature, result in taken:
                append(result, self._good, self._bad, state)
                lines += line({"id": id, "files": signature, "state": state})
            sync(self._good, self._bad)
            self._journal.write(lines)
            sync(self._journal)
            self.state, self._size = state, self._size + len(lines)
            self.done |= {id: signature for id, signature, _ in taken}

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._writing:
            self._cut_back()
            for handle in (self._journal, self._good, self._bad):
                handle.close()

    def _cut_back(self) -> None:
        """Take away what was begun and not committed; the journal first, as the others are cut to what it says."""
        sizes = ((self._journal, self._size), (self._good, self.state["bytes"]), (self._bad, self.state["error_bytes"]))
        for handle, size in sizes:
            handle.flush()
            handle.truncate(size)
            handle.seek(size)


def _read_journal(path: Path, identity: str) -> tuple[list[dict[str, Any]], int]:
    """What it says of each study, and the bytes of its whole lines: the last one may have been cut off by a kill."""
    data = path.read_bytes() if path.exists() else b""
    size = data.rfind(b"\n") + 1
    try:
        head, *lines = map(json.loads, data[:size].splitlines()) if size else [{"identity": identity}]
        was = head["identity"]
        each: Any
        for each in lines:
            each["state"].setdefault("reasons", {})  # older watches did not count them
            if {"id", "files", "state"} != set(each) or set(each["state"]) != set(FRESH):
                raise KeyError("id, files, state")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MmfuseError(f"{path}: damaged; put it back, or --overwrite to start again") from error
    if was != identity:
        raise MmfuseError(
            f"{path}: a watch of another folder, by another model or with other options; choose another --out, or "
            "--overwrite to discard it"
        )
    return lines, size
