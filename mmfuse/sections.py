"""A radiology report -> its sections, by the rule that docs/texts.md tells."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAMES = {
    "findings": "finding|observation",
    "impression": "impression|conclusion|opinion|interpretation|assessment|diagnosis|radiological diagnosis",
    "indication": (
        "indication|indication for exam|indication for examination|indication for study|indication for the exam|"
        "indication for the examination|indication for the study|clinical indication|reason|reason for exam|"
        "reason for examination|reason for study|reason for test|reason for visit|reason for referral|"
        "reason for the exam|reason for the examination|reason for the study|reason for this exam|"
        "reason for this examination|reason for this study|referral reason|history|clinical history|"
        "relevant clinical history|patient history|medical history|past medical history|brief history|"
        "history of present illness|pmh|hpi|clinical|clinical information|clinical info|clinical detail|clinical data|"
        "clinical context|clinical question|clinical statement|clinical background|clinical note|clinical problem|"
        "clinical diagnosis|admitting diagnosis|provisional diagnosis|question"
    ),
    "comparison": (
        "comparison|comparison study|comparison studies|comparison exam|comparison examination|comparison film|"
        "compared to|compared with|comparison is made to|prior|prior study|prior studies|prior exam|"
        "prior examination|prior imaging|previous study|previous studies|previous exam|previous examination|"
        "previous imaging"
    ),
    "technique": (
        "technique|imaging technique|scan technique|protocol|imaging protocol|method|methodology|acquisition|view|"
        "technical detail|technical factor|procedure comment"
    ),
    "examination": (
        "exam|examination|exam type|examination type|type of exam|type of examination|study|study type|procedure|"
        "procedure performed|modality|exam date|examination date|date of exam|date of examination"
    ),
    "recommendation": "recommendation|follow-up|follow up|followup|suggested follow-up|advice",
    "addendum": "addendum|addenda",
    "other": (
        "end of impression|summary|notification|communication|critical result|wet read|preliminary report|attestation|"
        "teaching attestation|disclaimer|signed|signed by|electronically signed by|electronically signed|"
        "dictated by|dictated|transcribed by|reported by|verified by|approved by|reading physician|"
        "referring physician|ordering physician|attending physician|attending|resident|radiologist|"
        "accession|accession number|report status|patient|patient name|patient id|name|mrn|dob|date of birth|date"
    ),
    "": "narrative|report|final report|radiology report|text",
}
SECTIONS = ("findings", "impression", "indication", "comparison", "technique", "examination", "recommendation")
"""The sections that can be asked for."""

_KEYS = {name: key for key, names in _NAMES.items() for name in names.split("|")}
_SHORT = {"indication", "comparison", "technique", "examination", "other"}
"""Sections of one paragraph."""


def _any_of(names: Sequence[str]) -> str:
    words = sorted(names, key=len, reverse=True)  # the longest first: "clinical history" before "clinical"
    return "(?:" + "|".join(re.escape(word).replace(r"\ ", "[ \t_]{1,3}") for word in words) + ")"


def _header(names: Sequence[str]) -> str:
    """A header of one or several of these names, in bold or not."""
    adjective = "(?:(?:final|preliminary|radiographic|radiological|imaging|overall|chest|x-ray|ct|mri?)[ \t]{1,3})?"
    plural = r"(?:\(s\)|(?:e?s)?(?![a-z0-9]))"
    joint = r"(?:[ \t]{0,2}[/&+,][ \t]{0,2}|[ \t]{1,2}(?:and|or)[ \t]{1,2})"
    first, other = rf"{adjective}(?P<first>{_any_of(names)}){plural}", rf"{adjective}{_any_of(names)}{plural}"
    aside = r"(?:[ \t]{0,2}\([^()\n]{0,30}\))?"
    return rf"(?P<mark>[*_]{{0,3}})(?P<name>{first}(?:{joint}{other}){{0,3}}){aside}"


_COLON = r"(?:[ \t]{0,3}:(?P=mark)|(?P=mark)[ \t]{0,3}:|[ \t]{0,3}:)"
_DASH_OR_END = r"(?P<dash>(?P=mark)[ \t]{1,3}[-–—][ \t])|(?P<end>(?P=mark)[ \t]{0,200}$)"
_NUMBER = r"(?:\(?(?:[0-9]{1,2}|[IVX]{1,4}|[A-H])[.)][ \t]{1,3})?"
_AT_START = re.compile(
    rf"(?P<markup>(?:[#>•-]{{1,6}}|\*(?=[ \t]))?)[ \t]{{0,3}}{_NUMBER}"
    rf"{_header(list(_KEYS))}(?:{_COLON}|{_DASH_OR_END})",
    re.IGNORECASE | re.ASCII,
)
_WITHIN = re.compile(
    r"(?:(?<=[.;!?])|(?P<space>(?<=\s)))(?P<before>[ \t]{0,20})"
    rf"{_header([name for name, key in _KEYS.items() if key in SECTIONS and key != 'examination'])}{_COLON}",
    re.IGNORECASE | re.ASCII,
)
_UNKNOWN = re.compile(r"[#*_]{0,4}[ \t]{0,3}[A-Z][A-Z0-9 ,/&()'-]{2,60}:")


def split_sections(report: str) -> dict[str, str]:
    """Split a report at its headers.

    A header is one of the known names (English; or several, as in `FINDINGS AND IMPRESSION`, of which the first
    counts) with a colon: at the beginning of a line, perhaps numbered or in bold; within a line behind the end of a
    sentence, or in capitals. At the beginning of a line also without a colon, if it is alone in the line and begins
    with a capital, or is in capitals and a dash follows.

    Findings, impression, recommendation and addendum go on to the next header. The others are one paragraph, which
    also ends at a line that begins with unknown words in capitals and a colon: what follows is under no header.

    Returns:
        By section, in the order of the report: `SECTIONS`, `addendum`, `other` (signatures, notifications, names), and
        "" for what stands under no header. Sections of the same name are joined by a line break, empty ones left out.
        No part of the report is in two of them.
    """
    parts: dict[str, list[str]] = {}
    key, begun = "", False  # begun: the section has had text, so that an empty line ends it, if it is a short one
    for line in report.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line.strip():
            if key in _SHORT and begun:
                key = ""
            parts.setdefault(key, []).append("")
            continue
        for header, text in _cut_line(line):
            if header is not None:
                key, begun = header, False
            elif key in _SHORT and _UNKNOWN.match(text):
                key = ""
            if text:
                parts.setdefault(key, []).append(text)
                begun = True
    joined = {name: "\n".join(lines).strip() for name, lines in parts.items()}
    return {name: text for name, text in joined.items() if text}


def select_sections(report: str, names: Sequence[str]) -> str:
    """The named sections of a report, in the order of `names`, a line break between them; "" if it has none of them."""
    found = split_sections(report)
    return "\n".join(found[name] for name in names if name in found)


def section_of(header: str) -> str | None:
    """The section that a header's words name, `clinicalHistory` and `clinical_history` alike; None if none."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", header[:100])
    found = _AT_START.fullmatch(f"{words.strip().rstrip(':').strip()}:")
    key = _key(found) if found else None
    return key if key in SECTIONS else None


def _cut_line(line: str) -> list[tuple[str | None, str]]:
    """A line's pieces, each with the section its header opens; None: it goes on with the section before it."""
    line = line.strip()
    pieces: list[tuple[str | None, str]] = []
    key, position = None, 0
    first = _AT_START.match(line)
    if first and _opens(first):
        key, position = _key(first), first.end()
    start = position
    for found in _WITHIN.finditer(line, position):
        if found["space"] is not None and not found["name"].isupper():
            continue
        pieces.append((key, line[start : found.start()].strip()))
        key, start = _key(found), found.end()
    pieces.append((key, line[start:].strip()))
    return pieces if pieces[0] != (None, "") else pieces[1:]


def _opens(found: re.Match[str]) -> bool:
    """Whether a name at the beginning of a line, without a colon, is a header."""
    if found["dash"] is not None:
        return found["name"].isupper()
    return found["end"] is None or found["name"][0].isupper() or bool(found["mark"] or found["markup"])


def _key(header: re.Match[str]) -> str:
    return _KEYS[" ".join(header["first"].lower().replace("_", " ").split())]
