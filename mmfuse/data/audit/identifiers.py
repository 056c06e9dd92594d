"""Personal identifiers in texts, by rules that miss things, or by presidio; and texts without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmfuse.extras import extra
from mmfuse.types import MmfuseError


class Identifier(NamedTuple):
    """Where an identifier stands in a text.

    Attributes:
        kind: Such as NAME or DATE.
        start: Of its first character.
        end: After its last one.
    """

    kind: str
    start: int
    end: int


Finder = Callable[[str], list[Identifier]]

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)(?:\.(?=\s\d))?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_NAME = r"[A-Z][a-z'’][\w'’-]{0,24}"
_RULES: tuple[tuple[str, str], ...] = (
    ("EMAIL", r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}\b"),
    (
        "RECORD",
        r"\b(?i:mrn|medical record|record|accession|case|chart|patient id|study id|hospital|nhs|insurance|policy)"
        r"(?i:\s?(?:no|nr|number|num|id|#))?[.:#\s]{1,3}(?=[A-Z\d-]{0,15}\d{4})[A-Z\d][A-Z\d-]{3,19}\b",
    ),
    ("SSN", r"\b\d{3}-\d{2}-\d{4}\b"),
    ("DATE", r"\b(?:19|20)\d\d([-/.])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])\b"),
    ("DATE", r"\b\d{1,2}/\d{1,2}/(?:\d\d){1,2}\b|\b\d{1,2}([-.])\d{1,2}\1(?:19|20)\d\d\b"),
    ("DATE", rf"\b(?:{_DAY}\s)?{_MONTH}\s(?:{_DAY},?\s)?(?:19|20)\d\d\b|\b{_DAY}\s{_MONTH}(?!\w)|\b{_MONTH}\s{_DAY}\b"),
    ("PHONE", r"(?:\+\d{1,3}[ .-]?)?(?:\(\d{3}\)\s?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b|\+\d{1,3}(?:[ .-]?\d{2,4}){3,4}\b"),
    ("PHONE", r"\b(?i:tel|telephone|phone|fax|mobile|pager)\.?:?\s?\+?\d[\d ./-]{5,16}\d\b"),
    (
        "ADDRESS",
        r"\b\d{1,5}\s(?:[A-Z][a-z]{1,20}\s){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Boulevard|Blvd|Court)\b\.?",
    ),
    (
        "NAME",
        rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Professor|Doctor)\b\.?\s(?:[A-Z]\.\s?){{0,2}}{_NAME}(?:\s{_NAME}){{0,2}}",
    ),
    (
        "NAME",
        rf"\b(?:(?i:(?:patient |full )?name|patient|signed by|dictated by|referred by)\s?:|(?i:patient|signed by))\s"
        rf"{_NAME}(?:,?\s{_NAME}){{1,2}}",
    ),
)
_PATTERNS = tuple((kind, re.compile(rule)) for kind, rule in _RULES)
# Not EMAIL_ADDRESS: its recognizer fetches a list of domains from the network, and the rule knows e-mail addresses.
_PRESIDIO = {
    "PERSON": "NAME",
    "DATE_TIME": "DATE",
    "PHONE_NUMBER": "PHONE",
    "US_SSN": "SSN",
    "MEDICAL_LICENSE": "RECORD",
    "LOCATION": "ADDRESS",
}


def find_by_rules(text: str) -> list[Identifier]:
    """Find e-mail addresses, record numbers, dates, phone numbers, street addresses and names beside a title.

    The rules read English and know forms, not people: a name without a title, a nickname, a place or a relative is
    missed, and a text in which nothing is found is not thereby anonymous.

    Returns:
        In the order of the text, none overlapping: two that do become one, of the kind of the first.
    """
    found = [Identifier(kind, *match.span()) for kind, rule in _PATTERNS for match in rule.finditer(text)]
    return _apart(found)


def presidio_finder() -> Finder:
    """A finder of presidio's English analyzer, for names and places that no rule knows, joined with the rules.

    Raises:
        MmfuseError: presidio or its language model is not installed; nothing is downloaded.
    """
    with extra("pii", "identifiers: presidio is not installed"):
        import spacy.util  # type: ignore[import-not-found]
        from presidio_analyzer import AnalyzerEngine  # type: ignore[import-not-found]
    if not spacy.util.is_package("en_core_web_lg"):
        raise MmfuseError(
            "identifiers: presidio's language model is not installed: python -m spacy download en_core_web_lg"
        )
    engine = AnalyzerEngine()

    def find(text: str) -> list[Identifier]:
        results = engine.analyze(text=text, language="en", entities=list(_PRESIDIO))
        return _apart([Identifier(_PRESIDIO[r.entity_type], r.start, r.end) for r in results] + find_by_rules(text))

    return find


def _apart(found: Sequence[Identifier]) -> list[Identifier]:
    kept: list[Identifier] = []
    for one in sorted(found, key=lambda f: (f.start, -f.end)):
        if kept and one.start < kept[-1].end:
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end, one.end))
        else:
            kept.append(one)
    return kept


def redact(text: str, found: Sequence[Identifier]) -> str:
    """The text with each identifier replaced by its kind, such as [NAME].

    Args:
        text: As it was searched.
        found: As a finder gave them: in order, none overlapping.
    """
    parts, last = [], 0
    for one in found:
        parts += [text[last : one.start], f"[{one.kind}]"]
        last = one.end
    return "".join([*parts, text[last:]])
