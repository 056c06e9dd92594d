"""Dots with whiskers in rows, for scores beside each other, and the marks that they are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmfuse.pages.charts import LONGEST_NAME, Scale, digits, percent, vertical
from mmfuse.pages.markup import Html, interval, known, score, tag

_SHAPES = {
    "unimodal": tag("rect", x=-4.5, y=-4.5, width=9, height=9),
    "additive": tag("path", d="M0-6 5.6 4.4H-5.6Z"),
    "multiplicative": tag("circle", r=4.8),
    "token": tag("path", d="M0-6.2 6.2 0 0 6.2-6.2 0Z"),
}


class Line(NamedTuple):
    """A vertical line across the ranking: its name, its value, and its style (a class of the stylesheet)."""

    name: str
    value: float
    style: str


class Row(NamedTuple):
    """A row: its name, by which class it is marked, its score with the interval, and what stands beside it."""

    name: str
    kind: str
    mean: float | None
    low: float | None
    high: float | None
    letters: str = ""
    badge: Html | None = None


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


def ranking(
    rows: Sequence[Row],
    lines: Sequence[Line],
    name: str,
    *,
    slots: int = 0,
) -> Html:
    """Dots with whiskers, a row each, in the order given.

    Tracks are measured in percent, so type keeps its size on a phone.

    Args:
        rows: What is drawn.
        lines: Named above the rows and drawn through them.
        name: What it shows, for who cannot see it.
        slots: Letters get a column each, if they are so few; 0 leaves letters out.
    """
    ends = [end for row in rows for end in (row.low, row.mean, row.high)]
    scale = Scale.over([*ends, *(line.value for line in lines)], 1.5, 98.5)
    ticks = scale.ticks()
    ruled = [vertical(scale(t), "grid") for t in ticks] + [vertical(scale(line.value), line.style) for line in lines]
    letters = [chr(ord("a") + i) for i in range(slots)] if 0 < slots <= 10 else []

    def drawn(row: Row) -> Html:
        mean, low, high = row.mean, row.low, row.high
        whisker = None
        if low is not None and high is not None and known(low) and known(high):
            whisker = tag("line", x1=percent(scale(low)), x2=percent(scale(high)), y1="50%", y2="50%", class_="whisker")
        dot = mark(row.kind, percent(scale(mean)), "50%") if mean is not None and known(mean) else None
        track = tag("svg", ruled, tag("g", whisker, dot, class_=f"k-{row.kind}"), class_="track")
        placed = row.letters
        if letters:
            placed = [
                tag("i", x if x in row.letters else "·", class_=None if x in row.letters else "off") for x in letters
            ]
        return tag(
            "div",
            tag("span", tag("b", row.name), row.badge, class_="name"),
            track,
            tag("span", f"{score(mean)} ", tag("small", interval(low, high, score)), class_="value"),
            tag("span", placed, class_="letters") if slots else None,
            class_=f"line{' unimodal' if row.kind == 'unimodal' else ''}",
        )

    longest = min(max(len(row.name) + (7 if row.badge else 0) for row in rows), LONGEST_NAME + 7)
    widest = max(len(row.letters) for row in rows)
    return tag(
        "div",
        _heads(lines, scale) if lines else None,
        [drawn(row) for row in rows],
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
            "text", f"{line.name} {score(line.value)}", x=percent(x), y=step * level + 12, dx=5 if left else -5,
            text_anchor="start" if left else "end",
        )  # fmt: skip
        drawn.append(tag("line", x1=percent(x), x2=percent(x), y1=step * level + 2, y2="100%", class_=line.style))
        texts.append(text)
    track = tag("svg", drawn, texts, class_="track", style=f"height:{step * len(lines) + 3}px")
    return tag("div", tag("span", class_="name"), track, class_="line heads")


def _axis(scale: Scale, ticks: Sequence[float]) -> Html:
    decimals = digits(ticks)
    marks = [vertical(scale(t), "grid", "5") for t in ticks]
    texts = [tag("text", f"{t:.{decimals}f}", x=percent(scale(t)), y=18, text_anchor="middle") for t in ticks]
    return tag("svg", marks, texts, class_="track")


def mark(kind: str, x: float | str, y: float | str) -> Html:
    """A mark of `shapes`, of a class: "unimodal", "additive", "multiplicative" or "token"; of others a circle."""
    shape = kind if kind in _SHAPES else "multiplicative"
    return tag("use", href=f"#mark-{shape}", x=x, y=y, class_=f"mark k-{kind if kind in _SHAPES else 'other'}")
