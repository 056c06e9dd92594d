"""Which column names a row, which says the split, and which rows belong together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmfuse.data.sniff.columns import Column, number

_ID_WORDS = frozenset(
    {"id", "ids", "uid", "uuid", "guid", "key", "index", "identifier", "number", "no", "nr", "accession"}
)
_OF_IMAGES = frozenset({"image", "img", "file", "filename", "path", "dicom", "picture", "photo", "name"})
_WIDEST = """
    patient mrn ptid subject person participant user customer author writer speaker family household animal donor case
    study studies exam examination visit session tweet post thread article product item movie film video clip scene
    series recipe listing document page site hospital
"""
_OWNERS = _WIDEST.split()
"""Words of names of columns whose rows belong together, the widest circle first."""
_STRONG = frozenset(_OWNERS[:16])
_SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "validate", "development", "vali"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "eval", "evaluation"), "test"),
}
_SPLIT_PARTS = re.compile(r"[^\W\d_]+")
_SPLIT_WORD = re.compile(r"[\w\- ]{2,20}")
_FOLDER_OF_ONE = re.compile(r"(patient|subject|person|participant|pat|sub|case|study|user|p|s)[-_ ]?\d+", re.IGNORECASE)
_MOST_ID = 200
_FEW, _SENTENCE = 20, 5


def split_of(word: str) -> str | None:
    """The split that a word means, such as `val` or `dev_seen`; None where it means none."""
    found = {_SPLITS[part] for part in _SPLIT_PARTS.findall(word.lower()) if part in _SPLITS}
    return found.pop() if len(found) == 1 else None


def find_split(columns: Mapping[str, Column], named: str | None) -> tuple[str, dict[str, str]] | None:
    """The column that says the split, and what its words mean, those left out that mean themselves."""
    for column in [columns[named]] if named else columns.values():
        words = list(column.counts)
        if column.kind != "text" or not 2 <= len(words) <= 9 or column.share < 1:
            continue
        means = {word: split_of(word) if _SPLIT_WORD.fullmatch(word) else None for word in words}
        if None in means.values() or "train" not in means.values():
            continue
        return column.name, {w: m for w, m in means.items() if m is not None and w != m}
    return None


def find_id(columns: Mapping[str, Column], image: str | None, apart: Collection[str]) -> str | None:
    """The column that names each row once; of several the one whose name says so, then that of the images."""
    found = []
    for name, column in columns.items():
        if name in apart or not column.unique or column.length > 4 or column.is_date:
            continue
        if max(map(len, column.texts)) > _MOST_ID or any("." in t and number(t) is not None for t in column.texts[:50]):
            continue
        words = set(column.words)
        by_name = 4 if words == {"id"} else 3 if words & _ID_WORDS else 0
        coded = all(" " not in text for text in column.texts[:200])
        score = by_name or (2 if name == image else 1 if coded and (words & _OF_IMAGES or name == "Unnamed: 0") else 0)
        if not score and coded and column.length <= 1 and not column.is_url:
            leads = name == next(iter(columns)) and any(map(str.isdigit, column.texts[0]))
            score = 2.5 if leads else 0 if column.numbers else 0.5
        if score:
            found.append((score, -list(columns).index(name), name))
    return max(found)[2] if found else None


def find_group(
    columns: Mapping[str, Column], apart: Collection[str], image: Column | None, text: Column | None
) -> tuple[Any, str] | None:
    """What must not be in two splits, and why: a column of patients or the like, or one that goes with equal inputs."""
    rows = max((len(column.texts) for column in columns.values()), default=0)
    owners = []
    for name, column in columns.items():
        if name in apart or column.kind != "text" or not _may_group(column, rows):
            continue
        words = _singular(column.words)
        place = [_OWNERS.index(word) for word in words if word in _OWNERS]
        numbered = bool(set(column.words) & _ID_WORDS) or (bool(place) and column.words != words and len(words) == 1)
        owned = numbered or (bool(words) and words[-1] in _OWNERS and (words[-1] in _STRONG or len(words) == 1))
        if place and owned and (numbered or column.length <= 1.5):
            owners.append((min(place), not numbered, name))
        elif numbered and len(column.counts) >= rows / 20:
            owners.append((len(_OWNERS), False, name))
    apart_images = _repeats(image)
    owners = [one for one in owners if one[0] < len(_OWNERS) or _agree(apart_images, image, columns[one[2]])]
    if owners:
        name = min(owners)[2]
        if image is not None and not _agree(apart_images, image, columns[name]):
            return [name, image.name], "one image is in rows of several values, so rows with it in common count too"
        column = columns[name]
        return (
            name,
            f"{len(column.counts)} values in {len(column.filled)} rows, and its name says who or what a row is of",
        )
    for same, what in ((image, "image"), (text, "text")):
        found = _goes_with(columns, apart, same, rows, same is image) if same is not None else None
        if found:
            return found, f"rows with the same {what} are alike in it"
    return None


def _repeats(column: Column | None) -> set[str]:
    return set() if column is None else {value for value, n in column.counts.items() if n > 1}


def _agree(repeated: set[str], same: Column | None, owner: Column) -> bool:
    """Whether rows with the same input have the same owner."""
    owners: dict[str, set[str]] = defaultdict(set)
    for value, name in zip(same.texts, owner.texts, strict=True) if same is not None and repeated else ():
        if value in repeated:
            owners[value].add(name)
    return all(len(names) == 1 for names in owners.values())


def _singular(words: Sequence[str]) -> list[str]:
    """Words of a name as `_OWNERS` has them: `patientid` and German `Patienten` are patient."""
    split = [re.sub(r"(id|no|nr|number)$", "", word) or word for word in words]
    whole = [word.removesuffix("s") if word not in _OWNERS else word for word in split]
    return [
        next((o for o in _OWNERS if len(o) > 5 and word.startswith(o) and len(word) <= len(o) + 3), word)
        for word in whole
    ]


def _may_group(column: Column, rows: int) -> bool:
    """Whether there are enough different values for splits, and some repeat."""
    few = 2 if rows < 30 else max(5, rows // 200)
    return column.share > 0.5 and few <= len(column.counts) < len(column.filled)


def _goes_with(
    columns: Mapping[str, Column], apart: Collection[str], same: Column, rows: int, named: bool
) -> str | None:
    """Of inputs that repeat, the column in which equal ones agree, with the most values; else their own."""
    repeated = {value: n for value, n in same.counts.items() if n > 1}
    if sum(repeated.values()) < max(2, 0.02 * len(same.filled)):
        return None
    if not named and (rows < _FEW or same.length < _SENTENCE or max(repeated.values()) > 0.2 * rows):
        return None  # short texts are alike by chance, and one that most rows share would be all of a split
    found = []
    for name, column in columns.items():
        if name in apart or name == same.name or column.kind != "text" or not _may_group(column, rows):
            continue
        if column.length > 2 or column.is_date or (column.numbers and "id" not in column.words):
            continue
        if len(column.counts) >= rows / 20 and _agree(set(repeated), same, column):
            found.append((len(column.counts), name))
    return max(found)[1] if found else same.name


def owners_in_paths(paths: Mapping[int, str], cells: Sequence[str]) -> tuple[int, str] | None:
    """The part of images' paths that is of one patient or the like: its place from the end, and an example.

    Args:
        paths: By row the file.
        cells: By row what stands in the column.
    """
    split = [cells[row].replace("\\", "/").split("/")[:-1] for row in paths]
    depth = min(map(len, split), default=0)
    for place in range(-depth, 0):
        parts = Counter(parts[place] for parts in split)
        if len(parts) > 1 and all(_FOLDER_OF_ONE.fullmatch(part) for part in parts):
            return place, next(iter(parts))
    return None
