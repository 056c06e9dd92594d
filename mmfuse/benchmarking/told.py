"""What analyses found of a benchmark's strategies: the section of the page, from the lines and figures they tell."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mmfuse.evaluation.analyses import analysis_lines, draw_analyses
from mmfuse.pages.markup import Html, header, table, tag
from mmfuse.types import visible


def analyses_section(summary: dict[str, Any]) -> list[Html]:
    """By analysis what it says of each strategy, to be unfolded; nothing where none was asked.

    Args:
        summary: Of the benchmark; its `analyses` are by strategy what was found of the first seed's test rows.
    """
    found: dict[str, dict[str, Any]] = summary.get("analyses", {})
    names = dict.fromkeys(name for of_row in found.values() for name in of_row)
    note = "Of the first seed (and fold), on its test rows."
    return [
        tag(
            "section",
            tag("h2", f"Analysis: {name}"),
            tag("p", note, class_="note"),
            [_strategy(row, name, of_row[name]) for row, of_row in found.items() if name in of_row],
        )
        for name in names
    ]


def _strategy(row: str, name: str, found: dict[str, Any]) -> Html:
    lines = analysis_lines(name, found, visible)
    first = next((line for line in lines if line.strip()), "")
    rest = lines[lines.index(first) + 1 :] if first else []
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_analyses({"tasks": {}, "analyses": {name: found}}, Path(folder))
        images = [base64.b64encode(path.read_bytes()).decode() for path in drawn]
    figures = [
        tag("img", src=f"data:image/png;base64,{image}", alt=f"{name} of {row}", style="max-width:100%")
        for image in images
    ]
    return tag("details", tag("summary", tag("b", row), f": {first}"), list(_blocks(rest)), figures)


def _blocks(lines: Sequence[str]) -> Iterator[Html]:
    """Paragraphs, lists and tables of lines of Markdown; what else stands in them stays as it is written."""
    for kind, block in groupby(lines, lambda line: line[:1] if line[:1] in ("|", "-") else "p" if line.strip() else ""):
        if kind == "|":
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
            body = [tag("tr", [tag("td", cell) for cell in cells]) for cells in rows[2:]]
            yield table([header(*rows[0])], [body], rows[0][0])
        elif kind == "-":
            yield tag("ul", [tag("li", line.removeprefix("- ")) for line in block])
        elif kind:
            yield tag("p", " ".join(block))
