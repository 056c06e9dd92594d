"""Other people's words in the Markdown that we write: names of tasks, labels and data, and what a manifest says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mmfuse.types import visible

_ENTITY = re.compile(r"&(?=#?\w+;)")


def plain(text: object) -> str:
    """One line in which nothing is Markdown or HTML, also within a table."""
    line = re.sub(r"([\\`*|\[\]])", r"\\\1", visible(" ".join(str(text).split())))
    return _ENTITY.sub("&amp;", line.replace("](", "]\\(")).replace("<", "&lt;").replace(">", "&gt;")


def code(text: object) -> str:
    """As code, where it can be; a text that could end it stands as `plain` gives it."""
    line = visible(" ".join(str(text).split()))
    return plain(line) if not line or set(line) & set("`<>|") else f"`{line}`"


def prose(text: str) -> str:
    """Paragraphs that may be Markdown, without HTML, images, and links to other than web pages."""
    lines = (visible(line.expandtabs(4)) for line in text.strip().splitlines())
    safe = "\n".join(lines).replace("<", "&lt;").replace("![", "!&#91;")
    # In place of a backslash, which the text may have before it, a character's number: it is never markup.
    return re.sub(r"\](?=:|\((?!https?://[^\s()]*\)))", "&#93;", safe)


def score_cells(score: Mapping[str, Any]) -> str:
    """A score as two cells of a table: its value, and its interval; with a star where `note_lines` tells more."""
    star = "*" if score.get("note") else ""
    if score["value"] is None:
        return f"undefined{star} | "
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]" if score["low"] is not None else ""
    return f"{score['value']:.3f} | {interval}{star}"


def note_lines(scores: Mapping[str, Mapping[str, Any]], escape: Callable[[object], str]) -> list[str]:
    """A line for each thing that there is to say of scores by name, and of which ones, to stand below their table."""
    said: dict[str, list[str]] = {}
    for name, score in scores.items():
        if note := score.get("note"):
            said.setdefault(f"no interval, {note}" if score["low"] is None else note, []).append(name)
    lines = []
    for note, names in said.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        lines.append(f"* {escape('all' if len(names) == len(scores) > 1 else shown)}: {escape(note)}")
    return ["", *lines] if lines else []
