"""What kind of target a column is, and which column could be one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmfuse.data.sniff.columns import Column, labels_in, number
from mmfuse.data.sniff.images import SEPARATORS
from mmfuse.tasks import TASKS
from mmfuse.tasks.kind import TaskKind
from mmfuse.types import MmfuseError

_MOST_CLASSES = 20
"""Whole numbers with more values are numbers to predict, unless they are written as codes."""
_FEW, _RARE = 100, 10
"""From so many rows on, labels with fewer rows than that are left out."""
_OF_LABELS = 8
"""A name that speaks so much for a label does so for its number too, such as `class_id`."""
_WORDY = 6
"""Words of which a class has fewer in the mean."""
_ABSENT = frozenset({"nan", "none", "null", "n/a", "na", "unknown", "?", "-", "nat"})
_FLAGS = frozenset({"0", "1", "-1", "0.0", "1.0", "-1.0"})
_BY_NAME = (
    (9, "label labels target targets class classes y"),
    (8, "category categories finding findings diagnosis diagnoses diagnose diagnostic dx sentiment genre genres"),
    (8, "emotion topic topics"),
    (7, "tag tags type kind section dish species breed disease pathology outcome grade stance intent hateful mesh"),
    (6, "rating score stars severity price stage subcategory department event brand view cuis concepts"),
    (5, "captions caption comment comments impression"),
    (5, "answer"),
    (2, "survival"),
)
_SPEAKS = {word: weight for weight, words in _BY_NAME for word in words.split()}
_OF_PERSONS = frozenset({"sex", "gender", "age", "race", "ethnicity"})
_COUNTERS = frozenset({"index", "number", "no", "nr", "id", "ids", "count", "width", "height", "offset"})
CAPTIONS = frozenset({"caption", "captions", "comment", "comments", "description", "sentence", "sentences", "raw"})


@dataclass
class Target:
    """A task that was guessed.

    Attributes:
        name: Of the task.
        spec: The manifest's `tasks.NAME`.
        labels: By row the labels, None where the target is missing; of numbers and captions its text alone.
        said: What kind it is and why.
        unsure: What may be wrong.
    """

    name: str
    spec: dict[str, Any]
    labels: list[list[str] | None]
    said: str
    unsure: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Which hold it."""
        return self.spec.get("columns") or [self.spec["column"]]

    @property
    def kind(self) -> type[TaskKind]:
        """What a target of its type is."""
        return TASKS.get(self.spec["type"])


def kind_of_target(column: Column, images: Mapping[int, str] | None = None) -> Target:
    """What kind of target a column is, by its cells.

    Args:
        column: The target.
        images: By row the image, as far as it is known: an image that stands in several rows speaks for captions.

    Raises:
        MmfuseError: No cell is filled, or they are bytes or objects, or all are equal.
    """
    name = column.name
    if column.kind in ("bytes", "object", "none"):
        what = {"none": "it is empty"}.get(column.kind, f"its cells are {column.kind}")
        raise MmfuseError(f"{name!r} cannot be a target: {what}")
    lists = [labels_in(cell) for cell in column.cells]
    listed = sum(found is not None for found in lists)
    if listed > 0.5 * sum(cell != "" for cell in column.cells):
        return _of_lists(column, lists)
    if len(column.counts) < 2:
        raise MmfuseError(f"{name!r} cannot be a target: all its cells are equal")
    absent = [text for text in column.counts if text.lower() in _ABSENT]
    known = Counter({text: n for text, n in column.counts.items() if text not in absent})
    one = [[text] if text and text not in absent else None for text in column.texts]
    extra = {"missing": absent} if absent else {}
    if set(known) <= _FLAGS and set(known) & {"-1", "-1.0"}:
        return _of_flags(column, one)
    values = [number(text) for text in known]
    if None not in values and len(known) > 1:
        found = _of_numbers(column, known, values, one)  # type: ignore[arg-type]
        if found is not None:
            found.spec |= {"missing": absent} if absent else {}
            return found
    said_whole = bool(CAPTIONS & set(column.words)) or _are_sentences(known)
    separator = None if said_whole else _separator(known)
    if separator is not None:
        return _of_separated(column, known, separator, absent)
    return _of_texts(column, known, one, extra, images)


def _of_lists(column: Column, lists: list[list[str] | None]) -> Target:
    longest = [max((len(item.split()) for item in found), default=0) for found in lists if found]
    if sum(longest) > _WORDY * max(1, len(longest)):
        spec = {"type": "captioning", "column": column.name}
        said = f"{column.name} is captioning: lists of sentences, the captions of a row"
        return Target(column.name, spec, [list(found) if found else None for found in lists], said)
    counts = Counter(label for found in lists for label in found or ())
    spec = {"type": "multilabel", "column": column.name, "empty": "negative"}
    spec |= _rare(counts, len(lists))
    said = (
        f"{column.name} is multilabel: lists of {len(counts)} labels; an empty one counts as none of them{_left(spec)}"
    )
    return Target(column.name, spec, lists, said)


def _of_flags(column: Column, one: list[list[str] | None]) -> Target:
    values = {text: {"1": "yes", "0": "no"}[text[0]] for text in column.counts if text[0] != "-"}
    spec = {"type": "classification", "column": column.name, "values": values, "other": "missing"}
    said = f"{column.name} is a class, yes or no: 1 and 0; -1 (uncertain) counts as missing"
    return Target(column.name, spec, one, said)


def _of_numbers(column: Column, known: Counter[str], values: list[float], one: list[list[str] | None]) -> Target | None:
    """A number, or a class where whole numbers are few and repeat; None where the digits are codes."""
    whole = all(value == int(value) for value in values)
    codes = any(text[:1] == "0" and text[1:2].isdigit() for text in known)
    rows = known.total()
    few = len(known) <= min(_MOST_CLASSES, max(2, rows / 3))
    if codes and whole:
        return None
    if whole and few:
        spec = {"type": "classification", "column": column.name} | _rare(known, rows)
        said = f"{column.name} is a class: {len(known)} whole numbers, each of about {rows // len(known)} rows"
        target = Target(column.name, spec, one, said + _left(spec))
        if len(known) > 2 and _SPEAKS.get(column.words[-1] if column.words else "", 0) < 7:
            target.unsure.append(f"tasks.{column.name}: a class, or levels: then type: regression")
        return target
    spec = {"type": "regression", "column": column.name}
    said = f"{column.name} is a number: {len(known)} values from {min(values):g} to {max(values):g}"
    return Target(column.name, spec, one, said)


def _are_sentences(known: Counter[str]) -> bool:
    ends = sum(text.endswith((".", "!", "?", "。")) and len(text.split()) > 2 for text in known)
    return ends > 0.3 * len(known)


def _separator(known: Counter[str]) -> str | None:
    """What stands between labels, if cells are several labels: their parts must recur alone or beside others."""
    rows = known.total()
    for separator in SEPARATORS:
        parts = {text: [part.strip() for part in text.split(separator)] for text in known if separator in text}
        cut = sum(known[text] for text in parts)
        if cut < max(2, 0.02 * rows) or not all(all(found) for found in parts.values()):
            continue
        pieces = [piece for found in parts.values() for piece in found]
        if sum(len(piece.split()) for piece in pieces) > 4 * len(pieces):
            continue
        owners = Counter(piece for text in known for piece in {p.strip() for p in text.split(separator)})
        recurring = sum(owners[piece] > 1 for piece in pieces)
        if recurring >= 0.6 * len(pieces) and len(owners) < len(known) + len(parts):
            return separator
    return None


def _of_separated(column: Column, known: Counter[str], separator: str, absent: list[str]) -> Target:
    labels = [
        [part.strip() for part in text.split(separator) if part.strip()] if text and text not in absent else None
        for text in column.texts
    ]
    counts = Counter(label for found in labels for label in found or ())
    spec: dict[str, Any] = {"type": "multilabel", "column": column.name, "separator": separator}
    spec |= {"missing": absent} if absent else {}
    spec |= _rare(counts, known.total())
    said = f"{column.name} is multilabel: {len(counts)} labels with {separator!r} between them{_left(spec)}"
    unsure = (
        []
        if column.share == 1
        else [f"tasks.{column.name}: an empty cell counts as unknown, not as none of the labels; else empty: negative"]
    )
    return Target(column.name, spec, labels, said, unsure)


def _of_texts(
    column: Column,
    known: Counter[str],
    one: list[list[str] | None],
    extra: dict[str, Any],
    images: Mapping[int, str] | None,
) -> Target:
    name, rows = column.name, known.total()
    repeated = rows - sum(n == 1 for n in known.values())
    several = images is not None and len(set(images.values())) < 0.7 * len(images)
    wordy = column.length >= _WORDY or (column.length >= 3 and bool(CAPTIONS & set(column.words)))
    if wordy and (repeated < 0.5 * rows or several):
        said = f"{name} is captioning: sentences, {column.length:.0f} words in the mean" + (
            ", several of one image" if several else ""
        )
        return Target(name, {"type": "captioning", "column": name, **extra}, one, said)
    spec = {"type": "classification", "column": name, **extra, **_rare(known, rows)}
    said = f"{name} is a class: {len(known)} values, each of about {rows // len(known)} rows{_left(spec)}"
    target = Target(name, spec, one, said)
    if 2 * len(known) > rows:
        target.unsure.append(f"tasks.{name}: {len(known)} classes in {rows} rows: many have one row only")
    return target


def _rare(counts: Counter[str], rows: int) -> dict[str, int]:
    some = min(counts.values(), default=_RARE)
    kept = sum(n >= _RARE for n in counts.values())
    return {"min_count": _RARE} if rows >= _FEW and some < _RARE and kept >= 2 else {}


def _left(spec: Mapping[str, Any]) -> str:
    return f"; those of fewer than {_RARE} rows are left out" if "min_count" in spec else ""


def flag_columns(columns: Mapping[str, Column], prefix: str | None = None) -> list[str]:
    """Columns of 0, 1, -1 and nothing, which together may be labels.

    Args:
        columns: Of the table.
        prefix: With which their names begin, before one of `=`, `_`, `:`, `.`, `/` or a space.
    """
    found = [c.name for c in columns.values() if c.kind == "text" and c.counts and set(c.counts) <= _FLAGS]
    if prefix is not None:
        found = [name for name in found if name.startswith(prefix) and name[len(prefix) :][:1] in tuple("=_:./ ")]
    return found


def target_of_flags(name: str, flags: list[str], columns: Mapping[str, Column]) -> Target:
    """A task of columns that hold 0 and 1 each."""
    rows = len(columns[flags[0]].texts)
    labels: list[list[str] | None] = [
        [flag for flag in flags if columns[flag].texts[row][:1] == "1"] for row in range(rows)
    ]
    spec = {"type": "multilabel", "columns": flags, "uncertain": "mask", "empty": "negative"}
    said = f"{name} is multilabel: {len(flags)} columns of 0 and 1; -1 is left out of the loss, nothing is 0"
    return Target(name, spec, labels, said)


def possible_targets(columns: Mapping[str, Column], apart: Iterable[str]) -> list[tuple[int, str]]:
    """Columns that could be targets, the likeliest first, each with how much speaks for it.

    Args:
        columns: Of the table.
        apart: Columns that are something else for certain.
    """
    found = []
    for name, column in columns.items():
        if name in set(apart) or column.kind not in ("text", "list") or (column.kind == "text" and not column.counts):
            continue
        speaks = max((_SPEAKS.get(word, 0) for word in column.words), default=0)
        counted = speaks < _OF_LABELS and bool(_COUNTERS & set(column.words))
        speaks = 0 if counted else speaks
        exact = 1 if column.words and len(column.words) == 1 else 0
        if column.kind == "text":
            if len(column.counts) < 2 or column.is_url or column.is_date:
                continue
            classes = len(column.counts) <= max(2, min(len(column.filled) / 5, 200))
            if counted or not (speaks or (classes and column.length < 3)):
                continue
        speaks = 0 if _OF_PERSONS & set(column.words) else speaks or 1
        found.append((2 * speaks + exact, name))
    return sorted(found, key=lambda one: -one[0])
