import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.regression import (
    REGRESSION_METRICS,
    conformal_radius,
    interval_scores,
    regression_replicates,
    regression_values,
    score_regression,
)
from mmfuse.types import MmfuseError


def by_others(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """What scikit-learn and scipy say of rows that all have a target; NaN where it is undefined."""
    varies, ranked = len(set(true)) > 1, len(set(true)) > 1 and len(set(said)) > 1
    return {
        "r2": r2_score(true, said) if varies else math.nan,
        "rmse": root_mean_squared_error(true, said),
        "mae": mean_absolute_error(true, said),
        "spearman": spearmanr(said, true).statistic if ranked else math.nan,
    }


def drawn(case: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predictions, targets and groups: of ties, few rows, constants, large offsets, missing targets."""
    rng = np.random.default_rng(case)
    n = int(rng.choice([1, 2, 3, 10, 60]))
    true = rng.normal(size=n) * 10.0 ** rng.integers(-2, 4) + rng.choice([0, 1e5])
    said = true + rng.normal(size=n) * true.std()
    if case % 4 == 1:
        true, said = true.round(-1), said.round(-1)
    if case % 7 == 2:
        true = np.full(n, 3.7)
    if case % 7 == 3:
        said = np.full(n, 0.1)
    if case % 3 == 0:
        true[rng.random(n) < 0.3] = math.nan
    return said, true, [f"g{i}" for i in rng.integers(max(1, n // 2), size=n)]


@pytest.mark.parametrize("case", range(200))
def test_values_and_replicates_equal_those_of_scikit_learn_and_scipy(case: int) -> None:
    said, true, groups = drawn(case)
    there = ~np.isnan(true)
    if not there.any():
        with pytest.raises(MmfuseError, match="none of the"):
            score_regression(said, true, groups)
        return
    scores = score_regression(said, true, groups, resamples=6)
    expected = by_others(said[there], true[there])
    for name in REGRESSION_METRICS:
        value = scores["metrics"][name]["value"]
        assert (math.nan if value is None else value) == pytest.approx(expected[name], nan_ok=True, rel=1e-12)
    assert scores["n"] == there.sum()
    assert scores["groups"] == len(set(np.array(groups)[there]))

    bootstrap = GroupBootstrap(groups, 6)
    replicates = regression_replicates(said, true, bootstrap)
    for b in range(bootstrap.resamples):
        times = bootstrap.multiplicities(b, b + 1)[0][bootstrap.row_group].astype(int)
        rows = np.repeat(np.arange(len(true)), times)
        rows = rows[there[rows]]
        known = by_others(said[rows], true[rows]) if len(rows) else dict.fromkeys(REGRESSION_METRICS, math.nan)
        for name in REGRESSION_METRICS:
            assert replicates[name][b] == pytest.approx(known[name], nan_ok=True, rel=1e-7, abs=1e-9), name


def test_an_interval_lies_around_the_value_and_one_group_has_none() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=400)
    said = true + rng.normal(size=400)
    scores = score_regression(said, true, [str(i) for i in range(400)])
    for score in scores["metrics"].values():
        assert score["low"] < score["value"] < score["high"]  # type: ignore[operator]
    alone = score_regression(said, true, ["one"] * 400)
    told = {"low": None, "high": None, "note": "one group holds 100% of the rows"}
    assert alone["metrics"]["r2"] == {"value": scores["metrics"]["r2"]["value"], **told}


def test_one_row_and_a_constant_target_have_errors_but_no_r2() -> None:
    one = score_regression([3.0], [1.0], ["a"])["metrics"]
    assert {name: score["value"] for name, score in one.items()} == {"r2": None, "rmse": 2, "mae": 2, "spearman": None}
    flat = score_regression([1.0, 2.0, 3.0], [0.1] * 3, ["a", "b", "c"])["metrics"]
    assert flat["r2"] == {"value": None, "low": None, "high": None}
    assert flat["rmse"]["value"] is not None
    assert math.isnan(regression_values([1.0], [math.nan])["mae"])


def test_scores_of_logarithms_are_those_of_the_logarithms() -> None:
    rng = np.random.default_rng(3)
    true = np.exp(rng.normal(size=50))
    said, groups = true * np.exp(rng.normal(size=50)), [str(i // 2) for i in range(50)]
    true[7] = math.nan
    both = score_regression(said, true, groups, resamples=50, log=True)["metrics"]
    logs = score_regression(np.log(said), np.log(true), groups, resamples=50)["metrics"]
    assert {name: both[name] for name in REGRESSION_METRICS} == score_regression(said, true, groups, 50)["metrics"]
    assert (both["r2_log"], both["rmse_log"]) == (logs["r2"], logs["rmse"])
    assert set(regression_values([1.0], [math.nan], log=True)) == set(both)


def test_coverage_counts_the_ends_and_leaves_out_what_is_missing() -> None:
    rows = ([0, 0, 0, 0] * 4, [1, 2, 3, 9] * 4, [1.0, 2.5, math.nan, 0.0] * 4)
    found = interval_scores(*rows, [str(i) for i in range(16)], 200)
    assert found["coverage"]["value"] == pytest.approx(2 / 3)
    assert found["coverage"]["low"] < 2 / 3 < found["coverage"]["high"]  # type: ignore[operator]
    assert found["width"] == 2
    with pytest.raises(MmfuseError, match="none of the 1 rows"):
        interval_scores([0], [1], [math.nan], ["a"])


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction of row 1 is not finite"):
        score_regression([1.0, math.nan], [1.0, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match="target of row 0 is not finite"):
        score_regression([1.0, 1.0], [math.inf, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match=r"both must be \(N,\)"):
        score_regression([[1.0], [1.0]], [1.0, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match="one a row"):
        score_regression([1.0, 1.0], [1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="the bootstrap has groups for 1 rows"):
        regression_replicates([1.0, 1.0], [1.0, 2.0], GroupBootstrap(["a"]))


def test_the_radius_is_the_right_one_of_the_errors() -> None:
    errors = [-5.0, 1.0, 2.0, -3.0, 4.0, 6.0, 7.0, 8.0, 9.0]
    assert conformal_radius(errors) == 9  # the 9th of 9: ceil(10 * 0.9)
    assert conformal_radius(errors[:8]) is None
    assert conformal_radius(errors, 0.5) == 5
    assert conformal_radius([1.0] * 19 + [100.0]) == 1  # ceil(21 * 0.9) = 19
    assert conformal_radius([]) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_radius(errors, 1.0)
    with pytest.raises(ValueError, match="must be numbers"):
        conformal_radius([math.nan])


def test_the_radius_covers_as_often_as_it_promises() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        errors = np.abs(rng.standard_cauchy(40))  # no assumption on the errors but that they are exchangeable
        radius = conformal_radius(errors[:39])
        assert radius is not None
        covered.append(errors[39] <= radius)
    assert 0.9 - 0.02 < np.mean(covered) < 0.9 + 1 / 40 + 0.02
