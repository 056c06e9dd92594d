"""What a page says beside its numbers."""

import math

import pytest
from fake import fake_summary

from mmfuse.benchmarking.appendix import appendix
from mmfuse.benchmarking.notices import about_task


@pytest.fixture
def summary():
    return fake_summary()


def test_why_scores_have_no_interval_is_told_once_and_a_note_of_one_of_them_by_name(summary):
    task = next(iter(summary["tasks"].values()))
    first, *others = task["strategies"]
    assert not [n for n in about_task(task) if n.kind == "intervals"]
    first["score"]["note"] = "large groups score unlike small ones"
    (told,) = [n for n in about_task(task) if n.kind == "intervals"]
    assert (told.title, told.text) == ("Intervals of scores.", f"{first['row']}: large groups score unlike small ones.")
    for s in task["strategies"]:
        s["score"] |= {"low": math.nan, "high": math.nan, "note": "9 groups; 10 are needed"}
    (told,) = [n for n in about_task(task) if n.kind == "intervals"]
    assert (told.title, told.text) == ("No intervals of scores.", "All strategies: 9 groups; 10 are needed.")
    assert others


def test_the_range_of_seeds_stands_beside_a_score(summary):
    score = next(iter(summary["tasks"].values()))["strategies"][0]["score"]
    score |= {"seed_low": 0.123, "seed_high": 0.987}
    assert "0.123, 0.987" in appendix(summary)
