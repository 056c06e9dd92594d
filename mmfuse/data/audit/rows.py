"""The audited rows with their groups and splits, and what the checks of rows, groups and splits say of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmfuse.data.audit.findings import SHOWN_TOGETHER, Finding, finding
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table

_LAST_PART = re.compile(r"(.+)[-_./#: ]\w{1,4}")
_LARGE_GROUP = 0.1
_SMALL_TEST, _SMALL_TRAIN = 0.05, 0.5


@dataclass(frozen=True)
class Rows:
    """What every check needs of the rows, by row.

    Attributes:
        ids: Of the rows.
        groups: What must be in one split.
        splits: train, validation or test.
        texts: None where there is none.
        images: Paths, URLs or encoded bytes.
        urls: Which URLs may be opened.
    """

    ids: list[str]
    groups: list[str]
    splits: list[str]
    texts: list[str | None]
    images: Sequence[Sequence[str | bytes]]
    urls: Sequence[str] = ()

    def names(self, rows: Iterable[int]) -> list[str]:
        """Their ids."""
        return [self.ids[row] for row in rows]

    def examples(self, together: Sequence[int]) -> list[str]:
        """Ids of rows that belong together (in order); the first four of different splits and groups if possible."""
        firsts = {(self.splits[row], self.groups[row]): row for row in reversed(together)}
        order = sorted(firsts.values())
        across = {self.splits[row]: row for row in reversed(order)}
        chosen = dict.fromkeys([*across.values(), *order, *together])
        first = sorted(list(chosen)[:SHOWN_TOGETHER])
        return self.names([*first, *(row for row in together if row not in first)])

    def place(self, together: Sequence[int]) -> str:
        """Where rows that belong together are: in two `splits`, in one `split`, or in one `group`."""
        if len({self.groups[row] for row in together}) == 1:
            return "group"
        return "splits" if len({self.splits[row] for row in together}) > 1 else "split"


def rows_of(table: Table) -> Rows:
    """The rows of a table, read once."""
    ids, groups, texts = (table.rows[name][:] for name in ("id", "group", "text"))
    return Rows(ids, groups, table.splits, texts, table.images(), table.manifest.urls)


def place_sets(rows: Rows, sets: Iterable[Sequence[int]]) -> dict[str, list[Sequence[int]]]:
    """Sets of rows that belong together, by where they are (see `Rows.place`)."""
    placed: dict[str, list[Sequence[int]]] = {"splits": [], "split": [], "group": []}
    for together in sets:
        if len(together) > 1:
            placed[rows.place(together)].append(together)
    return placed


def in_sets(sets: Sequence[Sequence[int]]) -> str:
    """How many rows belong together, in words."""
    return f"{sum(map(len, sets))} rows in {len(sets)} set(s)"


def check_rows(rows: Rows, contents: Sequence[tuple]) -> list[Finding]:
    """Rows without anything to read, and rows that are copies of others.

    Args:
        rows: All of them.
        contents: By row, what it consists of; equal ones are copies.
    """
    empty = [i for i, text in enumerate(rows.texts) if text is None and not rows.images[i]]
    found = []
    if empty:
        found.append(
            finding(
                "rows.empty",
                "error",
                f"{len(empty)} row(s) have neither text nor image",
                "remove them, or correct the columns that image and text name",
                rows.names(empty),
            )
        )
    same: dict[tuple, list[int]] = defaultdict(list)
    for i, content in enumerate(contents):
        same[content].append(i)
    placed = place_sets(rows, same.values())
    if placed["splits"]:
        found.append(
            finding(
                "rows.copies_across_splits",
                "error",
                f"{in_sets(placed['splits'])} are exact copies in two splits: same text, same images",
                "--drop copies writes the rows without them; `group: content` keeps them in one split",
                map(rows.examples, placed["splits"]),
            )
        )
    if placed["split"] or placed["group"]:
        found.append(
            finding(
                "rows.copies",
                "warning",
                f"{in_sets(placed['split'] + placed['group'])} are exact copies in one split",
                "--drop copies writes the rows without them: they count twice in training and in scores",
                map(rows.examples, placed["split"] + placed["group"]),
            )
        )
    return found


def check_groups(rows: Rows, declared: bool) -> list[Finding]:
    """Groups in two splits, without a name, too large, or absent although the ids look as if there were some.

    Args:
        rows: All of them.
        declared: Whether the manifest names a group column.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(rows.groups):
        members[group].append(i)
    found = []
    torn = [part for part in members.values() if len({rows.splits[i] for i in part}) > 1]
    if torn:
        found.append(
            finding(
                "groups.in_two_splits",
                "error",
                f"{len(torn)} group(s) are in more than one split",
                "let mmfuse split (splits.ratios or splits.folds), or correct the split column",
                map(rows.examples, torn),
            )
        )
    nameless = [i for i, name in enumerate(rows.ids) if declared and rows.groups[i] == f"row {name}"]
    if nameless:
        found.append(
            finding(
                "groups.unnamed",
                "warning",
                f"{len(nameless)} row(s) have no group and count as one each",
                "fill in the group column",
                rows.names(nameless),
            )
        )
    large = max(members.values(), key=len)
    if len(members) > 1 and len(large) > max(1, _LARGE_GROUP * len(rows.ids)):
        found.append(
            finding(
                "groups.large",
                "info",
                f"one group has {len(large)} of {len(rows.ids)} rows: what split it falls into decides the scores",
                "use folds, and look whether the group column means what it should",
                [rows.examples(large)],
            )
        )
    shared = _shared_beginnings(rows.ids) if len(members) == len(rows.ids) else []
    if shared:
        what = "every group has one row" if declared else "there is no group column"
        found.append(
            finding(
                "groups.ids_share_a_pattern",
                "info",
                f"{what}, but ids look like several of one thing: {len(shared)} beginnings are shared",
                "if they are of one patient, product or picture, name a column of that in group",
                map(rows.names, shared),
            )
        )
    return found


def _shared_beginnings(ids: Sequence[str]) -> list[list[int]]:
    """Rows whose ids are alike but for a short last part, such as p12_1 and p12_2, where a fifth of all rows are so."""
    by_beginning: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(ids):
        match = _LAST_PART.fullmatch(name)
        if match:
            by_beginning[match[1]].append(i)
    shared = [part for part in by_beginning.values() if 1 < len(part) < len(ids) / 2]
    return shared if sum(map(len, shared)) >= len(ids) / 5 else []


def check_splits(rows: Rows) -> list[Finding]:
    """Splits that are empty or of a strange size."""
    counts, total = Counter(rows.splits), len(rows.splits)
    found = [
        finding(
            "splits.empty",
            "error" if split == "train" else "warning",
            f"no row is in the split {split}",
            "correct splits in the manifest; validation chooses epoch and thresholds, test gives the score",
        )
        for split in SPLITS
        if not counts[split]
    ]
    shares = {split: counts[split] / total for split in SPLITS}
    if 0 < shares["test"] < _SMALL_TEST or 0 < shares["train"] < _SMALL_TRAIN:
        found.append(
            finding(
                "splits.sizes",
                "warning",
                ", ".join(f"{split} has {share:.1%}" for split, share in shares.items()) + " of the rows",
                f"usual are {_SMALL_TRAIN:.0%} or more to train on and {_SMALL_TEST:.0%} or more to test on",
            )
        )
    return found
