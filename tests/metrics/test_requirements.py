"""Gates: what can be required, and that the end of the interval decides."""

import pytest

from mmfuse.metrics.requirements import Askable, judge, read_requirements, requirement_lines
from mmfuse.types import MmfuseError

TASKS = {
    "finding": Askable(["accuracy", "auroc_macro", "ece"], frozenset({"ece"})),
    "a / b": Askable(["rmse"], frozenset({"rmse"})),
}
SCORE = {"value": 0.85, "low": 0.79, "high": 0.9}


def test_what_is_written_is_read():
    one, other, third = read_requirements(
        ["finding/auroc_macro >= 0.8", " finding/ece<=1e-1 ", "a / b/rmse <= -.5"], TASKS
    )
    assert (one.task, one.metric, one.at_least, one.bound) == ("finding", "auroc_macro", True, 0.8)
    assert (other.metric, other.at_least, other.bound) == ("ece", False, 0.1)
    assert (third.task, third.bound) == ("a / b", -0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finding/auroc_macro > 0.8", r"TASK/METRIC >= NUMBER is expected \(or <=\), such as finding/auroc_macro"),
        ("auroc_macro >= 0.8", "TASK/METRIC >= NUMBER is expected"),
        ("finding/accuracy >= 0.8.1", "TASK/METRIC >= NUMBER is expected"),
        ("findng/accuracy >= 0.8", r"no task 'findng'; legal: finding, a / b \(did you mean 'finding'\?\)"),
        ("finding/acuracy >= 0.8", r"no metric 'acuracy'; legal: accuracy, auroc_macro, ece \(did you mean 'accuracy'"),
        ("finding/ece >= 0.1", "of ece less is better; write <="),
        ("finding/accuracy <= 0.1", "of accuracy more is better; write >="),
    ],
)
def test_what_cannot_be_required_is_told_in_one_line(text, message):
    with pytest.raises(MmfuseError, match=message) as told:
        read_requirements([text], TASKS)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("finding/accuracy >= 0.79", True),
        ("finding/accuracy >= 0.8", False),  # the value would pass
        ("finding/ece <= 0.9", True),
        ("finding/ece <= 0.89", False),
    ],
)
def test_the_end_of_the_interval_decides(text, passed):
    (requirement,) = read_requirements([text], TASKS)
    assert judge(requirement, SCORE, "")["passed"] is passed


def test_what_has_no_interval_fails_with_the_reason():
    (requirement,) = read_requirements(["finding/accuracy >= 0.5"], TASKS)
    without = {"value": 0.9, "low": None, "high": None}
    judged = [
        judge(requirement, SCORE, ""),
        judge(requirement, without, ""),
        judge(requirement, {**without, "note": "one group holds most rows"}, ""),
        judge(requirement, {**without, "value": None}, ""),
        judge(requirement, None, "no row of split test has a target"),
    ]
    assert [one["passed"] for one in judged] == [True, False, False, False, False]
    assert requirement_lines(judged) == [
        "passed: finding/accuracy >= 0.5: 0.85, lower bound 0.79",
        "failed: finding/accuracy >= 0.5: 0.9, it has no interval",
        "failed: finding/accuracy >= 0.5: 0.9, one group holds most rows",
        "failed: finding/accuracy >= 0.5: it is undefined on these rows",
        "failed: finding/accuracy >= 0.5: no row of split test has a target",
    ]
