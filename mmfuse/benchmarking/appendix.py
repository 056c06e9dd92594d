"""`table.md`, for a paper's appendix: what two runs of one benchmark agree on, so no time, memory or path is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmfuse.benchmarking.charts import class_of
from mmfuse.benchmarking.judge import contrast, p_of
from mmfuse.benchmarking.notices import about_benchmark, about_task, about_tests, is_mined
from mmfuse.benchmarking.plan import NO_FUSION
from mmfuse.benchmarking.verdict import listed
from mmfuse.evaluation.markdown import plain
from mmfuse.pages.markup import DASH, count, difference, interval, score, spread, unit_of
from mmfuse.pages.page import Notice


def appendix(summary: dict[str, Any]) -> str:
    """The Markdown text."""
    seeds, folds = summary["seeds"], summary["folds"]
    said = f"{len(summary['rows'])} strategies, {seeds} seed(s)" + (f", {folds} folds" if folds > 1 else "")
    said += ", native sizes" if summary["matching"] == "native" else (
        f", sizes matched to the {summary['matching']} of {summary['match_to']}"
    )  # fmt: skip
    said += (
        f", {summary['tuning_trials']} tuning trials a strategy, {summary['resamples']} resamples of the test groups"
    )
    lines = [
        f"# {plain(summary['name'])}",
        "",
        f"{said}. Manifest sha256 `{summary['provenance']['manifest']['sha256']}`.",
    ]
    if summary["built_in"]:
        lines += ["", "SYNTHETIC data; the encoders were trained on single symbols, each modality alone, then frozen."]
    lines += _notices(list(about_benchmark(summary, details=False)))
    for name, task in summary["tasks"].items():
        lines += ["", f"## {plain(name)}", "", plain(task["verdict"]), *_notices(list(about_task(task))), ""]
        lines += [*_table(task, summary), "", about_tests(task)]
    units = listed(list(dict.fromkeys(map(unit_of, summary["tasks"].values()))))
    note = (
        "Intervals of scores are 95 %, for other test groups and the seeds that were run. Strategies that "
        f"share a letter could not be told apart among all pairs. Differences are in {units}. MACs are of the fusion "
        "for one example."
    )
    return "\n".join([*lines, "", note, ""])


def _notices(notices: Sequence[Notice]) -> list[str]:
    found = []
    for notice in notices:
        title = f"**{'⚠ ' if notice.warns else ''}{plain(notice.title)}** " if notice.title else ""
        found += ["", f"{title}{plain(notice.text)}"]
    return found


def _table(task: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    by_name = {s["row"]: s for s in task["strategies"]}
    references = [name for name in dict.fromkeys(task["references"].values()) if name in by_name]
    mark = " ⚠ mined" if is_mined(task) else ""
    head = [
        "strategy",
        "class",
        "parameters",
        "MACs",
        task["metric"],
        "95 % interval",
        "sd and range of seeds",
        "letters",
    ]
    head += [text for r in references for text in (f"against {r}", "p")]
    rows = []
    for s in sorted(task["strategies"], key=lambda s: s["row"] not in NO_FUSION):  # stable: by rank within
        of = s["score"]
        cells = [s["row"] + mark, class_of(s), count(s["parameters"]), count(s["macs"]), score(of["mean"])]
        cells += [interval(of["low"], of["high"], score), _seeds(of), s["letters"]]
        for r in references:
            found = contrast(s, r, by_name)
            if found is None:
                cells += [DASH, DASH]
                continue
            between = interval(found["low"], found["high"], difference(task))
            cells += [f"{difference(task)(found['difference'])} {'' if between == DASH else between}".strip()]
            cells += [p_of(found)]
        rows.append(cells)
    rows += [[f["row"] + mark, "failed", *[DASH] * (len(head) - 2)] for f in summary["failed"]]
    aligned = ["---", "---", *["---:"] * 5, "---", *["---:"] * (2 * len(references))]
    lines = ["| " + " | ".join(plain(c) for c in row) + " |" for row in (head, *rows)]
    lines.insert(1, "| " + " | ".join(aligned) + " |")
    if task["bayes"]:
        limits = ", ".join(f"{name} {score(task['bayes'][name])}" for name in ("text", "image", "both"))
        lines += ["", f"Best possible accuracy (Bayes): {limits}."]
    return lines


def _seeds(of: dict[str, Any]) -> str:
    between = interval(of.get("seed_low"), of.get("seed_high"), score)
    return f"{spread(of['seed_sd'])} {'' if between == DASH else between}".strip()
