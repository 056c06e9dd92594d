"""Metrics of decisions, as every reader of a classification report expects them; see docs/metrics.md.

All are made of how often each label was said rightly and wrongly. A score without anything below the line is undefined
(NaN), and left out of a mean over labels: scikit-learn's `zero_division=nan`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics import METRICS
from mmfuse.metrics.ranking import mean_over_labels, ratio
from mmfuse.metrics.scored import Counts, Scored
from mmfuse.metrics.standard import LABELS

Array = NDArray[np.float64]


def precision(counts: Counts) -> Array:
    """Share of what was said that is true, `(b, L)`."""
    return ratio(counts.hits, counts.said)


def recall(counts: Counts) -> Array:
    """Share of what is true that was said, `(b, L)`."""
    return ratio(counts.hits, counts.positives)


def specificity(counts: Counts) -> Array:
    """Share of what is not true that was not said, `(b, L)`."""
    return ratio(counts.rejections, counts.rejections + counts.false_alarms)


def negative_predictive_value(counts: Counts) -> Array:
    """Share of what was not said that is not true, `(b, L)`."""
    return ratio(counts.rejections, counts.rejections + counts.misses)


def f1(counts: Counts) -> Array:
    """Harmonic mean of precision and recall, `(b, L)`."""
    return ratio(2 * counts.hits, counts.positives + counts.said)


def _counted(scored: Scored) -> Counts:
    return scored.counts(np.ones((1, len(scored))))


def _defined(each: Array) -> int:
    return int((~np.isnan(each[0])).sum())


class _Decided:
    """A metric of decisions on labels."""

    kinds = LABELS
    needs = frozenset({"decisions"})
    larger_is_better = True
    range = (0.0, 1.0)
    per_label = False
    counts = "labels"


class _OfCounts(_Decided):
    """A metric that is made of counts."""

    each = staticmethod(precision)

    def __call__(self, scored: Scored, weights: Array) -> Array:
        """`(b,)`, or one value a label `(b, L)`."""
        return self.average(scored.counts(weights))

    def average(self, counts: Counts) -> Array:
        """One value a label, `(b, L)`, or what becomes of them."""
        return self.each(counts)


@METRICS.register("ppv")
@METRICS.register("precision")
class Precision(_OfCounts):
    """Of what was said of a label, the share that is true: the positive predictive value (PPV).

    Reference: scikit-learn's `precision_score(average=None)`.
    Differs: undefined for a label that was never said, where scikit-learn says 0.
    Prefer when: a false alarm is dear. It depends on how frequent the label is among the rows.
    """

    per_label = True
    counts = "said"
    each = staticmethod(precision)


@METRICS.register("sensitivity")
@METRICS.register("recall")
class Recall(_OfCounts):
    """Of the rows where a label is true, the share of which it was said: the sensitivity.

    Reference: scikit-learn's `recall_score(average=None)`.
    Differs: undefined for a label without positives, where scikit-learn says 0.
    Prefer when: a miss is dear.
    """

    per_label = True
    counts = "true"
    each = staticmethod(recall)


@METRICS.register("specificity")
class Specificity(_OfCounts):
    """Of the rows where a label is not true, the share of which it was not said.

    Reference: scikit-learn's `recall_score(pos_label=0)` of one label against the rest.
    Differs: undefined for a label without negatives, where scikit-learn says 0.
    Prefer when: sensitivity is reported; neither means much without the other.
    """

    per_label = True
    counts = "false"
    each = staticmethod(specificity)


@METRICS.register("npv")
class NegativePredictiveValue(_OfCounts):
    """Of the rows of which a label was not said, the share where it is not true.

    Reference: scikit-learn's `precision_score(pos_label=0)` of one label against the rest.
    Differs: undefined for a label that was always said, where scikit-learn says 0.
    Prefer when: a negative result rules something out. It depends on how frequent the label is among the rows.
    """

    per_label = True
    counts = "denied"
    each = staticmethod(negative_predictive_value)


class _Micro(_OfCounts):
    """Of all labels' decisions together."""

    counts = "rows"

    def average(self, counts: Counts) -> Array:
        """`(b,)`."""
        return self.each(counts.pooled())[..., 0]


class _Macro(_OfCounts):
    """The mean over labels, of those where it is defined."""

    def average(self, counts: Counts) -> Array:
        """`(b,)`."""
        return mean_over_labels(self.each(counts))

    def over(self, scored: Scored) -> int:
        """Over how many labels it is."""
        return _defined(self.each(_counted(scored)))


class _Weighted(_OfCounts):
    """The mean over labels, weighted by their positives, of those where it is defined."""

    counts = "rows"

    def average(self, counts: Counts) -> Array:
        """`(b,)`."""
        values = self.each(counts)
        weights = np.where(np.isnan(values), 0.0, counts.positives)
        return ratio((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


@METRICS.register("precision_micro")
class PrecisionMicro(_Micro):
    """Precision of all labels' decisions together; of classes it is the accuracy.

    Reference: scikit-learn's `precision_score(average="micro")`.
    Differs: undefined where nothing was said.
    Prefer when: every decision matters as much, whatever its label.
    """


@METRICS.register("precision_macro")
class PrecisionMacro(_Macro):
    """Mean over labels of precision.

    Reference: scikit-learn's `precision_score(average="macro", zero_division=nan)`.
    Differs: nothing; by default scikit-learn counts 0 for a label that was never said.
    Prefer when: rare labels matter as much as frequent ones; with `recall_macro`, as what is never said costs nothing.
    """


@METRICS.register("precision_weighted")
class PrecisionWeighted(_Weighted):
    """Mean over labels of precision, weighted by their positives.

    Reference: scikit-learn's `precision_score(average="weighted", zero_division=nan)`.
    Differs: undefined where no label with positives was said; scikit-learn's mean is then over the labels without any.
        By default scikit-learn counts 0 for a label that was never said.
    Prefer when: a table of others has it.
    """


@METRICS.register("recall_micro")
class RecallMicro(_Micro):
    """Recall of all labels' decisions together; of classes it is the accuracy.

    Reference: scikit-learn's `recall_score(average="micro")`.
    Differs: undefined where nothing is true.
    Prefer when: every positive matters as much, whatever its label.
    """

    each = staticmethod(recall)


@METRICS.register("recall_macro")
class RecallMacro(_Macro):
    """Mean over labels of recall; of classes it is the balanced accuracy.

    Reference: scikit-learn's `recall_score(average="macro", zero_division=nan)`.
    Differs: nothing; by default scikit-learn counts 0 for a label without positives.
    Prefer when: rare labels matter as much as frequent ones.
    """

    each = staticmethod(recall)


@METRICS.register("recall_weighted")
class RecallWeighted(_Weighted):
    """Mean over labels of recall, weighted by their positives; of classes it is the accuracy.

    Reference: scikit-learn's `recall_score(average="weighted")`.
    Differs: nothing.
    Prefer when: a table of others has it.
    """

    each = staticmethod(recall)


@METRICS.register("f1_weighted")
class F1Weighted(_Weighted):
    """Mean over labels of F1, weighted by their positives.

    Reference: scikit-learn's `f1_score(average="weighted")`.
    Differs: undefined where nothing is true.
    Prefer when: a table of others has it. It can lie outside of what precision and recall span.
    """

    each = staticmethod(f1)


class _Agreement(_Decided):
    """Of the confusion of classes; of labels the mean over their own, of those where it is defined."""

    def __call__(self, scored: Scored, weights: Array) -> Array:
        """`(b,)`."""
        counts = scored.counts(weights)
        if scored.exclusive:
            return self.agreement(counts.positives, counts.said, counts.hits.sum(axis=-1))
        return mean_over_labels(self._each(counts))

    def over(self, scored: Scored) -> int | None:
        """Over how many labels it is; None of classes, of which it is no mean."""
        return None if scored.exclusive else _defined(self._each(_counted(scored)))

    def _each(self, counts: Counts) -> Array:
        negatives, denied = counts.rejections + counts.false_alarms, counts.rejections + counts.misses
        true, said = np.stack([counts.positives, negatives], -1), np.stack([counts.said, denied], -1)
        return self.agreement(true, said, counts.hits + counts.rejections)

    def agreement(self, true: Array, said: Array, right: Array) -> Array:
        """`(...)`, of how often each class is true and is said, `(..., K)`, and how often that is right, `(...)`."""
        raise NotImplementedError


@METRICS.register("balanced_accuracy")
class BalancedAccuracy(_Decided):
    """Mean over classes of recall; of labels the mean over labels of (sensitivity + specificity) / 2.

    Reference: scikit-learn's `balanced_accuracy_score`, of labels that of each column.
    Differs: a label without positives or without negatives is left out.
    Prefer when: classes differ in frequency; 1 / K is chance.
    """

    def __call__(self, scored: Scored, weights: Array) -> Array:
        """`(b,)`."""
        return mean_over_labels(self._each(scored, scored.counts(weights)))

    def over(self, scored: Scored) -> int:
        """Over how many labels it is."""
        return _defined(self._each(scored, _counted(scored)))

    def _each(self, scored: Scored, counts: Counts) -> Array:
        return recall(counts) if scored.exclusive else (recall(counts) + specificity(counts)) / 2


@METRICS.register("mcc")
class MatthewsCorrelation(_Agreement):
    """Matthews' correlation coefficient of what is true and what was said; of labels the mean over labels.

    Reference: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient";
    scikit-learn's `matthews_corrcoef`, of labels that of each column.
    Differs: undefined where one class alone is true or is said, where scikit-learn says 0.
    Prefer when: one number for a confusion matrix is wanted, whatever the frequencies of its classes; 0 is chance.
    """

    range = (-1.0, 1.0)

    def agreement(self, true: Array, said: Array, right: Array) -> Array:
        """`(...)`."""
        every = true.sum(axis=-1)
        both = right * every - (true * said).sum(axis=-1)
        spread = (every**2 - (true**2).sum(axis=-1)) * (every**2 - (said**2).sum(axis=-1))
        return np.clip(ratio(both, np.sqrt(spread)), -1, 1)


@METRICS.register("cohen_kappa")
class CohenKappa(_Agreement):
    """Cohen's kappa: the agreement of what is true and what was said beyond chance; of labels the mean over labels.

    Reference: Cohen 1960, "A coefficient of agreement for nominal scales"; scikit-learn's `cohen_kappa_score`, of
    labels that of each column.
    Differs: undefined where the same class alone is true and is said (scikit-learn: NaN).
    Prefer when: readers agree or disagree, and the model is one of them; 0 is chance.
    """

    range = (-1.0, 1.0)

    def agreement(self, true: Array, said: Array, right: Array) -> Array:
        """`(...)`."""
        every = true.sum(axis=-1)
        chance = (true * said).sum(axis=-1)
        return ratio(right * every - chance, every**2 - chance)
