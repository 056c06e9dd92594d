"""Cells on disk: what is damaged is one line that says what to delete."""

import numpy as np
import pytest

from mmfuse.benchmarking.ledger import Ledger
from mmfuse.benchmarking.plan import Cell
from mmfuse.types import MmfuseError

CELL = Cell("late", 0)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path)
    np.savez(ledger.scratch(CELL) / "test.npz", rows=np.arange(3), **{"logits.sex": np.ones((3, 2))})
    ledger.finish(CELL, {"row": "late"})
    return ledger


@pytest.mark.parametrize("damage", [lambda path: path.write_text("?"), lambda path: path.unlink(), lambda path: None])
def test_damaged_logits_are_one_line(ledger, damage):
    rows, said = ledger.said(CELL, "sex")
    assert (len(rows), said.shape) == (3, (3, 2))
    damage(ledger.folder / "cells" / CELL.key / "test.npz")
    with pytest.raises(MmfuseError, match=r"test.npz: missing or damaged; delete .*late-seed0 and run"):
        ledger.said(CELL, "age")


def test_a_torn_result_is_one_line(ledger):
    path = ledger.folder / "cells" / CELL.key / "result.json"
    path.write_text(path.read_text()[:5])
    with pytest.raises(MmfuseError, match=r"result.json: missing or damaged; delete .*late-seed0 and run"):
        ledger.read([CELL])


def test_a_cell_without_its_result_is_run_again(ledger):
    (ledger.folder / "cells" / CELL.key / "result.json").unlink()
    assert not ledger.done(CELL)
    ledger.finish(CELL, {"row": "late", "again": True})
    assert ledger.read([CELL]) == {CELL.key: {"row": "late", "again": True}}
