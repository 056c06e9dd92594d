"""csv and tsv -> rows, strictly: what is malformed is refused with its line, never mended."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from mmfuse.config import key
from mmfuse.data.readers.texts import LATIN, OTHER, guess_legacy
from mmfuse.types import MmfuseError

SEPARATORS = (",", ";", "\t", "|")
ENCODINGS = ("utf-8", "utf-16", *LATIN, *OTHER)
_NAMES = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_RUNS = re.compile(r"[^\W\d_]+|\d+")


@dataclass
class CsvSpec:
    """How csv and tsv files are written, where it is not with commas or tabs in UTF-8."""

    separator: str | None = key(
        None, "what stands between fields; default: a comma in .csv, a tab in .tsv and .txt", choices=SEPARATORS
    )
    encoding: str = key("utf-8", "of the text", choices=ENCODINGS)


Row = tuple[int, list[str]]
"""The line that a row begins in, and its fields."""
Block = tuple[list[str], list[list[str]]]
"""The header, and some rows."""


def read_delimited(file: BinaryIO, suffix: str, spec: CsvSpec, size: int) -> Generator[Block, None, None]:
    """The header and some rows after the other; at least once, without rows if there are none.

    Blank lines are no rows. A column without a name is `Unnamed: ` and its number from 0, as pandas has it.

    Args:
        file: At its beginning.
        suffix: Of its name: csv, tsv or txt.
        spec: How it is written.
        size: Rows that are given at once, at most.

    Raises:
        MmfuseError: It is malformed, or not as `spec` says; the message says in which line.
    """
    separator = spec.separator or ("," if suffix == "csv" else "\t")
    with closing(_read(file, separator, spec.encoding)) as rows:
        first = next(rows, None)
        if first is None:
            raise MmfuseError("no columns: nothing but line ends")
        header, block = _header(first, separator, suffix), list(islice(rows, size))
        doubtful = spec.encoding not in ("utf-8", "utf-16")
        while True:
            for line, row in block:
                if len(row) != len(header):
                    raise MmfuseError(
                        f"line {line}: {len(row)} field(s), but the header has {len(header)}; a field that contains "
                        f"the separator, {_NAMES[separator]}, must be in quotes"
                    )
            _check_swallowed(block, len(header), separator)
            # One row that is no UTF-8 tells it of the file: a later block may have a word or two that could be both.
            doubtful = doubtful and _may_be_utf8([header, *(row for _, row in block)], spec.encoding)
            yield header, [row for _, row in block]
            block = list(islice(rows, size))
            if not block:
                return


def _read(file: BinaryIO, separator: str, encoding: str) -> Generator[Row, None, None]:
    csv.field_size_limit(2**31 - 1)  # of the process: by default a field of 131,072 characters is an error
    text = io.TextIOWrapper(file, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")
    reader = csv.reader(text, delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise MmfuseError(_malformed(str(error), line, reader.line_num)) from error
    except UnicodeError as error:
        raise MmfuseError(_undecoded(file, encoding)) from error
    finally:
        text.detach()  # or the file would be closed with it


def _malformed(error: str, begins: int, ends: int) -> str:
    where = f"line {begins}" if begins == ends else f"lines {begins} to {ends}"
    twice = 'a quote within a field is written twice, as in "a ""b"" c"'
    if "expected after" in error:
        return f"{where}: text follows the quote that ends a field; {twice}"
    if "unexpected end" in error:
        return f"line {begins}: a field begins with a quote that nothing ends; {twice}"
    return f"{where}: {error}"


def _undecoded(file: BinaryIO, encoding: str) -> str:
    """In which line a file is not what its encoding says, and which it could be."""
    file.seek(0)
    if encoding != "utf-8":
        return f"not {encoding.upper()}, as csv.encoding in the manifest says"
    for number, line in enumerate(file, start=1):
        try:
            line.decode()
        except UnicodeError:
            likely = guess_legacy(line)
            way = f", or say csv: {{encoding: {likely}}} in the manifest, if it is that" if likely else ""
            return f"line {number}: not UTF-8: save it as UTF-8{way}"
    return "not UTF-8"


def _may_be_utf8(rows: Sequence[Sequence[str]], encoding: str) -> bool:
    """Refuse UTF-8 that was decoded as what it is not: as CP1252 and its like, nearly all bytes are letters.

    Returns:
        Whether the rows leave it open, being ASCII.
    """
    odd = "".join(field for row in rows for field in row if not field.isascii())
    try:
        odd.encode(encoding).decode()
    except UnicodeError:
        return False
    if odd:
        raise MmfuseError(f"it is UTF-8, not {encoding.upper()}, as csv.encoding in the manifest says")
    return True


def _header(first: Row, separator: str, suffix: str) -> list[str]:
    line, names = first
    if re.fullmatch("sep=.?", separator.join(names), re.IGNORECASE):
        told = f"line {line}: {separator.join(names)!r} is for Excel: remove it; csv.separator in the manifest says it"
        raise MmfuseError(told)
    if len(names) == 1:
        others = [other for other in SEPARATORS if other != separator and other in names[0]]
        if others:
            likely = max(others, key=names[0].count)
            other = {",": "csv", "\t": "tsv"}.get(likely, suffix)
            name = "" if other == suffix else f", or name it .{other}"
            raise MmfuseError(
                f"its fields are separated by {_NAMES[likely]}, not {_NAMES[separator]}: save it with "
                f"{_NAMES[separator]}, or say csv: {{separator: {_yaml(likely)}}} in the manifest{name}"
            )
    return [name or f"Unnamed: {number}" for number, name in enumerate(names)]


def _yaml(separator: str) -> str:
    return '"\\t"' if separator == "\t" else f'"{separator}"'


def _check_swallowed(block: Sequence[Row], fields: int, separator: str) -> None:
    """Refuse a field that holds lines like rows: a lone quote makes one of all rows up to the next quote.

    The field then begins with the rest of one row and ends with the beginning of another, with whole rows between
    them; so their separators add up, which they hardly do in prose. Each line must also begin like an id.
    """
    shapes: set[str] | None = None
    for line, row in block:
        for number, field in enumerate(row):
            if "\n" not in field:
                continue
            first, *more = field.replace("\r\n", "\n").split("\n")
            counts = [part.count(separator) for part in (first, *more)]
            if counts != [fields - 1 - number, *[fields - 1] * (len(more) - 1), number]:
                continue
            if shapes is None:
                shapes = {shape(row[0]) for _, row in block if "\n" not in row[0]}
            if len(more) * (fields - 1) > 1 and all(shape(part.partition(separator)[0]) in shapes for part in more):
                raise MmfuseError(
                    f"lines {line} to {line + len(more)}: a quoted field contains lines that look like rows: a quote "
                    "is missing, or is one too many; where such lines belong to the field, keep the table as jsonl"
                )


def shape(text: str) -> str:
    """What a text looks like: its length if it is long and has no spaces, else its runs of letters and of digits."""
    text = text.strip()
    if len(text) >= 12 and " " not in text:
        return str(len(text))
    return _RUNS.sub(lambda run: "0" if run[0][0].isdigit() else "a", text)
