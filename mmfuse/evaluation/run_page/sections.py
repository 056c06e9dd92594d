"""The sections of a run's page that every task has: data, learning, scores, contribution, times and provenance."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from mmfuse.evaluation.run_page.folder import RunFolder, Scores
from mmfuse.evaluation.run_page.words import ALONE, Measured, baseline, seconds
from mmfuse.metrics import less_is_better
from mmfuse.pages.charts import bar
from mmfuse.pages.markup import (
    DASH,
    Content,
    Html,
    cell,
    count,
    header,
    in_words,
    interval_of,
    known,
    plural,
    points,
    score,
    signed,
    table,
    tag,
)
from mmfuse.pages.page import Notice, facts, notice_box
from mmfuse.pages.plots import Path, Points, plot, plot_legend, thinned
from mmfuse.pages.ranking import Row, ranking

ORIGINS = {
    "human": "by people",
    "mined_from_text": "mined from the text",
    "model": "by another model",
    "synthetic": "synthetic: known by construction",
}


def data_section(run: RunFolder) -> Html:
    """What was trained on what: rows and groups a split, the model's parts, what each modality lacks."""
    grouped = bool(run.groups) and run.groups != run.rows
    head = header("split", "rows", *(["groups"] if grouped else []))
    rows = [
        tag("tr", tag("th", name, scope="row"), cell(f"{n:,}"),
            cell(f"{run.groups.get(name, 0):,}") if grouped else None)
        for name, n in run.rows.items()
    ]  # fmt: skip
    missing = [f"{n:,} without {m}" for m, n in run.report.get("missing", {}).items() if n]
    known_of = {
        "data": f"{run.manifest.get('name', '')}, version {run.manifest.get('version', 1)}",
        "what is predicted": [_task_line(task) for task in run.tasks],
        "fusion": _options(run.model["fusion"]),
        "text encoder": _tower(run, "text"),
        "image encoder": _tower(run, "image"),
        f"{run.report['split']} rows": f"{run.report['rows']:,}" + (f": {', '.join(missing)}" if missing else ""),
        "leaks": _leaks(run),
    }
    return tag(
        "section",
        tag("h2", "What was trained on what"),
        tag("div", facts({name: said for name, said in known_of.items() if said}),
            table([head], [rows], "Rows by split", class_="small") if rows else None, class_="beside"),
    )  # fmt: skip


def _task_line(task: Scores) -> Html:
    labels = f", {plural(len(task.kind.labels), 'label')}" if task.kind.has_labels else ""
    origin = f", labelled {ORIGINS.get(task.origin, task.origin)}" if task.origin else ""
    kind = {"Classification": "one class of several", "Multilabel": "any number of labels", "Regression": "a number",
            "Captioning": "a text"}.get(type(task.kind).__name__, type(task.kind).__name__)  # fmt: skip
    return tag("div", tag("b", task.name), f": {kind}{labels}{origin}")


def _options(of: dict[str, Any]) -> str:
    more = ", ".join(f"{name} {value}" for name, value in of.items() if name != "name")
    return of["name"] + (f" ({more})" if more else "")


def _tower(run: RunFolder, modality: str) -> str:
    own = run.config.get(f"{modality}_encoder") or {}
    if run.model.get(f"{modality}_encoder") is None:
        return "none: the fusion does not read it"
    frozen = own.get("frozen") and not own.get("unfreeze_epoch")
    how = "frozen" if frozen else "trained"
    start = "pretrained" if own.get("pretrained", True) else "from random weights"
    return f"{own.get('tower') or own.get('name')}, {start}, {how}"


def _leaks(run: RunFolder) -> str:
    shards = "shards" in run.environment
    looked = "when the shards were written" if shards else "before the first step"
    return (
        f"none: no group, and no row with equal text and images, is in two splits (looked for {looked}). "
        "Rows that are only alike are found by mmfuse data check."
    )


# ------------------------------------------------------------------------------------------------------------- learning


def learning_section(run: RunFolder) -> Html:
    """Training loss, validation loss and the watched metric by step."""
    steps = {line["step"]: line["loss"] for line in run.log if "samples" in line and known(line.get("loss"))}
    evaluated = {line["step"]: line for line in run.log if "validation_loss" in line}
    best = max((step for step, line in evaluated.items() if line.get("best")), default=None)
    monitor = run.measured.get("monitored")
    x = (0.0, float(max([1, *steps, *evaluated])))
    shown, smooth = _smooth(list(steps), list(steps.values()))
    validation = [(step, line["validation_loss"]) for step, line in evaluated.items() if known(line["validation_loss"])]
    values = [*smooth, *(loss for _, loss in validation)]
    charts = [
        tag(
            "figure",
            plot(
                [
                    Path("training", shown, smooth, "of-best"),
                    Path("validation", [s for s, _ in validation], [v for _, v in validation], "of-late"),
                    *_best_line(best, dict(validation)),
                ],
                x, _around(values), ("step", "loss"),
                f"Loss by step: training from {_end(smooth, 0)} to {_end(smooth, -1)}, validation from "
                f"{_end([v for _, v in validation], 0)} to {_end([v for _, v in validation], -1)}",
            ),
            plot_legend([("of-best", "training (running median)"), ("of-late", "validation")]),
        )
    ]  # fmt: skip
    watched = [
        (s, line["validation"][monitor]) for s, line in evaluated.items() if known(line["validation"].get(monitor))
    ]
    if watched and monitor:
        told = dict(watched)
        charts.append(
            tag(
                "figure",
                plot(
                    [Path(monitor, list(told), list(told.values()), "one"), *_best_line(best, told)],
                    x, _around(list(told.values())), ("step", in_words(monitor.rpartition("/")[2])),
                    f"{monitor} on validation by step, {_end([*told.values()], 0)} to {_end([*told.values()], -1)}",
                ),
                plot_legend([("one", f"{monitor} on validation")]),
            )
        )  # fmt: skip
    said = f"{plural(max([0, *steps]), 'step')}; a dot marks the evaluation whose weights were kept"
    said += f", at step {best:,}." if best is not None else "."
    if not evaluated:
        said = f"{plural(max([0, *steps]), 'step')}; there are no validation rows, so the last weights were kept."
    return tag("section", tag("h2", "Learning curve"), tag("p", said, class_="note"), tag("div", charts, class_="pair"))


def _smooth(x: list[int], y: list[float]) -> tuple[list[float], list[float]]:
    reach = max(1, len(y) // 40)
    medians = [sorted(y[max(0, i - reach) : i + reach + 1])[len(y[max(0, i - reach) : i + reach + 1]) // 2]
               for i in range(len(y))]  # fmt: skip
    thin = thinned(x, medians)
    return thin[0], thin[1]


def _around(values: list[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    space = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - space, high + space


def _end(values: list[float], at: int) -> str:
    return f"{values[at]:.3g}" if values else "nothing"


def _best_line(best: int | None, values: dict[int, float]) -> list[Points]:
    if best is None or best not in values:
        return []
    return [Points([best], [values[best]], "kept", told=[f"kept: step {best}"], radius=5)]


# --------------------------------------------------------------------------------------------------------------- scores


def scores_section(task: Scores, measured: Measured, run: RunFolder) -> list[Content]:
    """All metrics with intervals, and the first of them beside what is known without the model."""
    parts: list[Content] = []
    found = measured.get("scores")
    if found:
        kinds = {"model": "multiplicative", "prior": "other"}
        rows = [
            Row(baseline(name, task.kind), kinds.get(name, "unimodal"), of["value"], of["low"], of["high"])
            for name, of in found.items()
        ]
        told = ", ".join(f"{row.name} {score(row.mean)}" for row in rows)
        counts = f"{run.measured['rows']:,} rows, probes fitted to {run.measured['train_rows']:,} training rows"
        parts.append(
            tag(
                "figure",
                ranking(rows, [], f"{in_words(measured['metric'])}: {told}"),
                tag("figcaption", f"{in_words(measured['metric'])} and its 95 % interval ({counts}). A probe is a "
                    "linear (ridge) map of what this model's own encoder says of a row, without fusion: it costs "
                    "seconds, and a model that is trained for one modality may do better; a benchmark tells."),
            )
        )  # fmt: skip
    metrics = task.scores["metrics"]
    beside = task.scores.get("baselines", {})
    over = task.scores.get("macro_over", {})
    head = header("metric", "this model", *beside, "better is", left=("better is",))
    rows = []
    for name, of in metrics.items():
        labels = len(task.kind.labels)
        more = f" (over {over[name]} of {labels} labels)" if over.get(name, labels) != labels else ""
        lower = name in task.kind.lower_is_better or less_is_better(name)
        write = score if name not in task.kind.units else (lambda v: DASH if v is None else f"{v:,.4g}")
        values = [cell(write(of["value"]), interval_of(of["low"], of["high"], write))]
        for rival in beside.values():
            theirs = rival["metrics"].get(name)
            values.append(cell(write(theirs["value"]) if theirs else DASH))
        unit = f", {task.kind.units[name]}" if task.kind.units.get(name) else ""
        rows.append(tag("tr", tag("th", in_words(name) + unit + more, scope="row"), values,
                        tag("td", "less" if lower else "more")))  # fmt: skip
    notes = sorted({of["note"] for of in metrics.values() if of.get("note")})
    parts.append(table([head], [rows], f"Metrics of {task.name}", class_="small"))
    parts += [tag("p", f"Intervals: {note}.", class_="note") for note in notes]
    return parts


# --------------------------------------------------------------------------------------------------------- contribution


def contribution_section(task: Scores, measured: Measured, run: RunFolder) -> Content:
    """The exact Shapley values of text and image; nothing where the model reads one of them."""
    found = measured.get("contribution")
    if not found:
        return None
    write = signed if measured["metric"] in task.kind.units else points
    unit = "" if measured["metric"] in task.kind.units else " (points)"
    named = {"phi_text": "text", "phi_image": "image", "interaction": "interaction"}
    values = [v for name in named for v in (found[name]["value"], found[name]["low"], found[name]["high"]) if known(v)]
    reach = min([0.0, *values]), max([0.0, *values])
    rows = [
        tag("tr", tag("th", told, scope="row"),
            cell(write(found[name]["value"]), interval_of(found[name]["low"], found[name]["high"], write)),
            tag("td", bar(found[name]["value"], *reach)))
        for name, told in named.items()
    ]  # fmt: skip
    worth = {
        "none": "neither: the training frequencies",
        "text": ALONE["text"],
        "image": ALONE["image"],
        "both": "both",
    }
    if not task.kind.has_labels:
        worth["none"] = "neither: the training mean"
    games = [tag("tr", tag("th", told, scope="row"), cell(score(found[name]))) for name, told in worth.items()]
    how = {
        "token": "A modality is taken away by the token that stands in for a missing one, which the model has learned.",
        "others": "This model was not trained with missing modalities, so one is taken away by that of another row, "
        "dealt anew (mean of 3): it then contradicts the rest, so that what the model owes to it is told rather high.",
    }[run.measured["hidden_by"]]
    note = (
        f"What {in_words(measured['metric'])} owes to each modality: exact Shapley values of two players, on "
        f"{found['rows']:,} rows that have both. Text and image sum to the gain over neither; the interaction is "
        f"negative where both say the same, and positive where only both together say it. {how}"
    )
    return [
        tag("p", note, class_="note"),
        tag("div",
            table([header("modality", f"share{unit}", "bar", left=("bar",))], [rows], "Contribution of text and image",
                  class_="small"),
            table([header("this model reads", in_words(measured["metric"]))], [games], "Scores without a modality",
                  class_="small"), class_="beside"),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- the end


def cost_section(run: RunFolder) -> Html:
    """Times, memory and size."""
    trained = [line for line in run.log if "samples" in line]
    train = sum(line.get("seconds", 0.0) for line in trained)
    samples = sum(line["samples"] for line in trained)
    peak = max((line["peak_mib"] for line in run.log if "peak_mib" in line), default=None)
    of = run.measured
    waited = sum(line.get("waited", 0.0) for line in trained)
    parts = of.get("parameters", {})
    weights = run.dir / "model" / "model.safetensors"
    known_of = {
        "training": f"{seconds(train)} for {samples:,} rows"
        + (f", {samples / train:,.0f} rows/s; {waited / train:.0%} of it waiting for data" if train else ""),
        "before the first step": seconds(of["set_up_seconds"]) if "set_up_seconds" in of else None,
        "scoring": (
            f"{seconds(of['scoring_seconds'])} for calibration, test scores and intervals"
            if "scoring_seconds" in of
            else None
        ),
        "this page": f"{seconds(of['seconds'])} to measure its baselines and contributions"
        if "seconds" in of
        else None,
        "peak memory": f"{peak:,.0f} MiB a process" if peak else None,
        "parameters": ", ".join(f"{count(n)} {name}" for name, n in parts.items()) if parts else None,
        "model folder": f"{weights.stat().st_size / 2**20:,.1f} MiB of weights" if weights.is_file() else None,
    }
    return tag("section", tag("h2", "Time and cost"), facts({n: said for n, said in known_of.items() if said}))


def provenance_section(run: RunFolder) -> Html:
    """How the run came about."""
    of = run.environment
    manifest = of.get("manifest", {})
    known_of: dict[str, Content] = {
        "command": tag("code", shlex.join(of.get("command", []))),
        "commit": of.get("commit"),
        "manifest": f"{run.manifest.get('name', '')}, sha256 {manifest.get('sha256', DASH)}",
        "licence of the data": str(run.manifest.get("licence") or "not stated"),
        "seed": str(run.config.get("seed", 0)),
        "platform": f"{of.get('platform', DASH)}, Python {of.get('python', DASH)}, {of.get('threads', DASH)} threads",
        "precision": run.report.get("precision"),
        "versions": ", ".join(f"{name} {version}" for name, version in of.get("versions", {}).items()),
    }
    config = yaml.safe_dump(run.config, sort_keys=False)
    return tag(
        "section",
        tag("h2", "Provenance"),
        facts({name: DASH if said is None else said for name, said in known_of.items()}),
        tag("details", tag("summary", "The whole config"),
            tag("pre", config, tabindex="0", aria_label="The whole config", role="region")),
    )  # fmt: skip


def limits(run: RunFolder) -> list[Html]:
    """What must be said beside the numbers."""
    said = []
    mined = [task.name for task in run.tasks if task.origin == "mined_from_text"]
    if mined:
        text = f"{', '.join(mined)}: the model reads what made them, so its scores are no evidence."
        said.append(Notice("mined", text, "Labels mined from the text.", warns=True))
    if any(task.origin == "synthetic" for task in run.tasks):
        said.append(Notice("synthetic", "Nothing here says anything about real rows.", "SYNTHETIC data."))
    if run.report["split"] != "test":
        text = "No test row has a target. These rows also chose the epoch, the temperature and the thresholds."
        said.append(Notice("validation", text, "Scores are of validation rows.", warns=True))
    for task in run.tasks:
        rare = [name for name, of in task.scores.get("per_label", {}).items() if of["positives"] < 10]
        if rare:
            named = ", ".join(rare[:6]) + (f" and {len(rare) - 6} more" if len(rare) > 6 else "")
            said.append(Notice("rare", f"{task.name}: fewer than 10 scored rows: {named}.", "Rare labels."))
    cut = run.report.get("cut_texts") or {}
    if cut.get("cut"):
        said.append(Notice("cut", f"{cut['cut']:,} texts are longer than the model reads, and cut.", "Cut texts."))
    if not run.measured:
        text = "Baselines and contributions were not measured; mmfuse report RUN measures them where the data are."
        said.append(Notice("unmeasured", text, "Scores alone."))
    return [notice_box(notice) for notice in said]
