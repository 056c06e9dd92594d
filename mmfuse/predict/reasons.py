"""Which reasons are common: like ones are counted together, without the names and numbers in them."""

from __future__ import annotations

import re

KINDS = 50
"""Of one run; what comes behind them is counted together."""
OTHER = "other reasons"
_TOLD = 5
_SUFFIXES = (
    "jpe?g jpe jfif mpo png gif webp tiff? bmp p[pgb]m dcm dicom hei[cf] avif jp2 jxl nii gz zip pdf docx? "
    "txt text report xml html? json rtf sr csv tsv jsonl ndjson parquet"
).replace(" ", "|")
_NAMES = (
    (re.compile(r"^(image|text|shard|folder) .*?: "), r"\1: "),
    (
        re.compile(r"^.+? (?:is of a kind that is|are of kinds that are) not read"),
        "a file is of a kind that is not read",
    ),
    (re.compile(r"( of the same name): .*"), r"\1"),
    (re.compile(r"\S*[/\\]\S*[^\s:;,.)]"), "FILE"),
    (re.compile(rf"\w[^\s:;,'\"()]*\.(?:{_SUFFIXES})(?![\w.])", re.IGNORECASE), "FILE"),
    (re.compile(r"^(image|text|shard): FILE: "), r"\1: "),
    (re.compile(r"(?<!\w)'[^']*'(?!\w)|(?<!\w)\"[^\"]*\"(?!\w)"), "'...'"),
    (re.compile(r"(?<![\w-])(?<!JPEG )\d+(?:[.,]\d+)*(?!\w)"), "N"),
    (re.compile(r"; .*"), ""),  # what to do
)


def kind_of(reason: str) -> str:
    """A failure's reason without what is of this study alone: files' names, quoted words, numbers."""
    for pattern, rest in _NAMES:
        reason = pattern.sub(rest, reason)
    return reason[:200]


def add_kind(kinds: dict[str, int], kind: str, count: int = 1) -> None:
    """Count a kind of reason; of all that come behind the first `KINDS`, as one."""
    kind = kind if kind in kinds or len(kinds) < KINDS else OTHER
    kinds[kind] = kinds.get(kind, 0) + count


def tell_kinds(kinds: dict[str, int]) -> str:
    """The commonest kinds in a line, such as `12 x image: no such file; 1 x text: binary, not text`."""
    ranked = sorted(kinds.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    rest = sum(count for _, count in ranked[_TOLD:])
    return "; ".join([f"{count} x {kind}" for kind, count in ranked[:_TOLD]] + ([f"{rest} x others"] if rest else []))
