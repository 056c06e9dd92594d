"""What charts are made of, as inline SVG: colours come from the page's stylesheet, so they follow it into the dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mmfuse.pages.markup import Html, known, tag

_CHARACTER = 0.6
"""Mean width of a character, of the size of the type."""
LONGEST_NAME = 24
TYPE = 13.5
"""Size of the type of plots on a phone; where there is more room it is smaller, and fits all the better."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


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


def apart(wanted: dict[str, float], space: float, low: float, high: float) -> dict[str, float]:
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
        tag("rect", x=percent(min(zero, end)), y=1, width=percent(abs(end - zero)), height=8,
            class_="more" if value >= 0 else "less"),
        tag("line", x1=percent(zero), x2=percent(zero), y1=0, y2=10, class_="zero"),
        class_="bar", width=64, height=10, aria_hidden="true",
    )  # fmt: skip


def shortened(name: str, most: int = LONGEST_NAME) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def vertical(x: float, style: str, end: str = "100%") -> Html:
    """A line from top to bottom of a chart that is measured in percent, at `x` percent."""
    return tag("line", x1=percent(x), x2=percent(x), y1=0, y2=end, class_=style)


def percent(value: float) -> str:
    """Such as "12.50%"."""
    return f"{value:.2f}%"


def digits(ticks: Sequence[float]) -> int:
    """Decimals that tell ticks apart."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    return max(1, -math.floor(math.log10(step) + 1e-9))
