"""Which cells of a benchmark are done: any number of processes share them, and a killed one loses no finished cell.

A cell is a folder `cells/KEY/` with `result.json` and `test.npz`, renamed into place when it is whole. Who holds
`locks/KEY` is working on it. `results.jsonl` gets one line a cell.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mmfuse.benchmarking.plan import Cell
from mmfuse.types import MmfuseError

Array = NDArray[Any]


class Ledger:
    """Which cells are done, and who works on one.

    Args:
        folder: The benchmark's.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results.jsonl"
        for name in ("cells", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def done(self, cell: Cell) -> bool:
        """Whether its result is there, be it a failure."""
        return (self.folder / "cells" / cell.key / "result.json").is_file()

    def claim(self, cell: Cell) -> FileLock | None:
        """The lock of a cell that nobody works on, or None."""
        lock = FileLock(self.folder / "locks" / cell.key)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        if self.done(cell):
            lock.release()
            return None
        return lock

    def scratch(self, cell: Cell) -> Path:
        """Where it is computed; what a killed process left there is gone on with."""
        path = self.folder / "cells" / f"{cell.key}.building"
        path.mkdir(exist_ok=True)
        return path

    def finish(self, cell: Cell, result: dict[str, Any]) -> None:
        """Put a cell's folder into place and add its line to `results.jsonl`; the caller holds its lock."""
        scratch, final = self.scratch(cell), self.folder / "cells" / cell.key
        text = json.dumps(result)
        if final.exists():  # without a result, or it would not have been run
            shutil.rmtree(final)
        (scratch / "result.json").write_text(text)
        with FileLock(self.folder / "locks" / "results"):
            scratch.rename(final)
            self._sweep(cell)
            with self.results.open("a", encoding="utf-8") as handle:
                handle.write(text + "\n")
                handle.flush()
                os.fsync(handle.fileno())

    def read(self, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
        """The results there are, by the cells' keys.

        Raises:
            MmfuseError: One is damaged.
        """
        found = {}
        for cell in filter(self.done, cells):
            try:
                found[cell.key] = json.loads((self.folder / "cells" / cell.key / "result.json").read_text())
            except ValueError as error:
                raise self._damaged(cell, "result.json") from error
        return found

    def said(self, cell: Cell, task: str) -> tuple[Array, Array]:
        """The test rows of a finished cell, `(rows,)`, and what a head said of them, `(rows, ...)`.

        Raises:
            MmfuseError: They are not there, or damaged.
        """
        try:
            with np.load(self.folder / "cells" / cell.key / "test.npz") as arrays:
                return arrays["rows"], arrays[f"logits.{task}"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise self._damaged(cell, "test.npz") from error

    def _damaged(self, cell: Cell, name: str) -> MmfuseError:
        folder = self.folder / "cells" / cell.key
        return MmfuseError(f"{folder / name}: missing or damaged; delete {folder} and run the benchmark again")

    def mend(self, cells: Iterable[Cell]) -> None:
        """Write `results.jsonl` anew where a kill tore it or left a line out, and sweep up what it left behind."""
        cells = list(cells)
        results = self.read(cells)
        for cell in cells:
            self._sweep(cell)
        with FileLock(self.folder / "locks" / "results"):
            lines = self.results.read_text(encoding="utf-8").splitlines() if self.results.exists() else []
            wanted = {json.dumps(result) for result in results.values()}
            if len(lines) == len(wanted) and set(lines) == wanted:
                return
            scratch = self.results.with_suffix(".tmp")
            scratch.write_text("".join(json.dumps(result) + "\n" for result in results.values()), encoding="utf-8")
            scratch.replace(self.results)

    def _sweep(self, cell: Cell) -> None:
        """Delete the checkpoints of a finished cell; not before it is in place, or a kill would leave half of them."""
        run = self.folder / "cells" / cell.key / "run"
        if run.exists():
            shutil.rmtree(run)
