"""Differences of two models on the same rows: the interval covers, and says the same as p."""

import numpy as np
import pytest
from scipy import stats

from mmfuse.metrics.decisions import decision_replicates
from mmfuse.metrics.labels import multilabel_outcomes, weighted_scores
from mmfuse.metrics.paired import PairedJackknife, compare_replicates, paired_difference


def of_accuracy(right_a, right_b):
    """What gives both models' accuracy under each resample."""
    said = np.where([right_a, right_b], 0, 1)

    def replicates(jackknife):
        drawn = decision_replicates("accuracy", said, np.zeros(said.shape[1], int), ["x", "y"], jackknife)
        return tuple({"accuracy": one} for one in drawn)

    return replicates


def accuracy(right_a, right_b, groups):
    return compare_replicates(of_accuracy(right_a, right_b), PairedJackknife(groups), {"accuracy": (0, 1)})["accuracy"]


def test_each_block_is_left_out_in_turn_and_first_none():
    jackknife = PairedJackknife(["b", "a", "b", "c"])
    times = jackknife.multiplicities(0, 4)
    assert times[0].tolist() == [1, 1, 1]
    assert sorted(times[1:].sum(axis=1)) == [2, 2, 2]
    assert times[1:].sum(axis=0).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(jackknife.doubled().multiplicities(1, 4), np.where(times[1:] == 0, 2, 1))
    assert jackknife.effective == pytest.approx(16 / 6)
    many = PairedJackknife(np.arange(2500).astype(str))
    assert many.resamples == 1001
    assert set(np.bincount(many.blocks)) == {2, 3}


def test_of_many_groups_that_all_differ_it_is_the_paired_t_test():
    values = np.random.default_rng(0).normal(0.3, 1, 4000)
    moved = (values - values.mean()) / (len(values) - 1)
    found = paired_difference(values.mean(), moved, len(values))
    official = stats.ttest_1samp(values, 0)
    assert found["p"] == pytest.approx(official.pvalue, rel=0.05)
    interval = official.confidence_interval()
    assert [found["low"], found["high"]] == pytest.approx([interval.low, interval.high], abs=2e-4)


@pytest.mark.parametrize("seed", range(40))
def test_the_interval_is_without_0_exactly_where_p_is_at_most_5_percent(seed):
    rng = np.random.default_rng(seed)
    G = int(rng.integers(2, 60))
    groups = np.sort(rng.integers(0, G, 3 * G)).astype(str)
    better = rng.random() * 0.5
    a, b = rng.random(3 * G) < 0.5, rng.random(3 * G) < 0.5 + better
    found = accuracy(a, b, groups)
    difference = found.difference
    assert difference["value"] == pytest.approx(b.mean() - a.mean())
    assert (found.a, found.b) == pytest.approx((a.mean(), b.mean()))
    without_0 = difference["low"] > 0 or difference["high"] < 0
    assert without_0 == (difference["p"] <= 0.05)
    assert -1 <= difference["low"] <= difference["value"] <= difference["high"] <= 1
    back = accuracy(b, a, groups).difference
    assert [back["low"], back["high"], back["p"]] == pytest.approx(
        [-difference["high"], -difference["low"], difference["p"]]
    )


def test_models_that_agree_on_every_row_may_differ_on_others():
    right = np.arange(40) % 9 > 0
    groups = np.arange(40).astype(str)
    found = accuracy(right, right, groups).difference
    reach = 1 - 0.025 ** (1 / 40)  # Clopper and Pearson, of 0 of 40
    assert found == {"value": 0.0, "low": pytest.approx(-reach), "high": pytest.approx(reach), "p": 1.0}
    assert paired_difference(0.0, np.zeros(40), 40) == {"value": 0.0, "low": None, "high": None, "p": 1.0}


def test_one_group_and_an_undefined_difference_have_no_interval():
    assert accuracy(np.array([True, False]), np.array([True, True]), ["g", "g"]).difference == {
        "value": 0.5,
        "low": None,
        "high": None,
        "p": None,
    }
    assert paired_difference(np.nan, np.zeros(3), 3) == dict.fromkeys(("value", "low", "high", "p"))


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(3)
    a, b, groups = rng.random(90) < 0.6, rng.random(90) < 0.7, rng.integers(0, 20, 90).astype(str)
    order = rng.permutation(90)
    assert accuracy(a, b, groups) == accuracy(a[order], b[order], groups[order])


def test_it_covers_where_few_rows_differ():
    rng, covered, p_small = np.random.default_rng(0), 0, 0
    for _ in range(400):  # b is right in 2 % of the rows where a is wrong; in 45 % of the runs nothing differs
        a = rng.random(40) < 0.88
        b = a | (rng.random(40) < 0.02 / 0.12)
        found = accuracy(a, b, np.arange(40).astype(str)).difference
        covered += found["low"] <= 0.02 <= found["high"]
        a, b = rng.random((2, 40)) < 0.8
        p_small += accuracy(a, b, np.arange(40).astype(str)).difference["p"] <= 0.05
    assert covered / 400 >= 0.95
    assert 0.01 <= p_small / 400 <= 0.07


def test_a_group_without_which_a_label_is_lost_is_counted_twice_instead():
    rng = np.random.default_rng(1)
    truth = (rng.random((60, 2)) < 0.4).astype(float)
    truth[:, 1] = np.arange(60) < 2  # both of one group
    groups = np.char.zfill((np.arange(60) // 2).astype(str), 2)
    jackknife = PairedJackknife(groups)
    lost = jackknife.losing(truth)
    assert lost.sum() == 1
    assert lost[jackknife.blocks[0]]
    models = [multilabel_outcomes(rng.random((60, 2)) + 0.3 * truth, truth, truth > 2) for _ in range(2)]

    def replicates(resamples):
        return tuple({"auroc_macro": resamples.replicate(weighted_scores(m, resamples))["auroc_macro"]} for m in models)

    kept, left_out = (
        compare_replicates(replicates, jackknife, {"auroc_macro": (0, 1)}, which)["auroc_macro"].difference
        for which in (lost, None)
    )
    assert kept["value"] == left_out["value"]
    assert kept["high"] - kept["low"] < left_out["high"] - left_out["low"]  # a mean over one label is another score


def test_a_metric_that_is_undefined_without_a_group_still_has_an_interval():
    truth = np.zeros((20, 1))
    truth[:1] = 1
    groups = np.char.zfill(np.arange(20).astype(str), 2)
    rng = np.random.default_rng(2)
    models = [multilabel_outcomes(rng.random((20, 1)), truth, truth > 2) for _ in range(2)]

    def replicates(resamples):
        drawn = [resamples.replicate(weighted_scores(m, resamples)) for m in models]
        return tuple({"auroc_macro": one["auroc_macro"]} for one in drawn)

    found = compare_replicates(replicates, PairedJackknife(groups))["auroc_macro"].difference
    assert found["low"] < found["value"] < found["high"]
