"""Other people's words in the Markdown that we write: names of tasks, labels and data, and what a manifest says."""

from __future__ import annotations

import re
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


def score_cells(score: dict[str, Any]) -> str:
    """A score as two cells of a table: its value, and its interval."""
    if score["value"] is None:
        return "undefined | "
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]" if score["low"] is not None else ""
    return f"{score['value']:.3f} | {interval}"
