"""What a csv or tsv file is: its encoding, its separator, whether its first line names columns, and its rows."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mmfuse.data.readers.kinds import IMAGE_SUFFIXES
from mmfuse.data.readers.texts import guess_legacy
from mmfuse.data.rows.delimited import SEPARATORS, shape
from mmfuse.data.sniff.columns import number
from mmfuse.types import MmfuseError

_SAMPLE = 1 << 18
_LINES = 200
_LONG = 8
"""Words of which no name of a column has more."""


@dataclass(frozen=True)
class Written:
    """How a file is written.

    Attributes:
        separator: What stands between fields.
        encoding: Of its text.
        header: Whether the first line names the columns.
    """

    separator: str
    encoding: str
    header: bool


def how_written(data: bytes, suffix: str) -> Written:
    """Look at a file's bytes.

    Args:
        data: All of them.
        suffix: Of its name; of separators that fit alike, the one that goes with it is taken.

    Raises:
        MmfuseError: It is in no encoding that is known.
    """
    encoding = _encoding(data)
    text = data[: 4 * _SAMPLE].decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="ignore")[:_SAMPLE]
    usual = "," if suffix == "csv" else "\t"
    fits = {separator: _fit(text, separator) for separator in SEPARATORS}
    best = max(SEPARATORS, key=lambda one: (*fits[one], one == usual))
    separator = best if fits[best][1] > 1 else usual
    rows = _rows(text, separator)
    return Written(separator, encoding, len(rows) < 2 or _names_columns(rows[0], rows[1:]))


def _encoding(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        data.decode()
    except UnicodeDecodeError:
        found = guess_legacy(data)
        if found is None:
            raise MmfuseError("no text in an encoding that is known: save it as UTF-8") from None
        return found
    return "utf-8"


def _fit(text: str, separator: str) -> tuple[float, int]:
    """The share of lines that have the usual number of fields, in tenths, and that number."""
    counts = Counter(map(len, _rows(text, separator)))
    if not counts:
        return 0.0, 0
    fields = max(counts, key=lambda n: (counts[n], n))
    return (round(counts[fields] / counts.total(), 1), fields) if fields > 1 else (0.0, 1)


def _rows(text: str, separator: str) -> list[list[str]]:
    """The first rows of a text that may be cut off in the middle of one."""
    csv.field_size_limit(2**31 - 1)
    found = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if len(row) > 1 or (row and row[0].strip()):
                found.append(row)
            if len(found) > _LINES:
                break
    except csv.Error:  # where text was cut off; a file that is malformed is told when it is read
        pass
    return found[:-1] if len(text) >= _SAMPLE and len(found) > 1 else found


def _names_columns(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is unlike the others: columns vote, and a doubt is for names."""
    votes = 0
    if [cell.strip() for cell in first] == [str(i) for i in range(len(first))]:
        return True  # as pandas numbers columns
    for place, cell in enumerate(map(str.strip, first)):
        column = [row[place].strip() for row in rows if len(row) == len(first) and row[place].strip()]
        if not cell or not column:
            continue
        shapes = Counter(map(shape, column))
        digits = number(cell) is not None
        like_others = (
            len(cell.split()) > _LONG
            or (column.count(cell) * 50 > len(column) and len(column) > 1)
            or (shape(cell) in shapes and any(map(str.isdigit, cell)))
        )
        if cell.partition("#")[0].lower().endswith(IMAGE_SUFFIXES):
            votes -= 3
        elif digits != (sum(number(text) is not None for text in column) > len(column) / 2):
            votes += 0 if digits else 2
        elif digits or like_others:
            votes -= 2
        elif shapes.most_common(1)[0][1] > 0.9 * len(column) and " " not in column[0]:
            votes += 1
    return votes >= 0


def read_leniently(data: bytes, written: Written) -> tuple[list[list[str]], int]:
    """Rows of a file that is malformed, quotation marks taken as part of the texts where that fits more of them.

    Returns:
        The rows, of which all have as many fields as most, and how many lines are left out.
    """
    text = data.decode("utf-8-sig" if written.encoding == "utf-8" else written.encoding)
    read = {}
    for quoting in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=written.separator, quoting=quoting)
        rows = [row for row in lines if len(row) > 1 or (row and row[0].strip())]
        fields = Counter(map(len, rows)).most_common(1)[0][0]
        read[quoting] = [row for row in rows if len(row) == fields], sum(len(row) != fields for row in rows)
    plain, quoted = read[csv.QUOTE_NONE], read[csv.QUOTE_MINIMAL]
    return plain if plain[1] <= quoted[1] and len(plain[0]) >= len(quoted[0]) else quoted
