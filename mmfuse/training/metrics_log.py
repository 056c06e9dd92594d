"""A run's `metrics.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator

LOG_EVERY = 20


class MetricsLog:
    """`metrics.jsonl`: a line a step and a line an evaluation, and the same for the trackers.

    Args:
        path: The file.
        accelerator: Its trackers get the numbers; only the main process writes.
    """

    def __init__(self, path: Path, accelerator: Accelerator):
        self.path, self.accelerator = path, accelerator
        self._waiting: list[dict[str, Any]] = []

    def step(self, **values: Any) -> None:
        """Keep one step's values until there are enough lines to write."""
        self._waiting.append(values)
        if values["step"] == 1 or len(self._waiting) >= LOG_EVERY:  # the first one tells that the run has begun
            self.flush()

    def validation(self, line: dict[str, Any]) -> None:
        """Write an evaluation's line."""
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what is waiting, and see it on the disk."""
        lines, self._waiting = self._waiting, []
        if not lines or not self.accelerator.is_main_process:
            return
        with self.path.open("a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(_rounded(line)) + "\n" for line in lines)
            handle.flush()
            os.fsync(handle.fileno())
        for line in lines:
            self.accelerator.log(dict(_scalars(line)), step=int(line["step"]))

    def cut(self, step: int) -> None:
        """Drop the lines after `step`: they will be written again."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):  # torn by a kill
                continue
            if json.loads(line)["step"] <= step:
                kept.append(line)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text("".join(kept), encoding="utf-8")
        scratch.replace(self.path)


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if k in ("seconds", "waited") else v for k, v in line.items()}


def _scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{key}", float(v)) for key, v in value.items())
        elif name not in ("step", "best") and isinstance(value, (int, float)):
            yield name, float(value)
