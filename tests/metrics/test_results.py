"""Results are what their types say; each field is described."""

from typing import is_typeddict

import numpy as np
import pytest
from typed_results import assert_described, assert_typed

from mmfuse.benchmarking import results as of_benchmarks
from mmfuse.metrics import choose_metrics, results
from mmfuse.metrics.chosen import add_metrics
from mmfuse.metrics.labels import score_classification, score_multilabel
from mmfuse.metrics.scored import Scored

TYPES = [value for module in (results, of_benchmarks) for value in vars(module).values() if is_typeddict(value)]


@pytest.mark.parametrize("hint", TYPES, ids=lambda hint: hint.__name__)
def test_each_field_is_described(hint):
    assert_described(hint)


def test_scores_are_what_their_type_says():
    rng = np.random.default_rng(0)
    p, target, groups = rng.dirichlet([1, 1, 1], 30), rng.integers(0, 3, 30), [str(i // 2) for i in range(30)]
    scores = score_classification(p, target, ["a", "b", "c"], groups, 20)
    metrics = choose_metrics(["mcc", "precision", "ppv", "recall", "specificity", "npv"], "classification", "m")
    add_metrics(scores, Scored.of_classes(p, target, ["a", "b", "c"]), metrics, groups, 20)
    assert_typed(scores, results.TaskScores)
    truth = np.eye(3)[target]
    truth[:, 2] = np.nan
    assert_typed(score_multilabel(p, truth, ["a", "b", "c"], groups, [0.5] * 3, 20), results.TaskScores)
    with pytest.raises(AssertionError, match=r"result.metrics.mcc: .*p.* not described"):
        assert_typed({**scores, "metrics": {"mcc": {**scores["metrics"]["mcc"], "p": 1.0}}}, results.TaskScores)
