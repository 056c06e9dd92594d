"""Predictions of any number of studies, chunk by chunk at an fsspec URL, which many machines can write at once.

While a run goes on there is a folder `OUT.chunks`, with an object a chunk and `run.progress`, which says what run they
are of. A chunk is a line of counts, the predictions and the errors, both as the finished files have them. It is there
whole or not at all, and whoever writes it again writes the same bytes: what a killed machine had begun is simply
redone. At the end all chunks are joined, in order, into the files that `predict_to_file` gives for the same studies.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mmfuse.data.files import stores
from mmfuse.precision import Precision
from mmfuse.predict.files import FRESH, Counts, append, run_identity, stopped, write_rows
from mmfuse.predict.names import CLAIM, Names, alone, check_suffix, exists_already, interrupted, same_errors
from mmfuse.predict.precision import with_precision
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.reasons import add_kind
from mmfuse.predict.studies import Studies
from mmfuse.types import Failure, MmfuseError, Prediction

AHEAD = 8
"""Chunks that are fetched at once while they are joined."""
DEADLY = 3
"""So many of those that began a chunk have died: it is left out."""
MARK = "begun-"

Run = Callable[["Chunks", Sequence[int]], Iterator[dict[str, Any]]]
"""Commits the chunks of these numbers, and gives the counts of each or of several together, as they come."""


@dataclass(frozen=True)
class Chunks:
    """The committed chunks of one run; small, and the same on every machine.

    Attributes:
        out: The file that they become: a path or an fsspec URL.
        identity: Of the studies, the model and the options.
        size: Studies of a chunk.
        studies: How many in all.
    """

    out: str
    identity: str
    size: int
    studies: int

    def __len__(self) -> int:
        return -(-self.studies // self.size)

    @property
    def folder(self) -> str:
        """Where they are."""
        return f"{self.out}.chunks"

    def span(self, number: int) -> tuple[int, int]:
        """The first of a chunk's studies, and the first behind them."""
        return number * self.size, min((number + 1) * self.size, self.studies)

    def commit(self, number: int, results: Sequence[Prediction | Failure]) -> dict[str, Any]:
        """Write a chunk whole, and give its counts.

        Raises:
            MmfuseError: There are not as many results as it has studies, or it cannot be written.
        """
        start, stop = self.span(number)
        if len(results) != stop - start:
            raise MmfuseError(f"studies {start} to {stop}: {len(results)} were read; did the input change meanwhile?")
        good, bad, counts = io.BytesIO(), io.BytesIO(), deepcopy(FRESH)
        for result in results:
            append(result, good, bad, counts)
        head = json.dumps(counts).encode() + b"\n"
        stores.put(self._url(number), head + good.getvalue() + bad.getvalue())
        return counts

    def read(self, number: int) -> tuple[dict[str, Any], bytes, bytes]:
        """A chunk's counts, predictions and errors.

        Raises:
            MmfuseError: It is gone, cannot be read, or is damaged.
        """
        url = self._url(number)
        with stores.stored(url, "read") as (system, path):
            data: bytes = system.cat_file(path)
        head, _, rest = data.partition(b"\n")
        try:
            counts = json.loads(head)
            whole = len(rest) == counts["bytes"] + counts["error_bytes"]
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise MmfuseError(f"{url}: damaged; delete it, and the same command writes it again")
        return counts, rest[: counts["bytes"]], rest[counts["bytes"] :]

    def committed(self, number: int) -> bool:
        """Whether a chunk is there."""
        return stores.exists(self._url(number))

    def missing(self) -> list[int]:
        """The numbers of those that are not committed."""
        own = re.compile(re.escape(self._name(0)).replace("00000000", r"(\d{8,})"))
        there = {int(found[1]) for found in map(own.fullmatch, stores.list_sizes(self.folder)) if found}
        return [number for number in range(len(self)) if number not in there]

    def studies_in(self, numbers: Iterable[int]) -> int:
        """How many studies the chunks of these numbers have."""
        return sum(stop - start for start, stop in map(self.span, numbers))

    def begin(self, number: int) -> int:
        """Note that a chunk is begun; how often it was before, in this run, without being committed."""
        before = next(n for n in range(DEADLY + 1) if n == DEADLY or not stores.exists(self._mark(number, n)))
        if before < DEADLY:
            stores.put(self._mark(number, before), b"")
        return before

    def begun(self, number: int) -> bool:
        """Whether a chunk was begun in this run, by whoever died of it or was killed."""
        return stores.exists(self._mark(number, 0))

    def forget_begun(self) -> None:
        """Let what was begun before count no more: a new start may have mended why it was not committed."""
        names = [name for name in stores.list_sizes(self.folder) if name.startswith(MARK)]
        if names:
            with stores.stored(self.folder, "deleted") as (system, path):
                system.rm([f"{path}/{name}" for name in names])

    def _mark(self, number: int, n: int) -> str:
        return f"{self.folder}/{MARK}{self._name(number)}-{n}"

    def _url(self, number: int) -> str:
        return f"{self.folder}/{self._name(number)}"

    def _name(self, number: int) -> str:
        """With the run's identity: a machine that has not heard of the end of another run can do no harm."""
        return f"chunk-{number:08d}-{self.identity[:12]}"


def predict_to_chunks(
    predictor: Predictor,
    studies: Studies,
    out: str,
    *,
    fingerprint: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    run: Run | None = None,
) -> Counts:
    """Predict studies into `out`, and those that cannot be into `STEM.errors.jsonl`, through committed chunks.

    The files are equal to those of `predict_to_file`. Where `out` is a path, another process that writes it is refused;
    at a URL nothing can lock, and a second run of the same command would do the same work and write the same bytes.

    Args:
        predictor: Makes the predictions where no `run` is given; says the columns of csv and parquet.
        studies: What is to be predicted.
        out: A .jsonl, .csv or .parquet file: a path or an fsspec URL.
        fingerprint: Of the model and of options that change predictions; a resumed run must have the same.
        overwrite: Replace a finished `out`, and forget a killed run.
        progress: Called with (done, errors of this start).
        run: Commits chunks, here or elsewhere; default: this process, by this predictor.

    Raises:
        MmfuseError: The suffix is not legal, `out` exists, cannot be written, belongs to a run over other inputs, or
            another process is writing it.
    """
    check_suffix(out)
    identity = run_identity(fingerprint, predictor, studies)
    chunks = Chunks(out, identity, predictor.chunk, len(studies))
    with ExitStack() as held:
        if stores.is_local(out):
            held.enter_context(alone(Names.of(stores.local_path(out))))
        finished = _begin(chunks, overwrite, predictor.precision)
        if finished is None:
            chunks.forget_begun()
            todo = chunks.missing()
            done, errors = len(studies) - chunks.studies_in(todo), 0
            commit = run or (lambda _, numbers: commit_chunks(predictor, studies, chunks, numbers))
            try:
                for counts in commit(chunks, todo) if todo else ():
                    errors += counts["errors"]
                    done += counts["predictions"] + counts["errors"]
                    if progress:
                        progress(done, errors)
                finished = _join(chunks, predictor)
            except KeyboardInterrupt as stop:  # an actor may have committed more than it has told
                done = len(studies) - chunks.studies_in(chunks.missing()) if stores.is_local(out) else done
                raise stopped(done, len(studies)) from stop
        _remove(chunks.folder)
    return Counts.of(finished)


def commit_chunks(
    predictor: Predictor, studies: Studies, chunks: Chunks, numbers: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Predict and commit chunks in rising order, the next one read while one is predicted; gives the counts of each."""
    numbers = sorted(numbers)  # only the last of all may be short
    samples = (sample for number in numbers for sample in studies.read(*chunks.span(number)))
    found = predictor.chunks(samples)
    for number in numbers:
        yield chunks.commit(number, next(found, []))


def errors_of(out: str) -> str:
    """The file of those that could not be predicted: `STEM.errors.jsonl`."""
    return os.path.splitext(out)[0] + ".errors.jsonl"


def _begin(chunks: Chunks, overwrite: bool, precision: Precision) -> dict[str, Any] | None:
    """Claim the folder, or find that the same run has; gives its counts where only the clearing away is left."""
    if overwrite:
        _forget(chunks)
    if CLAIM not in stores.list_sizes(chunks.folder):
        _refuse_finished(chunks.out)
        _claim(chunks, None, precision)
        return None
    with stores.stored(chunks.folder, "read") as (system, path):
        claim = json.loads(system.cat_file(f"{path}/{CLAIM}"))
    if claim["identity"] != chunks.identity:
        raise MmfuseError(
            f"{chunks.folder}: a run over other inputs, another model or other options was interrupted here; choose "
            "another --out, or --overwrite to discard it"
        )
    return claim["finished"]


def _claim(chunks: Chunks, finished: dict[str, Any] | None, precision: Precision) -> None:
    claim = with_precision({"identity": chunks.identity, "finished": finished}, precision)
    stores.put(f"{chunks.folder}/{CLAIM}", json.dumps(claim).encode())


def _refuse_finished(out: str) -> None:
    if stores.is_local(out):
        names = Names.of(stores.local_path(out))
        names.refuse_finished()
        if names.progress.exists():
            raise MmfuseError(
                f"{names.progress}: a run with --engine local was interrupted here; resume it, choose another "
                "--out, or --overwrite"
            )
        return
    for url in (out, errors_of(out)):
        if stores.exists(url):
            raise exists_already(out, os.path.basename(url))
    for other in same_errors(out):
        if stores.exists(f"{other}.chunks/{CLAIM}"):
            raise interrupted(out, other)


def _forget(chunks: Chunks) -> None:
    """Delete what earlier runs left."""
    if stores.is_local(chunks.out):
        Names.of(stores.local_path(chunks.out)).forget()
        return
    for url in (chunks.out, errors_of(chunks.out)):
        with stores.stored(url, "deleted") as (system, path):
            if system.exists(path):
                system.rm_file(path)
    _remove(chunks.folder)


def _remove(folder: str) -> None:
    """Delete a folder of chunks; the claim last, so that a second start can end what a killed one had begun."""
    names = [name for name in stores.list_sizes(folder) if name != CLAIM]
    with stores.stored(folder, "deleted") as (system, path):
        if names:
            system.rm([f"{path}/{name}" for name in names])
        if system.exists(path):
            system.rm(path, recursive=True)


def _join(chunks: Chunks, predictor: Predictor) -> dict[str, Any]:
    """All chunks, in order, as the finished files; the errors first, as in `predict_to_file`. Gives the counts."""
    total = deepcopy(FRESH)
    with stores.writing(chunks.out) as good, stores.writing(errors_of(chunks.out)) as bad:

        def lines() -> Iterator[bytes]:
            for counts, predictions, errors in _fetched(chunks.read, iter(range(len(chunks)))):
                _add(total, counts)
                bad.write(errors)
                yield from io.BytesIO(predictions)

        write_rows(good, lines(), os.path.splitext(chunks.out)[1], predictor)
    _claim(chunks, total, predictor.precision)
    return total


def _add(total: dict[str, Any], counts: dict[str, Any]) -> None:
    for name, value in counts.items():
        if name == "reasons" and isinstance(value, dict):  # a task may have that name
            for kind, count in value.items():
                add_kind(total[name], kind, count)
        elif isinstance(value, dict):
            _add(total[name], value)
        else:
            total[name] = total.get(name, 0) + value


def _fetched(read: Callable[[int], Any], numbers: Iterator[int]) -> Iterator[Any]:
    """What `read` gives of each, in order, some of them read ahead."""
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[Future] = deque(pool.submit(read, number) for number in islice(numbers, AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, number) for number in islice(numbers, 1))
