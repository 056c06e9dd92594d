"""What a number is: read strictly, learned on a scale, said with the interval that covers it."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmfuse.evaluation.evaluate import check_tasks
from mmfuse.tasks import TASKS, TaskSpec, build_task
from mmfuse.tasks.regression import Regression, says, written_numbers
from mmfuse.types import MmfuseError


def task_with(**options) -> Regression:
    found = build_task("regression", [], options)
    assert isinstance(found, Regression)
    return found


def read(cells, **options):
    spec = TaskSpec(type="regression", column="price", missing=["n/a"])
    return task_with(**options).read(pd.DataFrame({"price": cells}), spec, "m.yaml: tasks.price", 100)


def test_cells_are_read_strictly():
    found = read(["12", " -3.5", "1e3", ".5", "7.", "", "n/a", "+2"])
    np.testing.assert_array_equal(found, [12, -3.5, 1000, 0.5, 7, math.nan, math.nan, 2])


@pytest.mark.parametrize(
    "cell", ["1,234", "12 kg", "nan", "inf", "1_000", "0x1f", "twelve", "1e400", "١٢", "--1", "1e"]
)
def test_what_is_no_number_is_refused_with_its_row_and_what_is_legal(cell):
    with pytest.raises(MmfuseError, match=r"m.yaml: tasks.price: column 'price', row 102: .* legal: ") as error:
        read(["1", cell])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cell", ["0", "-1", "0.0", "-0"])
def test_a_logarithm_needs_numbers_above_0(cell):
    assert read([cell]) == float(cell)
    with pytest.raises(MmfuseError, match=r"row 101: .* has no logarithm; legal with transform: log: numbers above 0"):
        read([cell], transform="log")


def test_options_that_are_not_legal_are_refused():
    with pytest.raises(MmfuseError, match=r"transform: 'lgo' is not legal; .*log"):
        task_with(transform="lgo")
    with pytest.raises(MmfuseError, match="unit: 3"):
        task_with(unit=3)
    with pytest.raises(MmfuseError, match="a regression has none"):
        build_task("regression", ["a"])
    assert "regression" in TASKS.names()


@pytest.mark.parametrize("transform", ["standardize", "log", "none"])
def test_the_scale_is_that_of_the_training_targets_and_is_turned_back(transform):
    values = np.array([1.0, 10, 100, math.nan, 3], dtype=np.float32)
    task = task_with(transform=transform)
    task.fit(lambda: values)
    known = np.array([1.0, 10, 100, 3])
    scaled = task.on_scale(known)
    if transform != "none":
        assert (scaled.mean(), scaled.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    np.testing.assert_allclose(task.predictions(scaled[:, None].astype(np.float32)), known, rtol=1e-5)
    again = task_with(transform=transform)
    again.load_state(task.state(), "decisions.price")
    assert again.state() == task.state()


def test_a_constant_target_has_a_scale_of_1():
    task = task_with()
    task.fit(lambda: np.array([4.0, 4.0, math.nan]))
    assert task.state() == {"center": 4.0, "scale": 1.0, "radius": None}
    assert set(task.undefined(np.array([4.0, 4.0]))) == {"r2", "spearman"}
    assert task.undefined(np.array([4.0, 5.0, math.nan])) == {}
    with pytest.raises(MmfuseError, match="no row of the training split has a value"):
        task_with().fit(lambda: np.array([math.nan]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 0), ("scale", -1.0), ("scale", math.inf), ("center", "0"), ("center", math.nan), ("radius", -0.1)],
)
def test_a_state_that_is_none_is_refused(name, value):
    state = {"center": 0.0, "scale": 1.0, "radius": None}
    task_with().load_state(state, "decisions.price")
    with pytest.raises(MmfuseError, match=rf"decisions.price.{name}: "):
        task_with().load_state({**state, name: value}, "decisions.price")


def calibrated(transform, rows=99):
    task = task_with(transform=transform, unit="INR")
    target = np.exp(np.linspace(0, 5, rows)).astype(np.float32)
    task.fit(lambda: target)
    said = task.on_scale(target)[:, None] + np.linspace(-1, 1, rows)[:, None]
    task.calibrate(said, target)
    return task, said, target


@pytest.mark.parametrize("transform", ["standardize", "log", "none"])
def test_the_interval_reaches_as_far_on_the_scale_to_both_sides(transform):
    task, _, _ = calibrated(transform)
    errors = np.sort(np.abs(np.linspace(-1, 1, 99)))
    assert task.radius == pytest.approx(errors[89])  # ceil(100 * 0.9) = 90
    said = task.decide(task.predictions(np.array([[0.3]]))[0])
    assert said["unit"] == "INR"
    assert said["low"] < said["value"] < said["high"]
    ends = task.on_scale(np.array([said["low"], said["high"]]))
    np.testing.assert_allclose(ends, [0.3 - task.radius, 0.3 + task.radius], rtol=1e-4, atol=1e-5)


def test_too_few_rows_give_no_interval():
    assert calibrated("log", rows=8)[0].decide(2.0) == {"value": 2.0, "unit": "INR", "low": None, "high": None}
    assert calibrated("log", rows=9)[0].radius is not None


def test_scores_tell_what_the_intervals_are_worth():
    task, said, target = calibrated("log")
    target[5] = math.nan
    scores = task.score(task.predictions(said), target, [str(i) for i in range(99)], resamples=50)
    assert (scores["n"], scores["unit"], scores["intervals"]["level"]) == (98, "INR", 0.9)
    assert scores["intervals"]["coverage"]["value"] == pytest.approx(90 / 99, abs=0.02)
    assert list(scores["metrics"]) == ["r2", "rmse", "mae", "spearman", "r2_log", "rmse_log"]
    assert set(scores["metrics"]) == set(task.metrics)
    assert task_with().monitor == "r2"
    assert task.monitor == "r2_log"


def test_a_huge_logarithm_stays_finite():
    task = task_with(transform="log")
    assert np.isfinite(task.predictions(np.array([[1e30], [-1e30]]))).all()


@pytest.mark.parametrize(
    ("text", "target", "stated"),
    [
        ("Price: Rs. 1,449 only", 1449.0, True),
        ("Price: Rs. 1,23,456/-", 123456.0, True),
        ("costs 1.449,50 EUR", 1449.5, True),
        ("costs 1 449 EUR", 1449.0, True),
        ("a dose of 10 200 mg", 200.0, True),
        ("level 43.7 mg/L", 43.7, True),
        ("level 43.7 mg/L", 43.71, True),  # rounded to 3 digits
        ("about 44 mg/L", 43.71, False),  # rounded to 2
        ("aged 44", 44.0, True),
        ("lot 14490", 1449.0, False),
        ("ratio 1.449", 1449.0, True),  # it can be read so
        ("ratio 1.449", 1.449, True),
        ("down by 12.5 points", -12.5, True),
        ("no number at all", 3.0, False),
        ("no number at all", math.nan, False),
    ],
)
def test_a_number_is_found_in_a_text_however_it_is_written(text, target, stated):
    assert task_with().stated(text, np.float32(target)) is stated


def test_numbers_of_a_text():
    assert written_numbers("12 of 1,000 (3.50 %)") == [(12.0, 0), (1.0, 3), (1000.0, 0), (3.5, 2)]
    assert says((437.1, 1), 437.12)
    assert not says((0.4, 1), 0.44)


@pytest.mark.parametrize(
    ("model", "manifest", "refused"),
    [
        ({}, {"transform": "standardize"}, False),
        ({"transform": "standardize", "unit": ""}, {}, False),
        ({}, {"transform": "log"}, True),
        ({"unit": "kg"}, {"unit": "g"}, True),
    ],
)
def test_a_default_that_is_written_out_is_the_same_task(model, manifest, refused):
    there: object = SimpleNamespace(
        source="m.yaml", tasks={"y": TaskSpec(type="regression", column="y", options=manifest)}
    )
    of: object = SimpleNamespace(task_config={"y": {"type": "regression", "labels": [], "options": model}})
    if not refused:
        check_tasks(of, there, ["y"])
        return
    with pytest.raises(MmfuseError, match=r"m.yaml: tasks.y.(transform|unit) is"):
        check_tasks(of, there, ["y"])


def test_the_report_tells_the_unit_and_how_often_intervals_hold():
    task = task_with(unit="kg")
    task.calibrate(np.linspace(-1, 1, 40)[:, None], np.zeros(40))
    target = np.linspace(-2, 2, 40)
    scores = task.score(np.zeros(40), target, [str(i) for i in range(40)], 50)
    unit, intervals = task.told(scores)
    assert unit == "RMSE and MAE are in kg."
    assert f"Intervals that promise 90% hold the truth of {scores['intervals']['coverage']['value']:.1%}" in intervals
    assert intervals.endswith("kg.")
    assert task_with().told(task_with().score(np.zeros(40), target, ["a"] * 40, 0)) == []
