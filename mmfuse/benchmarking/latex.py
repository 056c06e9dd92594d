"""`table.tex`: a table a task for a paper, with booktabs; `table.md` has more columns."""

from __future__ import annotations

from typing import Any

from mmfuse.benchmarking.charts import class_of
from mmfuse.benchmarking.judge import contrast, p_of
from mmfuse.benchmarking.notices import about_benchmark, about_task, about_tests
from mmfuse.benchmarking.plan import NO_FUSION
from mmfuse.pages.markup import DASH, count, difference, interval, score, spread, unit_of
from mmfuse.pages.page import Notice

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "†": r"\textsuperscript{\dag}",
    "–": "--",
    "’": "'",
    "“": "``",
    "”": "''",
    "±": r"\textpm{}",
}


def latex_tables(summary: dict[str, Any]) -> str:
    """The tables, to be read into a paper whose preamble loads booktabs.

    Letters beyond Latin ones need XeLaTeX or LuaLaTeX, with a font that has them.
    """
    lines = [
        "% Made by mmfuse benchmark; needs \\usepackage{booktabs}.",
        *(line for name, task in summary["tasks"].items() for line in ["", *_table(name, task, summary)]),
    ]
    return "\n".join([*lines, ""])


def _table(name: str, task: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    by_name = {s["row"]: s for s in task["strategies"]}
    reference = task["references"].get("best_unimodal")
    head = ["strategy", "class", "parameters", task["metric"], "95 % interval", "sd", "letters"]
    head += [f"against {reference} ({unit_of(task)})", "p"] if reference else []
    alone, fused = [], []
    for s in task["strategies"]:
        of = s["score"]
        cells = [s["row"], class_of(s), count(s["parameters"]), score(of["mean"])]
        cells += [interval(of["low"], of["high"], score), spread(of["seed_sd"]), s["letters"]]
        if reference:
            found = contrast(s, reference, by_name)
            between = interval(found["low"], found["high"], difference(task)) if found else DASH
            told = f"{difference(task)(found['difference'])} {'' if between == DASH else between}" if found else DASH
            cells += [told.strip(), p_of(found)]
        (alone if s["row"] in NO_FUSION else fused).append(_row(cells))
    failed = [_row([f["row"], "failed", *[DASH] * (len(head) - 2)]) for f in summary["failed"]]
    blocks = [block for block in (alone, fused, failed) if block]
    body = [line for block in blocks for line in ([r"\midrule"], block)]
    said = [_notice(n) for n in [*about_benchmark(summary, details=False), *about_task(task)] if n.warns]
    rows = f"{task['rows']:,} test rows in {task['groups']:,} groups"
    caption = [f"{name}: {task['metric']} on {rows}.", about_tests(task), *said]
    return [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape(' '.join(caption))}}}",
        rf"\label{{tab:{''.join(c if c.isascii() and c.isalnum() else '-' for c in name)}}}",
        rf"\begin{{tabular}}{{ll{'r' * 4}l{'rr' if reference else ''}}}",
        r"\toprule",
        _row(head),
        *(line for lines in body for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def _row(cells: list[str]) -> str:
    return " & ".join(escape(cell, number=i > 1) for i, cell in enumerate(cells)) + r" \\"


def _notice(notice: Notice) -> str:
    return f"{notice.title} {notice.text}".strip()


def escape(text: str, number: bool = False) -> str:
    """A text as LaTeX prints it, on one line; what would be markup is none.

    Args:
        text: Of anyone.
        number: Hyphens are minus signs.
    """
    line = " ".join(text.split())
    written = "".join(_SPECIAL.get(character, character) for character in line if character.isprintable())
    return written.replace("-", "$-$") if number and "--" not in written else written
