"""What must be said beside the numbers of a benchmark, in the page as in the table for an appendix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmfuse.benchmarking.verdict import FEWEST_POSITIVES, listed
from mmfuse.pages.markup import known
from mmfuse.pages.page import Notice


def is_mined(task: dict[str, Any]) -> bool:
    """Whether its labels were read from the text that the models read."""
    return task["label_origin"] == "mined_from_text"


def about_benchmark(summary: dict[str, Any], details: bool = True) -> Iterator[Notice]:
    """What concerns all tasks.

    Args:
        summary: Of the benchmark.
        details: With what may hold a path or a size: reasons of failures, and what leaked.
    """
    leaks = summary["provenance"]["leaks"]
    if leaks:
        what = " ".join(f"{leak.rstrip('.')}." for leak in leaks) if details else ""
        text = f"The same groups or exact duplicates are in two splits, and this was allowed. {what}".strip()
        yield Notice("leaks", text, "Leaks between splits.", warns=True)
    failed = summary["failed"]
    if failed:
        named = "; ".join(f"{f['row']} ({f['reason'] if details else f['reason'].partition(':')[0]})" for f in failed)
        yield Notice("failed", f"They are in no comparison: {named}.", f"{len(failed)} failed.", warns=True)
    names = {f["row"] for f in failed}
    if "text_only" in names or any(
        "text_only" not in {s["row"] for s in task["strategies"]} for task in summary["tasks"].values()
    ):
        text = "So a difference to another row does not say what the image adds to the text."
        yield Notice("no-text-only", text, "There is no text-only row.", warns=True)
    if summary["seeds"] == 1:
        text = "How much another seed would change is not known: the intervals are of the test set alone."
        yield Notice("one-seed", text, "One seed.", warns=True)
    unmatched = [
        f"{row['label']} ({row['matched']})"
        for row in summary["rows"].values()
        if row["matched"] not in ("native", "matched")
    ]
    if unmatched:
        to = f"to the {summary['matching']} of {summary['match_to']}"
        yield Notice("unmatched", f"{listed(unmatched, len(unmatched))}.", f"Sizes that could not be matched {to}:")


def about_tests(task: dict[str, Any]) -> str:
    """What the differences, their intervals and p-values are, in sentences."""
    contrasts = [found for s in task["strategies"] for found in s["contrasts"].values()]
    others = "p is corrected by Holm, and the intervals with it: one without 0 stands beside a p up to 0.05."
    if "declared" not in task["references"]:
        return f"No contrast was declared, as there are no validation scores; {others}"
    fusion, alone = task["references"]["declared"], task["references"]["best_unimodal"]
    said = (
        f"† was declared on validation rows, without any test score: {fusion} against {alone}, the fusion and the "
        f"modality alone that were best there. It is tested first and alone, at 5 %, with a 95 % interval. Of all "
        f"others {others}"
    )
    if not all(found["tested"] for found in contrasts):
        said += " A p in brackets was not tested, as the declared contrast comes first and shows no difference."
    return said


def about_task(task: dict[str, Any]) -> Iterator[Notice]:
    """What concerns one task."""
    if is_mined(task):
        text = "The text-only row reads what made them, so a gain over it says little, and its absence too."
        yield Notice("mined", text, "Labels mined from the text.", warns=True)
    if task["rare_labels"]:
        text = f"Fewer than {FEWEST_POSITIVES} positives among the test rows: {listed(task['rare_labels'])}."
        yield Notice("rare", text, "Rare labels.")
    told: dict[str, list[str]] = {}
    for strategy in task["strategies"]:
        if note := strategy["score"].get("note"):
            told.setdefault(note, []).append(strategy["row"])
    for note, rows in told.items():
        whose = "All strategies" if len(rows) == len(task["strategies"]) else listed(rows)
        title = "Intervals of scores." if known(task["strategies"][0]["score"]["low"]) else "No intervals of scores."
        yield Notice("intervals", f"{whose}: {note}.", title)
    if task["undefined_resamples"]:
        text = f"In {task['undefined_resamples']:,} resamples the metric is undefined; they were left out."
        yield Notice("undefined", text, "Undefined resamples.")
