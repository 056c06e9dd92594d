"""Is this dataset fit to train on? What is there, and what is wrong, before a GPU hour is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mmfuse.data.images import ImageError, read_image
from mmfuse.data.table import SPLITS, Table, find_copies, one_hot


@dataclass
class TableReport:
    """What `check_table` found.

    Attributes:
        facts: Lines on what is there.
        problems: Lines on what is wrong, each with the row.
    """

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All of it, a line each; problems last."""
        return "\n".join([*self.facts, *(f"PROBLEM {line}" for line in self.problems)])


def check_table(table: Table, progress: Callable[[int, int], None] | None = None) -> TableReport:
    """Read every image and count every target; groups and duplicates across splits were refused when it was loaded.

    Args:
        table: As `load_table` gave it.
        progress: Called with (images read, images).
    """
    report = TableReport()
    manifest, counts = table.manifest, Counter(table.splits)
    groups: list[str] = table.rows["group"][:]
    text, image = table.has_text(), table.has_image()
    report.facts += [
        f"{manifest.name}: {len(table)} rows, {len(set(groups))} groups; "
        + ", ".join(f"{s} {counts[s]}" for s in SPLITS),
        f"text: {int(text.sum())} rows, {int((~text).sum())} without; image: {int(image.sum())} rows, "
        f"{int((~image).sum())} without",
    ]
    split = np.array(table.splits)
    copies = find_copies(table)
    for task, labels in table.labels.items():
        if manifest.tasks[task].type == "captioning":
            report.facts += _captioning_facts(table, task, copies.get(task, []))
            continue
        hot = one_hot(table.targets[task], len(labels))
        known = (table.targets[task] >= 0) if table.targets[task].ndim == 1 else ~np.isnan(table.targets[task]).all(1)
        spec = manifest.tasks[task]
        report.facts.append(
            f"task {task} ({spec.type}, labels {spec.label_origin}): {int(known.sum())} rows with a target"
        )
        for i, label in enumerate(labels):
            per_split = {s: int(hot[split == s, i].sum()) for s in SPLITS}
            report.facts.append(f"    {label}: " + ", ".join(f"{s} {n}" for s, n in per_split.items()))
            absent = [s for s in SPLITS if counts[s] and not per_split[s]]
            if "train" in absent:
                report.problems.append(f"task {task}: label {label!r} is never in the training split")
    both = ~text & ~image
    report.problems += [f"row {table.rows['id'][i]!r}: neither text nor image" for i in np.flatnonzero(both)]
    report.problems += _read_images(table, progress)
    return report


def _read_images(table: Table, progress: Callable[[int, int], None] | None) -> list[str]:
    ids: list[str] = table.rows["id"][:]
    files = [(ids[row], path) for row, paths in enumerate(table.rows["images"][:]) for path in paths]

    def read(file: tuple[str, str]) -> str | None:
        try:
            read_image(file[1])
        except ImageError as error:
            return f"row {file[0]!r}: image {file[1]}: {error}"
        return None

    problems = []
    with ThreadPoolExecutor() as pool:
        for done, problem in enumerate(pool.map(read, files), start=1):
            if problem:
                problems.append(problem)
            if progress:
                progress(done, len(files))
    return problems


def _captioning_facts(table: Table, task: str, copies: list[int]) -> list[str]:
    references = table.targets[task]
    captioned = [found for found in references if found]
    words = [len(caption.split()) for found in captioned for caption in found]
    facts = [
        f"task {task} (captioning): {len(captioned)} rows with {len(words)} captions of {np.mean(words):.1f} words, "
        f"{max(words)} at most; {len({c for found in captioned for c in found})} different ones"
    ]
    if copies:
        facts.append(f"    {len(copies)} row(s) whose input text contains the caption (allow_copies: true)")
    return facts
