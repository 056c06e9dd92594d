"""A run's folder: one process trains there, and a run that has not begun leaves it free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from filelock import FileLock, Timeout

from mmfuse.config import Config, config_to_dict
from mmfuse.config.parsing import nested_in
from mmfuse.data.given import ROWS, OwnData, read_here
from mmfuse.training.checkpoint import Checkpoints
from mmfuse.training.restart import BEFORE, clear, put_back, set_aside, throw_away
from mmfuse.types import MmfuseError, Stopped

LOCK = ".mmfuse-lock"
_FIRST = (
    *("config.yaml", "manifest.yaml", "splits.csv", "shards.json", "synonyms.yaml", "environment.json"),
    *("precision.json", "precision.tmp", ROWS, f"{ROWS}.tmp"),
)
"""What a run writes before its first step."""
_WHERE = (
    "output_dir",
    "data.num_workers",
    "cache.dir",
    "cache.enabled",
    "processes",
    "training.gradient_checkpointing",
    "training.trackers",
)
C = TypeVar("C")


def has_begun(run_dir: Path) -> bool:
    """Whether a run has taken a step there: until then its folder is free for any other."""
    log = run_dir / "metrics.jsonl"
    return any((run_dir / "checkpoints").glob("step_*/state.json")) or (log.is_file() and log.stat().st_size > 0)


def tell_kept(run_dir: Path, step: int | None = None) -> str:
    """What a run that is stopped leaves behind, in words.

    Args:
        run_dir: Its folder.
        step: The steps it has done; None where it was not training.
    """
    if not has_begun(run_dir):
        return "stopped before the first step; nothing is kept"
    at = "stopped" if step is None else f"stopped at step {step}"
    last = Checkpoints(run_dir / "checkpoints").last_step()
    if last is None:
        return f"{at}; no checkpoint was due yet, and the same command begins again"
    return f"{at}; the checkpoint of step {last} is kept; the same command resumes"


@contextmanager
def claimed(
    run_dir: Path, config: Config, restart: bool, accelerator: Accelerator, own: OwnData | None = None
) -> Iterator[Callable[[], None]]:
    """The run's folder, for this run alone; all of its processes ask, and the main one holds the lock.

    A run that ends before its first step, for whatever reason, leaves the folder as it was found; a manifest and rows
    in it which the config itself reads stay in any case. Gives what is called once all is set up, and the first step is
    next: then a run that is restarted is thrown away.

    Args:
        run_dir: The folder.
        config: The run's.
        restart: Throw away what is there.
        accelerator: Tells which process this is, and what the main one has found to the others.
        own: What is to lie there for the config to read; of a run that is gone on with, it must be what lies there.

    Raises:
        MmfuseError: On all processes alike: another process trains there, it holds another run, or cannot be written.
        Stopped: A KeyboardInterrupt, with what is kept.
    """
    was_there, held, new, done, found = run_dir.is_dir(), None, False, False, None
    kept = read_here(run_dir, config.data.manifest) if own is None else ()
    stay = [*kept, "config.yaml"] if kept and (run_dir / "config.yaml").is_file() else kept
    try:
        if accelerator.is_main_process:
            try:
                held = _lock(run_dir)
                new = _claim(run_dir, config, restart, kept, own)
            except Exception as error:
                found = error
        said: list[Any] = [found and (str(found) or type(found).__name__)]
        if accelerator.num_processes > 1:
            broadcast_object_list(said)
        if said[0]:
            raise found or MmfuseError(said[0])
        yield lambda: throw_away(run_dir) if held is not None else None
        done = True
    except Stopped:  # in training, where the step is known
        raise
    except KeyboardInterrupt as stop:
        raise Stopped(tell_kept(run_dir)) from stop
    finally:
        if held is not None:
            if not done and not has_begun(run_dir):
                if new:
                    clear(run_dir, LOCK, *stay)
                put_back(run_dir, LOCK, *kept)
            (run_dir / LOCK).unlink(missing_ok=True)
            held.release()
            if not done and not was_there and not any(run_dir.iterdir()):
                run_dir.rmdir()


def _lock(run_dir: Path) -> FileLock:
    """Held by the system for the process that has it: one that is killed leaves none behind."""
    lock = FileLock(run_dir / LOCK)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise MmfuseError(
            f"{run_dir}: another process is training here; wait for it, or choose another name or output_dir"
        ) from None
    except OSError as error:
        raise MmfuseError(f"output_dir: {run_dir} cannot be written: {error.strerror or error}") from error
    return lock


def _claim(run_dir: Path, config: Config, restart: bool, kept: Collection[str], own: OwnData | None) -> bool:
    """Make the folder ours: for a run that begins (True), or one of the same config, to be gone on with (False)."""
    values = config_to_dict(config)
    path = run_dir / "config.yaml"
    if (run_dir / BEFORE).is_dir() and not has_begun(run_dir):
        put_back(run_dir, LOCK, *kept)  # a --restart was killed before its first step
    throw_away(run_dir)
    if path.is_file() and _is_left_over(run_dir, values):
        clear(run_dir, LOCK, *kept)
    elif path.is_file() and restart and _is_run(run_dir, values):
        set_aside(run_dir, LOCK, *kept)
    if path.is_file() and _is_run(run_dir, values):
        then, now = flat_config(with_defaults(read_config(path), Config)), flat_config(values)
        differs = [key for key in now | then if now.get(key) != then.get(key)]
        if differs:
            was, is_now = then.get(differs[0]), now.get(differs[0])
            raise MmfuseError(
                f"{run_dir}: holds a run with another config ({differs[0]} was {was!r}, is now {is_now!r}); choose "
                "another name or output_dir, or --restart to discard it"
            )
        if own is not None:
            own.check_same(run_dir)
        return False
    if any(child.name not in (LOCK, BEFORE, *kept) for child in run_dir.iterdir()):
        raise MmfuseError(f"{run_dir}: not empty, and not a run of mmfuse; choose another output_dir")
    scratch = run_dir / "config.tmp"  # half of it would be another run's
    try:
        scratch.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise MmfuseError(f"output_dir: {run_dir} cannot be written: {error.strerror}") from error
    if own is not None:
        try:
            own.place(run_dir)
        except MmfuseError:
            clear(run_dir, LOCK)
            raise
    return True


def _is_run(run_dir: Path, values: dict[str, Any]) -> bool:
    """Whether what is there is a run's, be its config damaged or not."""
    return (run_dir / "environment.json").is_file() or has_begun(run_dir) or _written(run_dir, values) is not None


def _is_left_over(run_dir: Path, values: dict[str, Any]) -> bool:
    """Whether what is there is of a run that was killed before its first step; a `config.yaml` may be the user's."""
    then = None if has_begun(run_dir) else _written(run_dir, values)
    if then is None:
        return False
    ours = {*_FIRST, LOCK, "metrics.jsonl", "checkpoints", str(then.get("name"))}
    return all(child.name in ours for child in run_dir.iterdir())


def _written(run_dir: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """The config there, if a run wrote it; many a folder has a `config.yaml`, and other files that must stay."""
    try:
        then = read_config(run_dir / "config.yaml")
    except MmfuseError:
        return None
    return then if isinstance(then, dict) and flat_config(values).keys() <= flat_config(then).keys() else None


def read_config(path: Path) -> Any:
    """What stands in a run's `config.yaml`.

    Raises:
        MmfuseError: It is damaged.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise MmfuseError(f"{path}: damaged; put it back, or --restart to discard the run") from error


def as_begun(config: C, run_dir: Path) -> C:
    """The config, but what a run there was begun with before there was a key for it, where the key is at its default.

    Args:
        config: A run's or a benchmark's.
        run_dir: Its folder; what is there is gone on with.

    Raises:
        MmfuseError: The config there is damaged.
    """
    path = run_dir / "config.yaml"
    return _as_before(config, read_config(path)) if path.is_file() else config


def _as_before(config: C, then: Any) -> C:
    if not isinstance(then, dict):
        return config
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        now = getattr(config, item.name)
        if dataclasses.is_dataclass(now):
            changes[item.name] = _as_before(now, then.get(item.name))
        elif "before" in item.metadata and item.name not in then and now == item.default:
            changes[item.name] = item.metadata["before"]
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def with_defaults(values: Any, schema: type) -> Any:
    """A config that was written, with the keys that came later as they were before, or at their defaults.

    Args:
        values: What stands in the file.
        schema: Its dataclass.
    """
    if not isinstance(values, dict):
        return values
    hints, found = get_type_hints(schema), dict(values)
    for item in dataclasses.fields(schema):
        nested, by_name = nested_in(hints[item.name])
        if nested is not None and by_name:
            own = found.get(item.name) or {}
            found[item.name] = {name: with_defaults(each, nested) for name, each in own.items()}
        elif nested is not None:
            found[item.name] = with_defaults(found.get(item.name, {}), nested)
        elif item.name not in found and item.default is not dataclasses.MISSING:
            found[item.name] = item.metadata.get("before", item.default)
        elif item.name not in found:
            found[item.name] = item.default_factory()  # type: ignore[misc]
    return found


def flat_config(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as `a.b.c` -> value; what only says where things are told, and how fast, is left out."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat_config(value, f"{prefix}.{key}" if prefix else str(key))
    return {k: v for k, v in found.items() if k not in _WHERE}


def check_shared(run_dir: Path, step: int | None) -> None:
    """Refuse, on all processes, a folder in which they do not find the same run and checkpoint.

    Args:
        run_dir: The run's.
        step: Of the last checkpoint that this process finds there; None if there is none.

    Raises:
        MmfuseError: They find different ones.
    """
    there = (run_dir / "config.yaml").is_file()
    found = f"step {step}" if step is not None else "no checkpoint" if there else "no run"
    first, *others = gather_object([found])
    for process, other in enumerate(others, 1):
        if other != first:
            raise MmfuseError(
                f"output_dir: in {run_dir} process 0 finds {first}, process {process} {other}: it must be on a disk "
                "that all machines share"
            )
