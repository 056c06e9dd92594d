"""The sections of a report that are said of one task: charts, and tables with the same numbers."""

from __future__ import annotations

from typing import Any

from mmfuse.benchmarking.charts import (
    Curve,
    as_row,
    class_of,
    curves,
    describe,
    legend,
    pareto,
    pareto_front,
)
from mmfuse.benchmarking.judge import contrast, p_of
from mmfuse.benchmarking.notices import about_task, about_tests, is_mined
from mmfuse.benchmarking.plan import NO_FUSION
from mmfuse.benchmarking.verdict import ALPHA, listed
from mmfuse.pages.charts import Scale, bar
from mmfuse.pages.markup import (
    DASH,
    Content,
    Html,
    amount,
    cell,
    count,
    difference,
    header,
    in_words,
    interval_of,
    known,
    points,
    score,
    spread,
    table,
    tag,
    unit_of,
)
from mmfuse.pages.page import Notice, notice_box
from mmfuse.pages.ranking import Line, ranking

FEW_TASKS = 2
"""Up to so many, all that is said of a task is open to see."""
FEW_LABELS = 15
BEST_FEW = 3
HIGHLIGHTS = {"text_only": "of-text", "image_only": "of-image", "late": "of-late"}

Task = dict[str, Any]
Strategy = dict[str, Any]


def task_section(number: int, name: str, task: Task, summary: dict[str, Any]) -> Html:
    """All that is said of a task, to be folded away.

    Args:
        number: By which links find it.
        name: Of the task.
        task: Of the summary.
        summary: Of the benchmark.
    """
    parts = [
        ("Ranking", _ranking(task, summary)),
        ("Quality against cost", _costs(task)),
        ("When a modality is missing", _missing(task, summary)),
        ("Interaction profile", _interaction(task, summary)),
        ("Calibration and cost", _calibration(task)),
        ("By label", _labels(task)),
    ]
    best, by_name = task["strategies"][0], {s["row"]: s for s in task["strategies"]}
    told = f"highest on test: {best['row']} {score(best['score']['mean'])}"
    declared = by_name.get(task["references"].get("declared", ""))
    if declared is not None and declared is not best:
        told += f"; chosen on validation: {declared['row']} {score(declared['score']['mean'])}"
    said = f"{in_words(task['metric'])} on {task['rows']:,} test rows in {task['groups']:,} groups"
    return tag(
        "details",
        tag("summary", tag("h2", name), tag("span", told), badge(task)),
        tag("p", said, class_="note", id=f"task-{number}"),
        [notice_box(n) for n in about_task(task)],
        [tag("section", tag("h3", title), content) for title, content in parts if content],
        class_="task" + (" mined" if is_mined(task) else ""),
        open=len(summary["tasks"]) <= FEW_TASKS,
    )


def _ranking(task: Task, summary: dict[str, Any]) -> Content:
    by_name = {s["row"]: s for s in task["strategies"]}
    lines = [
        Line(name, by_name[name]["score"]["mean"], "reference")
        for role, name in task["references"].items()
        if role == "best_unimodal" and name in by_name and known(by_name[name]["score"]["mean"])
    ]
    told = "The dashed line is the unimodal strategy that was best on validation. " if lines else ""
    if task["bayes"] and task["metric"] == "accuracy":
        lines += [Line(f"best from {m}", task["bayes"][m], f"bayes {m}") for m in ("text", "image", "both")]
        told += "Lines “best from” are Bayes limits: what no model can exceed from the text, the image, or both."
    elif task["bayes"]:
        limits = ", ".join(f"{m} {score(task['bayes'][m])}" for m in ("text", "image", "both"))
        told += f"Best possible accuracy (not {task['metric']}, so not drawn): {limits}."
    chart = tag(
        "figure",
        legend(),
        ranking([as_row(s, badge(task, "⚠")) for s in task["strategies"]], lines, describe(task["strategies"], task),
                slots=len(task["indistinguishable"])),
        tag("figcaption", f"{in_words(task['metric'])}: mean over the seeds that were run, and its 95 % interval "
            "for other test groups. Strategies that share a letter could not be told apart among all pairs; "
            "against a reference fewer differences are tested, and more may be told. ", told),
    )  # fmt: skip
    return [chart, _ranking_table(task, by_name, summary)]


def _ranking_table(task: Task, by_name: dict[str, Strategy], summary: dict[str, Any]) -> Content:
    references = [name for name in dict.fromkeys(task["references"].values()) if name in by_name]
    columns = ("strategy", "rank", "class", "score", "sd", "letters")
    against = [
        tag("th", f"against {r}", tag("small", f" {score(by_name[r]['score']['mean'])}"), scope="colgroup", colspan=2)
        for r in references
    ]
    last = tag("th", "size", scope="col", rowspan=2)
    head = [
        tag(
            "tr",
            [
                tag("th", x, scope="col", rowspan=2, class_="left" if x in ("class", "letters") else None)
                for x in columns
            ],
            against,
            last,
        ),
        tag("tr", [[tag("th", unit_of(task), scope="col"), tag("th", "p", scope="col")] for _ in references]),
    ]
    alone, fused = [], []
    for s in task["strategies"]:
        estimate = s["score"]
        cells = [
            cell(str(s["rank"])),
            tag("td", class_of(s)),
            cell(score(estimate["mean"]), interval_of(estimate["low"], estimate["high"], score)),
            cell(spread(estimate["seed_sd"]), interval_of(estimate.get("seed_low"), estimate.get("seed_high"), score)),
            tag("td", s["letters"], class_="letters"),
            [_difference(contrast(s, r, by_name), task) for r in references],
            cell(count(s["parameters"])),
        ]
        row = tag("tr", name_cell(s["row"], task), cells, class_=row_class(s["row"]))
        (alone if s["row"] in NO_FUSION else fused).append(row)
    width = 7 + 2 * len(references)
    failed = [
        tag("tr", name_cell(f["row"], task), tag("td", f"failed: {f['reason']}", colspan=width - 1), class_="failed")
        for f in summary["failed"]
    ]
    note = (
        f"One modality alone stands first. Differences are in {unit_of(task)}, the strategy less the reference; p is "
        f"bold up to {ALPHA}. {about_tests(task)} sd: between seeds, and their range; size: parameters of the fusion."
    )
    return [tag("p", note, class_="note"), table(head, [alone, fused, failed], "Ranking as a table")]


def _difference(found: dict[str, Any] | None, task: Task) -> Content:
    if found is None:
        return [cell(DASH), cell(DASH)]
    p, write = p_of(found), difference(task)
    sure = found["tested"] and known(found["p_holm"]) and found["p_holm"] <= ALPHA
    return [
        cell(write(found["difference"]), interval_of(found["low"], found["high"], write)),
        tag("td", tag("b", p) if sure else p, class_="n"),
    ]


def _costs(task: Task) -> Content:
    strategies, best = task["strategies"], task["strategies"][0]["row"]
    charts = []
    for key, title, more in (
        ("macs", "MACs of the fusion for one example", False),
        ("samples_per_s", "samples per second of training", True),
    ):
        there = [s for s in strategies if known(s[key]) and s[key] > 0 and known(s["score"]["mean"])]
        if not there:
            continue
        better = {"more_is_better": more, "less_score_is_better": bool(task.get("less_is_better"))}
        front = pareto_front(there, key, **better)
        order = "fastest first" if more else "cheapest first"
        charts.append(
            tag(
                "figure",
                pareto(strategies, key, title, best, **better),
                tag(
                    "figcaption",
                    f"{in_words(task['metric'])}. On the Pareto front, {order}: {listed(front, most=len(front))}.",
                ),
            )
        )
    note = "Named are the strategies than which none is both better and cheaper, and the best; names of the others "
    note += "show on hovering, and all numbers are under “Calibration and cost”."
    return [tag("p", note, class_="note"), tag("div", charts, class_="pair")] if charts else None


def _missing(task: Task, summary: dict[str, Any]) -> Content:
    there = [s for s in task["strategies"] if s.get("missing", {}).get("text")]
    if not there:
        return None
    metric = _of_diagnostics(task, there[0]["missing"]["text"])
    best = next((s["row"] for s in there if s["row"] not in NO_FUSION), "")
    styles = {**HIGHLIGHTS, **({} if best in HIGHLIGHTS else {best: "of-best"})}
    by_gone = {
        gone: [Curve(s["row"], s["missing"][gone][metric]["values"], styles.get(s["row"], "")) for s in there]
        for gone in ("text", "image")
    }
    scale = Scale.over((v for lines in by_gone.values() for line in lines for v in line.values), 214, 12)
    shares = there[0]["missing"]["shares"]
    charts = [
        tag("figure", curves(lines, shares, scale, f"test rows without the {gone}")) for gone, lines in by_gone.items()
    ]
    flags = [
        tag("p", tag("span", "⚠ ", aria_hidden="true"), tag("b", f"Without the {gone}, worse than {alone}: "),
            listed(worse, most=len(worse)), class_="notice warns", data_notice="worse-without")
        for gone, alone in (("text", "image_only"), ("image", "text_only"))
        if (worse := [s["row"] for s in there if gone in s.get("worse_without", [])])
    ]  # fmt: skip
    untrained = sorted({m for s in there if s["row"] not in NO_FUSION for m in s["missing"].get("untrained", [])})
    if untrained:
        text = (
            f"No model was trained with rows that lack the {listed(untrained)}: what stands in for it is not learned."
        )
        flags.append(notice_box(Notice("untrained", text, "No modality dropout.", warns=True)))
    rows = [
        tag(
            "tr",
            name_cell(s["row"], task),
            [cell(score(s["missing"]["text"][metric]["values"][0]))],
            [cell(score(s["missing"][gone][metric][k] if k == "mean" else s["missing"][gone][metric]["values"][-1]))
             for gone in ("text", "image") for k in ("last", "mean")],
            tag("td", [f"⚠ without {gone}" + ("; " if i else "") for i, gone in enumerate(s.get("worse_without", []))]
                or DASH),
            class_=row_class(s["row"]),
        )
        for s in there
    ]  # fmt: skip
    flagged = "worse than unimodal"
    names = ("strategy", "full", "no text", "mean of curve", "no image", "mean of curve", flagged)
    head = header(*names, left=(flagged,))
    judged = "accuracy" if "accuracy" in there[0]["missing"]["text"] else in_words(metric)
    note = (
        f"{in_words(metric)} on {there[0]['missing']['rows']:,} rows, of the first seed{_first_fold(summary)}, where a "
        "growing share of them lacks a modality. Named are the best fusion, late fusion and each modality alone; the "
        f"others are grey. A fusion is flagged where, without one modality, its {judged} is more than a point, and "
        "more than two standard errors, below that of the model which reads the other alone."
    )
    numbers = tag("details", tag("summary", "All numbers"), table([head], [rows], "Scores without a modality"))
    return [tag("p", note, class_="note"), flags, tag("div", charts, class_="pair"), numbers]


def _interaction(task: Task, summary: dict[str, Any]) -> Content:
    """EMAP, permutation scores and Shapley values: each in points, with bars on a scale that its columns share."""
    there = [s for s in task["strategies"] if any(s.get(name) for name in ("emap", "permutation", "shapley"))]
    found = [_profile(task, s) for s in there]
    columns = [c for c in ("emap", "drop text", "drop image", "phi text", "phi image", "interaction")
               if any(known(p.get(c)) for p in found)]  # fmt: skip
    if not columns:
        return None
    shared = (("emap",), ("drop text", "drop image"), ("phi text", "phi image", "interaction"))
    reach = {}
    for group in shared:
        values = [v for p in found for c in group if (v := p[c]) is not None and known(v)]
        reach |= dict.fromkeys(group, (min([0.0, *values]), max([0.0, *values])))
    titles = {
        "emap": "EMAP gap",
        "drop text": "lost with text permuted",
        "drop image": "lost with image permuted",
        "phi text": "Shapley φ text",
        "phi image": "Shapley φ image",
        "interaction": "Shapley interaction",
    }
    rows = [
        tag("tr", name_cell(s["row"], task), tag("td", class_of(s)),
            [cell(points(p.get(c)), bar(p.get(c), *reach[c]), _ends_of(p, c), class_="n bars") for c in columns],
            class_=row_class(s["row"]))
        for s, p in zip(there, found, strict=True)
    ]  # fmt: skip
    first = next(part for part in (there[0].get(n) for n in ("permutation", "shapley", "emap")) if part)
    metric = _of_diagnostics(task, first.get("score") or first.get("gap") or first)
    pairs = next((s["emap"]["rows"] for s in there if s.get("emap")), None)
    note = f"{in_words(metric)} in points, of the first seed{_first_fold(summary)}, on {first['rows']:,} test rows"
    note += f" (EMAP: {pairs:,}). " if pairs else ". "
    note += "Bars to the right are above zero, to the left below; the columns of one method share a scale. "
    note += "Below EMAP’s gap stands its 95 % interval for other test groups, of this one model."
    head = header("strategy", "class", *(titles[c] for c in columns), left=("class",))
    return [tag("p", note, class_="note"), table([head], [rows], "Interaction profile")]


def _ends_of(profile: dict[str, float | None], column: str) -> Html | None:
    """The interval below a number; runs of before have none of EMAP."""
    return interval_of(profile.get(f"{column} low"), profile.get(f"{column} high"), points)


def _profile(task: Task, s: Strategy) -> dict[str, float | None]:
    emap, permutation, shapley = (s.get(name) or {} for name in ("emap", "permutation", "shapley"))
    metric = _of_diagnostics(task, permutation.get("score") or emap.get("gap") or shapley)
    shares = shapley.get(metric) or {}
    drops = {m: ((permutation.get(m) or {}).get(metric) or {}).get("drop") for m in ("text", "image")}
    return {
        "emap": (emap.get("gap") or {}).get(metric),
        "emap low": ((emap.get("interval") or {}).get(metric) or [None, None])[0],
        "emap high": ((emap.get("interval") or {}).get(metric) or [None, None])[1],
        "drop text": drops["text"],
        "drop image": drops["image"],
        "phi text": shares.get("phi_text"),
        "phi image": shares.get("phi_image"),
        "interaction": shares.get("interaction"),
    }


def _calibration(task: Task) -> Content:
    costs = ("parameters", "MACs", "samples/s", "seconds", "steps", "peak MiB")
    fitted = [name for name in ("ece", "nll") if name in task["strategies"][0]["metrics"]]
    head = header("strategy", *(x for name in fitted for x in (f"{name.upper()} before", "after")), *costs)
    rows = [
        tag(
            "tr",
            name_cell(s["row"], task),
            [cell(score(of[k])) for k in fitted for of in (s["uncalibrated"], s["metrics"])],
            [cell(count(s[k])) for k in ("parameters", "macs", "samples_per_s")],
            cell(amount(s["seconds"], 1)),
            cell(amount(s["steps"], 0)),
            cell(amount(s["peak_mib"], 0)),
            class_=row_class(s["row"]),
        )
        for s in task["strategies"]
    ]
    note = (
        ("Before and after the temperature that was fitted on validation. " if fitted else "")
        + "Parameters and MACs are of the fusion alone; "
        "seconds, samples per second and steps are of one training, mean over seeds; the peak is of the process."
    )
    return [tag("p", note, class_="note"), table([head], [rows], "Calibration and cost")]


def _labels(task: Task) -> Content:
    if not task["labels"]:
        return None
    by_name = {s["row"]: s for s in task["strategies"]}
    chosen = [s["row"] for s in task["strategies"] if s["row"] not in NO_FUSION][:BEST_FEW]
    chosen = [name for name in ("text_only", *chosen) if name in by_name]
    if not task["labels"]:
        return None
    metrics = {"auroc": "AUROC", "average_precision": "AP", "f1": "F1"}
    head = [
        tag("tr", [tag("th", x, scope="col", rowspan=2) for x in ("label", "positives")],
            [tag("th", name, scope="colgroup", colspan=3) for name in chosen]),
        tag("tr", [[tag("th", m, scope="col") for m in metrics.values()] for _ in chosen]),
    ]  # fmt: skip
    rows = []
    for label in task["labels"]:
        flag = tag("em", "rare", class_="badge") if label in task["rare_labels"] else None
        values = [by_name[name]["per_label"].get(label, {}).get(m) for name in chosen for m in metrics]
        name = tag("th", label, " " if flag else None, flag, " " if is_mined(task) else None, badge(task), scope="row")
        cells = [cell(score(v), class_="n first" if i % 3 == 0 else "n") for i, v in enumerate(values)]
        rows.append(tag("tr", name, cell(f"{task['positives'][label]:,}"), cells))
    note = "Text alone, and the best few fusions; mean over seeds and folds, after calibration. "
    note += "A rare label has fewer than 10 positives among the test rows: its scores mean little."
    found = table(head, [rows], "By label")
    if len(rows) > FEW_LABELS:
        found = tag("details", tag("summary", f"{len(rows)} labels"), found)
    return [tag("p", note, class_="note"), found]


def name_cell(row: str, task: Task | None = None) -> Html:
    """The header of a strategy's row."""
    mark = badge(task) if task else None
    return tag("th", row, " " if mark else None, mark, scope="row")


def row_class(row: str) -> str | None:
    """What sets the unimodal rows apart."""
    return "unimodal" if row in NO_FUSION else None


_COUNTS = ("rows", "left_out", "untrained", "n")
"""What stands beside the metrics of a diagnostic."""


def _of_diagnostics(task: Task, by_metric: dict[str, Any]) -> str:
    """The task's metric if diagnostics have it, else the one that theirs begin with, such as accuracy."""
    return task["metric"] if task["metric"] in by_metric else next(name for name in by_metric if name not in _COUNTS)


def _first_fold(summary: dict[str, Any]) -> str:
    return " and fold" if summary["folds"] > 1 else ""


def badge(task: Task, said: str = "⚠ mined") -> Html | None:
    """The mark of every row whose labels were mined from the text."""
    return tag("em", said, class_="badge", title="labels mined from the text") if is_mined(task) else None
