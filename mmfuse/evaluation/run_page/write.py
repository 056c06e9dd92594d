"""The page of a finished run, from its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfuse.evaluation.run_page.examples import examples_section, hidden_examples, open_table
from mmfuse.evaluation.run_page.folder import MEASURED, RunFolder, Scores, read_run
from mmfuse.evaluation.run_page.labels import label_sections
from mmfuse.evaluation.run_page.measure import measure_run
from mmfuse.evaluation.run_page.others import caption_sections, number_sections
from mmfuse.evaluation.run_page.sections import (
    contribution_section,
    cost_section,
    data_section,
    learning_section,
    limits,
    provenance_section,
    scores_section,
)
from mmfuse.evaluation.run_page.words import verdict
from mmfuse.pages.markup import Html, in_words, known, score, tag
from mmfuse.pages.page import page_title, whole_page
from mmfuse.pages.ranking import shapes
from mmfuse.registry import load_plugin
from mmfuse.types import MmfuseError, first_line

PAGE = "report.html"


def write_page(run: str | Path, *, with_examples: bool = False) -> Path:
    """Write `RUN/report.html` from what lies in a finished run's folder.

    What was not measured at the end of the training (an older run, or one of many processes) is measured now, where the
    data are still where the run's config says; where they are not, the page says so.

    Args:
        run: The run's folder.
        with_examples: Show the worst errors and the surest successes with their pictures and texts, which may be data
            of persons.

    Returns:
        The page.

    Raises:
        MmfuseError: It is no folder of a finished run, or examples are asked for and the data cannot be read.
    """
    folder = Path(run)
    found = read_run(folder)
    for plugin in found.config.get("plugins") or []:
        load_plugin(plugin)
    if not found.measured:
        try:
            keep_measured(folder, _measure_later(found))
            found = read_run(folder)
        except (MmfuseError, OSError) as error:
            found = replace(found, unmeasured=first_line(error))
    table = open_table(found) if with_examples else None
    shown = [examples_section(found, task, table) for task in found.tasks] if table is not None else []
    path = folder / PAGE
    scratch = folder / f"{PAGE}.tmp"
    scratch.write_text(page_of_run(found, shown), encoding="utf-8")
    scratch.replace(path)
    return path


def keep_measured(folder: Path, measured: dict[str, Any]) -> None:
    """Write what was measured for the page beside the scores, `page.json`."""
    scratch = folder / f"{MEASURED}.tmp"
    scratch.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / MEASURED)


def _measure_later(run: RunFolder) -> dict[str, Any]:
    from mmfuse.model import FusionModel
    from mmfuse.predict import default_workers, prepare_pairs

    table = open_table(run)
    model = FusionModel.from_pretrained(run.dir / "model").eval()
    pairs = prepare_pairs(model, table)
    passes = max((line["epoch"] for line in run.log if "validation" in line), default=1)
    found = measure_run(model, pairs, run.report["split"], num_workers=default_workers(), passes=float(passes))
    return found | {"monitored": monitored_of(run.config, model), "parameters": count_parameters(model)}


def monitored_of(config: dict[str, Any], model: Any) -> str | None:
    """The metric that training watched, as `metrics.jsonl` names it, where it is one."""
    asked = config["training"].get("monitor")
    if asked:
        return asked if "/" in asked and " " not in asked else None
    task, head = next(iter(model.heads.items()))
    return f"{task}/{head.task.monitor}"


def count_parameters(model: Any) -> dict[str, int]:
    """Of the whole model and of its fusion."""
    count = sum(p.numel() for p in model.parameters())
    return {"in all": count, "in the fusion": sum(p.numel() for p in model.fusion.parameters())}


def page_of_run(run: RunFolder, examples: list[Html]) -> str:
    """The page as HTML.

    Args:
        run: The folder.
        examples: Their sections; none are shown where it is empty.
    """
    name, split = str(run.config["name"]), run.report["split"]
    fusion = run.model["fusion"]["name"]
    said = f"A {fusion} fusion of text and images, trained on {run.manifest.get('name', 'its data')}"
    many = " many" if len(run.tasks) > 2 else ""
    return whole_page(
        f"{name}: a run of mmfuse",
        page_title("mmfuse run", name, said),
        tag("section", [_verdict(run, task, split, len(run.tasks)) for task in run.tasks], class_=f"verdicts{many}",
            aria_label="Verdicts"),
        limits(run),
        data_section(run),
        learning_section(run),
        [_task(run, task, len(run.tasks)) for task in run.tasks],
        examples or hidden_examples(run),
        cost_section(run),
        provenance_section(run),
        before=shapes(),
    )  # fmt: skip


def _measured(run: RunFolder, task: Scores) -> dict[str, Any]:
    return run.measured.get("tasks", {}).get(task.name, {})


def _verdict(run: RunFolder, task: Scores, split: str, of: int) -> Html:
    lead, rest = verdict(task, _measured(run, task), split)
    title = tag("a", task.name, href=f"#task-{task.name}") if of > 1 else "How good it is"
    return tag("article", tag("h2", title),
               tag("p", tag("strong", lead), f" {rest}" if rest else None, class_="verdict"),
               class_="card" + (" mined" if task.origin == "mined_from_text" else ""))  # fmt: skip


def _task(run: RunFolder, task: Scores, of: int) -> Html:
    measured, kind = _measured(run, task), task.kind
    parts = [("Scores", scores_section(task, measured, run))]
    parts += [("Contribution of text and image", contribution_section(task, measured, run))]
    if kind.is_text:
        parts += caption_sections(task)
    elif kind.has_labels:
        parts += label_sections(task)
    elif task.told and "value" in task.told[0]:
        parts += number_sections(task)
    first = measured.get("metric") or next(iter(task.scores["metrics"]))
    value = task.scores["metrics"][first]["value"]
    told = f"{in_words(first)} {score(value)}" if known(value) else ""
    said = f"{task.scores['n']:,} {run.report['split']} rows in {task.scores['groups']:,} groups"
    return tag(
        "details",
        tag("summary", tag("h2", task.name), tag("span", told)),
        tag("p", said, class_="note", id=f"task-{task.name}"),
        [tag("section", tag("h3", title), content) for title, content in parts if content],
        class_="task",
        open=of <= 2,
    )
