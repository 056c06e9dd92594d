"""What a difference means, by its size and not by its significance alone: within a margin two scores are equal."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from mmfuse.pages.markup import DASH, known, p_value, points, signed, unit_of

POINT = 0.01
"""The default margin; of metrics with a unit of their own it is a share of the score of the modality alone."""
SHARE = 1 / 20
"""Of a gain, which counts as none by default if that is more than a point."""

Judgement: TypeAlias = Literal["better", "worse", "equal", "unclear", "unknown"]


def validated(task: dict[str, Any], value: float) -> float:
    """A score of a task's metric as a number of which more is better."""
    return -value if task.get("less_is_better") else value


def contrast(s: dict[str, Any], reference: str, by_name: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The difference to a reference; that of two references was taken once, and is turned round for the other."""
    if reference in s["contrasts"]:
        return s["contrasts"][reference]
    other = by_name[reference]["contrasts"].get(s["row"]) if s["row"] != reference else None
    if other is None:
        return None
    turned = {"difference": other["difference"], "low": other["high"], "high": other["low"]}
    return {**other, **{k: None if v is None else -v for k, v in turned.items()}}


def margin_of(task: dict[str, Any], gain: float | None, alone: float | None) -> float:
    """Up to which difference two scores count as equal.

    That of the config, or a point, or a twentieth of the gain if that is more. Of a metric with a unit there are no
    points, but hundredths of the score of the modality alone.

    Args:
        task: Of the summary.
        gain: A difference to the best modality alone that is more than chance; None where there is none.
        alone: The score of that modality.
    """
    if task.get("margin") is not None:
        return task["margin"]
    share = abs(gain) * SHARE if gain is not None and known(gain) else 0.0
    whole = 1.0 if "unit" not in task else abs(alone) if alone is not None and known(alone) else 0.0
    return max(POINT * whole, share)


def ends(task: dict[str, Any], found: dict[str, Any] | None) -> tuple[float, float] | None:
    """The interval of a difference, turned so that more is better; None where it is not known."""
    if found is None or not (known(found["low"]) and known(found["high"])):
        return None
    low, high = (validated(task, found[end]) for end in ("low", "high"))
    return min(low, high), max(low, high)


def judge(task: dict[str, Any], found: dict[str, Any] | None, margin: float) -> Judgement:
    """What an interval says of a difference.

    Returns:
        `equal` where it lies within the margin, even if it is without 0; else `better` or `worse` where it is without
        0, and `unclear` where it holds 0. `unknown` without an interval.
    """
    interval = ends(task, found)
    if interval is None:
        return "unknown"
    low, high = interval
    if -margin <= low and high <= margin:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def p_of(found: dict[str, Any] | None) -> str:
    """The p-value of a difference: with a dagger that of the declared one, in brackets where it was not tested."""
    p = DASH if found is None else p_value(found["p_holm"])
    if found is None or p == DASH:
        return DASH
    return f"{p} †" if found["declared"] else p if found["tested"] else f"({p})"


def amount(task: dict[str, Any], found: dict[str, Any]) -> str:
    """A difference with its interval: in points, or of a metric with a unit in that."""
    write = signed if "unit" in task else points
    interval = ends(task, found)
    between = f" [{write(found['low'])}, {write(found['high'])}]" if interval else ""
    if "unit" not in task:
        return f"{write(found['difference'])} points{between}"
    less = "; less is better" if task.get("less_is_better") else ""
    return f"{write(found['difference'])}{between} ({unit_of(task)} of {task['metric']}{less})"


def size(task: dict[str, Any], margin: float) -> str:
    """A margin in words, such as "1 point" or "0.25 mg/L"."""
    if "unit" in task:
        return f"{margin:.3g} {unit_of(task)}" if task["unit"] else f"{margin:.3g}"
    return "1 point" if f"{100 * margin:.3g}" == "1" else f"{100 * margin:.3g} points"
