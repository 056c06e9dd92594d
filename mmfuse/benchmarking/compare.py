"""Two finished benchmarks side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from mmfuse.pages.markup import DASH, difference, interval, score
from mmfuse.training.claim import flat_config
from mmfuse.types import MmfuseError


def compare_benchmarks(one: str | Path, other: str | Path) -> str:
    """A table a task: each strategy's score with its interval and letters in both, and the difference of the means.

    The two are not one experiment: their test rows, encoders or budgets may differ, so no test is made across them.
    What differs between their configs is listed first.

    Args:
        one: Folder of a finished benchmark.
        other: Another one.

    Raises:
        MmfuseError: One of them is not finished, or they share no task.
    """
    folders = [Path(one), Path(other)]
    first, second = (_read(folder) for folder in folders)
    shared = [task for task in first["tasks"] if task in second["tasks"]]
    if not shared:
        raise MmfuseError(f"{one} and {other} share no task: {', '.join(first['tasks'])}; {', '.join(second['tasks'])}")
    lines = [f"a: {folders[0]} ({first['name']})", f"b: {folders[1]} ({second['name']})"]
    lines += _differences(folders, first, second)
    for task in shared:
        a, b = first["tasks"][task], second["tasks"][task]
        if a["metric"] != b["metric"]:
            lines.append(f"\n## {task}\n\na is scored by {a['metric']}, b by {b['metric']}: not comparable")
            continue
        lines.append(f"\n## {task}: {a['metric']}\n\na: {a['verdict']}\nb: {b['verdict']}\n")
        lines += ["| strategy | a | | b | | b - a |", "|---|---|---|---|---|---|"]
        left, right = ({s["row"]: s for s in found["strategies"]} for found in (a, b))
        for row in dict.fromkeys([*left, *right]):
            x, y = left.get(row), right.get(row)
            gap = difference(a)(y["score"]["mean"] - x["score"]["mean"]) if x and y else ""
            lines.append(f"| {row} | {_score(x)} | {_score(y)} | {gap} |")
    return "\n".join(lines)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        meant = [name for name in ("predictions.jsonl", "model") if (folder / name).exists()]
        hint = f"; did you mean {folder / meant[0]}?" if meant else ""
        raise MmfuseError(f"{folder}: no finished benchmark (no summary.json){hint}") from error
    except (OSError, ValueError) as error:
        raise MmfuseError(f"{path}: damaged: {error}") from error


def _differences(folders: list[Path], first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    left, right = (flat_config(yaml.safe_load((f / "config.yaml").read_text(encoding="utf-8"))) for f in folders)
    found = [
        f"{name}: a {left.get(name)}, b {right.get(name)}"
        for name in sorted(left | right)
        if left.get(name) != right.get(name) and name != "name"
    ]
    a, b = first["provenance"]["manifest"], second["provenance"]["manifest"]
    if a["sha256"] != b["sha256"]:
        found.append(f"manifest: a {a['name']} version {a['version']}, b {b['name']} version {b['version']}")
    return found


def _score(strategy: dict[str, Any] | None) -> str:
    if strategy is None:
        return " | "
    of = strategy["score"]
    between = interval(of["low"], of["high"], score)
    return f"{score(of['mean'])} {'' if between == DASH else between} | {strategy['letters']}"
