"""Whether a table (csv, tsv, jsonl, parquet) is what its name says, by how it begins."""

from __future__ import annotations

import codecs
import re
from typing import BinaryIO

from mmfuse.types import MmfuseError

TABLES = ("csv", "tsv", "txt", "jsonl", "ndjson", "parquet")
"""Names of the files of rows that are read."""
_BEGINNINGS = (
    (b"PAR1", "it is parquet: name it .parquet"),
    (b"PK\x03\x04", "it is a spreadsheet (xlsx, ods) or another zip file: save its sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "it is an old spreadsheet (xls): save its sheet as CSV UTF-8"),
    (b"\x1f\x8b", "it is compressed (gzip): unpack it"),
    (b"BZh", "it is compressed (bzip2): unpack it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed (zstd): unpack it"),
    (b"%PDF", "it is a PDF"),
    (b"\x89PNG", "it is an image"),
    (b"\xff\xd8\xff", "it is an image"),
    (b"ARROW1", "it is an Arrow file: save it as parquet"),
    (codecs.BOM_UTF32_LE, "it is UTF-32: save it as UTF-8"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file: git lfs pull fetches it"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<table")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*\"")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def check_kind(file: BinaryIO, suffix: str, encoding: str) -> None:
    """Refuse a file that is not what its name says; leaves it at its beginning.

    Args:
        file: At its beginning.
        suffix: Of its name.
        encoding: Of csv and tsv, as the manifest says.

    Raises:
        MmfuseError: What it is by its first bytes, and what mends it.
    """
    start = file.read(4096)
    file.seek(0)
    if not start:
        raise MmfuseError("an empty file: no columns, no rows")
    if suffix == "parquet":
        if not start.startswith(b"PAR1"):
            raise MmfuseError(f"no parquet file{_named(start)}")
        return
    for beginning, what in _BEGINNINGS:
        if start.startswith(beginning):
            raise MmfuseError(what)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower().startswith(_PAGES):
        raise MmfuseError("it is a web page or XML, not a table: was the download refused? else save the table as csv")
    if suffix in ("jsonl", "ndjson") and start.lstrip()[:1] == b"[":
        raise MmfuseError("a JSON array: an object a line is expected, as jq -c '.[]' writes them")
    if suffix in ("csv", "tsv", "txt") and _JSON.match(start):
        raise MmfuseError("it is JSON: name it .jsonl, with an object a line")
    if suffix not in TABLES:
        also = (
            "; of JSON, an object a line" if suffix == "json" else "; save the sheet as CSV" if "xl" in suffix else ""
        )
        raise MmfuseError(f"cannot tell what .{suffix} is; legal: csv, tsv, jsonl, parquet{also}")
    if encoding != "utf-16" and (start.startswith(_UTF16) or 10 * start.count(b"\0") > len(start)):
        way = "" if suffix in ("jsonl", "ndjson") else ", or say csv: {encoding: utf-16} in the manifest"
        what = "it is UTF-16" if start.startswith(_UTF16) else "NUL bytes: no text, or UTF-16"
        raise MmfuseError(f"{what}: save it as UTF-8{way}")


def _named(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return ": it is a pointer of Git LFS; git lfs pull fetches it"
    return ": it is text; name it .csv or .jsonl" if start.isascii() and b"\0" not in start else ""
