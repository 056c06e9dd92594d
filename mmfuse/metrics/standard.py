"""The metrics of every report of labels, by name, as `score_classification` and `score_multilabel` give them.

Their meaning is told there; here is what lets a config name them: for training to stop on, for a benchmark to compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics import METRICS
from mmfuse.metrics.labels import COUNTS, MOST_SURPRISE
from mmfuse.metrics.ranking import ratio
from mmfuse.metrics.scored import Scored

Array = NDArray[np.float64]
LABELS = ("classification", "multilabel")
BINS = 15


class _Standard:
    """One of the scores that all reports have."""

    kinds = LABELS
    needs = frozenset({"decisions"})
    larger_is_better = True
    range = (0.0, 1.0)
    per_label = False
    counts = "rows"
    name: str

    def __call__(self, scored: Scored, weights: Array) -> Array:
        """`(b,)`, or one value a label `(b, L)`."""
        return scored.standard(weights)[self.name]


@METRICS.register("accuracy")
class Accuracy(_Standard):
    """Share of rows whose class was said; of labels, share of the labelled entries that are right.

    Reference: scikit-learn's `accuracy_score`.
    Differs: of labels, entry by entry; scikit-learn's counts rows of which every label is right.
    Prefer when: classes are about as frequent; else `balanced_accuracy` or `mcc`.
    """

    name = "accuracy"


@METRICS.register("f1_macro")
class F1Macro(_Standard):
    """Mean over labels of F1.

    Reference: scikit-learn's `f1_score(average="macro")`.
    Differs: a label that no row has is left out, whether or not it was said; scikit-learn counts 0 for it.
    Prefer when: rare labels matter as much as frequent ones.
    """

    name = "f1_macro"
    counts = COUNTS[name]


@METRICS.register("f1_micro")
class F1Micro(_Standard):
    """F1 of all labelled entries together; of classes it is the accuracy.

    Reference: scikit-learn's `f1_score(average="micro")`.
    Differs: undefined where nothing is true; scikit-learn says 0.
    Prefer when: every decision matters as much, whatever its label.
    """

    name = "f1_micro"


@METRICS.register("auroc_macro")
class AurocMacro(_Standard):
    """Mean over labels of the area under the ROC curve, of classes one against the rest.

    Reference: scikit-learn's `roc_auc_score(multi_class="ovr", average="macro")`.
    Differs: labels without positives or negatives are left out; scikit-learn refuses them.
    Prefer when: the ranking matters, and thresholds are chosen later.
    """

    needs = frozenset({"probabilities"})
    name = "auroc_macro"
    counts = COUNTS[name]


@METRICS.register("average_precision_macro")
class AveragePrecisionMacro(_Standard):
    """Mean over labels of the average precision, of classes one against the rest.

    Reference: scikit-learn's `average_precision_score(average="macro")`.
    Differs: labels without positives or negatives are left out; scikit-learn says 0 or 1 there.
    Prefer when: labels are rare, and false alarms among what ranks high matter.
    """

    needs = frozenset({"probabilities"})
    name = "average_precision_macro"
    counts = COUNTS[name]


@METRICS.register("auroc")
class Auroc(_Standard):
    """Area under the ROC curve of each label.

    Reference: scikit-learn's `roc_auc_score`.
    Differs: undefined without positives or negatives.
    Prefer when: labels are looked at one by one; every report has it.
    """

    needs = frozenset({"probabilities"})
    per_label = True
    name = "auroc"
    counts = COUNTS[name]


@METRICS.register("average_precision")
class AveragePrecision(_Standard):
    """Average precision of each label.

    Reference: scikit-learn's `average_precision_score`.
    Differs: undefined without positives or negatives, where scikit-learn says 0 or 1.
    Prefer when: labels are rare, and looked at one by one; every report has it.
    """

    needs = frozenset({"probabilities"})
    per_label = True
    name = "average_precision"
    counts = COUNTS[name]


@METRICS.register("f1")
class F1(_Standard):
    """F1 of each label: the harmonic mean of precision and recall.

    Reference: scikit-learn's `f1_score(average=None)`.
    Differs: undefined for a label that no row has, whether or not it was said; scikit-learn says 0.
    Prefer when: labels are looked at one by one; every report has it.
    """

    per_label = True
    name = "f1"
    counts = COUNTS[name]


@METRICS.register("brier")
class Brier(_Standard):
    """Mean squared distance of probability and truth; of classes half of it.

    Reference: scikit-learn's `brier_score_loss(scale_by_half=True)`; Brier 1950.
    Differs: nothing.
    Prefer when: probabilities themselves are used, and large errors matter most.
    """

    needs = frozenset({"probabilities"})
    larger_is_better = False
    name = "brier"


@METRICS.register("nll")
class Nll(_Standard):
    """Mean negative log likelihood of the truth, in nats.

    Reference: scikit-learn's `log_loss`.
    Differs: nothing; a probability counts as the smallest step above 1 at least.
    Prefer when: probabilities themselves are used, and a sure error must cost most.
    """

    needs = frozenset({"probabilities"})
    larger_is_better = False
    range = (0.0, MOST_SURPRISE)
    name = "nll"


@METRICS.register("ece")
class Ece:
    """Expected calibration error: the mean gap between confidence and frequency, over 15 bins of equal count.

    Reference: Naeini et al. 2015; bins of equal count as in Nixon et al. 2019, arXiv 1904.01685.
    Differs: bins are those of the weighted rows; the intervals of a report keep the bins of the rows as they are.
    Prefer when: one number for calibration is wanted, beside `nll` or `brier`.
    """

    kinds = LABELS
    needs = frozenset({"decisions", "probabilities"})
    larger_is_better = False
    range = (0.0, 1.0)
    per_label = False

    def __call__(self, scored: Scored, weights: Array) -> Array:
        """`(b,)`."""
        rows, confidence, correct = scored.sureness
        order = np.argsort(confidence, kind="stable")
        confidence, correct, weights = confidence[order], correct[order], weights.take(rows[order], axis=1)
        before = np.cumsum(weights, axis=1) - weights
        first = np.searchsorted(confidence, confidence, side="left")  # equal values share a bin
        total = weights.sum(axis=1)
        bins = ratio(before.take(first, axis=1) * BINS, total[:, None], empty=0).astype(np.int64).clip(0, BINS - 1)
        where = bins + BINS * np.arange(len(weights))[:, None]
        gaps = np.bincount(where.ravel(), (weights * (confidence - correct)).ravel(), BINS * len(weights))
        return ratio(np.abs(gaps).reshape(-1, BINS).sum(axis=1), total)
