"""Cells of the CSV files that people open in a spreadsheet, which takes some texts for commands."""

from __future__ import annotations

import re
from typing import Any

_BEGIN = r"(?:\A|(?<=[;\t\r\n]))"  # of a cell, also where another separator than the comma is set
_COMMAND = (
    r"(?!-[0-9]+(?:\.[0-9]+)?(?:;|\Z))"  # a class that is called -1 stays what it is
    r"(?=(?:(?![\t\r\n])[\s'\"\x00-\x1f])*+[=+\-@＝＋－＠\t\r\n])"
)
_BARE, _MARKED = re.compile(_BEGIN + _COMMAND), re.compile(f"{_BEGIN}'{_COMMAND}")


def harmless(cell: Any) -> Any:
    """A cell that no spreadsheet runs: an apostrophe stands before a text that it would take for a formula.

    Such a text begins with `=`, `+`, `-` or `@`, also in full width, behind blanks or quotes, or with a tab or a line's
    end (OWASP, "CSV injection"); behind `;`, a tab or a line's end another cell may begin. Numbers stay numbers.
    """
    return _BARE.sub("'", cell) if isinstance(cell, str) else cell


def restored(cell: str) -> str:
    """The text of a cell that `harmless` wrote."""
    return _MARKED.sub("", cell)
