"""The report's charts as inline SVG: colours come from the page's stylesheet, so they follow it into the dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION
from mmfuse.pages.charts import (
    TYPE,
    Box,
    Scale,
    apart,
    digits,
    place_labels,
    shortened,
)
from mmfuse.pages.markup import Html, count, difference, known, score, tag, unit_of
from mmfuse.pages.ranking import Row, mark

CLASSES = {
    "unimodal": "unimodal",
    "additive": "additive",
    "multiplicative": "multiplicative",
    "token": "token",
}
"""What the shapes and colours of marks stand for."""


class Curve(NamedTuple):
    """A line of `curves`: its name, values, and style (a class of the stylesheet; "" is one of the others)."""

    name: str
    values: Sequence[float | None]
    style: str = ""


def class_of(strategy: Mapping[str, Any]) -> str:
    """A strategy's class in words, as tables have it."""
    return "covariates" if strategy["row"] == COVARIATES else CLASSES.get(kind_of(strategy), kind_of(strategy))


def kind_of(strategy: Mapping[str, Any]) -> str:
    """The class by which it is marked: "unimodal", or its interaction."""
    return "unimodal" if strategy["row"] in NO_FUSION else strategy["interaction"]


def legend() -> Html:
    """What the shapes stand for."""
    return tag(
        "p", [tag("span", tag("svg", mark(k, 8, 8), width=16, height=16, aria_hidden="true"), f" {v}")
              for k, v in CLASSES.items()],
        class_="legend", aria_hidden="true",
    )  # fmt: skip


def pareto(
    strategies: Sequence[dict[str, Any]],
    cost: str,
    title: str,
    best: str,
    *,
    more_is_better: bool,
    less_score_is_better: bool = False,
) -> Html:
    """Score against a cost on a logarithmic scale; only those on the front, and the best, bear their names.

    Args:
        strategies: As the summary has them; one without a positive cost is left out.
        cost: A key of these.
        title: Of the horizontal axis.
        best: The row that is named in any case.
        more_is_better: Of the cost, as of samples per second.
        less_score_is_better: Of the score, as of an error.
    """
    there = [s for s in strategies if known(s[cost]) and s[cost] > 0 and known(s["score"]["mean"])]
    x = Scale.over((s[cost] for s in there), 44, 388, log=True)
    y = Scale.over((s["score"]["mean"] for s in there), 248, 36)
    at = {s["row"]: (x(s[cost]), y(s["score"]["mean"])) for s in there}
    front = pareto_front(there, cost, more_is_better=more_is_better, less_score_is_better=less_score_is_better)
    steps = "".join(
        f"{'L' if i else 'M'}{at[a][0]:.1f} {at[a][1]:.1f}" + (f"H{at[b][0]:.1f}" if b else "")
        for i, (a, b) in enumerate(zip(front, [*front[1:], None], strict=True))
    )
    ticks = y.ticks()
    grid = [tag("line", x1=44, x2=388, y1=y(t), y2=y(t), class_="grid") for t in ticks]
    grid += [tag("text", f"{t:.{digits(ticks)}f}", x=38, y=y(t) + 4, text_anchor="end") for t in ticks]
    for t in x.ticks():
        grid += [tag("line", x1=x(t), x2=x(t), y1=20, y2=258, class_="grid")]
        grid += [tag("text", count(t).replace(".0 ", " ") if t >= 1 else f"{t:g}", x=x(t), y=273, text_anchor="middle")]
    named: list[str] = list(dict.fromkeys([*front, *([best] if best in at else [])]))
    labels = place_labels({n: at[n] for n in named}, list(at.values()), (44, 4, 396, 256))
    marks = [_point(s, at[s["row"]], cost, s["row"] in named) for s in sorted(there, key=lambda s: s["row"] in named)]
    return tag(
        "svg",
        grid,
        tag("path", d=steps, class_="front") if len(front) > 1 else None,
        marks,
        [_label(n, at[n], box) for n, box in labels.items()],
        tag("text", title, x=216, y=294, text_anchor="middle", class_="title"),
        viewBox="0 0 400 300",
        role="img",
        aria_label=f"Score against {title}; the numbers are in the table of costs below",
        class_="plot",
    )


def pareto_front(
    strategies: Sequence[dict[str, Any]], cost: str, *, more_is_better: bool, less_score_is_better: bool = False
) -> list[str]:
    """The rows than which none is both better and cheaper, cheapest first."""
    front, reached, sign = [], -math.inf, -1 if less_score_is_better else 1
    for s in sorted(strategies, key=lambda s: (-s[cost] if more_is_better else s[cost], -sign * s["score"]["mean"])):
        if sign * s["score"]["mean"] > reached:
            reached = sign * s["score"]["mean"]
            front.append(s["row"])
    return front


def _label(name: str, mark: tuple[float, float], box: Box) -> Html:
    """A name in its box, on the side of its mark, and a thin line to it where it had to go far."""
    left, top, right, bottom = box
    middle = (left + right) / 2
    x, anchor = (right, "end") if mark[0] >= right else (left, "start") if mark[0] <= left else (middle, "middle")
    edge = top if top > mark[1] else bottom
    lead = None
    if abs(edge - mark[1]) > TYPE:
        lead = tag("line", x1=mark[0], y1=mark[1], x2=min(max(mark[0], left), right), y2=edge, class_="lead")
    return tag("g", lead, tag("text", shortened(name), x=x, y=top + 11, text_anchor=anchor, class_="label"))


def _point(s: dict[str, Any], at: tuple[float, float], cost: str, named: bool) -> Html:
    told = f"{s['row']}: {score(s['score']['mean'])}, {count(s[cost])}"
    return tag("g", tag("title", told), mark(kind_of(s), *at), class_="point" if named else "point other")


def curves(lines: Sequence[Curve], shares: Sequence[float], scale: Scale, title: str) -> Html:
    """Scores by the share of rows that lack a modality; lines with a style bear their names at their ends.

    Args:
        lines: Those without a style are drawn in grey, behind.
        shares: Of rows, for each value.
        scale: Of the vertical axis, from 214 (low) to 12 (high), to be shared by charts that stand side by side.
        title: Of the horizontal axis.
    """
    x = Scale(0, 1, 40, 278)
    ticks = scale.ticks()
    drawn = [tag("line", x1=40, x2=278, y1=scale(t), y2=scale(t), class_="grid") for t in ticks]
    drawn += [tag("text", f"{t:.{digits(ticks)}f}", x=34, y=scale(t) + 4, text_anchor="end") for t in ticks]
    drawn += [tag("text", f"{t:.0%}", x=x(t), y=230, text_anchor="middle") for t in (0, 0.5, 1)]
    ends: dict[str, float] = {}
    for line in sorted(lines, key=lambda line: bool(line.style)):
        there = [(x(a), scale(v)) for a, v in zip(shares, line.values, strict=True) if v is not None and known(v)]
        if there:
            path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in there)
            drawn += [tag("path", tag("title", line.name), d=path, class_=f"curve {line.style or 'other'}")]
            if line.style:
                ends[line.name] = there[-1][1]
    for name, y in apart(ends, 15, 8, 208).items():
        lead = f"M280 {ends[name]:.1f}L288 {y:.1f}"
        style = next(line.style for line in lines if line.name == name and line.style)
        drawn += [tag("path", d=lead, class_="lead")]
        drawn += [tag("text", shortened(name, 19), x=291, y=y + 4, class_=f"label {style}")]
    return tag(
        "svg",
        drawn,
        tag("text", title, x=159, y=252, text_anchor="middle", class_="title"),
        viewBox="0 0 400 258",
        role="img",
        aria_label=f"Score by {title}; the numbers are in the table below",
        class_="plot",
    )


def describe(strategies: Sequence[dict[str, Any]], task: dict[str, Any]) -> str:
    """What a ranking of a task's strategies shows, in a sentence."""
    best, last = strategies[0], strategies[-1]
    gap = difference(task)(best["score"]["mean"] - last["score"]["mean"])
    return (
        f"Ranking of {len(strategies)} strategies: highest {best['row']} with {score(best['score']['mean'])}, lowest "
        f"{last['row']} with {score(last['score']['mean'])}, {gap} {unit_of(task)} between them; all numbers "
        "are in the table"
    )


def as_row(strategy: Mapping[str, Any], badge: Html | None = None) -> Row:
    """A strategy of the summary as a row of a ranking; `badge` stands behind its name."""
    of = strategy["score"]
    return Row(strategy["row"], kind_of(strategy), of["mean"], of["low"], of["high"], strategy["letters"], badge)
