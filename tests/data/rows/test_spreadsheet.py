"""No cell of a CSV is a spreadsheet's command; numbers and other texts are what they were."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfuse.data.rows.spreadsheet import harmless, restored

COMMANDS = {
    '=HYPERLINK("http://x","y")': '\'=HYPERLINK("http://x","y")',
    "@SUM(1)": "'@SUM(1)",
    "+1+cmd|' /C calc'!A0": "'+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0": "'-2+3+cmd|' /C calc'!A0",
    "+1": "'+1",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    "\ttext": "'\ttext",
    "  =1": "'  =1",
    '"=1': "'\"=1",
    "'=1": "''=1",
    "\u00a0=1": "'\u00a0=1",
    "＝1": "'＝1",
    "normal;=1+1": "normal;'=1+1",
    "normal\n@SUM(1)": "normal\n'@SUM(1)",
    "-1;=1": "-1;'=1",
    " \t\n=1": "' \t'\n'=1",
}


@pytest.mark.parametrize(("cell", "written"), COMMANDS.items())
def test_what_a_spreadsheet_would_run_has_an_apostrophe(cell, written):
    assert harmless(cell) == written


@pytest.mark.parametrize(
    "cell",
    [-1.5, -3, True, None, 0.25, "", "normal", "a = b", "1-2", "x@y.org", "-1", "-1.5", "-1;-2", "a, -b", "ward/a"],
)
def test_numbers_and_other_texts_are_what_they_were(cell):
    assert harmless(cell) is cell or harmless(cell) == cell
    assert type(harmless(cell)) is type(cell)


@given(st.text(alphabet="=+-@;\t\r\n '\"a1", max_size=8))
def test_no_cell_begins_with_a_command_whatever_separates_cells(text):
    for cell in re.split(r"[;\t\r\n]", harmless(text)):
        assert not re.match(r"\s*[=+@]|\s*-(?![0-9]+$)", cell)
    assert harmless(text).replace("'", "") == text.replace("'", "")
    assert restored(harmless(text)) == text


@pytest.mark.parametrize("part", ["\t", "\n", " ;", "\n ", "'", "\t'\x1c"])
def test_a_long_cell_takes_no_longer_than_its_length(part):
    """With the square of it, an hour: pytest's limit ends it."""
    assert restored(harmless(part * 600_000 + "a")) == part * 600_000 + "a"
