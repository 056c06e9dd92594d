"""Chunks of studies predicted by actors of Ray Data, on this machine or on a cluster (extra `ray`)."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmfuse.extras import extra
from mmfuse.memory import keep_memory
from mmfuse.predict.chunks import DEADLY, Chunks, commit_chunks
from mmfuse.predict.files import fingerprint
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.studies import Studies
from mmfuse.registry import load_plugin
from mmfuse.types import MmfuseError

with extra("ray", "--engine ray: Ray is not installed"):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # else it prints a paragraph on every actor that dies,
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # and a warning on how Ray Data itself makes actors
    import ray
    import ray.data
    import ray.data.exceptions
    import ray.exceptions

CPUS = 4
"""Of an actor, where nothing is said and there are as many."""
TASK = 8
"""Chunks that an actor is given at once at most; it reads the next of them while it predicts one."""
COUNTS = ("predictions", "errors")
"""What is told of a chunk; and a `problem`, which ends the run, and whether it is `deadly`."""
GRACE = 30.0
"""Seconds from SIGTERM to the end of the process."""
STORE_BYTES = 128 * 2**20
"""Of a local cluster's object store, through which go the list of studies, once an actor, and counts."""


@dataclass(frozen=True)
class Actors:
    """How many there are and what each of them has; None is found out from the cluster.

    Attributes:
        count: One per GPU or share of one; without GPUs, one per `CPUS` CPUs.
        gpus: Of each, may be a fraction.
        cpus: Of each; as many threads compute, unless OMP_NUM_THREADS says how many.
    """

    count: int | None = None
    gpus: float | None = None
    cpus: float | None = None


class Plan(NamedTuple):
    """How many actors there are, and CPUs and GPUs of each."""

    count: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Work:
    """What every actor gets, once.

    Attributes:
        model: Folder or Hub id, the same on every machine.
        studies: What is predicted.
        fingerprint: Of the model and options; an actor that finds another model does not begin.
        options: Of `Predictor.from_pretrained`.
        plugins: Files to load first.
    """

    model: str
    studies: Studies
    fingerprint: str
    options: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()


def run_on_ray(
    work: Work, actors: Actors = Actors(), tell: Callable[[str], None] = lambda _: None
) -> Callable[[Chunks, Sequence[int]], Iterator[dict[str, Any]]]:
    """A `run` of `predict_to_chunks`: on the cluster that RAY_ADDRESS names, else on one of this machine.

    An actor that dies is started again and begins its task anew. A chunk of which actors die again and again is left
    out until all others are committed.

    Args:
        work: What is done; its paths must be legal on every machine.
        actors: How many do it.
        tell: Called with a line that says that.

    Raises:
        MmfuseError: There is no such cluster, it has not what an actor needs, an actor cannot do its work, or actors
            die of a chunk.
    """

    def run(chunks: Chunks, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        with _second_interrupt_leaves(), _cluster() as ours, _in_one_line():
            found: Any = ray.cluster_resources()
            cpus, gpus = found.get("CPU", 0.0), found.get("GPU", 0.0)
            chosen = plan_actors(actors, cpus, gpus, work.options.get("device"))
            if ours:  # another cluster may grow
                _check(chosen, cpus, gpus)
            tell(
                f"{chosen.count} actor(s) of {chosen.cpus:g} CPUs and {chosen.gpus:g} GPUs; the cluster has {cpus:g} "
                f"CPUs and {gpus:g} GPUs"
            )
            size = max(1, min(TASK, len(numbers) // (4 * chosen.count)))
            blocks = -(-len(numbers) // size)
            tasks = ray.data.from_items([{"chunk": number} for number in numbers], override_num_blocks=blocks)
            tasks.context.enable_progress_bars = False
            tasks.context.target_max_block_size = 1  # counts are told as they come, not at the end of a task
            threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else max(1, int(chosen.cpus))
            given = ray.put((work, chunks, threads))
            done = tasks.map_batches(
                ChunkActor,
                batch_size=size,
                fn_constructor_args=([given],),  # in a list: Ray itself would not give it to an actor it starts again
                compute=ray.data.ActorPoolStrategy(size=min(chosen.count, blocks)),
                num_cpus=chosen.cpus,
                num_gpus=chosen.gpus or None,
            )
            batch: Any
            deadly: list[int] = []
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for problem in filter(None, batch["problem"]):
                    raise MmfuseError(str(problem))
                deadly += [int(number) for number in batch["deadly"] if number >= 0]
                yield {name: int(batch[name].sum()) for name in COUNTS}
        if deadly:
            raise MmfuseError(_tell_deadly(work.studies, chunks, sorted(deadly)))

    return run


class ChunkActor:
    """Loads the model once, and then predicts and commits what chunks it is given.

    Args:
        given: One reference to its `Work`, the `Chunks` and how many threads compute.
    """

    def __init__(self, given: list[Any]):
        self.work, self.chunks, threads = ray.get(given[0])
        self.problem = ""
        torch.set_num_threads(threads)
        try:
            self.predictor = _load(self.work, self.chunks, threads)
        except MmfuseError as error:
            self.problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Counts of each of the chunks of these numbers as it is committed, or what hinders it."""
        nothing: dict[str, list[Any]] = {"predictions": [0], "errors": [0], "problem": [""], "deadly": [-1]}
        numbers = sorted(batch["chunk"].tolist())
        try:
            if self.problem:
                raise MmfuseError(self.problem)
            if any(self.chunks.begun(number) for number in numbers):  # one at a time, to see of which they die
                for number in numbers:
                    counts = self._carefully(number)
                    yield {**nothing, **({"deadly": [number]} if counts is None else _told(counts))}
                return
            self.chunks.begin(numbers[0])
            for i, counts in enumerate(commit_chunks(self.predictor, self.work.studies, self.chunks, numbers), 1):
                if i < len(numbers):
                    self.chunks.begin(numbers[i])
                yield {**nothing, **_told(counts)}
        except MmfuseError as error:  # raised, it would reach the user as Ray's traceback
            yield {**nothing, "problem": [f"{socket.gethostname()}: {error}"]}

    def _carefully(self, number: int) -> dict[str, Any] | None:
        """Its counts; None where those who began it died."""
        if self.chunks.committed(number):
            return self.chunks.read(number)[0]
        if self.chunks.begin(number) >= DEADLY:
            return None
        return next(commit_chunks(self.predictor, self.work.studies, self.chunks, [number]))


def _told(counts: dict[str, Any]) -> dict[str, list[int]]:
    return {name: [counts[name]] for name in COUNTS}


def _tell_deadly(studies: Studies, chunks: Chunks, numbers: list[int]) -> str:
    """Which studies are in the first of these chunks, and how many others there are."""
    start, stop = chunks.span(numbers[0])
    ids = list(islice(studies.ids(), start, stop))
    more = f", and {len(numbers) - 1} more such chunks" if len(numbers) > 1 else ""
    return (
        f"--engine ray: {DEADLY} actors died of the studies {ids[0]!r} to {ids[-1]!r} ({len(ids)} in the order of the "
        f"results){more}; all others are committed; remove what kills them, or give actors more memory: the same "
        "command tries these again"
    )


def _load(work: Work, chunks: Chunks, threads: int) -> Predictor:
    keep_memory()
    for path in work.plugins:
        load_plugin(Path(path))
    predictor = Predictor.from_pretrained(work.model, chunk=chunks.size, threads=threads, **work.options)
    chosen = (work.options.get("abstain"), work.options.get("operating_point"))
    found = fingerprint(predictor.model, predictor.missing, *chosen, predictor.precision)
    if found != work.fingerprint:
        raise MmfuseError(f"{work.model}: not the model with which the run was started; copy that model here")
    return predictor


def plan_actors(wanted: Actors, cpus: float, gpus: float, device: str | None = None) -> Plan:
    """Fill in what was not said.

    Args:
        wanted: None is what was not said.
        cpus: Of the cluster.
        gpus: Of the cluster.
        device: Where the model runs; on "cpu" it needs no GPU.

    Returns:
        All of it, whether or not the cluster has so much.
    """
    of_gpu = (1.0 if gpus and device != "cpu" else 0.0) if wanted.gpus is None else wanted.gpus
    count = wanted.count or max(1, int(gpus // of_gpu if of_gpu else cpus // (wanted.cpus or CPUS)))
    share = cpus / count
    return Plan(count, wanted.cpus or min(CPUS, int(share) or share) or 1.0, of_gpu)


def _check(chosen: Plan, cpus: float, gpus: float) -> None:
    """Refuse what this machine has not: Ray would wait for it without end."""
    for what, each, there in (("CPU", chosen.cpus, cpus), ("GPU", chosen.gpus, gpus)):
        if each * chosen.count > there + 1e-6:
            raise MmfuseError(
                f"{chosen.count} actor(s) of {each:g} {what}s: this machine has {there:g}; fewer --actors, or smaller "
                f"--{what.lower()}s-per-actor"
            )


@contextmanager
def _second_interrupt_leaves() -> Iterator[None]:
    """Ctrl-C may be lost in Ray's threads, or in waiting for them: the second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield
        return

    def first(*_: Any) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _cluster() -> Iterator[bool]:
    """The one this process is connected to, else that of RAY_ADDRESS, else, and then it gives True, one of our own."""
    if ray.is_initialized():
        yield False
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _reach(address)
        with _hushed():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"RAY_ADDRESS {address}" if address else "--engine ray"
        what = _last_line(error.__cause__ or error)
        if "token" in str(error).lower():  # of Ray's AuthenticationError, and of what it raises where it has none
            what = (
                "it wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on the head "
                f"({what[:160]})"
            )
        raise MmfuseError(f"{where}: no cluster: {what}") from error
    _heed_sigterm(sigterm)
    try:
        yield not address
    finally:
        ray.shutdown()


def _heed_sigterm(before: Any) -> None:
    """Let SIGTERM do what it did before Ray set a way of its own; where Ray loses that, the process ends after all."""
    if threading.current_thread() is not threading.main_thread():
        return

    def stop(number: int, frame: Any) -> None:
        late = threading.Timer(GRACE, os._exit, (128 + number,))
        late.daemon = True
        late.start()
        before(number, frame)

    signal.signal(signal.SIGTERM, stop if callable(before) else before)


def _reach(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's core writes to the file descriptor of standard error, past Python, even that it will be quiet."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except MmfuseError:
        raise
    except Exception as error:  # those of Ray, of Ray Data and of an actor have no base in common
        what = _last_line(error)
        if isinstance(error, getattr(ray.data.exceptions, "ExecutionTimeoutError", ())):
            what = "no chunk was done for long: actors find no room, or die as they start"
        raise MmfuseError(f"--engine ray: {what}; the same command resumes") from error


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:400]
