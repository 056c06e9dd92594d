import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm
from scipy.stats import t as student

from mmfuse.metrics.basis import LabelBasis, basis_of_rows, score_of_mean
from mmfuse.metrics.bootstrap import BLOCKS, GroupJackknife
from mmfuse.metrics.intervals import Basis, Shares, effective_number, score_interval, score_of, shares_of
from mmfuse.metrics.labels import score_classification, score_multilabel


def mean_score(values, groups, bounds=(0.0, 1.0)):
    return score_of_mean(values, GroupJackknife(groups), bounds)


def each(n):
    return [str(i) for i in range(n)]


@pytest.mark.parametrize(("right", "n"), [(40, 40), (0, 40), (388, 400), (200, 400)])
def test_of_rows_that_are_groups_it_is_clopper_and_pearsons(right, n):
    """At t quantiles, and with the jackknife's n - 1 for n."""
    score = mean_score([1.0] * right + [0.0] * (n - right), each(n))
    exact = n - 1 if 0 < right < n else n
    worth = exact * (norm.ppf(0.975) / student.ppf(0.975, n - 1)) ** 2
    hits, misses = worth * right / n, worth * (1 - right / n)
    expected = (
        beta.ppf(0.025, hits, misses + 1) if hits else 0.0,
        beta.ppf(0.975, hits + 1, misses) if misses else 1.0,
    )
    assert (score["low"], score["high"]) == pytest.approx(expected, rel=2e-3)
    assert "note" not in score


def test_rows_of_a_group_are_worth_no_more_than_they_differ():
    rng = np.random.default_rng(0)
    values = (rng.random(60) < 0.8).astype(float)
    one = mean_score(values, each(60))
    assert mean_score(np.repeat(values, 7), np.repeat(each(60), 7)) == pytest.approx(one)
    mixed = mean_score(np.repeat(values, 7), np.tile(each(60), 7))
    assert mixed["high"] - mixed["low"] < 0.6 * (one["high"] - one["low"])


def test_no_error_in_any_group_says_as_little_as_groups_do():
    """However many rows they have: all may be alike. One error changes little."""
    sizes = [1] * 40 + [20] * 20
    groups = np.repeat(each(60), sizes)
    none = mean_score(np.ones(len(groups)), groups)
    effective = float(effective_number(sizes))
    assert none["high"] == 1
    worth = effective * (norm.ppf(0.975) / student.ppf(0.975, effective - 1)) ** 2
    assert none["low"] == pytest.approx(0.025 ** (1 / worth))
    one = np.ones(len(groups))
    one[50] = 0
    assert none["low"] - 0.02 < mean_score(one, groups)["low"] < 1 - 1 / len(groups)


@given(seed=st.integers(0, 10_000), groups=st.integers(10, 40), bounds=st.sampled_from([(0, 1), (-1, 1), (0, 10)]))
@settings(max_examples=60, deadline=None)
def test_it_holds_its_value_and_stays_in_the_range(seed, groups, bounds):
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.pareto(1.5, groups).astype(int)
    jackknife = GroupJackknife(np.repeat(each(groups), sizes))
    low, high = bounds
    values = low + (high - low) * (rng.random(sizes.sum()) < rng.choice([0, 0.02, 0.5, 0.98, 1]))
    score = score_of_mean(values, jackknife, bounds)
    if score["low"] is None:
        assert "needed" in score["note"] or "one group holds" in score["note"]
        return
    assert low <= score["low"] <= score["value"] <= score["high"] <= high
    assert score["low"] < score["high"]
    json.dumps(score, allow_nan=False)


def test_of_half_a_range_ends_are_those_of_logarithms_and_without_any_they_are_alike():
    left_out, basis = np.linspace(0.38, 0.42, 50), basis_of_rows(GroupJackknife(each(50)))
    at = 0.4
    score, above, below = (score_of(at, left_out, basis, b) for b in ((-np.inf, np.inf), (0, np.inf), (-np.inf, 1)))
    assert score["high"] - at == pytest.approx(at - score["low"])
    assert above["high"] * above["low"] == pytest.approx(at**2)
    assert (1 - below["high"]) * (1 - below["low"]) == pytest.approx((1 - at) ** 2)
    reach = score["high"] - at
    assert np.log(above["high"] / at) == pytest.approx(reach / at)
    perfect = score_of(1.0, np.ones(50), basis, (-np.inf, 1))
    assert (perfect["low"], perfect["high"]) == (pytest.approx(0.025 ** (1 / 50), abs=0.01), 1.0)


def test_a_score_that_no_group_changes_has_no_interval_where_its_range_is_open():
    basis = basis_of_rows(GroupJackknife(each(50)))
    for value, bounds in ((0.0, (0, np.inf)), (0.5, (0, np.inf)), (7.0, (-np.inf, np.inf)), (0.0, (-np.inf, 1))):
        score = score_of(value, np.full(50, value), basis, bounds)
        assert (score["low"], score["high"]) == (None, None)
        assert score.get("note", "").startswith("no group changes it")


def test_a_value_that_rounding_carries_over_the_end_is_the_end():
    basis, over = basis_of_rows(GroupJackknife(each(40))), 1 + 2e-16
    assert over > 1
    score = score_of(over, np.full(40, over), basis, (0, 1))
    assert score == score_of(1.0, np.ones(40), basis, (0, 1))
    assert score["low"] == pytest.approx(0.91, abs=0.01)


def test_a_value_beyond_its_declared_range_is_told_with_what_is_known():
    left_out, basis = np.linspace(1.48, 1.52, 50), basis_of_rows(GroupJackknife(each(50)))
    assert score_of(1.5, left_out, basis, (0, 1)) == score_of(1.5, left_out, basis)


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ([60, 1, 1, 1] + [1] * 40, "one group holds 58% of the rows"),
        ([3] * 9, "9 groups; 10 are needed"),
        ([100, 100, 100] + [1] * 40, "43 groups of unlike sizes, worth 3.8 equal ones; 10 are needed"),
    ],
)
def test_whether_it_is_given_depends_on_sizes_alone(sizes, why):
    groups = np.repeat(each(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    for p in (0.0, 0.5, 1.0):
        score = mean_score((rng.random(len(groups)) < p).astype(float), groups)
        assert (score["low"], score["high"], score["note"]) == (None, None, why)
    assert "note" not in score_of_mean(np.ones(len(groups)), GroupJackknife(groups, 0), (0.0, 1.0))


def ranked(positives, negatives, rng):
    target = np.repeat([1.0, 0.0], [positives, negatives])[:, None]
    return rng.random(target.shape) * 0.5 + target * 0.4, target


@pytest.mark.parametrize(("positives", "negatives", "given"), [(10, 10, True), (9, 90, False), (90, 9, False)])
def test_a_ranking_needs_ten_groups_of_each_class(positives, negatives, given):
    p, target = ranked(positives, negatives, np.random.default_rng(1))
    scores = score_multilabel(p.clip(0, 1), target, ["x"], each(len(p)), [0.5])
    for score in (scores["per_label"]["x"]["auroc"], scores["metrics"]["auroc_macro"]):
        assert (score["low"] is not None) == given
        assert ("note" in score) != given
    few = "9 groups have positive rows" if positives < 10 else "9 groups have negative rows"
    assert given or scores["per_label"]["x"]["auroc"]["note"] == f"{few}, 10 are needed"
    assert scores["metrics"]["accuracy"]["low"] is not None


def test_a_ranking_without_errors_is_worth_its_rarer_class():
    p, target = np.repeat([0.9, 0.1], [12, 400])[:, None], np.repeat([1.0, 0.0], [12, 400])[:, None]
    score = score_multilabel(p, target, ["x"], each(412), [0.5])["per_label"]["x"]
    assert score["auroc"]["low"] == pytest.approx(0.025 ** (1 / 12), abs=0.07)
    assert score["auroc"]["high"] == 1
    assert score["f1"]["low"] == score["auroc"]["low"]


def test_a_mean_over_labels_says_which_one_a_single_group_can_take_away():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 80)
    target[:2] = 2
    p = rng.dirichlet(np.ones(3), 80)
    groups = [str(max(i, 1)) for i in range(80)]
    scores = score_classification(p, target, ["a", "b", "rare"], groups)
    note = "the mean loses rare where one group is left out"
    assert scores["metrics"]["f1_macro"]["note"] == note
    assert scores["metrics"]["f1_macro"]["low"] is not None
    assert scores["metrics"]["auroc_macro"]["note"] == "fewer than 10 groups have positive, or negative, rows of rare"
    assert "note" not in scores["metrics"]["accuracy"]
    without = score_classification(p[:, :2] / p[:, :2].sum(1, keepdims=True), target % 2, ["a", "b"], groups)
    assert "note" not in without["metrics"]["f1_macro"]


@pytest.mark.parametrize("tied", [False, True])
def test_sizes_that_go_with_difficulty_are_told(tied):
    rng = np.random.default_rng(2)
    sizes = 1 + rng.geometric(0.15, 200)
    right = np.where(sizes > 6, 0.95 if tied else 0.8, 0.6 if tied else 0.8)
    score = mean_score((rng.random(sizes.sum()) < np.repeat(right, sizes)).astype(float), np.repeat(each(200), sizes))
    assert ("large groups score unlike small ones" in score.get("note", "")) == tied


def test_each_group_is_left_out_once_and_many_in_blocks_alike():
    few = GroupJackknife(list("abca"))
    times = few.multiplicities(0, few.resamples)
    assert (few.resamples, times.sum()) == (3, 6)
    np.testing.assert_array_equal(times[few.blocks], 1 - np.eye(3))
    sizes = np.where(np.arange(5300) < 1000, 9, 1)
    many = GroupJackknife(np.repeat(each(5300), sizes))
    assert many.resamples == BLOCKS
    left = many.num_groups - many.multiplicities(0, BLOCKS).sum(axis=1)
    assert set(left) == {5, 6}
    names = np.unique(each(5300))
    rows = np.bincount(many.blocks, sizes[names.astype(int)])
    assert set(rows) <= {9 + 4, 9 + 5}
    again = GroupJackknife(np.repeat(each(5300), sizes)[::-1])
    np.testing.assert_array_equal(again.blocks, many.blocks)
    assert (GroupJackknife(["a"]).resamples, GroupJackknife(each(5), 0).resamples) == (0, 0)


def test_blocks_of_groups_give_the_interval_of_groups():
    rng = np.random.default_rng(0)
    sizes = rng.geometric(0.3, 4000)
    groups = np.repeat(each(4000), sizes)
    right = (rng.random(len(groups)) < np.repeat(rng.beta(9, 1, 4000), sizes)).astype(float)
    score = mean_score(right, groups)
    _, where = np.unique(groups, return_inverse=True)
    hits, held = np.bincount(where, right), np.bincount(where)
    left_out = (hits.sum() - hits) / (held.sum() - held)
    low, high = score_interval(right.mean(), left_out, shares_of(held), (0.0, 1.0))
    assert (score["low"], score["high"]) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_scores_of_many_models_at_once_are_those_of_each():
    rng = np.random.default_rng(0)
    left_out = 0.9 + 0.01 * rng.standard_normal((5, 30))
    held = rng.integers(1, 9, (5, 30))
    low, high = score_interval(np.full(5, 0.9), left_out, shares_of(held), (0.0, 1.0))
    for i in range(5):
        one = score_interval(0.9, left_out[i], shares_of(held[i]), (0.0, 1.0))
        assert (low[i], high[i]) == pytest.approx(one)


@pytest.mark.parametrize("sizes", ["equal", "pareto"])
def test_it_covers_a_score_near_1_of_groups_that_err_as_a_whole(sizes):
    """Accuracy .97, correlation .3 within 100 groups: the percentiles of the bootstrap hold it in some 85 %."""
    rng, inside, given = np.random.default_rng(3), 0, 0
    for _ in range(300):
        n = np.full(100, 6) if sizes == "equal" else np.floor(2 * rng.random(100) ** (-1 / 1.5)).astype(int)
        hits = rng.binomial(n, rng.beta(0.97 * 7 / 3, 0.03 * 7 / 3, 100))
        if effective_number(n) < 10:
            continue
        left_out = (hits.sum() - hits) / (n.sum() - n)
        low, high = score_interval(hits.sum() / n.sum(), left_out, shares_of(n), (0.0, 1.0))
        inside, given = inside + (low <= 0.97 <= high), given + 1
    assert inside / given >= 0.93


def test_labels_are_counted_by_what_their_scores_are_of():
    truth = np.array([[1, 0], [0, np.nan], [1, 1], [0, 0]], float)
    said = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], float)
    basis = LabelBasis(truth, said, ["a", "b"], GroupJackknife(each(4)))
    held = {name: [rows.tolist() for rows in of.T] for name, of in basis._held.items()}
    assert held["true"] == [[1, 0, 1, 0], [0, 0, 1, 0]]
    assert held["false"] == [[0, 1, 0, 1], [1, 0, 0, 1]]
    assert held["said"] == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert held["denied"] == [[0, 0, 1, 1], [1, 0, 1, 1]]
    assert basis("rows") == [Basis(None, "4 groups; 10 are needed")]
    assert isinstance(shares_of([1, 1, 2]), Shares)
