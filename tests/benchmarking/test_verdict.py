"""What a comparison is said to say, on tables small enough to judge by eye."""

import math

import pytest

from mmfuse.benchmarking.judge import judge, margin_of, size
from mmfuse.benchmarking.verdict import verdict
from mmfuse.pages.markup import signed

ADDITIVE, MULTIPLICATIVE, TOKEN = "additive", "multiplicative", "token"
KINDS = {"late": ADDITIVE, "sum": ADDITIVE, "film": MULTIPLICATIVE, "concat": MULTIPLICATIVE, "cross": TOKEN}


def task(means, width=0.01, widths=None, declared=None, tested=True, **changes):
    """Every strategy against the text alone, and against the declared one: of the fusions the first that is named.

    `width` is half of each interval, `widths` that of single pairs; `tested` whether the gate is open.
    """
    declared = declared or next(row for row in means if row in KINDS)
    less = -1 if changes.get("less_is_better") else 1
    references = {"best_unimodal": "text_only", "declared": declared}

    def gap(row, reference):
        half = (widths or {}).get((row, reference), width)
        difference = means[row] - means[reference]
        first = (row, reference) == (declared, "text_only")
        ends = {"low": difference - half, "high": difference + half}
        return {"difference": difference, **ends, "declared": first, "tested": tested or first}

    rows = sorted(means, key=lambda row: -less * means[row])
    return {
        "metric": "accuracy",
        "strategies": [
            {
                "row": row,
                "interaction": KINDS.get(row, ADDITIVE),
                "uses": ["sex", "age"] if row == "covariates_only" else ["text", "image"],
                "score": {"mean": means[row], "without_seed_variance": False},
                "validation": means[row],
                "contrasts": {r: gap(row, r) for r in references.values() if r != row},
                "emap": {"gap": {"accuracy": 0.2}},
            }
            for row in rows
        ],
        "references": references,
        "margin": None,
        "label_origin": "human",
        "seeds_needed": [],
        "rare_labels": [],
        **changes,
    }


def said(means, **options):
    return verdict(task({"text_only": 0.7, "image_only": 0.6, **means}, **options))


# The first sentence


@pytest.mark.parametrize(
    ("gain", "width", "first"),
    [
        (
            0.1,
            0.01,
            "Fusion helps here: film scores +10.0 points [+9.0, +11.0] against the text alone (chosen on valid",
        ),
        (
            0.02,
            0.015,
            "Fusion helps here: film scores +2.0 points [+0.5, +3.5] against the text alone (chosen on valid",
        ),
        (
            -0.1,
            0.01,
            "Fusion hurts here: the text alone beats every fusion; film, chosen on validation, scores -10.0 p",
        ),
        (
            0.001,
            0.004,
            "Fusion makes no difference here: film, chosen on validation, equals the text alone within 1 po",
        ),
        (
            0.005,
            0.002,
            "Fusion makes no difference here: film, chosen on validation, equals the text alone within 1 po",
        ),
        (
            -0.005,
            0.002,
            "Fusion makes no difference here: film, chosen on validation, equals the text alone within 1 p",
        ),
        (
            0.0,
            0.0,
            "Fusion makes no difference here: film, chosen on validation, equals the text alone within 1 point: ",
        ),
        (
            0.01,
            0.02,
            "No fusion is shown to beat the text alone: film, chosen on validation, scores +1.0 points [-1.0, ",
        ),
        (
            -0.01,
            0.02,
            "No fusion is shown to beat the text alone: film, chosen on validation, scores -1.0 points [-3.0,",
        ),
        (
            0.1,
            math.nan,
            "Whether fusion helps cannot be said: film, chosen on validation, scores +10.0 points against t",
        ),
    ],
)
def test_the_first_sentence_follows_interval_and_margin(gain, width, first):
    found = said({"film": 0.7 + gain}, width=width)
    assert found.startswith(first)
    assert ("chance" in found) == first.startswith("No fusion")
    assert "-0.0" not in found


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.2), (-0.2, -0.001), (0.0001, 0.009)])
def test_an_interval_without_0_is_never_beside_the_word_chance(low, high):
    found = said({"film": 0.7 + (low + high) / 2}, width=(high - low) / 2)
    assert "chance" not in found
    assert "No fusion is shown" not in found


def test_that_a_gain_is_more_than_the_margin_is_said_only_where_it_is_shown():
    assert "That it is more than 1 point is not shown." in said({"film": 0.72}, width=0.015)
    assert "is not shown" not in said({"film": 0.72, "late": 0.72}, width=0.005)


def test_not_every_fusion_hurts():
    found = said({"film": 0.6, "late": 0.7})
    assert found.startswith("Fusion hurts here: film, chosen on validation, scores -10.0 points [-11.0, -9.0] against")


def test_nothing_is_claimed_where_a_modality_alone_has_failed():
    assert verdict(task({"text_only": 0.7, "film": 0.8})) == "Whether fusion helps cannot be said: image_only failed."


def test_without_a_fusion_there_is_nothing_to_compare():
    found = task({"text_only": 0.7, "image_only": 0.6, "film": 0.8})
    found["strategies"] = [s for s in found["strategies"] if s["row"] != "film"]
    assert verdict(found) == "There is no fusion to compare."


@pytest.mark.parametrize(
    ("gain", "width", "first"),
    [
        (0.1, 0.01, "Fusion helps here: film, the best on the test rows, scores +10.0 points"),
        (0.0, 0.02, "No fusion is shown to beat the text alone: film, the best on the test rows, scores +0.0 points"),
        (0.0, 0.002, "Fusion makes no difference here, within 1 point: film"),
    ],
)
def test_without_validation_scores_the_best_on_test_is_told_with_a_corrected_interval(gain, width, first):
    found = task({"text_only": 0.7, "image_only": 0.6, "film": 0.7 + gain}, width=width)
    del found["references"]["declared"]
    assert verdict(found).startswith(first)
    assert "interval corrected for having been picked on the test rows; without validation scores" in verdict(found)


# Others than the declared one


def test_another_is_a_lead_behind_a_shut_gate_and_a_finding_behind_an_open_one():
    means = {"film": 0.71, "late": 0.75}
    shut = said(means, widths={("film", "text_only"): 0.03}, tested=False)
    assert shut.startswith("No fusion is shown to beat the text alone: film")
    scores = "late scores +5.0 points [+4.0, +6.0] against it (interval corrected for"
    assert f"another fusion than the chosen one has the gain: {scores}" in shut
    assert "a lead for new rows, and no finding." in shut
    opened = said({"film": 0.65, "late": 0.75})
    assert opened.startswith("Fusion hurts here: film")
    assert f"Another fusion, which validation did not choose, does beat it: {scores}" in opened


def test_one_that_is_better_within_the_margin_is_no_lead():
    found = said({"film": 0.7, "late": 0.704}, width=0.003)
    assert found.startswith("Fusion makes no difference")
    assert "late" not in found


def test_one_that_is_better_still_is_told_with_its_interval():
    found = said({"late": 0.75, "film": 0.8})
    assert "another fusion is better still, which validation did not choose: film, +5.0 points" in found
    assert "[+4.0, +6.0] against late (interval corrected for" in found
    assert "The gain is additive: late cannot model interactions." in found


# What the gain needs


def test_a_gain_that_needs_interactions():
    found = said({"film": 0.8, "late": 0.71})
    assert (
        "The gain needs interactions (EMAP gap 20.0 points): no additive strategy does as well within 1 point." in found
    )


def test_a_gain_that_an_additive_strategy_has_too():
    assert "The gain is additive: late, which cannot model interactions, does as well within 1 point." in said(
        {"film": 0.8, "late": 0.799}, width=0.005
    )


def test_tokens_are_not_needed_where_a_pooled_strategy_is_equal_within_the_margin():
    """The `interactions` example: .749 and .750 are equal, however many test rows there are."""
    found = said({"cross": 0.95, "concat": 0.949, "late": 0.71}, width=0.0005)
    assert "concat, on pooled vectors, does, so it needs no tokens that meet" in found
    assert "needs tokens" not in found


def test_tokens_are_needed_where_every_pooled_strategy_falls_short_by_more_than_the_margin():
    found = said({"cross": 0.8, "concat": 0.75, "late": 0.71})
    assert "The gain needs tokens that meet (EMAP gap 20.0 points): no strategy on pooled vectors does as well" in found


def test_less_by_no_more_than_the_margin_is_not_needed():
    """Shown to be worse, but not by more than the margin: nothing is said to be needed."""
    found = said({"film": 0.8, "late": 0.789}, width=0.005)
    assert "Whether an additive strategy would do as well cannot be told" in found
    assert "needs" not in found


def test_not_told_apart_is_not_as_good():
    found = said({"film": 0.8, "late": 0.79}, width=0.05)
    assert "Whether an additive strategy would do as well cannot be told" in found
    assert "The gain is additive" not in found


def test_one_as_good_must_itself_be_shown_to_help():
    found = said({"film": 0.72, "late": 0.719}, width=0.005, widths={("late", "text_only"): 0.03})
    assert "The gain is additive" not in found


@pytest.mark.parametrize(
    ("means", "phrase"),
    [
        ({"film": 0.8, "concat": 0.7}, "No additive strategy was compared"),
        ({"cross": 0.8, "late": 0.7}, "none on pooled vectors was compared"),
        ({"cross": 0.8, "late": 0.7, "concat": 0.79}, "whether one on pooled vectors would cannot be told"),
    ],
)
def test_what_was_not_compared_is_not_said_to_fall_short(means, phrase):
    assert phrase in said(means, width=0.005)


# The margin


@pytest.mark.parametrize(
    ("changes", "gain", "margin"),
    [
        ({}, None, 0.01),
        ({}, 0.1, 0.01),
        ({}, 0.4, 0.02),
        ({"margin": 0.03}, 0.4, 0.03),
        ({"margin": 0.0}, 0.4, 0.0),
        ({"unit": "mg/L"}, None, 0.07),
        ({"unit": "mg/L"}, -4.0, 0.2),
    ],
)
def test_the_margin(changes, gain, margin):
    assert margin_of({**changes}, gain, 7.0) == pytest.approx(margin)


def test_the_margin_in_words():
    assert size({}, 0.01) == "1 point"
    assert size({}, 0.0125) == "1.25 points"
    assert size({"unit": "mg/L"}, 0.25) == "0.25 mg/L"
    assert size({"unit": ""}, 0.25) == "0.25"


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 0.0, "equal"),
        (-0.01, 0.01, "equal"),
        (0.002, 0.009, "equal"),
        (0.002, 0.011, "better"),
        (-0.011, -0.002, "worse"),
        (-0.011, 0.002, "unclear"),
        (math.nan, math.nan, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_judgement_of_an_interval(low, high, found):
    assert judge({}, {"low": low, "high": high}, 0.01) == found
    turned = {"better": "worse", "worse": "better"}.get(found, found)
    assert judge({"less_is_better": True}, {"low": low, "high": high}, 0.01) == turned


# Reservations


def test_mined_labels_bring_the_text_only_score_with_them():
    assert "text_only, which reads what made them, scores 0.700" in said({"film": 0.8}, label_origin="mined_from_text")


def needed(seeds, reason=""):
    return {"seeds_needed": [{"strategy": "film", "reference": "text_only", "seeds": seeds, "reason": reason}]}


def test_one_seed_is_said_once():
    found = task({"text_only": 0.7, "image_only": 0.6, "film": 0.7}, width=0.05, **needed(None, "one seed does not"))
    for s in found["strategies"]:
        s["score"]["without_seed_variance"] = True
    assert "One seed only" in verdict(found)
    assert "one seed does not" not in verdict(found)


def test_seeds_are_asked_for_only_where_nothing_is_clear():
    unclear = said({"film": 0.71}, width=0.05, **needed(40))
    assert "To tell film from text_only, about 40 seeds would be needed." in unclear
    assert "No number of seeds would tell film" in said({"film": 0.71}, width=0.05, **needed(None, "too small"))
    assert "seeds would" not in said({"film": 0.7}, width=0.005, **needed(40))
    assert "seeds would" not in said({"film": 0.6}, **needed(40))


# Covariates


@pytest.mark.parametrize(
    ("score", "width", "phrase"),
    [
        (
            0.6,
            0.01,
            "The covariates alone (sex and age) do not do as well: film scores +20.0 points [+19.0, +21.0] again",
        ),
        (
            0.8,
            0.005,
            "The covariates alone (sex and age) do as well within 1 point: film scores +0.0 points [-0.5, +0.5]",
        ),
        (
            0.9,
            0.01,
            "The covariates alone (sex and age) do better: film scores -10.0 points [-11.0, -9.0] against them.",
        ),
        (
            0.79,
            0.05,
            "That it beats the covariates alone (sex and age) is not shown: film scores +1.0 points [-4.0, +6.",
        ),
    ],
)
def test_covariates_alone(score, width, phrase):
    assert phrase in said({"film": 0.8, "covariates_only": score}, width=width)


def test_covariates_behind_a_shut_gate_are_described():
    found = said({"film": 0.7, "covariates_only": 0.9}, widths={("film", "text_only"): 0.05}, tested=False)
    assert "against them (not tested)." in found


# Metrics of which less is better


def test_an_error_is_better_where_it_is_less_and_told_in_its_unit():
    of = {"metric": "rmse", "unit": "mg/L", "less_is_better": True}
    alone = {"text_only": 5.75, "image_only": 9.0}
    found = verdict(task({**alone, "film": 4.5, "late": 5.6}, **of))
    assert found.startswith(
        "Fusion helps here: film scores -1.25 [-1.26, -1.24] (mg/L of rmse; less is better) against"
    )
    assert "no additive strategy does as well within 0.0625 mg/L." in found
    assert verdict(task({**alone, "film": 7.0}, **of)).startswith(
        "Fusion hurts here: the text alone beats every fusion"
    )
    equal = verdict(task({**alone, "film": 5.76}, **of))
    assert equal.startswith(
        "Fusion makes no difference here: film, chosen on validation, equals the text alone within 0.05"
    )
    late = verdict(task({**alone, "late": 4.9, "film": 4.5}, **of))
    assert "did not choose: film, -0.400 [-0.410, -0.390] (mg/L of rmse; less is better) against late" in late


@pytest.mark.parametrize(
    ("value", "written"), [(-1.254, "-1.25"), (1240.4, "+1,240"), (0.01234, "+0.0123"), (0.0, "+0.00"), (None, "–")]
)
def test_a_difference_in_a_unit_has_three_digits(value, written):
    assert signed(value) == written
