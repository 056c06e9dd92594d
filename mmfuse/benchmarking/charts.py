"""The report's charts as inline SVG: colours come from the page's stylesheet, so they follow it into the dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mmfuse.benchmarking.markup import Html, count, difference, interval, known, score, tag, unit_of
from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION

CLASSES = {
    "unimodal": "unimodal",
    "additive": "additive",
    "multiplicative": "multiplicative",
    "token": "token",
}
"""What the shapes and colours of marks stand for."""
_SHAPES = {
    "unimodal": tag("rect", x=-4.5, y=-4.5, width=9, height=9),
    "additive": tag("path", d="M0-6 5.6 4.4H-5.6Z"),
    "multiplicative": tag("circle", r=4.8),
    "token": tag("path", d="M0-6.2 6.2 0 0 6.2-6.2 0Z"),
}
_CHARACTER = 0.6
"""Mean width of a character, of the size of the type."""
LONGEST_NAME = 24
TYPE = 13.5
"""Size of the type of plots on a phone; where there is more room it is smaller, and fits all the better."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Line(NamedTuple):
    """A vertical line across the ranking: its name, its value, and its style (a class of the stylesheet)."""

    name: str
    value: float
    style: str


class Curve(NamedTuple):
    """A line of `curves`: its name, values, and style (a class of the stylesheet; "" is one of the others)."""

    name: str
    values: Sequence[float | None]
    style: str = ""


@dataclass(frozen=True)
class Scale:
    """Values onto `[start, end]`, of percent or of an SVG's units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[Any], start: float, end: float, log: bool = False) -> Scale:
        """Over all values that are known (and, for a logarithm, positive), with a little room."""
        found = [math.log10(v) if log else v for v in values if known(v) and (v > 0 or not log)]
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        space = 0.05 * (high - low) or 0.05
        return cls(low - space, high + space, start, end, log)

    def __call__(self, value: float) -> float:
        """Where a value is."""
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within, at most so many; on a logarithmic scale 1, 2, 5 or powers of ten."""
        if self.log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            for factors in ((1, 2, 5), (1, 3), (1,)):
                found = [
                    f * 10.0**p for p in powers for f in factors if self.low <= math.log10(f * 10.0**p) <= self.high
                ]
                if len(found) <= most:
                    return found
            return found[:: math.ceil(len(found) / most)]
        unit = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(unit * f for f in (1, 2, 5, 10, 20) if (self.high - self.low) / (unit * f) <= most)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def class_of(strategy: Mapping[str, Any]) -> str:
    """A strategy's class in words, as tables have it."""
    return "covariates" if strategy["row"] == COVARIATES else CLASSES.get(kind_of(strategy), kind_of(strategy))


def kind_of(strategy: Mapping[str, Any]) -> str:
    """The class by which it is marked: "unimodal", or its interaction."""
    return "unimodal" if strategy["row"] in NO_FUSION else strategy["interaction"]


def shapes() -> Html:
    """The marks, defined once a page."""
    return tag(
        "svg",
        tag("defs", [tag("g", shape, id=f"mark-{name}") for name, shape in _SHAPES.items()]),
        width=0,
        height=0,
        class_="defs",
        aria_hidden="true",
    )


def legend() -> Html:
    """What the shapes stand for."""
    return tag(
        "p", [tag("span", tag("svg", _mark(k, 8, 8), width=16, height=16), f" {v}") for k, v in CLASSES.items()],
        class_="legend", aria_hidden="true",
    )  # fmt: skip


def ranking(
    strategies: Sequence[dict[str, Any]],
    lines: Sequence[Line],
    name: str,
    *,
    badge: Html | None = None,
    slots: int = 0,
) -> Html:
    """Dots with whiskers, a row a strategy, in the order given.

    Tracks are measured in percent, so type keeps its size on a phone.

    Args:
        strategies: As the summary has them.
        lines: Named above the rows and drawn through them.
        name: What it shows, for who cannot see it.
        badge: Stands behind each strategy's name.
        slots: Letters get a column each, if they are so few; 0 leaves letters out.
    """
    ends = [s["score"][k] for s in strategies for k in ("low", "mean", "high")]
    scale = Scale.over([*ends, *(line.value for line in lines)], 1.5, 98.5)
    ticks = scale.ticks()
    ruled = [_vertical(scale(t), "grid") for t in ticks] + [_vertical(scale(line.value), line.style) for line in lines]
    letters = [chr(ord("a") + i) for i in range(slots)] if 0 < slots <= 10 else []

    def row(s: dict[str, Any]) -> Html:
        kind, mean, low, high = kind_of(s), *(s["score"][k] for k in ("mean", "low", "high"))
        whisker = None
        if known(low) and known(high):
            whisker = tag(
                "line", x1=_percent(scale(low)), x2=_percent(scale(high)), y1="50%", y2="50%", class_="whisker"
            )
        dot = _mark(kind, _percent(scale(mean)), "50%") if known(mean) else None
        track = tag("svg", ruled, tag("g", whisker, dot, class_=f"k-{kind}"), class_="track")
        placed = s["letters"]
        if letters:
            placed = [
                tag("i", x if x in s["letters"] else "·", class_=None if x in s["letters"] else "off") for x in letters
            ]
        return tag(
            "div",
            tag("span", tag("b", s["row"], title=s["row"]), badge, class_="name"),
            track,
            tag("span", f"{score(mean)} ", tag("small", interval(low, high, score)), class_="value"),
            tag("span", placed, class_="letters") if slots else None,
            class_=f"line{' unimodal' if kind == 'unimodal' else ''}",
        )

    longest = min(max(len(s["row"]) for s in strategies) + (7 if badge else 0), LONGEST_NAME + 7)
    widest = max(len(s["letters"]) for s in strategies)
    return tag(
        "div",
        _heads(lines, scale) if lines else None,
        [row(s) for s in strategies],
        tag("div", tag("span", class_="name"), _axis(scale, ticks), class_="line axis"),
        class_="ranking" + ("" if slots else " plain"),
        role="img",
        aria_label=name,
        style=f"--name:{longest};--letters:{widest};--slots:{len(letters) or widest}",
    )


def _heads(lines: Sequence[Line], scale: Scale) -> Html:
    """The lines' names, each on a level of its own so that none covers another."""
    drawn, texts, step = [], [], 17
    for level, line in enumerate(lines):
        x = scale(line.value)
        left = x < 50
        text = tag(
            "text", f"{line.name} {score(line.value)}", x=_percent(x), y=step * level + 12, dx=5 if left else -5,
            text_anchor="start" if left else "end",
        )  # fmt: skip
        drawn.append(tag("line", x1=_percent(x), x2=_percent(x), y1=step * level + 2, y2="100%", class_=line.style))
        texts.append(text)
    track = tag("svg", drawn, texts, class_="track", style=f"height:{step * len(lines) + 3}px")
    return tag("div", tag("span", class_="name"), track, class_="line heads")


def _axis(scale: Scale, ticks: Sequence[float]) -> Html:
    digits = _digits(ticks)
    marks = [_vertical(scale(t), "grid", "5") for t in ticks]
    texts = [tag("text", f"{t:.{digits}f}", x=_percent(scale(t)), y=18, text_anchor="middle") for t in ticks]
    return tag("svg", marks, texts, class_="track")


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
    grid += [tag("text", f"{t:.{_digits(ticks)}f}", x=38, y=y(t) + 4, text_anchor="end") for t in ticks]
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
    return tag("g", tag("title", told), _mark(kind_of(s), *at), class_="point" if named else "point other")


def place_labels(
    wanted: dict[str, tuple[float, float]],
    marks: Sequence[tuple[float, float]],
    frame: Box,
    size: float = TYPE,
) -> dict[str, Box]:
    """Where names go so that none covers another, a mark, or the frame; one without a place is left out.

    Args:
        wanted: By name, its mark.
        marks: All marks.
        frame: Left, top, right, bottom.
        size: Of the type.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    placed: dict[str, Box] = {}
    for name, (x, y) in wanted.items():
        width, height = _CHARACTER * size * len(shortened(name)) + 2, size
        sides = [(x + 8, -0.5), (x - 8 - width, -0.5), (x - width / 2, -1.6), (x - width / 2, 0.6)]
        sides += [(x + 4, -1.5), (x + 4, 0.5), (x - 4 - width, -1.5), (x - 4 - width, 0.5)]
        reach = [(left, y + shift * height) for left, shift in sides]
        reach += [
            (left, y + far * height) for far in (-2.6, 1.7, -3.7, 2.8) for left in (x - width / 2, x + 4, x - width)
        ]
        for left, top in reach:
            box = (left, top, left + width, top + height)
            inside = frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                placed[name] = box
                taken.append(box)
                break
    return placed


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
    drawn += [tag("text", f"{t:.{_digits(ticks)}f}", x=34, y=scale(t) + 4, text_anchor="end") for t in ticks]
    drawn += [tag("text", f"{t:.0%}", x=x(t), y=230, text_anchor="middle") for t in (0, 0.5, 1)]
    ends: dict[str, float] = {}
    for line in sorted(lines, key=lambda line: bool(line.style)):
        there = [(x(a), scale(v)) for a, v in zip(shares, line.values, strict=True) if v is not None and known(v)]
        if there:
            path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in there)
            drawn += [tag("path", tag("title", line.name), d=path, class_=f"curve {line.style or 'other'}")]
            if line.style:
                ends[line.name] = there[-1][1]
    for name, y in _apart(ends, 15, 8, 208).items():
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


def _apart(wanted: dict[str, float], space: float, low: float, high: float) -> dict[str, float]:
    """The same places, moved until each is `space` from the next, within [low, high]."""
    placed: dict[str, float] = {}
    for name in sorted(wanted, key=lambda n: wanted[n]):
        placed[name] = max([wanted[name], low, *(y + space for y in placed.values())])
    limit = high
    for name in reversed(placed):
        placed[name] = min(placed[name], limit)
        limit = placed[name] - space
    return placed


def bar(value: float | None, low: float, high: float) -> Html | None:
    """A bar from zero to the value, where all that it is compared with lie in `[low, high]`, which contains 0."""
    if value is None or not known(value) or low == high:
        return None
    zero, end = (Scale(low, high, 1, 99)(v) for v in (0.0, value))
    return tag(
        "svg",
        tag("rect", x=_percent(min(zero, end)), y=1, width=_percent(abs(end - zero)), height=8,
            class_="more" if value >= 0 else "less"),
        tag("line", x1=_percent(zero), x2=_percent(zero), y1=0, y2=10, class_="zero"),
        class_="bar", width=64, height=10, aria_hidden="true",
    )  # fmt: skip


def shortened(name: str, most: int = LONGEST_NAME) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def describe(strategies: Sequence[dict[str, Any]], task: dict[str, Any]) -> str:
    """What a ranking of a task's strategies shows, in a sentence."""
    best, last = strategies[0], strategies[-1]
    gap = difference(task)(best["score"]["mean"] - last["score"]["mean"])
    return (
        f"Ranking of {len(strategies)} strategies: best {best['row']} with {score(best['score']['mean'])}, last "
        f"{last['row']} with {score(last['score']['mean'])}, {gap} {unit_of(task)} between them; all numbers "
        "are in the table"
    )


def _mark(kind: str, x: float | str, y: float | str) -> Html:
    shape = kind if kind in _SHAPES else "multiplicative"
    return tag("use", href=f"#mark-{shape}", x=x, y=y, class_=f"mark k-{kind if kind in _SHAPES else 'other'}")


def _vertical(x: float, style: str, end: str = "100%") -> Html:
    return tag("line", x1=_percent(x), x2=_percent(x), y1=0, y2=end, class_=style)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _digits(ticks: Sequence[float]) -> int:
    """Decimals that tell ticks apart."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    return max(1, -math.floor(math.log10(step) + 1e-9))
