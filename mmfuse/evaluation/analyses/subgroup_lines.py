"""What the analysis of subgroups says, in lines of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RATES = {"tpr": "true positive rate", "fpr": "false positive rate"}
_MOST_ROWS = 12
"""Rates whose gap is found that are told; the figures and `metrics.json` have all."""


def subgroup_lines(found: Mapping[str, Any]) -> list[str]:
    """Whether a gap is found, then by column the scores, the gaps, and what was left out.

    Args:
        found: As `SubgroupScores` gives it.
    """
    gaps = [(column, gap) for column, of in found["columns"].items() for gap in of["gaps"]]
    lines = [_verdict(gaps, found)]
    for column, of in found["columns"].items():
        lines += ["", *_column(column, of, found)]
    return lines


def _verdict(gaps: Sequence[tuple[str, Mapping[str, Any]]], found: Mapping[str, Any]) -> str:
    columns = ", ".join(found["columns"])
    main = [pair for pair in gaps if pair[1]["family"] == "main"]
    rates = [pair for pair in gaps if pair[1]["family"] == "decisions"]
    if not gaps:
        return f"No gap between subgroups can be looked for by {columns}: no two have rows enough."
    sure = sorted((pair for pair in main if pair[1]["found"]), key=lambda pair: pair[1]["p_corrected"])
    said = [f"By {column} a gap is found: {_told(gap)}." for column, gap in sure]
    if main and not sure:
        column, gap = min(main, key=lambda pair: pair[1]["p_corrected"])
        said = [f"No gap between subgroups is found beyond chance; the surest, by {column}: {_told(gap)}."]
    sure_rates = [pair for pair in rates if pair[1]["found"]]
    if sure_rates:
        said.append(f"Of {len(rates)} gaps in true and false positive rates, {len(sure_rates)} are found.")
    elif rates:
        said.append(f"Of {len(rates)} gaps in true and false positive rates, none is found.")
    return " ".join(said)


def _told(gap: Mapping[str, Any]) -> str:
    what = RATES.get(gap["metric"], gap["metric"])
    of = f"{gap['task']}, {gap['label']}" if gap["label"] is not None else gap["task"]
    chance = "" if gap["chance"] is None else f"; chance gives up to {gap['chance']:.3f}"
    return (
        f"{what} of {of} is {gap['value']:.3f}{_interval(gap)} higher in {gap['highest']} than in {gap['lowest']}"
        f"{chance}, {_p(gap['p_corrected'])}"
    )


def _column(name: str, of: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if of.get("skipped"):
        return [f"By {name}: {of['skipped']}."]
    scores = [(task, metric, said) for task, by in of["compared"].items() for metric, said in by.items()]
    head = [name, "rows", "groups", *(f"{task} {metric}" for task, metric, _ in scores)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"] if of["subgroups"] else []
    for subgroup, counts in of["subgroups"].items():
        cells = [_cell(said["subgroups"].get(subgroup)) for _, _, said in scores]
        lines.append(f"| {' | '.join([subgroup, str(counts['rows']), str(counts['groups']), *cells])} |")
    lines += [""] if lines else []
    for task, metric, said in scores:
        if said["labels"] and len(said["labels"]) < len(_labels(of, task)):
            lines.append(f"- {metric} of {task} is over {', '.join(said['labels'])}: every subgroup compared has them.")
    sure = [gap for gap in of["gaps"] if gap["family"] == "decisions" and gap["found"]]
    sure.sort(key=lambda gap: gap["p_corrected"])
    lines += [f"- The {_told(gap)}." for gap in sure[:_MOST_ROWS]]
    lines += [f"- {len(sure) - _MOST_ROWS} more such gaps are found."] if len(sure) > _MOST_ROWS else []
    if of["small"]:
        small = ", ".join(f"{subgroup} ({rows})" for subgroup, rows in of["small"].items())
        more = f" and {of['more_small']} more" if of["more_small"] else ""
        lines.append(f"- Fewer than {found['min_rows']} rows, so not compared: {small}{more}.")
    if of["varying_groups"]:
        many = of["varying_groups"]
        lines.append(f"- The rows of {many} group{'s' if many > 1 else ''} differ in {name}.")
    if of["binned"]:
        lines.append(f"- {name} is cut at the quartiles of these rows.")
    return lines[:-1] if lines and lines[-1] == "" else lines


def _labels(of: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    return next((counts["scores"].get(task, {}).get("labels", {}) for counts in of["subgroups"].values()), {})


def _cell(score: Mapping[str, Any] | None) -> str:
    return "too few" if score is None or score["value"] is None else f"{score['value']:.3f}{_interval(score)}"


def _interval(score: Mapping[str, Any]) -> str:
    return "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
