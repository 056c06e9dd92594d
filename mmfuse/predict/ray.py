"""Chunks of studies predicted by actors of Ray Data, on this machine or on a cluster (extra `ray`)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmfuse.predict.chunks import Chunks, commit_chunks
from mmfuse.predict.files import fingerprint
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.studies import Studies
from mmfuse.registry import load_plugin
from mmfuse.types import MmfuseError

try:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # else it prints a paragraph on every actor that dies,
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # and a warning on how Ray Data itself makes actors
    import ray
    import ray.data
    import ray.data.exceptions
except ImportError as error:
    raise MmfuseError('--engine ray: Ray is not installed; pip install "mmfuse[ray]"') from error

CPUS = 4
"""Of an actor, where nothing is said and there are as many."""
TASK = 8
"""Chunks that an actor is given at once at most; it reads the next of them while it predicts one."""
COUNTS = ("predictions", "errors")
"""What is told of a chunk."""
STORE_BYTES = 128 * 2**20
"""Of a local cluster's object store, through which nothing but counts goes."""


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

    An actor that dies is started again and begins its task anew.

    Args:
        work: What is done; its paths must be legal on every machine.
        actors: How many do it.
        tell: Called with a line that says that.

    Raises:
        MmfuseError: There is no such cluster, it has not what an actor needs, or an actor cannot do its work.
    """

    def run(chunks: Chunks, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        with _cluster() as ours, _in_one_line():
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
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for problem in filter(None, batch["problem"]):
                    raise MmfuseError(str(problem))
                yield {name: int(batch[name].sum()) for name in COUNTS}

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
        nothing: dict[str, list[Any]] = {"predictions": [0], "errors": [0], "problem": [""]}
        try:
            if self.problem:
                raise MmfuseError(self.problem)
            for counts in commit_chunks(self.predictor, self.work.studies, self.chunks, batch["chunk"].tolist()):
                yield {**nothing, **{name: [counts[name]] for name in COUNTS}}
        except MmfuseError as error:  # raised, it would reach the user as Ray's traceback
            yield {**nothing, "problem": [f"{socket.gethostname()}: {error}"]}


def _load(work: Work, chunks: Chunks, threads: int) -> Predictor:
    for path in work.plugins:
        load_plugin(Path(path))
    predictor = Predictor.from_pretrained(work.model, chunk=chunks.size, threads=threads, **work.options)
    found = fingerprint(predictor.model, predictor.missing, work.options.get("abstain"))
    if found != work.fingerprint:
        raise MmfuseError(f"{work.model}: another model than where the run was started; copy that one here")
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
def _cluster() -> Iterator[bool]:
    """The one this process is connected to, else that of RAY_ADDRESS, else, and then it gives True, one of our own."""
    if ray.is_initialized():
        yield False
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if address:
            _reach(address)
        with _hushed():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS {address}" if address else "--engine ray"
        raise MmfuseError(f"{where}: no cluster: {_last_line(error.__cause__ or error)}") from error
    try:
        yield not address
    finally:
        ray.shutdown()


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
            what = "no chunk was done for long: actors find no room, or die of the same chunk again and again"
        raise MmfuseError(f"--engine ray: {what}; the same command goes on") from error


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:400]
