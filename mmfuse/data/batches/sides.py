"""Left and right exchanged in English texts and in label names, as a mirror exchanges them in a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mmfuse.types import MmfuseError

_PARTS = ("UL", "LL", "UZ", "MZ", "LZ", "UQ", "LQ", "UE", "LE", "IJ")
"""What follows L or R in an abbreviation: lobes, zones, quadrants, extremities, the internal jugular vein."""

_SUFFIXES = ("", "ward", "wards", "most", "sided", "hand", "handed")
_CURVES = ("scoliosis", "scoliotic", "rotoscoliosis", "convex", "curvature")


def _both_ways(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


_LOWER = [(f"left{end}", f"right{end}") for end in _SUFFIXES] + [(f"levo{end}", f"dextro{end}") for end in _CURVES]
_WORDS = _both_ways([(case(a), case(b)) for a, b in _LOWER for case in (str.lower, str.capitalize, str.upper)])
_ABBREVIATIONS = _both_ways([(f"L{part}", f"R{part}") for part in _PARTS])
_SHORT = _both_ways([("L", "R"), ("Lt", "Rt"), ("LT", "RT"), ("lt", "rt")])
_MIRRORED = _WORDS | _ABBREVIATIONS | _SHORT


def _any(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_FROM, _TO = r"(?<![^\W_])", r"(?![^\W_])"
"""Where a word begins and ends; an underscore separates words."""

_NO_MIRROR = (
    r"(?:(?i:middle\s+lobe|lingula\w*|azygos\s+lobe|situs|heterotax\w+|isomerism|"
    r"(?:dextro|levo|meso)(?:cardia|position|version)|(?:counter|anti)?-?clockwise|\d+\s*o[’']?\s*clock|"
    r"(?:left|right)[\s-]+(?:ventric\w+|atri(?:um|al|a)|heart|bundle\s+branch|(?:\w+\s+)?coronar\w+|circumflex|"
    r"anterior\s+descending|to[\s-](?:left|right)\s+shunt\w*))|"
    rf"RML|RV|LV|RA|LA|[LR]VH|[LR]VEF|[LR]BBB|[LR]CA|LAD|LCX|[LR]VOT|O[DS])"
    rf"{_TO}"
)
"""What a mirror makes wrong whatever is said of sides, or where a side is in the name of a part."""

_BODY = (
    r"(?:(?:upper|lower|mid|middle|medial|lateral|apical|apex|apices|basal|basilar|bibasilar|base|bases|costophrenic|"
    r"cardiophrenic|perihilar|hilar|hilum|infrahilar|suprahilar|paratracheal|pleural?|pneumothora\w+|hydropneumo\w+|"
    r"hemi\w+|effusions?|lungs?|lobes?|lobar|zones?|fields?|chest|thora\w+|ribs?|clavic\w+|scapul\w+|shoulders?|axill\w+|"
    r"breasts?|diaphragm\w*|opacit\w+|consolidations?|atelecta\w+|infiltrat\w+|nodul\w+|mass|masses|pneumonia|kidneys?|"
    r"renal|arms?|hands?|wrists?|elbows?|hum\w+|legs?|knees?|hips?|ankles?|foot|feet|femor\w+|femurs?|eyes?|ears?|"
    r"subclavian|jugular|carotid|picc|port|side|sided|angle)"
    rf"{_TO})"
)
"""A word that shows the one before it to be a side."""

_SUBJECT = r"(?:he|she|they|it|we|i|you|who|which|that|patient|pt|has|have|had|having|was|were|is|are|be|been|being)"
_KEPT = (
    rf"(?i:(?:(?:{_SUBJECT}\s+)?left\s+(?:the\s+(?:hospital|clinic|ward|ed|er|building|house|room|country)|"
    r"against\s+medical\s+advice|ama|in\s+(?:place|situ)|untreated|alone)|all\s+right|right\s+(?:away|now|here|of\s+way)|"
    rf"at\s+(?:a\s+)?right\s+angles?|right-angled|human\s+right|(?:left|right)-wing(?:ers?)?|(?:far|alt)-(?:left|right)|right-click\w*){_TO})|"
    rf"(?:R/O|RT-PCR|L[\s-]spine|\d+\s*-?L(?:/\w+)?|(?![LR]/)[A-Za-zµ]+/L|L[’']\w+|[LR]-(?!{_BODY})[A-Za-z]+)"
    rf"{_TO}"
)
"""Where the word is no side: it stays."""

_NOT_NAMED = "".join(
    f"(?<!{word} )" for word in ("the", "on", "to", "of", "far", "his", "her", "its", "and", "or", "than")
)
_UNSURE = (
    rf"(?i:(?:{_SUBJECT}\s+(?:left|right)(?!-)|"
    rf"{_NOT_NAMED}left\s+(?:the|a|an|his|her|their|its|our|my|your|this|that|in|at|on|for|by|after|before|with|without|"
    r"behind|out|off|over|against|home|hospital|early|open|unchanged|untouched|to(?!\s+right))|"
    rf"{_NOT_NAMED}right\s+(?:in|at|on|by|next|through|over|under|into|onto|from|behind|beside|above|below|beneath|"
    r"around|along|across|up|down|off|out|before|after|there|then|back|between|against|for|to(?!\s+left))|"
    r"right\s+(?:answer|choice|size|time|place|thing|way|person|man|woman|amount|kind|sort|fit|tool|one|dose|diagnosis|"
    rf"decision|track|moment|reason|direction)|right(?=\?)){_TO}(?!\W+{_BODY}))"
)
"""Where it may be a verb, an adverb or "correct"."""

_TOKEN = re.compile(
    rf"{_FROM}(?:(?P<no_mirror>{_NO_MIRROR})|(?P<kept>{_KEPT})|(?P<unsure>{_UNSURE})|"
    rf"(?P<pair>[LR]\s*(?:[<>=&+/]|and|or|vs\.?|than|to)\s*[LR]{_TO})|"
    rf"(?P<side>(?:{_any([*_WORDS, *_ABBREVIATIONS])}){_TO}|(?:{_any([*_SHORT])})(?=\.?[\s-]+(?i:{_BODY}))|"
    rf"(?:(?<=on )|(?<=on the ))[LR]{_TO})|"
    rf"(?P<odd>(?:(?i:left|right)(?i:{_any(_SUFFIXES)})|{_any([*_SHORT])}){_TO}))"
)


def swap_sides(text: str) -> str | None:
    """The text as it is true of the mirrored picture: left is right and right is left, in the case they were in.

    English words and abbreviations by rule: `left`, `right-sided`, `leftward`, `levoscoliosis`, `LUL`, `R lung`, `R>L`.
    `bilateral` stays, and so does a word in a phrase where it is no side ("left the hospital", "right away", "R/O").

    Returns:
        None where the mirrored text cannot be told for sure: what has no mirror image (the middle lobe, a heart's
        chamber, dextrocardia), a `left` or `right` that may be a verb or mean "correct", a lone `L` or `R`, and a text
        that would not come back when swapped again.
    """
    swapped = _swap(text)
    return swapped if swapped is not None and _swap(swapped) == text else None


_LETTERS = str.maketrans("LR", "RL")


def _swap(text: str) -> str | None:
    sure = True

    def mirrored(found: re.Match[str]) -> str:
        nonlocal sure
        kind = found.lastgroup
        sure &= kind not in ("no_mirror", "unsure", "odd")
        if kind == "pair":
            return found[0].translate(_LETTERS)
        return _MIRRORED[found[0]] if kind == "side" else found[0]

    swapped = _TOKEN.sub(mirrored, text)
    return swapped if sure else None


_IN_LABEL = re.compile(
    rf"(?:(?<![^\W\d_])|(?<=[a-z])(?=[A-Z]))(?:(?:{_any([*_WORDS])})(?![a-z])|"
    rf"(?:{_any([*_ABBREVIATIONS, *_SHORT])})(?![^\W_]))"
)


def mirror_labels(names: Sequence[str], where: str) -> np.ndarray:
    """Which label each label is in the mirrored picture: "left effusion" is "right effusion", the rest are themselves.

    Sides are words, or parts of a name such as `effusion_left`, `EffusionLeft`, `effusion_L`, `LLL opacity`.

    Args:
        names: The label names of a task.
        where: Named in errors.

    Returns:
        `(L,)` int64, a permutation that is its own inverse.

    Raises:
        MmfuseError: The mirror image of a label is no label, or a label has none ("right middle lobe").
    """
    place = {name: i for i, name in enumerate(names)}
    found = []
    for name in names:
        mirrored = _IN_LABEL.sub(lambda match: _MIRRORED[match[0]], name)
        if any(found.lastgroup == "no_mirror" for found in _TOKEN.finditer(name.replace("_", " "))):
            raise MmfuseError(f"{where}: label {name!r} has no mirror image: rows cannot be flipped (flip: none)")
        if mirrored not in place:
            raise MmfuseError(
                f"{where}: label {name!r} has a side, but there is no label {mirrored!r} to exchange it with: rows "
                "cannot be flipped (flip: none)"
            )
        found.append(place[mirrored])
    return np.array(found, dtype=np.int64)
