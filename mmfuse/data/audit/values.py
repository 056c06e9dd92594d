"""What the cells say before they become labels: one thing in several spellings, words for nothing, numbers, names."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mmfuse.data.audit.findings import Finding, Severity, finding
from mmfuse.data.audit.rows import Rows
from mmfuse.data.rows.blocks import BLOCK
from mmfuse.data.rows.read import RowFiles
from mmfuse.data.tables.manifest import Manifest
from mmfuse.data.tables.splits import SPLITS, parse_times
from mmfuse.data.tables.table import Table
from mmfuse.tasks import TaskSpec, kind_of, task_of

_NOTHING = re.compile(
    r"nan|nat|none|null|nil|n/?a|n\.a\.?|#n/a|<na>|undefined|missing|not(?:available|applicable)|-+|\?+|\.|\[\]|\{\}"
)
"""What is written where there is nothing, as `spelled` gives it."""
_LONGEST = 24
"""A longer cell is no word for nothing."""
_NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?")
_MEASURED = re.compile(r"[-+]?[$€£]?\s*(\d+([.,]\d*)*|[.,]\d+)(e[-+]?\d+)?\s*%?", re.IGNORECASE)
_SPACES = re.compile(r"(?<!\d) | (?!\d)")
_LOOKALIKES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | {"\u2019": "'", "\u2018": "'"})
_WAYS = {
    "case": "case",
    "spaces": "spaces",
    "numbers": "the form of numbers (.0)",
    "characters": "the form of characters (composed or not, full width, dashes)",
}
_MANY, _FEW_EACH, _LABELLED = 10, 10, 10
_SHOWN = 8

Places = dict[str, list[int]]
"""By value, the rows that say it."""


@dataclass
class Said:
    """What columns say, as it stands there.

    Attributes:
        tasks: By task, its labels before the manifest translates them; of captions, only words for nothing.
        texts: Words for nothing in text columns.
        subgroups: By column.
        times: Of the column of splits.time, by row.
    """

    tasks: dict[str, Places] = field(default_factory=lambda: defaultdict(dict))
    texts: Places = field(default_factory=dict)
    subgroups: dict[str, Places] = field(default_factory=lambda: defaultdict(dict))
    times: list[str] = field(default_factory=list)


def spelled(value: str, heeding: str = "") -> str:
    """A value without that in which two spellings of one thing differ; equal ones are most likely one thing.

    Case, spaces (but between digits), `.0`, leading zeros and `+` of numbers, composed and decomposed characters, full
    width, invisible characters, and dashes that look alike.

    Args:
        value: As it stands there.
        heeding: One of the ways that is not left out: case, spaces, numbers or characters.
    """
    if heeding != "characters" and not value.isascii():
        visible = (c for c in unicodedata.normalize("NFKC", value) if unicodedata.category(c) != "Cf")
        value = "".join(visible).translate(_LOOKALIKES)
    if heeding != "case":
        value = value.casefold()
        value = value if heeding == "characters" or value.isascii() else unicodedata.normalize("NFKC", value)
    if heeding != "spaces":
        value = _SPACES.sub("", " ".join(value.split()))
    number = _NUMBER.fullmatch(value) if heeding != "numbers" else None
    if number and (number[2] or number[3]):
        whole, part = number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
        value = ("-" if number[1] == "-" and (whole, part) != ("0", "") else "") + whole + (f".{part}" if part else "")
    return value


def alike(values: Iterable[str]) -> list[list[str]]:
    """Sets of different values that are most likely one thing, in another spelling."""
    sets: dict[str, list[str]] = defaultdict(list)
    for value in values:
        sets[spelled(value)].append(value)
    return [found for found in sets.values() if len(found) > 1]


def ways_apart(sets: Iterable[Sequence[str]]) -> list[str]:
    """In what the values of sets, as `alike` gives them, differ: of case, spaces, numbers and characters."""
    ways = [way for way in _WAYS if any(len({spelled(v, way) for v in found}) > 1 for found in sets)]
    return ways or ["characters"]  # a no-break space is a space, and a character of another form


def read_said(table: Table) -> Said:
    """What stands in the columns of tasks, texts, subgroups and time; the files are read once more, in blocks."""
    manifest, said, start = table.manifest, Said(), 0
    time, texts = manifest.splits.time, manifest.text.columns if manifest.text else []
    files = RowFiles(manifest.rows, manifest.source, manifest.csv)
    specs = {task: manifest.tasks[task] for task in table.labels if _says_labels(manifest.tasks[task])}
    wanted = {name for spec in specs.values() for name in (spec.column, *(spec.columns or []))}
    wanted |= {*texts, *manifest.subgroups, time}
    if not wanted - {None}:  # of no column, parquet has no rows
        return said
    for frame in files.blocks([name for name in files.columns if name in wanted], BLOCK):
        for name in texts:
            _place(said.texts, start, ([cell.strip()] if is_nothing(cell) else () for cell in frame[name]))
        for name in manifest.subgroups:
            _place(said.subgroups[name], start, ([cell.strip()] for cell in frame[name]))
        for task, spec in specs.items():
            kind = task_of(spec)
            found = kind.written(frame, spec, f"{manifest.source}: tasks.{task}", start)
            _place(said.tasks[task], start, (filter(is_nothing, one) if kind.is_text else one for one in found))
        if time:
            said.times.extend(frame[time])
        start += len(frame)
    return said


def is_nothing(value: str) -> bool:
    """Whether this is a word for nothing."""
    return len(value) <= _LONGEST and _NOTHING.fullmatch(spelled(value)) is not None


def _says_labels(spec: TaskSpec) -> bool:
    return kind_of(spec).is_text or (kind_of(spec).has_labels and spec.column is not None)


def _place(places: Places, start: int, found: Iterable[Iterable[str]]) -> None:
    for row, values in enumerate(found, start):
        for value in values:
            places.setdefault(value, []).append(row)


def check_values(table: Table, rows: Rows, said: Said) -> list[Finding]:
    """All that the values say of themselves."""
    manifest = table.manifest
    found = []
    for task in table.labels:
        spec = manifest.tasks[task]
        places = said.tasks.get(task) or {name: [] for name in spec.columns or ()}
        found += _check_task(rows, f"tasks.{task}", spec, places)
    absent = manifest.text.missing if manifest.text else []
    nothing = {word: where for word, where in said.texts.items() if word not in absent}
    found += _tell_nothing(rows, "texts", "text.columns", nothing, "text.missing")
    for name, places in said.subgroups.items():
        fix = "correct the column: the scores of one subgroup are told as those of several"
        found += _tell_apart(rows, "subgroups.spelling", f"subgroups: {name}", alike(places), places, fix)
    return found + check_names(rows, manifest)


def _check_task(rows: Rows, where: str, spec: TaskSpec, places: Places) -> list[Finding]:
    declared = {v: v for v in spec.values} if isinstance(spec.values, list) else spec.values
    means = {value: value if declared is None else declared.get(value) for value in places}
    sets = [found for found in alike(places) if len({means[value] for value in found}) > 1]
    example = ""
    if sets and not spec.columns:
        common = _commonest(sets[0], places)
        example = f", such as {json.dumps(dict.fromkeys(sets[0], common), ensure_ascii=False)}"
    fix = (
        f"they are different labels as long as nobody says otherwise: correct the column, or map all in {where}.values"
    )
    fix += example
    lost = [value for found in sets for value in found if means[value] is None]
    found = _tell_apart(rows, "labels.spelling", where, sets, places, fix, lost)
    if declared is not None:
        return found
    nothing = {value: place for value, place in places.items() if is_nothing(value)}
    found += _tell_nothing(rows, "labels", where, nothing, f"{where}.missing")
    if kind_of(spec).exclusive:
        found += _tell_no_classes(where, {value: len(place) for value, place in places.items() if value not in nothing})
    return found


def _tell_apart(
    rows: Rows, check: str, where: str, sets: list[list[str]], places: Places, fix: str, lost: Sequence[str] = ()
) -> list[Finding]:
    if not sets:
        return []
    told = "; ".join(
        ", ".join(f"{v!r} ({len(places[v])}{', read as missing' if v in lost else ''})" for v in sorted(found))
        for found in sets[:_SHOWN]
    )
    more = "; ..." if len(sets) > _SHOWN else ""
    message = f"{where}: {len(sets)} set(s) of values differ in {_ways(sets)} only: {told}{more}"
    rarer = {row for found in sets for v in found if v != _commonest(found, places) for row in places[v]}
    return [Finding(check, "warning", message, fix, tuple((name,) for name in rows.names(sorted(rarer))), len(sets))]


def _commonest(values: Sequence[str], places: Places) -> str:
    return max(sorted(values), key=lambda value: len(places[value]))


def _ways(sets: Iterable[Sequence[str]]) -> str:
    return " or ".join(_WAYS[way] for way in ways_apart(list(sets)))


def _tell_nothing(rows: Rows, check: str, where: str, nothing: Places, key: str) -> list[Finding]:
    if not nothing:
        return []
    told = ", ".join(f"{word!r} ({len(place)})" for word, place in nothing.items())
    words = json.dumps(list(nothing), ensure_ascii=False)
    return [
        finding(
            f"{check}.words_for_nothing",
            "warning",
            f"{where}: words for nothing are read as what they say: {told}",
            f"{key}: {words} in the manifest reads them as missing"
            + (", values as what they are" * (check == "labels")),
            rows.names(sorted({row for place in nothing.values() for row in place})),
        )
    ]


def _tell_no_classes(where: str, counts: dict[str, int]) -> list[Finding]:
    """That classes look like numbers, or like names of rows."""
    total, classes = sum(counts.values()), len(counts)
    numbers = sum(_MEASURED.fullmatch(value) is not None for value in counts)
    if classes > _MANY and numbers >= 0.9 * classes and total < _FEW_EACH * classes:
        message = f"{where}: {numbers} of {classes} classes are numbers, with {total / classes:.1f} rows each"
        fix = "type: regression learns numbers; else bin them into a few classes (a new column), or map them in values"
        return [Finding("labels.numbers", "warning", message, fix, count=classes)]
    if total >= _LABELLED and classes > total / 2:
        message = f"{where}: {classes} classes in {total} rows: nearly each row has a class of its own"
        fix = "name another column (this one looks like ids or texts), or leave out rare classes (min_count)"
        return [Finding("labels.nearly_unique", "warning", message, fix, count=classes)]
    return []


def check_names(rows: Rows, manifest: Manifest) -> list[Finding]:
    """Groups and ids that are most likely one, in another spelling."""
    grouped = manifest.group is not None
    members: Places = defaultdict(list)
    for row, group in enumerate(rows.groups):
        members[group].append(row)
    found = []
    kinds: dict[Severity, list[tuple[list[str], list[int]]]] = {"error": [], "warning": []}
    for names in alike(members):
        together = sorted(row for name in names for row in members[name])
        torn = len({rows.splits[row] for row in together}) > 1
        sure = grouped or ways_apart([names]) != ["case"]  # ids may be codes in which case counts
        kinds["error" if torn and sure else "warning"].append((names, together))
    for severity, sets in kinds.items():
        if sets:
            what = "groups" if grouped else "ids, which are the groups where none are named,"
            places = " and are in two splits" if severity == "error" else ""
            found.append(
                finding(
                    f"{'groups' if grouped else 'ids'}.spelling{'_across_splits' if severity == 'error' else ''}",
                    severity,
                    f"{len(sets)} set(s) of {what} differ in {_ways(names for names, _ in sets)} only{places}",
                    "spell them alike (and correct splits.column, if that decides), or join them: --groups FILE.csv",
                    (rows.examples(together) for _, together in sets),
                )
            )
    if grouped:
        nothing = [row for name, group in members.items() if is_nothing(name) for row in group]
        if nothing:
            message = f"{len(nothing)} row(s) have a word for nothing as their group, and are one group by it"
            fix = "leave the cells empty: then each row is a group by itself"
            found.append(finding("groups.words_for_nothing", "warning", message, fix, rows.names(sorted(nothing))))
        number = {name: row for row, name in enumerate(rows.ids)}
        sets = [sorted(number[name] for name in names) for names in alike(rows.ids)]
        if sets:
            ways = _ways(rows.names(together) for together in sets)
            message = f"{len(sets)} set(s) of ids differ in {ways} only"
            fix = "look whether they are one row: then remove the others"
            found.append(finding("ids.spelling", "warning", message, fix, map(rows.examples, sets)))
    return found


def time_facts(rows: Rows, said: Said, column: str) -> list[str]:
    """From when to when the rows of each split are."""
    times = parse_times(said.times, rows.ids, column)
    facts = []
    for split in SPLITS:
        of_split = sorted(
            (times[row], said.times[row].strip()) for row, name in enumerate(rows.splits) if name == split
        )
        if of_split:
            facts.append(f"    {split}: {of_split[0][1]} to {of_split[-1][1]}")
    return [f"splits by time ({column}); a group is where its latest row is", *facts]
