"""Gaps between subgroups: the scores are scikit-learn's, and what is found is there."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.gaps import MeanAuroc, Rates, compare_subgroups, permute_subgroups

N, K = 300, 3


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    groups = [f"p{i // 3:03d}" for i in range(N)]
    truth = (draw.random((N, 2)) < 0.4).astype(float)
    truth[draw.random((N, 2)) < 0.1] = np.nan
    scores = np.round(draw.normal(size=(N, 2)) + np.nan_to_num(truth), 1)  # with ties
    return groups, draw.integers(0, K, N), truth, scores


def auroc(truth, scores, times=None):
    times = np.ones(len(truth)) if times is None else times
    there = ~np.isnan(truth) & (times > 0)
    return roc_auc_score(truth[there], scores[there], sample_weight=times[there])


def test_mean_auroc_is_scikit_learns_within_each_subgroup(rows):
    groups, subgroup, truth, scores = rows
    measure = MeanAuroc(scores, truth, np.ones(K, bool))
    of = [subgroup == k for k in range(K)]
    expected = [np.mean([auroc(truth[k, i], scores[k, i]) for i in range(2)]) for k in of]
    np.testing.assert_allclose(measure.values(subgroup)[:, 0], expected)
    np.testing.assert_array_equal(measure.permuted(np.stack([subgroup, subgroup[::-1]]))[0], measure.values(subgroup))
    bootstrap = GroupBootstrap(groups, 4, seed=1)
    times = bootstrap.multiplicities(0, 4)[:, bootstrap.row_group]
    expected = [[np.mean([auroc(truth[k, i], scores[k, i], w[k]) for i in range(2)]) for k in of] for w in times]
    np.testing.assert_allclose(measure.resampled(subgroup, bootstrap)[..., 0], expected)


def test_scores_without_ties_take_the_shorter_way_to_the_same(rows):
    _, subgroup, truth, _ = rows
    scores = np.random.default_rng(1).normal(size=truth.shape)
    expected = [np.mean([auroc(truth[subgroup == k, i], scores[subgroup == k, i]) for i in range(2)]) for k in range(K)]
    np.testing.assert_allclose(MeanAuroc(scores, truth, np.ones(K, bool)).values(subgroup)[:, 0], expected)


def test_a_subgroup_without_positives_has_no_auroc(rows):
    _, subgroup, truth, scores = rows
    truth[(subgroup == 1) & (truth[:, 0] == 1), 0] = 0
    assert np.isnan(MeanAuroc(scores, truth, np.ones(K, bool)).values(subgroup)[:, 0]).tolist() == [False, True, False]


def test_rates_are_sums_over_the_rows_of_each_subgroup(rows):
    groups, subgroup, truth, scores = rows
    positive = 1.0 * (truth == 1)
    measure = Rates([("tpr", "a"), ("tpr", "b")], positive * (scores > 0.5), positive, np.ones((K, 2), bool))
    found = measure.values(subgroup)
    for k in range(K):
        for i in range(2):
            there = (subgroup == k) & (truth[:, i] == 1)
            assert found[k, i] == pytest.approx((scores[there, i] > 0.5).mean())
    bootstrap = GroupBootstrap(groups, 3, seed=1)
    times = bootstrap.multiplicities(0, 3)[:, bootstrap.row_group]
    there = (subgroup == 2) & (truth[:, 0] == 1)
    expected = (times[:, there] @ (scores[there, 0] > 0.5)) / times[:, there].sum(axis=1)
    np.testing.assert_allclose(measure.resampled(subgroup, bootstrap)[:, 2, 0], expected)


def test_a_permutation_moves_whole_groups(rows):
    groups, _, _, _ = rows
    ids = [f"{i:03d}" for i in range(N)]
    whole = np.repeat(np.random.default_rng(0).integers(0, K, N // 3), 3)
    for permuted in permute_subgroups(whole, groups, ids, 5, seed=0):
        assert (permuted.reshape(-1, 3) == permuted.reshape(-1, 3)[:, :1]).all()
        assert np.bincount(permuted).tolist() == np.bincount(whole).tolist()
        assert (permuted != whole).any()
    order = np.random.default_rng(1).permutation(N)
    moved = permute_subgroups(whole[order], [groups[i] for i in order], [ids[i] for i in order], 5, seed=0)
    np.testing.assert_array_equal(moved, permute_subgroups(whole, groups, ids, 5, seed=0)[:, order])


def test_values_that_differ_within_a_group_are_dealt_out_in_turn():
    groups, ids = ["a", "a", "b", "b", "b"], ["1", "2", "3", "4", "5"]
    found = permute_subgroups(np.array([0, 1, 2, 2, 0]), groups, ids, 20, seed=0).tolist()
    assert sorted(set(map(tuple, found))) == [(0, 1, 2, 2, 0), (2, 2, 0, 1, 0)]


def _compared(gap, seed, number=2, rows=400):
    draw = np.random.default_rng(seed)
    of_patient = draw.integers(0, number, number * rows // 2)
    subgroup = np.repeat(of_patient, 2)
    groups = [str(i) for i in np.repeat(np.arange(len(of_patient)), 2)]
    found = 1.0 * (draw.random(len(subgroup)) < 0.8 - gap * (subgroup == 0))
    measure = Rates([("tpr", "a")], found[:, None], np.ones((len(found), 1)), np.ones((number, 1), bool))
    ids = [str(i) for i in range(len(found))]
    permuted = permute_subgroups(subgroup, groups, ids, 199, seed)
    return compare_subgroups([measure], subgroup, permuted, GroupBootstrap(groups, 200, seed)).gaps[0]


def test_a_planted_gap_is_found_and_covered():
    gaps = [_compared(0.15, seed) for seed in range(12)]
    assert all(gap.p <= 0.05 and gap.value > gap.chance for gap in gaps)
    assert sum(gap.low <= 0.15 <= gap.high for gap in gaps) >= 10
    assert {gap.lowest for gap in gaps} == {0}


def test_without_one_the_largest_gap_is_no_finding():
    gaps = [_compared(0, seed, number=8, rows=60) for seed in range(25)]
    assert np.mean([gap.value for gap in gaps]) > 0.1  # large to look at
    assert sum(gap.p <= 0.05 for gap in gaps) <= 3
    assert sum(gap.low == 0 for gap in gaps) >= 22


def test_unlike_prevalence_is_no_gap():
    found = 0
    for seed in range(25):
        draw = np.random.default_rng(seed)
        subgroup = draw.integers(0, 2, 1000)
        truth = 1.0 * (draw.random(1000) < np.array([0.03, 0.5])[subgroup])
        hit = truth * (draw.random(1000) < 0.7)
        ids = [str(i) for i in range(1000)]
        measure = Rates([("tpr", "a")], hit[:, None], truth[:, None], np.ones((2, 1), bool))
        permuted = permute_subgroups(subgroup, ids, ids, 199, seed)
        found += compare_subgroups([measure], subgroup, permuted, GroupBootstrap(ids, 200, seed)).gaps[0].p <= 0.05
    assert found <= 4  # by permutations alone 9


def test_a_family_has_a_stricter_p():
    draw = np.random.default_rng(0)
    ids = [str(i) for i in range(400)]
    subgroup, values = draw.integers(0, 2, 400), draw.random((400, 20))
    names = [("mean", str(i)) for i in range(20)]
    permuted, bootstrap = permute_subgroups(subgroup, ids, ids, 199, 0), GroupBootstrap(ids, 200)
    one = Rates(names[:1], values[:, :1], np.ones((400, 1)), np.ones((2, 1), bool))
    all_of_them = Rates(names, values, np.ones((400, 20)), np.ones((2, 20), bool))
    alone = compare_subgroups([one], subgroup, permuted, bootstrap).gaps[0]
    among = compare_subgroups([all_of_them], subgroup, permuted, bootstrap).gaps
    assert among[0].p == alone.p == pytest.approx(alone.p_family, abs=0.02)
    assert min(gap.p_family for gap in among) > 2 * min(gap.p for gap in among)


def test_a_score_of_a_subgroup_has_the_interval_that_a_report_gives_it():
    """40 right of 40 are not surely all, groups that are too few give none, and half the groups' rate is a report's."""
    from mmfuse.metrics.basis import score_of_mean
    from mmfuse.metrics.bootstrap import GroupJackknife

    draws = np.random.default_rng(0)
    subgroup = np.repeat([0, 1, 2], [40, 90, 5])
    right = np.concatenate([np.ones(40), draws.random(90) < 0.7, np.ones(5)])[:, None]
    groups = [f"g{row}" for row in range(40)] + [f"h{row // 2}" for row in range(90)] + [f"i{row}" for row in range(5)]
    measures = [Rates([("accuracy", None)], right, np.ones((135, 1)), np.ones((3, 1), dtype=bool))]
    permuted = permute_subgroups(subgroup, groups, groups, 20, 0)
    found = compare_subgroups(measures, subgroup, permuted, GroupBootstrap(groups, 50))
    assert 0.85 < found.low[0, 0] < 0.95
    assert found.high[0, 0] == 1
    alone = score_of_mean(right[subgroup == 1, 0], GroupJackknife(groups[40:130]), (0.0, 1.0))
    assert [found.low[1, 0], found.high[1, 0]] == pytest.approx([alone["low"], alone["high"]])
    assert np.isnan([found.low[2, 0], found.high[2, 0]]).all()
    assert found.values[2, 0] == 1
