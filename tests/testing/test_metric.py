"""The suite of metrics passes on every registered one, and fails on every defect planted here."""

import numpy as np
import pytest

from mmfuse.metrics import METRICS
from mmfuse.testing import SUITES, ConformanceError

CHECKS = SUITES["metric"].checks


@pytest.mark.parametrize("name", METRICS.names())
def test_registered_metric_conforms(name):
    SUITES["metric"].run(name)


class HitRate:
    """Share of rows of which a class that is true was said: a metric without defect.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    kinds = ("classification",)
    needs = frozenset({"decisions"})
    larger_is_better = True
    range = (0.0, 1.0)
    per_label = False

    def __call__(self, scored, weights):
        right = (scored.decided == scored.target).astype(float)
        total = weights.sum(axis=1)
        return np.divide(weights @ right, total, out=np.full(len(weights), np.nan), where=total > 0)


class IgnoresWeights(HitRate):
    def __call__(self, scored, weights):
        return super().__call__(
            scored, np.where(weights.sum(axis=1, keepdims=True) > 0, 1.0, 0.0) * np.ones_like(weights)
        )


class DividesByRows(HitRate):
    def __call__(self, scored, weights):
        total = super().__call__(scored, weights)
        return total * weights.sum(axis=1) / max(len(scored), 1)


class SeesTheOrder(HitRate):
    def __call__(self, scored, weights):
        late = np.arange(len(scored)) / max(len(scored), 1)
        return super().__call__(scored, weights * (1 + late) * 0.5)


class WrongDirection(HitRate):
    larger_is_better = False


class OutOfRange(HitRate):
    def __call__(self, scored, weights):
        return 2 * super().__call__(scored, weights) - 1


class LostAtPerfection(HitRate):
    """Odds, of 0 / 0 where all is right."""

    range = (0.0, float("inf"))

    def __call__(self, scored, weights):
        rate = super().__call__(scored, weights)
        return np.where(rate < 1, rate / np.where(rate < 1, 1 - rate, 1), np.nan)


class ChangesItsInput(HitRate):
    def __call__(self, scored, weights):
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
        return super().__call__(scored, weights)


class SeesOtherReplicates(HitRate):
    def __call__(self, scored, weights):
        found = super().__call__(scored, weights)
        return found - 1e-3 * np.nanmean(np.append(found, 0.0)) if len(weights) > 1 else found


class ZeroInSilence(HitRate):
    def __call__(self, scored, weights):
        return np.nan_to_num(super().__call__(scored, weights))


class Warns(HitRate):
    def __call__(self, scored, weights):
        return (weights @ (scored.decided == scored.target)) / weights.sum(axis=1)


class NeedsMore(HitRate):
    def __call__(self, scored, weights):
        sure = np.round(scored.probabilities.max(axis=1))
        return (super().__call__(scored, weights) + super().__call__(scored, weights * (0.5 + sure))) / 2


class OneForAll(HitRate):
    def __call__(self, scored, weights):
        return super().__call__(scored, weights).mean()


class OfNothing(HitRate):
    kinds = ("clasification",)


class Loose(HitRate):
    def __init__(self, **options):
        pass


class Remembers(HitRate):
    calls = 0

    def __call__(self, scored, weights):
        self.calls += 1
        return super().__call__(scored, weights) / self.calls


DEFECTS = {
    "repeats": [Remembers],
    "weights_are_repeats": [IgnoresWeights, DividesByRows],
    "order_of_rows": [SeesTheOrder],
    "direction": [WrongDirection],
    "range": [OutOfRange],
    "perfect_prediction": [LostAtPerfection],
    "inputs_unchanged": [ChangesItsInput],
    "replicates_apart": [SeesOtherReplicates],
    "undefined": [ZeroInSilence, Warns],
    "needs": [NeedsMore],
    "protocol": [OneForAll, OfNothing, Loose],
}


def plant(monkeypatch, cls):
    METRICS.names()
    cls.__doc__ = HitRate.__doc__
    monkeypatch.setitem(METRICS._classes, "planted", cls)


def test_a_metric_without_defect_passes(monkeypatch):
    plant(monkeypatch, HitRate)
    SUITES["metric"].run("planted")


@pytest.mark.parametrize(("check", "cls"), [(check, cls) for check, planted in DEFECTS.items() for cls in planted])
def test_a_planted_defect_is_caught(monkeypatch, check, cls):
    plant(monkeypatch, cls)
    with pytest.raises(ConformanceError, match=f"metric 'planted' fails {check}: "):
        CHECKS[check]("planted")


def test_every_check_has_a_defect():
    assert set(DEFECTS) == set(CHECKS)
