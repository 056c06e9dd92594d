"""Plots of a page: lines and points over two axes, as inline SVG with a name for who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mmfuse.pages.charts import Scale, digits
from mmfuse.pages.markup import Html, known, tag

LEFT, TOP, RIGHT, BOTTOM = 46, 12, 388, 214
"""The frame of a plot, within 400 x 258 units."""
MOST_POINTS = 160
"""Of a line: more are not seen."""


class Path(NamedTuple):
    """A line of a plot: its name ("" for none), its points, and its style (a class of the stylesheet)."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "one"


class Points(NamedTuple):
    """Marks of a plot, with lines from `low` to `high` where these are known; what they say stands in `told`."""

    x: Sequence[float]
    y: Sequence[float]
    style: str = "one"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    told: Sequence[str] = ()
    radius: float = 3.6


def plot(
    parts: Iterable[Path | Points],
    x: tuple[float, float],
    y: tuple[float, float],
    titles: tuple[str, str],
    name: str,
    *,
    write: tuple[Callable[[float], str] | None, Callable[[float], str] | None] = (None, None),
    diagonal: bool = False,
    log: bool = False,
) -> Html:
    """Lines and points over two axes.

    Args:
        parts: What is drawn, the first below the others.
        x: Ends of the horizontal axis.
        y: Ends of the vertical axis.
        titles: Of both axes.
        name: What the plot shows, for who cannot see it.
        write: How ticks of both axes are written; default: with as many decimals as tell them apart.
        diagonal: Draw where both axes say the same.
        log: Both axes are logarithmic; ends are then above 0.
    """
    across, up = _scale(x, LEFT, RIGHT, log), _scale(y, BOTTOM, TOP, log)
    ticks = across.ticks(5), up.ticks(5)
    said = [give or _writer(of) for give, of in zip(write, ticks, strict=True)]
    drawn = [tag("line", x1=LEFT, x2=RIGHT, y1=up(t), y2=up(t), class_="grid") for t in ticks[1]]
    drawn += [tag("text", said[1](t), x=LEFT - 6, y=up(t) + 4, text_anchor="end") for t in ticks[1]]
    drawn += [tag("text", said[0](t), x=across(t), y=BOTTOM + 17, text_anchor="middle") for t in ticks[0]]
    if diagonal:
        ends = max(x[0], y[0]), min(x[1], y[1])
        drawn.append(tag("line", x1=across(ends[0]), x2=across(ends[1]), y1=up(ends[0]), y2=up(ends[1]),
                         class_="diagonal"))  # fmt: skip
    for part in parts:
        drawn += _line(part, across, up) if isinstance(part, Path) else _points(part, across, up)
    return tag(
        "svg",
        drawn,
        tag("text", titles[0], x=(LEFT + RIGHT) / 2, y=252, text_anchor="middle", class_="title"),
        tag("text", titles[1], x=0, y=0, transform=f"translate(11 {(TOP + BOTTOM) / 2}) rotate(-90)",
            text_anchor="middle", class_="title"),
        viewBox="0 0 400 258", role="img", aria_label=name, class_="plot",
    )  # fmt: skip


def plot_legend(entries: Sequence[tuple[str, str]]) -> Html:
    """What lines of a plot are: pairs of a style and a name."""
    return tag(
        "p",
        [tag("span", tag("svg", tag("line", x1=0, x2=22, y1=8, y2=8, class_=f"curve {style}"), width=22, height=16,
                         aria_hidden="true"), f" {name}") for style, name in entries],
        class_="legend",
    )  # fmt: skip


def thinned(*columns: ArrayLike, most: int = MOST_POINTS) -> list[list[float]]:
    """At most so many points of a line, its ends among them: every so many-th."""
    arrays = [np.asarray(column, np.float64) for column in columns]
    if not len(arrays[0]):
        return [[] for _ in arrays]
    kept = np.unique(np.linspace(0, len(arrays[0]) - 1, most).round().astype(int))
    return [array[kept].tolist() for array in arrays]


def _scale(ends: tuple[float, float], start: float, end: float, log: bool) -> Scale:
    low, high = (float(np.log10(e)) for e in ends) if log else ends
    return Scale(low, high if high > low else low + 1, start, end, log)


def _writer(ticks: Sequence[float]) -> Callable[[float], str]:
    if ticks and max(map(abs, ticks)) >= 10:
        return lambda value: f"{value:,.0f}" if float(value).is_integer() else f"{value:,g}"
    whole = len(ticks) > 1 and all(float(tick).is_integer() for tick in ticks)
    decimals = 0 if whole else digits(ticks)
    return lambda value: f"{value:.{decimals}f}".replace("-", "−")


def _line(part: Path, x: Scale, y: Scale) -> list[Html]:
    there = [(x(a), y(b)) for a, b in zip(part.x, part.y, strict=True) if b is not None and known(b)]
    if not there:
        return []
    drawn = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in there)
    return [tag("path", tag("title", part.name) if part.name else None, d=drawn, class_=f"curve {part.style}")]


def _points(part: Points, x: Scale, y: Scale) -> list[Html]:
    drawn = []
    for i, (a, b) in enumerate(zip(part.x, part.y, strict=True)):
        whisker = None
        if len(part.low):
            whisker = tag("line", x1=x(a), x2=x(a), y1=y(part.low[i]), y2=y(part.high[i]), class_=f"range {part.style}")
        told = tag("title", part.told[i]) if part.told else None
        drawn += [whisker, tag("circle", told, cx=x(a), cy=y(b), r=part.radius, class_=f"dot {part.style}")]
    return [piece for piece in drawn if piece is not None]
