"""Which validation rows set what a model says."""

from types import SimpleNamespace

import numpy as np

from mmfuse.tasks import build_task
from mmfuse.training.calibrate import calibrate


def radius_of(order, missing=()):
    """The reach of intervals set by 30 groups of 3 rows, in this order, with errors 0, 1, 2, ..."""
    task = build_task("regression", (), {"transform": "none"})
    target, said = np.zeros(90), np.arange(90.0)
    target[list(missing)] = np.nan
    ids, groups = [f"row {i}" for i in range(90)], [f"patient {i // 3}" for i in range(90)]
    table = SimpleNamespace(targets={"level": target[order]}, rows={"group": [groups[i] for i in order]})
    model = SimpleNamespace(heads={"level": SimpleNamespace(task=task)}, selective={})
    pairs = SimpleNamespace(table=table, ids=[ids[i] for i in order])
    calibrate(model, pairs, list(range(90)), {"level": said[order][:, None]})  # type: ignore[arg-type]
    return task.state()["radius"]


def test_of_a_group_one_row_counts_whichever_order_they_come_in():
    found = radius_of(np.arange(90))
    assert found // 3 == 27  # the 28th of 30 groups: ceil(31 * 0.9)
    assert radius_of(np.random.default_rng(0).permutation(90)) == found


def test_a_row_without_a_target_does_not_stand_for_its_group():
    found = radius_of(np.arange(90))
    other = radius_of(np.arange(90), missing=[int(found)])
    assert other != found
    assert other // 3 == 27


def test_too_few_groups_give_no_interval():
    assert radius_of(np.arange(90), missing=range(24, 90)) is None
    assert radius_of(np.arange(90), missing=range(27, 90)) is not None
