"""`mmfuse.benchmark`: of a config, as the command line has it, or of rows that one holds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmfuse.api.folders import run_folder
from mmfuse.api.overrides import nest
from mmfuse.api.quiet import quiet_libraries
from mmfuse.api.told import tell
from mmfuse.benchmarking.config import BenchmarkConfig, load_benchmark_config
from mmfuse.benchmarking.run import Benchmark
from mmfuse.benchmarking.run import benchmark as compare
from mmfuse.data.given import MANIFEST, Named, described
from mmfuse.types import MmfuseError

_CONFIGS = (".yaml", ".yml")
_OF_ROWS = (*(item.name for item in dataclasses.fields(Named)), "valid", "test", "out")
ARGUMENTS = ("data", "overrides", "strategies", "restart", "force", *_OF_ROWS)


def benchmark(
    data: Any,
    overrides: Iterable[str] = (),
    *,
    strategies: Iterable[str] | Mapping[str, Any] | None = None,
    restart: bool = False,
    force: bool = False,
    **given: Any,
) -> Benchmark:
    """Compare fusion strategies on equal terms, or go on with a comparison that was interrupted.

    Args:
        data: The config of a benchmark: a `BenchmarkConfig`, the path of a YAML file, or its values. Or rows, as
            `mmfuse.fit` takes them; then the folder of the benchmark gets their manifest.
        overrides: `key=value` strings on top of a config.
        strategies: Of rows: names of strategies, or by row name `{"name": STRATEGY, options}`; default: all.
        restart: Throw away what is in the benchmark's folder.
        force: Go on where groups or exact duplicates stand in two splits; the report says so.
        **given: Of rows: `target`, `image`, `text`, `group`, `id`, `valid`, `test`, `out` as of `mmfuse.fit`, and keys
            of the benchmark's config, such as `seeds=5` or `**{"training.epochs": 3}`.

    Returns:
        The benchmark, when every cell is done; a cell that failed is a row with its reason.

    Raises:
        MmfuseError: The config or the data are not legal, or the folder holds another benchmark.

    Example:
        found = mmfuse.benchmark(frame, target="finding", strategies=["concat", "late", "text_only"])
    """
    if _is_config(data):
        first = next(iter(given), "strategies" if strategies is not None else None)
        if first is not None:
            raise MmfuseError(f"benchmark: {first}: it is for rows; of a config, give overrides: ['{first}=...']")
        return compare(data, overrides, restart=restart, force=force)
    if list(overrides):
        raise MmfuseError("benchmark: overrides: they are for a config; of rows, give keys as arguments, seeds=5")
    rows = {name: given.pop(name) for name in _OF_ROWS if name in given}
    values = nest(given, BenchmarkConfig, ARGUMENTS, "benchmark")
    out, valid, test = (rows.pop(name, None) for name in ("out", "valid", "test"))
    with quiet_libraries(), described(data, Named(**rows), valid, test) as found:
        name = values.get("name") or f"{found.guess.manifest['name']}-benchmark"
        folder = run_folder(out or values.get("output_dir"), name)
        own = {"name": name, "output_dir": str(folder)}
        own["data"] = {**values.get("data", {}), "manifest": str(folder / MANIFEST)}
        chosen = {} if strategies is None else {"strategies": _by_name(strategies)}
        config = load_benchmark_config({**values, **chosen, **own})
        tell([*found.said(), f"benchmark: {os.path.relpath(folder)}"])
        return compare(config, restart=restart, force=force, own=found.own(folder))


def _is_config(data: Any) -> bool:
    if isinstance(data, (str, os.PathLike)):
        return Path(data).suffix.lower() in _CONFIGS
    return isinstance(data, (BenchmarkConfig, dict))


def _by_name(strategies: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(strategies, str):
        raise MmfuseError(f"benchmark: strategies: a list is expected, such as [{strategies!r}]")
    return dict(strategies) if isinstance(strategies, Mapping) else dict.fromkeys(strategies)
