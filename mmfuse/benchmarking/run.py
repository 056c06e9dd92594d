"""A benchmark from its config to its report: any number of processes may run the same one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from rich.console import Console

from mmfuse.benchmarking.analysis import analyse, check_margin, check_task
from mmfuse.benchmarking.built_in import prepare_interactions
from mmfuse.benchmarking.cells import Workshop, run_cell
from mmfuse.benchmarking.config import BenchmarkConfig, is_built_in, load_benchmark_config
from mmfuse.benchmarking.covariates import KINDS, covariates_of
from mmfuse.benchmarking.estimate import describe_plan
from mmfuse.benchmarking.ledger import Ledger
from mmfuse.benchmarking.plan import COVARIATES, Cell, Plan, make_plan
from mmfuse.benchmarking.report import write_report
from mmfuse.data.given import MANIFEST, ROWS, OwnData, read_here
from mmfuse.evaluation.analyses import choose_analyses
from mmfuse.predict.processes import RANKS, SIZES, launched
from mmfuse.pulse import now
from mmfuse.registry import load_plugin
from mmfuse.training.build import assemble
from mmfuse.training.checkpoint import FullDiskError
from mmfuse.training.choices import check_choices
from mmfuse.training.claim import as_begun, flat_config, read_config, with_defaults
from mmfuse.training.launch import heed_launch
from mmfuse.training.origin import commit
from mmfuse.training.precision import KEPT
from mmfuse.training.restart import BEFORE, clear, put_back, set_aside, throw_away
from mmfuse.types import MmfuseError, Stopped

WAIT_SECONDS = 1.0
FREE = ("seeds", "resamples", "margin")
"""Keys that no finished cell depends on: a benchmark may be gone on with under others, with more seeds for example."""
LIBRARIES = ("mmfuse", "torch", "transformers", "timm", "accelerate", "numpy", "scipy")
PATIENCE = 10.0
"""Seconds that a process has to end itself before it is killed."""
_LAUNCHED = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        dir: Its folder, with `results.jsonl`, `summary.json`, `report.html`, and what goes into a paper.
        summary: What the report says, as plain values.
    """

    dir: Path
    summary: dict[str, Any]


def benchmark(
    config: BenchmarkConfig | str | Path | dict[str, Any],
    overrides: Iterable[str] = (),
    *,
    restart: bool = False,
    force: bool = False,
    own: OwnData | None = None,
) -> Benchmark:
    """Compare fusion strategies on equal terms, or go on with a comparison that was interrupted.

    Args:
        config: A config, the path of one, or its values.
        overrides: `key=value` strings on top of it.
        restart: Throw away what is in the benchmark's folder.
        force: Go on where groups or exact duplicates stand in two splits; the report says so.
        own: A manifest with its rows that is to lie in the benchmark's folder, where the config names it.

    Returns:
        The benchmark, when every cell is done; a cell that failed is a row with its reason.

    Raises:
        MmfuseError: The config or the data are not legal, or the folder holds another benchmark.
    """
    config = heed_launch(load_benchmark_config(config, overrides))
    others = _stand_alone(config.processes)
    for plugin in config.plugins:
        load_plugin(plugin)
    folder = config.run_dir
    if not restart and (folder / "fingerprints.json").is_file():
        config = as_begun(config, folder)
    kept = read_here(folder, config.data.manifest) if own is None else ()
    claimed = _claim(folder, config, restart, kept, own)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        workshop, plan = _open(config, force, console)
        _check_unchanged(folder, workshop)
        workshop.choose_precision(folder)
    except BaseException:
        if claimed:  # nothing was begun: the mended config may have the folder
            for name in ("config.yaml", "fingerprints.json", KEPT, *((MANIFEST, ROWS) if own else ())):
                (folder / name).unlink(missing_ok=True)
            put_back(folder, "lock", *kept)
        raise
    throw_away(folder)
    ledger = Ledger(folder)
    _check_rows(plan, ledger)
    if workshop.manifest.subgroups and COVARIATES not in plan.rows:
        console.print(f"no row {COVARIATES}: it is for {', '.join(KINDS)}, of subgroups that are no target")
    try:
        with _helpers(0 if others else config.processes - 1, folder, force):
            _work(workshop, plan, ledger, console)
    except KeyboardInterrupt as stop:
        done, cells = sum(map(ledger.done, plan.cells)), len(plan.cells)
        raise Stopped(f"stopped; {done} of {cells} cells are kept; the same command resumes") from stop
    ledger.mend(plan.cells)
    console.print("all cells are done; comparing")
    now("comparing")
    summary = analyse(workshop, plan, ledger)
    summary |= {"name": config.name, "provenance": _provenance(workshop, plan)}
    analyses = {r["row"]: r["analyses"] for r in ledger.read(plan.cells).values() if r.get("analyses")}
    summary |= {"analyses": analyses} if analyses else {}
    with FileLock(folder / "lock"):
        _replace(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
        write_report(folder, summary)
    return Benchmark(folder, summary)


def work(folder: str | Path, force: bool = False) -> None:
    """Help with the benchmark in `folder` until no cell is left to begin; the one who began it writes the report."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    config = as_begun(load_benchmark_config(Path(folder) / "config.yaml"), Path(folder))
    _stand_alone(config.processes)
    for plugin in config.plugins:
        load_plugin(plugin)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    workshop, plan = _open(config, force, console)
    workshop.choose_precision(config.run_dir)
    _work(workshop, plan, Ledger(config.run_dir), console)


def dry_run(
    config: BenchmarkConfig | str | Path | dict[str, Any], overrides: Iterable[str] = (), *, force: bool = False
) -> str:
    """What a benchmark would do: its rows with their sizes, cells, time and disk; no cell is begun.

    Time is measured on a few steps of each strategy with random features. The built-in dataset and its encoders are
    made, as their sizes are not known before.

    Raises:
        MmfuseError: The config or the data are not legal.
    """
    config = heed_launch(load_benchmark_config(config, overrides))
    _stand_alone(config.processes)
    for plugin in config.plugins:
        load_plugin(plugin)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    workshop, plan = _open(config, force, console)
    return describe_plan(config, workshop, plan, workshop.widths())


def _open(config: BenchmarkConfig, force: bool, console: Console) -> tuple[Workshop, Plan]:
    """The rows and the plan; all that can be found wrong with them is found here, before anything is trained."""
    now("reading the rows")
    if is_built_in(config):
        config = prepare_interactions(config, console.print)
    workshop = Workshop(config, console.print, force)
    table = workshop.table(workshop.folds[0])
    for task in table.labels:
        check_task(workshop, task)
    check_margin(workshop, table.labels)
    for analysis in choose_analyses(config.evaluation.analyses or []).values():
        analysis.check(table)
    labels = all(table.kind(task).has_labels for task in table.labels)
    covariates = covariates_of(table)
    plan = make_plan(config, workshop.widths(), workshop.folds, labels=labels, covariates=covariates)
    _check_choices(workshop, plan)
    return workshop, plan


def _check_choices(workshop: Workshop, plan: Plan) -> None:
    """Refuse, before a cell is begun, what the training of a row would refuse."""
    config, fold = workshop.config.run_config({}, 0, Path(".")), workshop.folds[0]
    table, towers = workshop.table(fold), workshop.towers(config, fold)
    for row in plan.rows.values():
        if row.label == COVARIATES:
            continue
        own = dataclasses.replace(config, fusion=row.fusion)
        try:
            check_choices(own, assemble(own, table, *towers), table)
        except MmfuseError as error:
            raise MmfuseError(f"strategy {row.label}: {error}") from error


def _check_unchanged(folder: Path, workshop: Workshop) -> None:
    """Refuse to go on where rows or plug-ins are no longer what finished cells were trained and tested on.

    Raises:
        MmfuseError: They have changed.
    """
    now = {str(workshop.manifest.source): workshop.fingerprint()}
    now |= {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in workshop.config.plugins}
    path = folder / "fingerprints.json"
    then = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if then is None:
        _replace(path, json.dumps(now, indent=1) + "\n")
    elif sorted(then.values()) != sorted(now.values()):
        changed = next((name for name in now if now[name] not in then.values()), next(iter(now)))
        raise MmfuseError(
            f"{folder}: {changed} has changed since this benchmark began (for a manifest: its rows, labels or splits); "
            "choose another output_dir, or --restart to discard it"
        )


def _check_rows(plan: Plan, ledger: Ledger) -> None:
    """Refuse finished cells of a strategy that is no longer the same.

    Raises:
        MmfuseError: A finished cell had other options, parameters or MACs than its row has now.
    """
    for key, result in ledger.read(plan.cells).items():
        row = plan.rows[result["row"]]
        for name in ("fusion", "parameters", "macs"):
            if result[name] != getattr(row, name):
                raise MmfuseError(
                    f"{ledger.folder}: {key} was run with {name} {result[name]}, but would now have "
                    f"{getattr(row, name)}; choose another output_dir, or --restart to discard it"
                )


def _work(workshop: Workshop, plan: Plan, ledger: Ledger, console: Console) -> None:
    """Run cells until all are done, or are being worked on by others who do not fail."""
    begun, trained = time.monotonic(), 0.0
    while True:
        left = [cell for cell in plan.cells if not ledger.done(cell)]
        if not left:
            return
        for cell in left:
            if cell.trial is None and not all(ledger.done(c) for c in _trials(plan, cell.row)):
                continue
            lock = ledger.claim(cell)
            if lock is None:
                continue
            try:
                result = _run(workshop, plan, ledger, cell)
            finally:
                lock.release()
            trained += result.get("seconds", 0.0)
            done = ledger.read(plan.cells)
            left = _seconds_left(plan, done) * (time.monotonic() - begun) / trained if trained else 0.0
            minutes = f"; about {left / workshop.config.processes / 60:.0f} min left" if left else ""
            console.print(f"{len(done)}/{len(plan.cells)} {_said(cell, result)}{minutes}")
            break
        else:
            now("waiting for cells of other processes", len(plan.cells) - len(left), len(plan.cells))
            time.sleep(WAIT_SECONDS)  # the rest is being worked on


def _seconds_left(plan: Plan, done: dict[str, dict[str, Any]]) -> float:
    """Of training: each cell takes what its row has taken, else what the others have."""
    taken: dict[str, list[float]] = {}
    for result in done.values():
        if "seconds" in result:
            taken.setdefault(result["row"], []).append(result["seconds"])
    mean = {row: sum(seconds) / len(seconds) for row, seconds in taken.items()}
    other = sum(mean.values()) / max(1, len(mean))
    return sum(mean.get(cell.row, other) for cell in plan.cells if cell.key not in done)


def _trials(plan: Plan, row: str) -> list[Cell]:
    return [cell for cell in plan.cells if cell.trial is not None and cell.row == row]


def _run(workshop: Workshop, plan: Plan, ledger: Ledger, cell: Cell) -> dict[str, Any]:
    """One cell's result, put into place; a failure is a result with its reason."""
    scratch = ledger.scratch(cell)
    row = plan.rows[cell.row]
    head = {
        "row": cell.row,
        "seed": cell.seed,
        "fold": cell.fold,
        "trial": cell.trial,
        "fusion": row.fusion,
        "interaction": row.interaction,
        "parameters": row.parameters,
        "macs": row.macs,
        "matched": row.matched,
    }
    try:
        found = {"status": "done", **run_cell(workshop, plan, cell, scratch, _best_trial(plan, ledger, cell.row))}
    except FullDiskError:  # no cell's fault
        raise
    except Exception as error:
        (scratch / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        reason = (str(error).strip().splitlines() or [""])[0]
        found = {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}
    result = {**head, **found}
    ledger.finish(cell, result)
    return result


def _best_trial(plan: Plan, ledger: Ledger, row: str) -> dict[str, Any]:
    """The training options of the trial that was best on validation; the config's own where there are no trials."""
    results = ledger.read(_trials(plan, row)).values()
    done = [r for r in results if r["status"] == "done" and r["validation"] is not None]
    return max(done, key=lambda r: r["validation"])["options"] if done else {}


def _said(cell: Cell, result: dict[str, Any]) -> str:
    if result["status"] == "failed":
        return f"{cell.key} FAILED: {result['reason']}"
    return f"{cell.key}: {result['steps']} steps, {result['seconds']:.0f} s"


def _stand_alone(processes: int) -> bool:
    """Each process trains its own cells: what a launcher says of ranks is not for us, but for the GPU to take.

    Returns:
        Whether there is a launcher, who has started the other processes.
    """
    rank, others = os.environ.get("LOCAL_RANK"), launched() > 1
    for name in (*SIZES, *RANKS, *_LAUNCHED):
        os.environ.pop(name, None)
    if rank is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())
    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    return others


def one_gpu(number: int) -> dict[str, str]:
    """What a helper's environment must say so that helpers take the GPUs in turn; nothing where there are not several.

    Args:
        number: Of the helper, from 1: the process that starts them has the first GPU.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",")[:count] if named else [str(gpu) for gpu in range(count)]
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)].strip()}


@contextmanager
def _helpers(count: int, folder: Path, force: bool) -> Iterator[None]:
    """So many processes that help, until the work is done; where it is not, they are ended."""
    command = [sys.executable, "-m", "mmfuse.cli", "benchmark", str(folder / "config.yaml"), "--worker"]
    command += ["--force"] if force else []
    helpers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **one_gpu(number)})
        for number in range(1, count + 1)
    ]
    try:
        yield
        for helper in helpers:
            helper.wait()
    except BaseException:
        for helper in helpers:
            helper.terminate()
        for helper in helpers:
            try:
                helper.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                helper.kill()
                helper.wait()
        raise
    finally:
        for helper in helpers:
            if helper.stdin is not None:
                helper.stdin.close()


def _end_with_starter() -> None:
    """End this process when the one that started it is gone, in whatever way: then its standard input ends."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _claim(folder: Path, config: BenchmarkConfig, restart: bool, kept: Collection[str], own: OwnData | None) -> bool:
    """Make the folder ours: new (True), or of the same benchmark, to be gone on with (False)."""
    values = {**dataclasses.asdict(config), "output_dir": str(folder)}
    path = folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        ours = path.is_file() and ((folder / "fingerprints.json").is_file() or _is_config(path, values))
        if restart and ours:
            if (folder / BEFORE).is_dir():  # an earlier --restart was killed before anything was begun
                clear(folder, "lock", *kept)
            else:
                set_aside(folder, "lock", *kept)
        elif ours:
            written = read_config(path)
            then, now = flat_config(with_defaults(written, BenchmarkConfig)), flat_config(values)
            differs = [key for key in now | then if now.get(key) != then.get(key)]
            fixed = [key for key in differs if key not in FREE]
            if fixed:
                raise MmfuseError(
                    f"{folder}: holds a benchmark with another config ({fixed[0]} differs); choose another "
                    f"output_dir, or --restart to discard it (only {', '.join(FREE)} may change)"
                )
            if differs:
                _replace(path, yaml.safe_dump(written | {key: values[key] for key in FREE}, sort_keys=False))
            if own is not None and (folder / "fingerprints.json").is_file():
                own.check_same(folder)
            elif own is not None:
                own.place(folder)
            return False
        if any(p.name not in ("lock", "built_in", BEFORE, *kept) for p in folder.iterdir()):
            raise MmfuseError(f"{folder}: not empty, and not a benchmark of mmfuse; choose another output_dir")
        try:
            _replace(path, yaml.safe_dump(values, sort_keys=False))
            if own is not None:
                own.place(folder)
        except BaseException:
            put_back(folder, "lock", *kept)
            raise
        return True


def _is_config(path: Path, values: dict[str, Any]) -> bool:
    """Whether a benchmark wrote it; many a folder has a `config.yaml`, and other files that must stay."""
    try:
        then = read_config(path)
    except MmfuseError:
        return False
    return isinstance(then, dict) and values.keys() <= then.keys()


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except BaseException:  # left behind, it would keep the folder from the next start
        scratch.unlink(missing_ok=True)
        raise


def _provenance(workshop: Workshop, plan: Plan) -> dict[str, Any]:
    manifest = workshop.manifest
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "manifest": {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        **({"precision": workshop.precision.why} if workshop.precision else {}),
        "versions": {name: version(name) for name in LIBRARIES},
        "cells": len(plan.cells),
        "encoder_seconds": round(workshop.encoder_seconds, 1),
        "leaks": workshop.leaks,
        "config": dataclasses.asdict(workshop.config),
    }
