"""The pages that people read, and the blocks of code on them."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(
    r"^(?P<pad> *)```(?P<language>\w*) *(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=pad)```", re.DOTALL | re.MULTILINE
)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block, and where it begins."""

    page: Path
    line: int
    language: str
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str | None = None) -> list[Block]:
    """Those of a language, or all, page by page."""
    return [block for page in PAGES for block in blocks_of(page) if language in (None, block.language)]


def blocks_of(page: Path) -> Iterator[Block]:
    """Those of one page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], found["info"].strip(), textwrap.dedent(found["text"]))


def spans() -> Iterator[tuple[str, str]]:
    """(where, content) of each `code` that stands within a sentence."""
    for page in PAGES:
        text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
        for found in _SPAN.finditer(text):
            yield f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", found[1]


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of each command in blocks of shell, its comment left out and its continuation joined."""
    for block in (block for block in blocks() if block.language in ("sh", "bash")):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield f"{block}: {line.strip():.100}", words


def anchor(heading: str) -> str:
    """What GitHub calls a heading in a link: lower case, hyphens for spaces, no signs."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
