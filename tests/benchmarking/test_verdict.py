"""What a comparison is said to say, on tables small enough to judge by eye."""

import pytest

from mmfuse.benchmarking.markup import signed
from mmfuse.benchmarking.verdict import verdict

ADDITIVE, MULTIPLICATIVE, TOKEN = "additive", "multiplicative", "token"


def strategy(row, mean, interaction, letters, p=1.0, difference=0.0, validation=None):
    gap = {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "p": p, "p_holm": p}
    return {
        "row": row,
        "interaction": interaction,
        "letters": letters,
        "score": {"mean": mean, "without_seed_variance": False},
        "validation": mean if validation is None else validation,
        "contrasts": {} if row == "text_only" else {"text_only": gap},
        "emap": {"gap": {"accuracy": 0.2}},
    }


def task(*fusions, **changes):
    alone = [strategy("text_only", 0.7, ADDITIVE, "b"), strategy("image_only", 0.6, ADDITIVE, "c", 0.001, -0.1)]
    return {
        "metric": "accuracy",
        "strategies": [*fusions, *alone],
        "references": {"best_unimodal": "text_only"},
        "label_origin": "human",
        "seeds_needed": [],
        "rare_labels": [],
        **changes,
    }


def test_a_gain_that_needs_interactions():
    said = verdict(
        task(
            strategy("film", 0.8, MULTIPLICATIVE, "a", 0.001, 0.1),
            strategy("late", 0.71, ADDITIVE, "b", 0.6, 0.01, 0.7),
        )
    )
    assert said.startswith(
        "Fusion helps here: film scores +10.0 points [+9.0, +11.0] against the text alone (chosen on validation)."
    )
    assert "The gain needs interactions (EMAP gap 20.0 points)" in said


def test_a_gain_that_an_additive_strategy_has_too():
    said = verdict(
        task(strategy("film", 0.8, MULTIPLICATIVE, "a", 0.001, 0.1), strategy("late", 0.79, ADDITIVE, "a", 0.001, 0.09))
    )
    assert "It cannot be told apart from late. The gain is additive: late" in said


def test_not_told_apart_is_not_as_good():
    """An additive row that shares the best one's letter, but is not shown to help, proves nothing of the gain."""
    said = verdict(
        task(strategy("film", 0.8, MULTIPLICATIVE, "ab", 0.001, 0.1), strategy("late", 0.7, ADDITIVE, "b", 0.9, 0.0))
    )
    assert "Whether an additive strategy would do as well cannot be told" in said
    assert "The gain is additive" not in said
    assert "needs" not in said


@pytest.mark.parametrize(
    ("p", "difference", "phrase"),
    [(0.4, 0.01, "which may be chance"), (0.4, -0.03, "which may be chance"), (0.001, -0.03, "which is worse")],
)
def test_no_gain(p, difference, phrase):
    said = verdict(
        task(
            strategy("film", 0.7 + difference, MULTIPLICATIVE, "b", p, difference, validation=0.9),
            strategy("late", 0.7, ADDITIVE, "b", 0.9, 0.0),
        )
    )
    assert said.startswith("No fusion is shown to beat the text alone: film, chosen on validation, scores")
    assert f"against it, {phrase}." in said


def test_every_fusion_hurts():
    assert verdict(task(strategy("late", 0.6, ADDITIVE, "c", 0.001, -0.1))).startswith("Fusion hurts here")


def test_the_one_chosen_on_validation_is_told_of_before_the_best_on_test():
    said = verdict(
        task(
            strategy("film", 0.81, MULTIPLICATIVE, "a", 0.001, 0.11, validation=0.7),
            strategy("gated", 0.8, MULTIPLICATIVE, "a", 0.001, 0.1, validation=0.9),
        )
    )
    assert "gated scores +10.0 points" in said


def test_nothing_is_claimed_where_a_modality_alone_has_failed():
    found = task(strategy("film", 0.8, MULTIPLICATIVE, "a", 0.001, 0.1))
    found["strategies"] = [s for s in found["strategies"] if s["row"] != "image_only"]
    assert verdict(found) == "Whether fusion helps cannot be said: image_only failed."


def test_mined_labels_bring_the_text_only_score_with_them():
    said = verdict(task(strategy("film", 0.8, MULTIPLICATIVE, "a", 0.001, 0.1), label_origin="mined_from_text"))
    assert "text_only, which reads what made them, scores 0.700" in said


def test_one_seed_is_said_once():
    fusion = strategy("film", 0.7, MULTIPLICATIVE, "b", 0.9, 0.0)
    fusion["score"]["without_seed_variance"] = True
    needed = {"strategy": "film", "reference": "text_only", "seeds": None, "reason": "one seed does not show"}
    said = verdict(task(fusion, seeds_needed=[needed]))
    assert "One seed only" in said
    assert "one seed does not show" not in said


def test_an_error_is_better_where_it_is_less_and_told_in_its_unit():
    fusion = strategy("film", 4.5, MULTIPLICATIVE, "a", 0.001, -1.25)
    alone = [strategy("text_only", 5.75, ADDITIVE, "b"), strategy("image_only", 9.0, ADDITIVE, "c", 0.001, 3.25)]
    of = {"metric": "rmse", "unit": "mg/L", "less_is_better": True}
    found = {**task(**of), "strategies": [fusion, *alone]}
    said = verdict(found)
    assert said.startswith("Fusion helps here: film scores -1.25 [-1.26, -1.24] (mg/L of rmse; less is better) against")
    worse = {**found, "strategies": [strategy("film", 7.0, MULTIPLICATIVE, "a", 0.001, 1.25), *alone]}
    assert verdict(worse).startswith("Fusion hurts here")
    late = strategy("late", 4.9, ADDITIVE, "b", 0.001, -0.85)
    assert "film scores" in verdict({**found, "strategies": [late, fusion, *alone]})  # the least on validation


@pytest.mark.parametrize(
    ("value", "written"), [(-1.254, "-1.25"), (1240.4, "+1,240"), (0.01234, "+0.0123"), (0.0, "+0.00"), (None, "–")]
)
def test_a_difference_in_a_unit_has_three_digits(value, written):
    assert signed(value) == written
