"""One audit: everything is looked at, and what is wrong is told together, not one by one."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from mmfuse.data.audit.features import check_features
from mmfuse.data.audit.findings import SEVERITIES, AuditReport, Finding, finding
from mmfuse.data.audit.identifiers import Finder, find_by_rules
from mmfuse.data.audit.images import check_images, read_images
from mmfuse.data.audit.labels import check_labels, check_stated
from mmfuse.data.audit.numbers import check_numbers
from mmfuse.data.audit.repair import check_agreement, join_found
from mmfuse.data.audit.rows import Rows, check_groups, check_rows, check_splits, rows_of
from mmfuse.data.audit.texts import check_identifiers, check_text_copies, check_texts
from mmfuse.data.audit.values import check_values, read_said, time_facts
from mmfuse.data.load import load_table
from mmfuse.data.tables.gaps import find_gaps
from mmfuse.data.tables.groups import content_or_name
from mmfuse.data.tables.manifest import Manifest, is_shards
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table
from mmfuse.tasks import kind_of
from mmfuse.types import MmfuseError

Progress = Callable[[str, int, int], None]


def audit(
    source: Manifest | Table,
    *,
    fold: int | None = None,
    max_tokens: int = 512,
    find: Finder | None = find_by_rules,
    progress: Progress | None = None,
) -> AuditReport:
    """Look at a dataset before it is trained on: images, texts, groups, splits, labels, identifiers.

    What `load_table` would refuse, such as leaks or values that are not legal, is a finding like the others, and the
    rest is looked at all the same. Images are read once; memory holds the rows and 260 bytes an image.

    Args:
        source: A manifest, or a table as it was loaded.
        fold: Where the manifest says folds: which one is the test set; default: the first.
        max_tokens: What the text encoder is going to read; longer texts are told.
        find: What finds personal identifiers; None: they are not looked for.
        progress: Called with what is being done, how many are done, and of how many.

    Returns:
        Facts and findings, the worst first.

    Raises:
        MmfuseError: The rows are shards.
    """
    if isinstance(source, Manifest) and is_shards(source.rows):
        raise MmfuseError(
            f"{source.source}: its rows are shards: check the manifest they were made of; `mmfuse data verify` looks "
            "at the shards themselves"
        )
    if isinstance(source, Table):
        table, found = source, []
    else:
        table, found = _load(source, 0 if source.splits.folds and fold is None else fold)
    manifest = table.manifest if table else source
    assert isinstance(manifest, Manifest)
    told = "keep it in mind; where it is settled, take the line out of the manifest's notes"
    found += [finding("manifest.note", "info", note, told) for note in manifest.notes]
    report = AuditReport(manifest.name, manifest.source)
    if table is not None:
        rows = rows_of(table)
        facts, more = _look(table, rows, max_tokens, find, progress or (lambda *_: None))
        report.facts, found = facts, found + more
        report.groups = join_found(rows, found)
    report.findings = sorted(found, key=lambda f: SEVERITIES.index(f.severity))
    return report


def _look(
    table: Table, rows: Rows, max_tokens: int, find: Finder | None, progress: Progress
) -> tuple[list[str], list[Finding]]:
    captions = [
        (i, caption)
        for task, target in table.targets.items()
        if table.kind(task).is_text
        for i, references in enumerate(target)
        for caption in references
    ]
    progress("values", 0, 1)
    said = read_said(table)
    whole, rows, replaced_facts, replaced = rows, *_without_features(table, rows)
    images = read_images(rows, lambda done, total: progress("images", done, total))
    contents: list[tuple] = list(zip(whole.texts, images.contents(len(rows.ids)), strict=True))
    text_facts, text_findings = check_texts(rows, captions, max_tokens)
    if whole is not rows:
        seen = [tuple(content_or_name(item, rows.urls) for item in items) for items in whole.images]
        contents = list(zip(whole.texts, seen, strict=True))
        text_facts, text_findings = (text_facts, text_findings) if rows.texts is whole.texts else ([], [])
    label_facts, label_findings = check_labels(table, rows)
    progress("copies of texts", 0, 1)
    copies = check_text_copies(rows, contents)
    texts, identifiers = rows.texts, []
    if find is not None:
        texts, identifiers = check_identifiers(rows, captions, find, lambda done, n: progress("identifiers", done, n))
    progress("labels stated in texts", 0, 1)
    stated_facts, stated = check_stated(table, replace(rows, texts=texts))  # it tells words: none that identifies
    time = table.manifest.splits.time
    times = time_facts(rows, said, time) if time else []
    facts = [*_facts(table, rows), *replaced_facts, *times, *text_facts, *label_facts, *stated_facts]
    found = [
        *check_splits(rows),
        *_check_gaps(table),
        *check_groups(rows, table.manifest.group is not None),
        *check_rows(whole, contents),
        *(check_images(rows, images, contents) if rows.images is whole.images else []),
        *replaced,
        *text_findings,
        *copies,
        *label_findings,
        *check_numbers(table, rows),
        *check_values(table, rows, said),
        *check_agreement(table, rows, contents),
        *stated,
        *identifiers,
    ]
    return facts, found


def _without_features(table: Table, rows: Rows) -> tuple[Rows, list[str], list[Finding]]:
    """The rows without features that stand in for texts or images, and what is to be said of these."""
    manifest, facts, found = table.manifest, [], []
    texts, images = rows.texts, rows.images
    for modality, spec in (("text", manifest.text), ("image", manifest.image)):
        if spec is None or spec.features is None:
            continue
        said, wrong = check_features(rows, spec, modality)
        facts, found = [*facts, *said], [*found, *wrong]
        if modality == "text":
            texts = [None] * len(rows.ids)
        else:
            images = [()] * len(rows.ids)
    return replace(rows, texts=texts, images=images) if facts else rows, facts, found


def _check_gaps(table: Table) -> list[Finding]:
    if not table.labels and table.manifest.tasks:  # each of them is told already
        return []
    return [Finding(gap.check, "error" if gap.refused else "warning", gap.message, gap.fix) for gap in find_gaps(table)]


def _facts(table: Table, rows: Rows) -> list[str]:
    counts, sizes = Counter(rows.splits), Counter(rows.groups)
    text, image = int(table.has_text().sum()), int(table.has_image().sum())
    return [
        f"{table.manifest.name}: {len(table)} rows, {len(sizes)} groups; "
        + ", ".join(f"{s} {counts[s]}" for s in SPLITS),
        f"text: {text} rows, {len(table) - text} without; image: {image} rows, {len(table) - image} without",
        f"rows a group: {len(table) / len(sizes):.2f}, {max(sizes.values())} at most",
    ]


def _load(manifest: Manifest, fold: int | None) -> tuple[Table | None, list[Finding]]:
    """The table as far as it can be loaded, and findings for what cannot."""
    lenient = copy.deepcopy(manifest)
    for task in lenient.tasks.values():
        task.allow_copies = kind_of(task).is_text
    try:
        table = load_table(lenient, fold=fold, allow_leaks=True)
    except MmfuseError:
        table, found = _load_by_task(lenient, fold)
    else:
        found = []
    if table is not None:
        table.manifest = manifest
    return table, found


def _load_by_task(manifest: Manifest, fold: int | None) -> tuple[Table | None, list[Finding]]:
    stratify, manifest.splits.stratify = manifest.splits.stratify, None
    good, found = [], []
    try:
        load_table(manifest, tasks=[], fold=fold, allow_leaks=True)
    except MmfuseError as error:
        message = f"the rows cannot be read, so nothing else was looked at: {error}"
        return None, [finding("table.unreadable", "error", message, "correct this first, then check again")]
    for task in manifest.tasks:
        try:
            load_table(manifest, tasks=[task], fold=fold, allow_leaks=True)
            good.append(task)
        except MmfuseError as error:
            fix = "correct the column, or say in the manifest what the value means (values, missing, other)"
            found.append(finding("labels.illegal", "error", f"{error}; the task was left out here", fix))
    manifest.splits.stratify = stratify if stratify in good else None
    return load_table(manifest, tasks=good, fold=fold, allow_leaks=True), found
