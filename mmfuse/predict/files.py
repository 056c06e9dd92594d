"""Predictions of thousands of studies to a file, in chunks that are on the disk before they count.

While it runs there are `OUT.partial.jsonl`, `OUT.errors.partial.jsonl` and `OUT.progress`, which says how many bytes of
the two are committed: names that are no study's, as OUT may be in the folder that is predicted. A killed run cuts both
back to that and redoes the open chunk whole, so the result is byte-equal to that of a run that was never killed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.rows.spreadsheet import harmless
from mmfuse.encoders.cache import weights_hash
from mmfuse.model import FusionModel
from mmfuse.precision import FP32, Precision
from mmfuse.predict.names import Names, alone, cannot_write, check_suffix, exists_already, scratch_of
from mmfuse.predict.precision import with_precision
from mmfuse.predict.predictor import TRUNCATED, Predictor
from mmfuse.predict.reasons import add_kind, kind_of
from mmfuse.predict.studies import Studies
from mmfuse.tasks import TaskKind
from mmfuse.types import Failure, MmfuseError, Prediction, Sample, Stopped

CAPTIONS_MARK = ".mmfuse-captions"
"""Tells that a folder of captions is ours."""


@dataclass(frozen=True)
class Counts:
    """What became of the inputs: every one is in exactly one of the two files.

    Attributes:
        predictions: How many were predicted: rows of `out`.
        errors: How many were not: rows of the other.
        texts: How many of the predictions have a text.
        cut: How many of these texts were longer than the model reads.
        abstained: By task, rows (classification) or labels of rows (multilabel) that the model does not stand by.
        reasons: By kind (`mmfuse.predict.reasons`), how many of the errors.
    """

    predictions: int
    errors: int
    texts: int
    cut: int
    abstained: dict[str, int]
    reasons: dict[str, int]

    @classmethod
    def of(cls, state: dict[str, Any]) -> Counts:
        """What is committed."""
        kinds = {name: dict(state.get(name, {})) for name in ("abstained", "reasons")}
        return cls(state["predictions"], state["errors"], state["texts"], state["cut"], **kinds)


FRESH = {
    "predictions": 0,
    "errors": 0,
    "texts": 0,
    "cut": 0,
    "abstained": {},
    "reasons": {},
    "bytes": 0,
    "error_bytes": 0,
}
"""What is committed to the two files before anything is."""


def predict_to_file(
    predictor: Predictor,
    studies: Studies,
    out: Path,
    *,
    fingerprint: str = "",
    overwrite: bool = False,
    captions_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Predict samples into `out`, and those that cannot be into `STEM.errors.jsonl`, each with its reason.

    Args:
        predictor: Makes the predictions, a chunk at a time.
        studies: The inputs, in the order of the results; a resumed run must have the same as the killed one.
        out: A .jsonl, .csv or .parquet file.
        fingerprint: Of the model and of options that change predictions, for the same check.
        overwrite: Replace a finished `out`, and forget a killed run.
        captions_dir: Folder that gets each caption as `ID.txt`, of several captioning tasks as `ID.TASK.txt`; new or
            empty, or with `overwrite` one of an earlier run, whose captions are replaced.
        progress: Called with (done, errors so far).

    Raises:
        MmfuseError: The suffix is not legal, `out` exists, cannot be written, belongs to a run over other inputs, or
            another process is writing it.
    """
    check_suffix(out)
    with alone(Names.of(out)) as names:
        if captions_dir is not None:
            _check_captions(predictor.model, studies.ids(), captions_dir, overwrite or names.progress.exists())
        kept = Kept(
            run_identity(fingerprint, predictor, studies, captions_dir), lambda names: _publish(names, predictor)
        )
        return commit(names, predictor, studies, kept, overwrite, captions_dir, progress)


@dataclass(frozen=True)
class Kept:
    """What becomes of committed lines.

    Attributes:
        identity: Of the run (`run_identity`).
        publish: Called with the names when all is committed, to give the finished files theirs.
    """

    identity: str
    publish: Callable[[Names], None]


class Source(Protocol):
    """What makes results of samples, a chunk at a time: a `Predictor`, or what gives vectors in place of decisions."""

    chunk: int
    batch_size: int
    precision: Precision

    def chunks(self, samples: Iterable[Sample]) -> Iterator[list[Prediction | Failure]]:
        """Results in the order of the samples."""
        ...


def commit(
    names: Names,
    source: Source,
    studies: Studies,
    kept_as: Kept,
    overwrite: bool = False,
    captions_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Write what a source makes of studies to the partial files, chunk by chunk, and publish them.

    Raises:
        MmfuseError: As `predict_to_file`.
        Stopped: It was interrupted, with what is kept.
    """
    state = _open(names, with_precision({"identity": kept_as.identity}, source.precision), overwrite)
    kept = state["done"]
    try:
        if captions_dir is not None:
            _claim_captions(captions_dir, state["done"])
        with names.partial.open("r+b") as good, names.errors_partial.open("r+b") as bad:
            for handle, size in ((good, state["bytes"]), (bad, state["error_bytes"])):
                handle.truncate(size)
                handle.seek(size)
            for results in source.chunks(studies.read(state["done"], len(studies))):
                if captions_dir is not None:  # before the chunk counts: a killed run writes them again
                    _write_captions(results, captions_dir)
                for result in results:
                    append(result, good, bad, state)
                    state["done"] += 1
                sync(good, bad)
                _write_json(names.progress, state)
                kept = state["done"]
                if progress:
                    progress(state["done"], state["errors"])
        kept_as.publish(names)
    except OSError as error:
        raise cannot_write(names.out, error) from error
    except KeyboardInterrupt as stop:
        raise stopped(kept, len(studies)) from stop
    return Counts.of(state)


def stopped(kept: int, studies: int) -> Stopped:
    """What a run that is stopped leaves behind, in words."""
    return Stopped(f"stopped; {kept} of {studies} studies are kept; the same command resumes")


def run_identity(fingerprint: str, predictor: Source, studies: Studies, captions_dir: Path | None = None) -> str:
    """sha256 of all that a resumed run must have in common with the killed one."""
    content = [fingerprint, predictor.chunk, predictor.batch_size, studies.identity]
    content += [os.path.abspath(captions_dir)] if captions_dir else []
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _check_captions(model: FusionModel, ids: Iterable[str], folder: Path, again: bool) -> None:
    """Refuse ids that are no file names, and a folder that holds what is not ours: reports are named alike."""
    if not model.captioning:
        raise MmfuseError(f"--captions-dir: the model writes no captions; its tasks: {', '.join(model.heads)}")
    room = 255 - max(len(f".{task}.txt".encode()) for task in model.captioning)
    for id in ids:
        parts = id.split("/")
        if set(id) & set('\\\0:*?"<>|') or any(
            part in ("", ".", "..") or len(os.fsencode(part)) > room for part in parts
        ):
            raise MmfuseError(f"--captions-dir {folder}: the id {id!r} cannot be a file's name")
    if os.path.lexists(folder) and not folder.is_dir():  # a link to a folder is one, in which nothing is replaced
        what = "a link to nothing" if folder.is_symlink() and not folder.exists() else "no folder"
        raise MmfuseError(f"--captions-dir {folder}: is {what}; name a new or empty folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / CAPTIONS_MARK).is_file():
        raise MmfuseError(f"--captions-dir {folder}: not empty, and not one of mmfuse; name a new or empty folder")
    if not again:
        raise MmfuseError(
            f"--captions-dir {folder}: contains the captions of another run; choose another name, or --overwrite"
        )


def _claim_captions(folder: Path, done: int) -> None:
    """Mark the folder as ours, and take away an earlier run's captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.rglob("*.txt") if not done and (folder / CAPTIONS_MARK).is_file() else ():
        stale.unlink()
    (folder / CAPTIONS_MARK).touch()


def _write_captions(results: Iterable[Prediction | Failure], folder: Path) -> None:
    for result in results:
        if isinstance(result, Failure):
            continue
        captions = {task: said["caption"] for task, said in result.tasks.items() if "caption" in said}
        for task, caption in captions.items():
            name = f"{result.id}.txt" if len(captions) == 1 else f"{result.id}.{task}.txt"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(caption + "\n", encoding="utf-8")


def _open(names: Names, run: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """The committed state: of a killed run over the same inputs, or a new one."""
    fresh = {**run, "done": 0, **deepcopy(FRESH)}
    try:
        if overwrite:
            names.forget()
        if names.progress.exists():
            state = {**fresh, **json.loads(names.progress.read_text(encoding="utf-8"))}
            if state["identity"] != run["identity"]:
                raise MmfuseError(
                    f"{names.progress}: a run over other inputs, another model or other options was interrupted here; "
                    "choose another --out, or --overwrite to discard it"
                )
            for final, partial, size in (
                (names.errors, names.errors_partial, state["error_bytes"]),
                (names.out, names.partial, state["bytes"]),
            ):
                if final.exists() and not partial.exists():  # killed while the files got their names
                    final.replace(partial)
                if (partial.stat().st_size if partial.exists() else 0) < size:
                    raise MmfuseError(f"{partial}: shorter than the run left it; put it back, or --overwrite")
            if names.errors.exists():
                raise exists_already(names.out, names.errors.name)
            return state
        names.refuse_finished()
        names.partial.write_bytes(b"")
        names.errors_partial.write_bytes(b"")
        _write_json(names.progress, fresh)
    except OSError as error:
        raise cannot_write(names.out, error) from error
    return fresh


def append(result: Prediction | Failure, good: Any, bad: Any, state: dict[str, Any]) -> None:
    """Write a result to the file that it belongs to, and count it; it is committed once both files are synced."""
    if isinstance(result, Failure):
        bad.write(line({"id": result.id, "reason": result.reason}))
        state["errors"] += 1
        add_kind(state["reasons"], kind_of(result.reason))
    else:
        said = {
            "id": result.id,
            "tasks": result.tasks,
            "present": list(result.present),
            "notices": list(result.notices),
        }
        good.write(line(said))
        state["predictions"] += 1
        state["texts"] += "text" in result.present
        state["cut"] += any(notice.startswith(TRUNCATED) for notice in result.notices)
        for task, decision in result.tasks.items():
            if "abstained" in decision:
                held = decision["abstained"]
                more = len(held) if isinstance(held, list) else int(held)
                state["abstained"][task] = state["abstained"].get(task, 0) + more
    state["bytes"], state["error_bytes"] = good.tell(), bad.tell()


def sync(*handles: Any) -> None:
    """See what was written on the disk."""
    for handle in handles:
        handle.flush()
        os.fsync(handle.fileno())


def line(values: Any) -> bytes:
    """As JSON; half a surrogate pair is escaped there, so that any file name and id gives legal UTF-8."""
    return (json.dumps(values, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    scratch = scratch_of(path)
    with scratch.open("w", encoding="utf-8") as handle:
        json.dump(values, handle)
        handle.flush()
        os.fsync(handle.fileno())
    scratch.replace(path)


def _publish(names: Names, predictor: Predictor) -> None:
    write = None if names.out.suffix == ".jsonl" else partial(write_rows, suffix=names.out.suffix, predictor=predictor)
    publish(names, write)


def publish(names: Names, write: Callable[[Any, Iterable[bytes]], None] | None) -> None:
    """Give the finished files their names; killed in between, the next run ends up here again.

    Args:
        names: All of them.
        write: Writes the committed lines to an open file in the format of the output; None where they are it.
    """
    out = names.out
    if write is not None:
        with names.partial.open("rb") as lines, scratch_of(out).open("wb") as scratch:
            write(scratch, lines)
            sync(scratch)
    names.errors_partial.replace(names.errors)
    if write is None:
        names.partial.replace(out)
    else:
        scratch_of(out).replace(out)
    names.progress.unlink()
    names.partial.unlink(missing_ok=True)


def table_columns(predictor: Predictor) -> list[tuple[str, pa.DataType]]:
    """The columns of a table of predictions: the id, those of each task, `present` and `notices`."""
    columns: list[tuple[str, pa.DataType]] = [("id", pa.string())]
    heads: dict[str, Any] = dict(predictor.model.heads.items())
    for task, head in heads.items():
        columns += head.task.columns(task, task in predictor.abstentions)
    return [*columns, ("present", pa.string()), ("notices", pa.string())]


def write_rows(handle: Any, lines: Iterable[bytes], suffix: str, predictor: Predictor) -> None:
    """Write predictions, as lines of JSON, to an open binary file in the format of a suffix of `SUFFIXES`."""
    if suffix == ".jsonl":
        handle.writelines(lines)
    else:
        heads: dict[str, Any] = dict(predictor.model.heads.items())
        kinds = {task: head.task for task, head in heads.items()}
        rows = (flat_row(json.loads(line.decode("utf-8", "surrogateescape")), kinds) for line in lines)
        (_write_csv if suffix == ".csv" else _write_parquet)(handle, rows, table_columns(predictor))


def flat_row(found: Mapping[str, Any], kinds: Mapping[str, TaskKind]) -> dict[str, Any]:
    """A prediction's `id`, `tasks`, `present` and `notices` as a row of `table_columns`, as each task's kind has it."""
    id = found["id"].encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair, of a table
    row = {"id": id, "present": ";".join(found["present"]), "notices": "; ".join(found["notices"])}
    for task, said in found["tasks"].items():
        row |= kinds[task].flat(task, said)
    return row


def _write_csv(handle: Any, rows: Iterator[dict[str, Any]], columns: list[tuple[str, pa.DataType]]) -> None:
    text = io.TextIOWrapper(handle, newline="", encoding="utf-8", errors="surrogateescape")
    writer = csv.writer(text)
    names = [name for name, _ in columns]
    writer.writerow(map(harmless, names))
    writer.writerows([harmless(row.get(name, "")) for name in names] for row in rows)
    text.detach()  # flushes, and leaves the file open


def _write_parquet(handle: Any, rows: Iterator[dict[str, Any]], columns: list[tuple[str, pa.DataType]]) -> None:
    schema = pa.schema(columns)
    with pq.ParquetWriter(handle, schema) as writer:
        while block := list(islice(rows, 10_000)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def fingerprint(
    model: FusionModel,
    missing: str,
    abstain: float | None = None,
    operating_point: str | None = None,
    precision: Precision = FP32,
    engine: str | None = None,
) -> str:
    """sha256 of all that a prediction depends on beside its input; a resumed run must have the same."""
    content = [weights_hash(model), model.config(), missing, abstain]
    content += [] if operating_point is None else [operating_point]
    content += [] if precision == FP32 else [precision.to_dict()]
    content += [] if engine is None else [{"engine": engine}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
