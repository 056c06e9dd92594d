"""Leaks repaired: a table of groups that joins what an audit found alike, and the rows without copies."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from mmfuse.data.audit.findings import AuditReport, Finding, finding
from mmfuse.data.audit.redact import beside_rows
from mmfuse.data.audit.rows import Rows, in_sets
from mmfuse.data.audit.rows_without import write_rows_without
from mmfuse.data.rows.spreadsheet import harmless
from mmfuse.data.tables.groups import name_groups
from mmfuse.data.tables.manifest import Manifest
from mmfuse.data.tables.table import Table
from mmfuse.types import MmfuseError

_COPIES = ("rows.copies", "rows.copies_across_splits")
_KINDS = ("rows.copies", "images.copies", "images.near_copies", "texts.copies", "texts.near_copies")
JOINED = frozenset(
    [f"{kind}{place}" for kind in _KINDS for place in ("", "_across_splits", "_in_a_group")]
    + [f"{kind}.spelling{place}" for kind in ("groups", "ids") for place in ("", "_across_splits")]
)
"""Findings whose rows belong to one group."""


def check_agreement(table: Table, rows: Rows, contents: Sequence[tuple]) -> list[Finding]:
    """Rows that are copies of each other, but have other targets.

    Args:
        table: The rows.
        rows: The same.
        contents: By row, what it consists of; equal ones are copies.
    """
    same: dict[tuple, list[int]] = defaultdict(list)
    for row, content in enumerate(contents):
        same[content].append(row)
    targets = list(table.targets.values())
    torn = [together for together in same.values() if len({tuple(_said(targets, row)) for row in together}) > 1]
    if not torn:
        return []
    message = f"{in_sets(torn)} are copies (same text, same images) with different targets"
    fix = "look which is right; --drop copies keeps the first by id"
    return [finding("labels.copies_disagree", "warning", message, fix, map(rows.examples, torn))]


def _said(targets: Sequence[np.ndarray], row: int) -> Iterator[object]:
    for target in targets:
        yield target[row] if isinstance(target[row], tuple) else target[row].tobytes()  # NaN is like itself


def join_found(rows: Rows, findings: Iterable[Finding]) -> dict[str, str]:
    """By id the row's group, those of its own joined with all that the findings say are copies or near copies."""
    number = {name: row for row, name in enumerate(rows.ids)}
    sets = [[number[name] for name in together] for one in findings if one.check in JOINED for together in one.rows]
    return dict(zip(rows.ids, name_groups(rows.groups, sets), strict=True))


def write_groups(report: AuditReport, path: Path) -> None:
    """Write `id,group`, a line a row: what `group: {file: PATH}` in the manifest reads."""
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "group"])
        writer.writerows(map(harmless, row) for row in report.groups.items())


def drop_copies(manifest: Manifest, report: AuditReport, out: Path) -> tuple[Path, int]:
    """Write the rows without copies, of which the first by id stays, and a manifest beside them.

    Args:
        manifest: As `load_manifest` gave it.
        report: Its audit.
        out: Folder that gets `manifest.yaml` and the rows, in as many files as they were, with their cells as they are.

    Returns:
        The new manifest's path, and how many rows were left out.

    Raises:
        MmfuseError: The rows changed since they were audited.
    """
    copies = [together for one in report.findings if one.check in _COPIES for together in one.rows]
    dropped = {name for together in copies for name in together if name != min(together)}
    numbers = {row for row, name in enumerate(report.groups) if name in dropped}
    out.mkdir(parents=True, exist_ok=True)
    rows, pattern = write_rows_without(manifest, numbers, out)
    if rows != len(report.groups):
        raise MmfuseError(f"{manifest.source}: the rows changed while they were read")
    path = out / "manifest.yaml"
    words = yaml.safe_dump(beside_rows(manifest, pattern), sort_keys=False, allow_unicode=True)
    path.write_text(words, encoding="utf-8")
    return path, len(dropped)
