import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import f1_score, log_loss

from mmfuse.metrics.calibration import (
    equal_mass_bins,
    expected_calibration_error,
    fit_temperature,
    selective_curve,
    tune_thresholds,
)

pytestmark = pytest.mark.heavy


def test_temperature_undoes_a_known_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    target = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from softmax(logits)
    assert fit_temperature(3 * logits, target) == pytest.approx(3, rel=0.05)
    target = (rng.random(logits.shape) < expit(logits)).astype(float)
    assert fit_temperature(logits / 2, target, "multilabel") == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_temperature_beats_a_grid(kind, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (60, 3))
    if kind == "classification":
        target = np.where(rng.random(60) < 0.6, logits.argmax(axis=1), rng.integers(0, 3, 60))
        there = rng.random(60) < 0.8

        def loss(temperature):
            return log_loss(target[there], softmax(logits[there] / temperature, axis=1), labels=range(3))

        given_target = np.where(there, target, -100)
    else:
        target = np.where(rng.random((60, 3)) < 0.7, logits > 0, rng.random((60, 3)) < 0.5).astype(float)
        there = rng.random((60, 3)) < 0.8

        def loss(temperature):
            return log_loss(target[there], expit(logits[there] / temperature))

        given_target = np.where(there, target, np.nan)
    found = fit_temperature(logits, given_target, kind)
    grid = np.geomspace(0.05, 20, 400)
    losses = [loss(temperature) for temperature in grid]
    assert loss(found) <= min(losses) + 1e-9
    assert found == pytest.approx(grid[np.argmin(losses)], rel=0.02)


def test_temperature_has_bounds_and_a_default():
    always_right, always_wrong = np.array([[5.0, 0], [0, 5]]), np.array([[0, 5.0], [5, 0]])
    assert fit_temperature(always_right, np.array([0, 1])) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(always_wrong, np.array([0, 1])) == pytest.approx(20, rel=1e-3)
    assert fit_temperature(always_right, np.array([-100, -100])) == 1
    assert fit_temperature(always_right, np.full((2, 2), np.nan), "multilabel") == 1
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) == 1


def test_temperature_errors():
    with pytest.raises(ValueError, match="'regression'; legal: classification, multilabel"):
        fit_temperature(np.zeros((2, 2)), np.zeros(2, int), "regression")
    with pytest.raises(ValueError, match="do not match"):
        fit_temperature(np.zeros((2, 2)), np.zeros(3, int))
    with pytest.raises(ValueError, match="do not match"):
        fit_temperature(np.zeros((2, 2)), np.zeros(2, int), "multilabel")
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_temperature(np.full((2, 2), np.inf), np.zeros(2, int))


scores_and_truth = st.lists(
    st.tuples(st.one_of(st.sampled_from([0, 0.2, 0.5, 0.9, 1]), st.floats(0, 1)), st.sampled_from([0, 1, np.nan])),
    min_size=1,
    max_size=25,
)


@given(scores_and_truth)
@settings(max_examples=150, deadline=None)
def test_thresholds_are_the_best_there_are(rows):
    scores, truth = np.array(rows).T
    (threshold,) = tune_thresholds(scores[:, None], truth[:, None])
    scores, truth = scores[~np.isnan(truth)], truth[~np.isnan(truth)]
    if len(set(truth)) < 2:
        assert threshold == 0.5
        return
    best = max(f1_score(truth, scores >= candidate) for candidate in scores)
    assert f1_score(truth, scores >= threshold) == pytest.approx(best)
    assert 0 <= threshold <= 1


def test_thresholds_lie_between_scores_and_near_a_half():
    scores = np.array([[0.1, 0.1, 0.2], [0.3, 0.3, 0.2], [0.6, 0.6, 0.2], [0.8, 0.8, 0.2]])
    target = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]], float)
    # Second label: all yes gives 4/6 and so does only the last; 0.7 is nearer to 0.5 than 0.05.
    np.testing.assert_allclose(tune_thresholds(scores, target), [0.45, 0.7, 0.1])
    np.testing.assert_array_equal(tune_thresholds(scores, np.array([[0, 1, np.nan]] * 4)), [0.5, 0.5, 0.5])


def test_threshold_errors():
    with pytest.raises(ValueError, match=r"must both be \(N, L\)"):
        tune_thresholds(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        tune_thresholds(np.full((2, 2), np.nan), np.zeros((2, 2)))


def brute_force_ece(confidence, correct, weights, bins):
    """Rows one by one into the bin of their rank, the rank of equal values being the first of them."""
    sums = {}
    for c, y, w in zip(confidence, correct, weights, strict=True):
        rank = sum(other < c for other in confidence)
        mass, gap = sums.get(int(rank * bins / len(confidence) + 1e-9), (0, 0))
        sums[int(rank * bins / len(confidence) + 1e-9)] = (mass + w, gap + w * (c - y))
    total = sum(mass for mass, _ in sums.values())
    return sum(mass / total * abs(gap / mass) for mass, gap in sums.values() if mass)


@pytest.mark.parametrize("levels", [1000, 6])
def test_calibration_error_by_brute_force(levels):
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, levels + 1, 200) / levels
    correct, weights = rng.random(200) < confidence**2, rng.integers(0, 4, 200)
    ones = np.ones(200)
    assert expected_calibration_error(confidence, correct) == pytest.approx(
        brute_force_ece(confidence, correct, ones, 15)
    )
    assert expected_calibration_error(confidence, correct, weights, bins=7) == pytest.approx(
        brute_force_ece(confidence, correct, weights, 7)
    )


def test_calibration_error_by_hand():
    assert expected_calibration_error([0.8] * 5, [1, 1, 1, 1, 0]) == pytest.approx(0)
    assert expected_calibration_error([0.8] * 5, [0, 0, 0, 0, 0]) == pytest.approx(0.8)
    assert expected_calibration_error([0.25, 0.75], [1, 0], bins=2) == pytest.approx(0.75)
    assert expected_calibration_error([0.25, 0.75], [1, 0], bins=1) == pytest.approx(0)
    assert np.isnan(expected_calibration_error([], []))


def test_bins_hold_the_same_count():
    confidence = np.random.default_rng(0).permutation(np.linspace(0, 1, 150))
    assert np.bincount(equal_mass_bins(confidence)).tolist() == [10] * 15


def test_selective_curve_by_hand():
    """Kept from 0.9 on: one row, right; from 0.8 on: two of which one is; from 0.6 on: two of the four, ties whole."""
    confidence, right = [0.6, 0.9, 0.8, 0.6, 0.7], [1, 1, 0, 0, np.nan]
    curve = selective_curve(confidence, right)
    assert curve is not None
    assert (curve.rows, curve.confidence) == (4, [0.6, 0.8, 0.9])
    assert (curve.coverage, curve.accuracy) == ([1.0, 0.5, 0.25], [0.5, 0.5, 1.0])
    assert selective_curve([0.9], [np.nan]) is None


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.75, 0.9, 1.0]) | st.floats(0.5, 1), st.booleans()), min_size=1))
def test_selective_curve_is_what_keeping_gives(rows):
    confidence, right = (np.array(column, float) for column in zip(*rows, strict=True))
    curve = selective_curve(confidence, right, points=7)
    assert curve is not None
    assert 1 <= len(curve.confidence) <= 7
    assert (curve.confidence[0], curve.confidence[-1]) == (confidence.min(), confidence.max())
    for at, coverage, accuracy in zip(curve.confidence, curve.coverage, curve.accuracy, strict=True):
        kept = confidence >= at
        assert coverage == pytest.approx(kept.mean())
        assert accuracy == pytest.approx(right[kept].mean())
