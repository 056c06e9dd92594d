"""What a step of training waits for the card for, and what it does there; used by gpu.py."""

from __future__ import annotations

import os
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

COUNTED, PROFILED, LAST = 4, (7, 8, 9), 11
"""The step whose waits are counted, those that are profiled, and where the run ends."""


class Watch:
    """Counts the waits of one step, and profiles others.

    Args:
        real: Whether there is a card to wait for.

    Attributes:
        found: `syncs_a_step` (None without a card) with their `places`, and the mean of the profiled steps.
    """

    def __init__(self, real: bool):
        self.real = real
        self.found: dict[str, Any] = {"syncs_a_step": None}
        self.places: Counter[str] = Counter()
        self.caught: Any = None
        self.profiler: Any = None
        self.began = 0.0

    def at(self, number: int) -> None:
        """Called before each step."""
        if number == COUNTED and self.real:
            self.caught = warnings.catch_warnings()
            self.caught.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = self._note  # type: ignore[assignment]
            torch.cuda.set_sync_debug_mode("warn")
        elif number == COUNTED + 1 and self.caught is not None:
            self._stop_counting()
            self.found |= {"syncs_a_step": self.places.total(), "places": dict(self.places.most_common())}
        elif number == PROFILED[0]:
            activities = [torch.profiler.ProfilerActivity.CPU]
            activities += [torch.profiler.ProfilerActivity.CUDA] if self.real else []
            self._wait()
            self.profiler = torch.profiler.profile(activities=activities)
            self.profiler.__enter__()
            self.began = time.perf_counter()
        elif number == PROFILED[-1] + 1 and self.profiler is not None:
            self._wait()
            taken = (time.perf_counter() - self.began) / len(PROFILED)
            self.profiler.__exit__(None, None, None)
            self.found |= self._profiled(taken)
            self.profiler = None

    def _wait(self) -> None:
        if self.real:
            torch.cuda.synchronize()

    def end(self) -> None:
        """Leave nothing switched on."""
        self._stop_counting()
        if self.profiler is not None:
            self.profiler.__exit__(None, None, None)

    def _stop_counting(self) -> None:
        if self.caught is not None:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.caught = None

    def _note(self, message: Any, *_: Any, **__: Any) -> None:
        """Count a wait at the innermost line of ours that led to it."""
        if "synchroniz" in str(message):
            ours = [f for f in traceback.extract_stack() if f"{os.sep}mmfuse{os.sep}" in f.filename]
            self.places[f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "elsewhere"] += 1

    def _profiled(self, taken: float) -> dict[str, Any]:
        events, steps = self.profiler.key_averages(), len(PROFILED)
        kernels = [e for e in events if str(e.device_type).endswith("CUDA") and not e.is_user_annotation]
        busy = sum(e.self_device_time_total for e in kernels) / steps / 1e3
        found = {"ms_a_step": round(1e3 * taken, 2), "operators": round(sum(e.count for e in events) / steps)}
        if not kernels:
            return found
        top = sorted(kernels, key=lambda e: -e.self_device_time_total)[:8]
        found |= {"kernels": round(sum(e.count for e in kernels) / steps), "kernels_ms": round(busy, 2)}
        found |= {"busy_share": round(busy / (1e3 * taken), 3)}
        return {**found, "longest_ms": {e.key[:80]: round(e.self_device_time_total / steps / 1e3, 2) for e in top}}
