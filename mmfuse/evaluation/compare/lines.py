"""A comparison in lines of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmfuse.metrics.requirements import requirement_lines
from mmfuse.types import visible

_BETTER = {"a": "a is better", "b": "b is better", None: "no difference is shown"}
_INFERIOR = {True: "not inferior", False: "not shown to be not inferior", None: ""}


def format_comparison(found: Mapping[str, Any], escape: Callable[[object], str] = visible) -> str:
    """What `compare` found, as a table a task, in Markdown.

    Args:
        found: As `compare` gives it.
        escape: Of the names of tasks, labels and files; by default as a terminal may show them.
    """
    lines = [f"a: {escape(found['a'])}", f"b: {escape(found['b'])}", *_row_lines(found["rows"], found["split"])]
    for task, of in found["tasks"].items():
        lines += ["", f"### {escape(task)}: {of['n']} rows of {of['groups']} groups", ""]
        if of["identical"]:
            lines += [f"a and b give the same answer to each of the {of['n']} rows.", ""]
        lines += _metric_lines(of["metrics"], found.get("margin"))
        if "flips" in of:
            lines += ["", _flips(of["flips"])]
        if "label_flips" in of:
            lines += ["", *_label_lines(of["label_flips"], escape)]
        for column, told in of["subgroups"].items():
            lines += ["", *_subgroup_lines(column, told, escape)]
    if found.get("requirements"):
        lines += ["", *map(escape, requirement_lines(found["requirements"]))]
    return "\n".join(lines)


def _row_lines(rows: Mapping[str, int], split: str | None) -> Iterator[str]:
    where = f" of split {split}" if split else ""
    yield f"{rows['both']} rows{where} that both answer are compared; every difference is b - a."
    alone = [f"{rows[f'only_{side}']} of {side} alone" for side in "ab" if rows[f"only_{side}"]]
    if rows["unanswered"]:
        alone.append(f"{rows['unanswered']}{where} that not both answer")
    if alone:
        yield f"Left out: {', '.join(alone)}{' (or of another split)' if split else ''}."


def _metric_lines(metrics: Mapping[str, Any], margin: float | None) -> Iterator[str]:
    inferior = [] if margin is None else [f"b at a margin of {margin:g}"]
    head = ["metric", "a", "b", "b - a", "95 % interval", "p", "", *inferior]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for name, one in metrics.items():
        difference = one["difference"]
        cells = [name, _number(one["a"]), _number(one["b"]), *_difference(difference), _p(difference["p"])]
        cells.append(_BETTER[one["better"]] if difference["p"] is not None else "")
        if margin is not None:
            cells.append(_INFERIOR[one["non_inferior"]])
        yield f"| {' | '.join(cells)} |"


def _flips(flips: Mapping[str, int]) -> str:
    flipped = sum(flips[name] for name in ("right_to_wrong", "wrong_to_right", "wrong_to_wrong"))
    more = f", {flips['wrong_to_wrong']} wrong -> wrong" if flips["wrong_to_wrong"] else ""
    return (
        f"Decisions that flip from a to b: {flipped} of {flips['decisions']}: "
        f"{flips['right_to_wrong']} right -> wrong, {flips['wrong_to_right']} wrong -> right{more}"
    )


def _label_lines(labels: Mapping[str, Any], escape: Callable[[object], str]) -> Iterator[str]:
    yield "| label | decisions | right -> wrong | wrong -> right |"
    yield "|---|---|---|---|"
    for name, flips in labels.items():
        yield f"| {escape(name)} | {flips['decisions']} | {flips['right_to_wrong']} | {flips['wrong_to_right']} |"


def _subgroup_lines(column: str, told: Mapping[str, Any], escape: Callable[[object], str]) -> Iterator[str]:
    if not told["subgroups"]:
        yield f"{escape(column)}: too many values to compare by; join them in a coarser column"
        return
    yield f"| {escape(column)} | rows | right -> wrong | wrong -> right | b - a in {told['metric']} | 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for name, one in told["subgroups"].items():
        flips = one.get("flips", {})
        counts = [str(flips.get(way, "")) for way in ("right_to_wrong", "wrong_to_right")]
        yield f"| {escape(name)} | {one['n']} | {' | '.join([*counts, *_difference(one['difference'])])} |"


def _difference(difference: Mapping[str, Any]) -> tuple[str, str]:
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return (
        "undefined" if value is None else f"{value:+.4g}",
        "" if low is None else f"[{low:+.4g}, {high:+.4g}]",
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"
