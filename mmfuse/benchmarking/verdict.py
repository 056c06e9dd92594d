"""What a comparison says, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmfuse.benchmarking.markup import signed, unit_of
from mmfuse.benchmarking.plan import UNIMODAL

ALPHA = 0.05
FEWEST_POSITIVES = 10
"""A label with fewer in the test rows is flagged: its scores mean little."""


def verdict(task: dict[str, Any]) -> str:
    """One paragraph in plain words: does fusion help, by how much, how sure, and what kind of it is needed."""
    strategies = {s["row"]: s for s in task["strategies"]}
    reference = task["references"].get("best_unimodal")
    fusions = [s for s in task["strategies"] if s["row"] not in UNIMODAL]
    absent = [name for name in UNIMODAL if name not in strategies]
    if absent or reference is None:
        return f"Whether fusion helps cannot be said: {listed(absent)} failed."
    if not fusions:
        return "There is no fusion to compare."
    alone = {"text_only": "the text alone", "image_only": "the image alone"}[reference]
    seen = [s for s in fusions if s["validation"] is not None]
    best = max(seen, key=lambda s: validated(task, s["validation"])) if seen else fusions[0]
    better = [s for s in fusions if _sign(task, s["contrasts"][reference]) > 0]
    worse = all(_sign(task, s["contrasts"][reference]) < 0 for s in fusions)
    told = best if best in better or not better else better[0]
    gap = told["contrasts"][reference]
    amount = _amount(task, gap)
    if better:
        first = f"Fusion helps here: {told['row']} scores {amount} against {alone}."
        why = "chosen on validation" if told is best else "the best of those that can be told from it"
        parts = [first[:-1] + f" ({why}).", _kind_of_gain(told, better, strategies, task)]
    elif worse:
        parts = [
            f"Fusion hurts here: {alone} beats every fusion; {told['row']}, chosen on validation, scores {amount}."
        ]
    else:
        chance = "which may be chance" if _sign(task, gap) == 0 else "which is worse"
        parts = [
            f"No fusion is shown to beat {alone}: {told['row']}, chosen on validation, scores {amount} against it, "
            f"{chance}."
        ]
    parts += _reservations(task, told, better)
    return " ".join(part for part in parts if part)


def _kind_of_gain(
    told: dict[str, Any], better: list[dict[str, Any]], strategies: dict[str, dict[str, Any]], task: dict[str, Any]
) -> str:
    """Whether an additive strategy, or one of pooled vectors, would have done as well.

    One that cannot be told from the best has not thereby done as well: it must itself be shown to beat one modality.
    """
    alike = [s for s in strategies.values() if set(s["letters"]) & set(told["letters"]) and s["row"] not in UNIMODAL]
    helpful = {s["row"] for s in better}
    unclear = any(s["interaction"] == "additive" and s["row"] not in helpful for s in alike)
    additive = [s["row"] for s in alike if s["interaction"] == "additive" and s["row"] in helpful]
    pooled = [s["row"] for s in alike if s["interaction"] == "multiplicative" and s["row"] in helpful]
    others = [s["row"] for s in alike if s["row"] != told["row"]]
    same = f"It cannot be told apart from {listed(others)}. " if others else ""
    if additive:
        return same + f"The gain is additive: {additive[0]}, which cannot model interactions, helps as well."
    if unclear:
        return same + "Whether an additive strategy would do as well cannot be told with these seeds and rows."
    gap = (told.get("emap") or {}).get("gap", {}).get(task["metric"])
    shown = f" (EMAP gap {100 * gap:.1f} points)" if gap is not None else ""
    if pooled:
        return same + f"The gain needs interactions{shown}: no additive strategy does as well."
    return same + f"The gain needs tokens that meet{shown}: no strategy on pooled vectors does as well."


def _reservations(task: dict[str, Any], told: dict[str, Any], better: list[dict[str, Any]]) -> list[str]:
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
    elif not better and needed:
        what = f"{needed['strategy']} from {needed['reference']}"
        if needed["seeds"]:
            said.append(f"To tell {what}, about {needed['seeds']} seeds would be needed.")
        elif needed["reason"]:
            said.append(f"No number of seeds would tell {what}: {needed['reason']}.")
    rare = task["rare_labels"]
    if rare:
        said.append(f"{len(rare)} label(s) have fewer than {FEWEST_POSITIVES} positives: {listed(rare)}.")
    return said


def validated(task: dict[str, Any], value: float) -> float:
    """A score of a task's metric as a number of which more is better."""
    return -value if task.get("less_is_better") else value


def _amount(task: dict[str, Any], gap: dict[str, Any]) -> str:
    """A difference with its interval: in points, or of a metric with a unit in that."""
    if "unit" not in task:
        return f"{100 * gap['difference']:+.1f} points [{100 * gap['low']:+.1f}, {100 * gap['high']:+.1f}]"
    less = "; less is better" if task.get("less_is_better") else ""
    ends = f"[{signed(gap['low'])}, {signed(gap['high'])}]"
    return f"{signed(gap['difference'])} {ends} ({unit_of(task)} of {task['metric']}{less})"


def _sign(task: dict[str, Any], contrast: dict[str, Any]) -> int:
    """1 or -1 where the strategy is better or worse beyond chance, after Holm's correction; else 0."""
    return 0 if not contrast["p_holm"] <= ALPHA else 1 if validated(task, contrast["difference"]) > 0 else -1


def listed(names: Sequence[str], most: int = 6) -> str:
    """The names as a phrase."""
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
