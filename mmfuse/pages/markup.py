"""Pieces of a page: markup that escapes whatever is not markup, and numbers as every table and chart writes them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

DASH = "–"
"""Stands where a number is not known."""
_EMPTY = ("meta", "br", "link", "img")


class Html(str):
    """Markup. Any other string is text, which `tag` escapes."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content] | None"


def tag(name: str, /, *content: Content, **attributes: Any) -> Html:
    """An element. In names of attributes `_` is `-`, and one at the end is dropped: `class_`, `stroke_width`.

    Args:
        name: Of the element.
        content: Texts, markup, or lists of them; None is nothing.
        attributes: None and False leave one out, True is one without a value.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(_plain(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{given}>" if name in _EMPTY else f"<{name}{given}>{join(content)}</{name}>")


def join(content: Content) -> Html:
    """Contents as one piece of markup, in which every text is escaped."""
    if content is None:
        return Html("")
    if isinstance(content, str):
        return content if isinstance(content, Html) else Html(html.escape(content))
    return Html("".join(join(part) for part in content))


def _plain(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(head: Sequence[Html], bodies: Sequence[Sequence[Html]], name: str, *, class_: str | None = None) -> Html:
    """A table that scrolls inside its own frame, also by keyboard.

    Args:
        head: Its rows of header cells.
        bodies: Groups of rows.
        name: What it is, for who cannot see it.
        class_: Of the table.
    """
    parts = [tag("tbody", rows) for rows in bodies if rows]
    inner = tag("table", tag("thead", head), parts, class_=class_)
    cue = tag("div", "more columns →", class_="more-right", aria_hidden="true")
    return tag("div", cue, inner, class_="scroll", role="region", aria_label=name, tabindex="0")


def header(*names: Content, left: Sequence[str] = ()) -> Html:
    """A row of column headers; numbers stand below all but the first and those named in `left`."""
    return tag("tr", [tag("th", name, scope="col", class_="left" if name in left else None) for name in names])


def cell(value: str, *more: Content, class_: str = "n") -> Html:
    """A number in a table, with what stands beside it."""
    return tag("td", _minus(value), more, class_=class_)


def interval_of(low: float | None, high: float | None, write: Any) -> Html | None:
    """An interval in small type; None where it is not known."""
    text = interval(low, high, write)
    return None if text == DASH else tag("small", " " + _minus(text), class_="under")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def known(value: Any) -> bool:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def score(value: float | None) -> str:
    """A metric as a fraction, such as 0.712."""
    return f"{value:.3f}" if value is not None and known(value) else DASH


def spread(value: float | None) -> str:
    """A standard deviation of such a metric, such as 0.0041."""
    return f"{value:.4f}" if value is not None and known(value) else DASH


def points(value: float | None) -> str:
    """A difference of two metrics in points, with its sign, such as +2.1."""
    return f"{round(100 * value, 1) + 0.0:+.1f}" if value is not None and known(value) else DASH


def difference(task: dict[str, Any]) -> Callable[[float | None], str]:
    """What writes a difference of two of a task's scores: in points, or of metrics that have a unit in that."""
    return signed if "unit" in task else points


def signed(value: float | None) -> str:
    """A difference in a unit of its own, with its sign and 3 digits, such as -1.24 or +1,240."""
    if value is None or not known(value):
        return DASH
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:+,.{min(digits, 6)}f}"


def unit_of(task: dict[str, Any]) -> str:
    """What differences of a task's scores are in: points, or the unit of its metric."""
    return task.get("unit", "points") or "its own unit"


def p_value(value: float | None) -> str:
    """Such as 0.012 or <0.001."""
    if value is None or not known(value):
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """Such as 960, 12.3 k or 4.5 M."""
    if value is None or not known(value):
        return DASH
    if abs(value) < 999.5:
        return f"{value:.0f}"
    for unit in ("k", "M", "G"):
        value /= 1000
        if abs(value) < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} T"


def amount(value: float | None, digits: int) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}" if value is not None and known(value) else DASH


def interval(low: float | None, high: float | None, write: Any) -> str:
    """Such as [0.690, 0.734], its ends written by `write`."""
    return f"[{write(low)}, {write(high)}]" if known(low) and known(high) else DASH


def in_words(metric: str) -> str:
    """Such as "Accuracy" or "AUROC macro"."""
    words = metric.replace("_", " ")
    for name in ("auroc", "ece", "nll", "mae", "rmse", "cider"):
        words = re.sub(rf"\b{name}\b", name.upper(), words)
    return words[:1].upper() + words[1:]


def plural(number: int, what: str) -> str:
    """Such as "1 seed" or "3 seeds"."""
    return f"{number} {what}" + ("" if number == 1 else "s")
