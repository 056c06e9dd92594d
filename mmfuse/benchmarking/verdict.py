"""What a comparison says, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmfuse.benchmarking.judge import Judgement, amount, contrast, ends, judge, margin_of, size
from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION, UNIMODAL

ALPHA = 0.05
FEWEST_POSITIVES = 10
"""A label with fewer in the test rows is flagged: its scores mean little."""
PICKED = "interval corrected for having been picked on the test rows"

Task = dict[str, Any]
Strategy = dict[str, Any]


class _Case(NamedTuple):
    """What a verdict is of.

    Attributes:
        task: Of the summary.
        by_name: Its strategies.
        fusions: Those that are fusions, best on test first.
        first: The one whose contrast to `reference` was declared.
        reference: The modality alone that was best on validation.
        gap: That contrast.
        margin: Up to which two scores are equal.
    """

    task: Task
    by_name: dict[str, Strategy]
    fusions: list[Strategy]
    first: Strategy
    reference: str
    gap: dict[str, Any]
    margin: float

    @property
    def alone(self) -> str:
        return {"text_only": "the text alone", "image_only": "the image alone"}[self.reference]

    @property
    def within(self) -> str:
        return f"within {size(self.task, self.margin)}"

    def against(self, s: Strategy, other: str) -> dict[str, Any] | None:
        return contrast(s, other, self.by_name)

    def ends(self, s: Strategy, other: str) -> tuple[float, float] | None:
        return ends(self.task, self.against(s, other))


def verdict(task: Task) -> str:
    """One paragraph in plain words: does fusion help, by how much, how sure, and what kind of it is needed.

    The first sentence is of the contrast that was declared; what it says follows its 95 % interval and the margin. Of
    other strategies their corrected intervals are told.
    """
    by_name = {s["row"]: s for s in task["strategies"]}
    absent = [name for name in UNIMODAL if name not in by_name]
    reference = task["references"].get("best_unimodal")
    if absent or reference is None:
        return f"Whether fusion helps cannot be said: {listed(absent)} failed."
    fusions = [s for s in task["strategies"] if s["row"] not in NO_FUSION]
    if not fusions:
        return "There is no fusion to compare."
    declared = by_name.get(task["references"].get("declared", ""))
    first = declared or fusions[0]
    gap = contrast(first, reference, by_name)
    assert gap is not None  # it is a contrast to a reference
    shown = judge(task, gap, 0.0) in ("better", "worse")
    margin = margin_of(task, gap["difference"] if shown else None, by_name[reference]["score"]["mean"])
    case = _Case(task, by_name, fusions, first, reference, gap, margin)
    found = judge(task, gap, margin)
    if declared is None:
        parts = [_undeclared(case, found)]
    elif found == "better":
        parts = [_first(case, found), _beyond(case), _better_still(case), _kind_of_gain(case), _covariates(case)]
    else:
        parts = [_first(case, found), _picked(case), _covariates(case)]
    parts += _reservations(task, first, clear=found != "unclear")
    return " ".join(part for part in parts if part)


def _first(case: _Case, found: Judgement) -> str:
    """The answer to the first question."""
    told, alone = f"{case.first['row']}, chosen on validation,", case.alone
    scores = f"scores {amount(case.task, case.gap)}"
    if found == "better":
        return f"Fusion helps here: {case.first['row']} {scores} against {alone} (chosen on validation)."
    if found == "worse":
        gaps = [case.against(s, case.reference) for s in case.fusions]
        if all(judge(case.task, gap, 0.0) == "worse" for gap in gaps):
            return f"Fusion hurts here: {alone} beats every fusion; {told} {scores}."
        return f"Fusion hurts here: {told} {scores} against {alone}."
    if found == "equal":
        return f"Fusion makes no difference here: {told} equals {alone} {case.within}: {amount(case.task, case.gap)}."
    if found == "unclear":
        return (
            f"No fusion is shown to beat {alone}: {told} {scores} against it, which may be chance; that they are equal "
            f"{case.within} is not shown either."
        )
    return f"Whether fusion helps cannot be said: {told} {scores} against {alone}, and how sure that is is not known."


def _undeclared(case: _Case, found: Judgement) -> str:
    """Without validation scores nothing could be declared, and all contrasts are corrected."""
    said = {
        "better": "Fusion helps here",
        "worse": "Fusion hurts here",
        "equal": f"Fusion makes no difference here, {case.within}",
        "unclear": f"No fusion is shown to beat {case.alone}",
        "unknown": "Whether fusion helps cannot be said",
    }[found]
    return (
        f"{said}: {case.first['row']}, the best on the test rows, scores {amount(case.task, case.gap)} against "
        f"{case.alone} ({PICKED}; without validation scores none was declared)."
    )


def _beyond(case: _Case) -> str:
    interval = ends(case.task, case.gap)
    more = interval is not None and interval[0] > case.margin
    return "" if more else f"That it is more than {size(case.task, case.margin)} is not shown."


def _better_still(case: _Case) -> str:
    """A strategy that is shown to have a larger gain than the declared one, by more than the margin."""
    for s in case.fusions:
        found, interval = case.against(s, case.first["row"]), case.ends(s, case.first["row"])
        if found and interval and interval[0] > case.margin:
            return (
                f"On these test rows another fusion is better still, which validation did not choose: {s['row']}, "
                f"{amount(case.task, found)} against {case.first['row']} ({PICKED})."
            )
    return ""


class _OfKind(NamedTuple):
    """Of the strategies of one kind: how many, which do as well as the declared one, whether all fall short."""

    number: int
    well: list[str]
    none: bool


def _of_kind(case: _Case, kind: str) -> _OfKind:
    """Which strategies of a kind do as well as the declared one.

    One does where the lower end of its difference to that is within the margin, and it is itself shown to beat one
    modality; it falls short where the upper end is below the margin.
    """
    own = [s for s in case.fusions if s["interaction"] == kind and s is not case.first]
    gaps = {s["row"]: case.ends(s, case.first["row"]) for s in own}
    helps = {s["row"] for s in own if (end := case.ends(s, case.reference)) and end[0] > 0}
    well = [row for row, end in gaps.items() if end and end[0] >= -case.margin and row in helps]
    return _OfKind(len(own), well, all(end is not None and end[1] < -case.margin for end in gaps.values()))


def _kind_of_gain(case: _Case) -> str:
    """Whether an additive strategy, or one of pooled vectors, does as well, within the margin."""
    kind, within, unknown = case.first["interaction"], case.within, "cannot be told with these seeds and rows"
    if kind == "additive":
        return f"The gain is additive: {case.first['row']} cannot model interactions."
    additive, pooled = _of_kind(case, "additive"), _of_kind(case, "multiplicative")
    if not additive.number:
        return "No additive strategy was compared, so whether the gain needs interactions is not known."
    if additive.well:
        return f"The gain is additive: {additive.well[0]}, which cannot model interactions, does as well {within}."
    if not additive.none:
        return f"Whether an additive strategy would do as well {unknown}."
    gap = (case.first.get("emap") or {}).get("gap", {}).get(case.task["metric"])
    shown = f" (EMAP gap {100 * gap:.1f} points)" if gap is not None else ""
    needs = f"The gain needs interactions{shown}: no additive strategy does as well {within}"
    if kind == "multiplicative":
        return f"{needs}."
    if pooled.well:
        return f"{needs}; {pooled.well[0]}, on pooled vectors, does, so it needs no tokens that meet."
    if not pooled.number:
        return f"{needs}; none on pooled vectors was compared."
    if pooled.none:
        return f"The gain needs tokens that meet{shown}: no strategy on pooled vectors does as well {within}."
    return f"{needs}; whether one on pooled vectors would {unknown}."


def _picked(case: _Case) -> str:
    """Another fusion whose corrected interval is above 0: a finding behind an open gate, else a lead."""
    for s in case.fusions:
        found = case.against(s, case.reference)
        if s is case.first or found is None or judge(case.task, found, case.margin) != "better":
            continue
        told = f"{amount(case.task, found)} against it ({PICKED})"
        if found["tested"]:
            return f"Another fusion, which validation did not choose, does beat it: {s['row']} scores {told}."
        return (
            f"On these test rows another fusion than the chosen one has the gain: {s['row']} scores {told}, but as it "
            "was not declared before, that is a lead for new rows, and no finding."
        )
    return ""


def _covariates(case: _Case) -> str:
    """Whether the covariates alone do as well as the declared fusion."""
    gap = case.against(case.first, COVARIATES) if COVARIATES in case.by_name else None
    if gap is None:
        return ""
    named = f"covariates alone ({listed(case.by_name[COVARIATES]['uses'])})"
    told = f"{case.first['row']} scores {amount(case.task, gap)} against them"
    told += "" if gap["tested"] else " (not tested)"
    return {
        "better": f"The {named} do not do as well: {told}.",
        "worse": f"The {named} do better: {told}.",
        "equal": f"The {named} do as well {case.within}: {told}.",
        "unclear": f"That it beats the {named} is not shown: {told}.",
        "unknown": "",
    }[judge(case.task, gap, case.margin)]


def _reservations(task: Task, told: Strategy, clear: bool) -> list[str]:
    said = []
    if task["label_origin"] == "mined_from_text":
        score = next(s["score"]["mean"] for s in task["strategies"] if s["row"] == "text_only")
        said.append(
            f"The labels were mined from the text: text_only, which reads what made them, scores {score:.3f}, and a "
            "gain over it says little."
        )
    needed = next((n for n in task["seeds_needed"] if n["reference"] == task["references"]["best_unimodal"]), None)
    if told["score"]["without_seed_variance"]:
        said.append("One seed only: how much another seed would change is not known.")
    elif not clear and needed:
        what = f"{needed['strategy']} from {needed['reference']}"
        if needed["seeds"]:
            said.append(f"To tell {what}, about {needed['seeds']} seeds would be needed.")
        elif needed["reason"]:
            said.append(f"No number of seeds would tell {what}: {needed['reason']}.")
    rare = task["rare_labels"]
    if rare:
        said.append(f"{len(rare)} label(s) have fewer than {FEWEST_POSITIVES} positives: {listed(rare)}.")
    return said


def listed(names: Sequence[str], most: int = 6) -> str:
    """The names as a phrase."""
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
