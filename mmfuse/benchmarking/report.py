"""The report of a benchmark: `report.html`, one page that needs nothing else, and what of it goes into a paper."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from mmfuse.benchmarking.appendix import appendix
from mmfuse.benchmarking.charts import as_row, describe
from mmfuse.benchmarking.latex import latex_tables
from mmfuse.benchmarking.methods import methods, methods_text
from mmfuse.benchmarking.notices import about_benchmark, about_task, is_mined
from mmfuse.benchmarking.plan import NO_FUSION
from mmfuse.benchmarking.sections import (
    FEW_TASKS,
    Task,
    badge,
    name_cell,
    row_class,
    task_section,
)
from mmfuse.benchmarking.told import analyses_section
from mmfuse.pages.markup import DASH, Html, cell, header, in_words, interval_of, plural, score, table, tag
from mmfuse.pages.page import Notice, facts, notice_box, page_title, whole_page
from mmfuse.pages.ranking import ranking, shapes


def write_report(folder: Path, summary: dict[str, Any]) -> None:
    """Write `report.html`, `table.md`, `table.tex` and `methods.md`.

    Args:
        folder: The benchmark's.
        summary: What `analyse` found, with the benchmark's `name` and its `provenance`.
    """
    (folder / "report.html").write_text(page(summary), encoding="utf-8")
    (folder / "table.md").write_text(appendix(summary), encoding="utf-8")
    (folder / "table.tex").write_text(latex_tables(summary), encoding="utf-8")
    (folder / "methods.md").write_text(methods_text(summary), encoding="utf-8")


def page(summary: dict[str, Any]) -> str:
    """The report as one HTML page: no script is needed to read it, and nothing is fetched."""
    tasks = list(summary["tasks"].items())
    return whole_page(
        f"{summary['name']}: benchmark of fusion strategies",
        _title(summary),
        tag("section", [_verdict(i, name, task, len(tasks)) for i, (name, task) in enumerate(tasks)],
            class_="verdicts" + (" many" if len(tasks) > FEW_TASKS else ""), aria_label="Verdicts"),
        [notice_box(n) for n in about_benchmark(summary)],
        _built_in(summary),
        _overview(summary) if len(tasks) > 1 else None,
        [task_section(i, name, task, summary) for i, (name, task) in enumerate(tasks)],
        analyses_section(summary),
        _seeds_needed(summary),
        _methods(summary),
        _glossary(summary),
        _provenance(summary),
        before=shapes(),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the first view


def _title(summary: dict[str, Any]) -> Html:
    manifest, rows = summary["provenance"]["manifest"], len(summary["rows"])
    parts = [f"{rows} strategies", plural(summary["seeds"], "seed")]
    parts += [plural(summary["folds"], "fold")] if summary["folds"] > 1 else []
    parts += [f"sizes {'as they are' if summary['matching'] == 'native' else 'matched by ' + summary['matching']}"]
    parts += [f"{summary['tuning_trials']} tuning trials each"] if summary["tuning_trials"] else []
    said = f"Fusion strategies compared on {manifest['name']}: {', '.join(parts)}"
    return page_title("mmfuse benchmark", summary["name"], said)


def _verdict(number: int, name: str, task: Task, of: int) -> Html:
    lead, rest = _sentences(task["verdict"])
    by_name = {s["row"]: s for s in task["strategies"]}
    shown = [by_name[u] for u in NO_FUSION if u in by_name]
    fusions = [s for s in task["strategies"] if s["row"] not in NO_FUSION]
    declared = by_name.get(task["references"].get("declared", ""))
    shown += [declared] if declared else []
    shown += [s for s in fusions[:1] if s not in shown]
    chart = ranking([as_row(s, badge(task, "⚠")) for s in shown], [], describe(shown, task)) if shown else None
    note = f"{in_words(task['metric'])}, mean over seeds and 95 % interval: each modality alone, the fusion that was "
    note += "chosen on validation, and the one with the highest test score, if that is another."
    return tag(
        "article",
        tag("h2", tag("a", name, href=f"#task-{number}")) if of > 1 else tag("h2", "Verdict"),
        [notice_box(n) for n in about_task(task) if n.kind == "mined"],
        tag("p", tag("strong", lead), f" {rest}" if rest else None, class_="verdict"),
        tag("figure", chart, tag("figcaption", note)) if chart else None,
        class_="card" + (" mined" if is_mined(task) else ""),
    )


def _sentences(text: str) -> tuple[str, str]:
    """The first sentence, and the rest."""
    first, *rest = re.split(r"(?<=[.!?]) (?=[A-Z0-9])", text, maxsplit=1)
    return first, "".join(rest)


def _built_in(summary: dict[str, Any]) -> Html | None:
    if not summary["built_in"]:
        return None
    return notice_box(
        Notice(
            "built-in",
            "SYNTHETIC data with known answers. The encoders were trained here, on single symbols and each modality "
            "alone, and then frozen: what a fusion adds can only be what both modalities say together. “Best from” are "
            "Bayes limits: the accuracy that no model can exceed from the text, the image, or both.",
        )
    )


def _overview(summary: dict[str, Any]) -> Html:
    """Strategies by tasks."""
    tasks = summary["tasks"]
    found = {name: {s["row"]: s for s in task["strategies"]} for name, task in tasks.items()}
    names = list(dict.fromkeys(row for by_row in found.values() for row in by_row))
    ranks = {row: sum(by[row]["rank"] for by in found.values() if row in by) for row in names}
    names.sort(key=lambda row: (*(row != one for one in NO_FUSION), ranks[row]))
    best = {name: set(task["strategies"][0]["letters"]) for name, task in tasks.items()}

    def entry(name: str, row: str) -> Html:
        s = found[name].get(row)
        if s is None:
            return cell(DASH)
        inside = bool(best[name] & set(s["letters"]))
        told = tag("b", score(s["score"]["mean"])) if inside else score(s["score"]["mean"])
        mark = tag("span", " ⚠", title="labels mined from the text") if is_mined(tasks[name]) else None
        return tag(
            "td",
            told,
            interval_of(s["score"]["low"], s["score"]["high"], score),
            mark,
            class_="n" + (" best" if inside else ""),
        )

    rows = {row: tag("tr", name_cell(row), [entry(n, row) for n in tasks], class_=row_class(row)) for row in names}
    limits = []
    known_limits = [task["bayes"] if task["metric"] == "accuracy" else None for task in tasks.values()]
    if any(known_limits):
        for modality in ("text", "image", "both"):
            cells = [cell(score((limit or {}).get(modality))) for limit in known_limits]
            limits.append(tag("tr", tag("th", f"best from {modality} (Bayes)", scope="row"), cells))
    head = tag("tr", tag("th", "strategy", scope="col"), [
        tag("th", tag("a", name, href=f"#task-{i}"), tag("small", " " + task["metric"]), scope="col")
        for i, (name, task) in enumerate(tasks.items())
    ])  # fmt: skip
    return tag(
        "section",
        tag("h2", "All tasks"),
        tag("p", "Score and its 95 % interval. Bold on a ground: the highest score of the task, and all that "
            "cannot be told from it. One modality alone stands first, then the order is by mean rank.", class_="note"),
        table([head], [limits, [r for n, r in rows.items() if n in NO_FUSION],
                       [r for n, r in rows.items() if n not in NO_FUSION]], "All tasks", class_="matrix"),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- the end


def _seeds_needed(summary: dict[str, Any]) -> Html | None:
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", f"{n['strategy']} from {n['reference']}"),
            tag("td", plural(n["seeds"], "seed") if n["seeds"] else f"no number: {n['reason']}"))
        for name, task in summary["tasks"].items()
        for n in task["seeds_needed"]
    ]  # fmt: skip
    if not rows or summary["seeds"] == 1:  # the notice of a single seed says it
        return None
    note = (
        "For the fusion that was chosen on validation against each reference, if what was seen is the truth: read the "
    )
    note += "numbers as “at least”."
    head = header("task", "to tell", "needs")
    return tag("section", tag("h2", "Seeds needed"), tag("p", note, class_="note"),
               table([head], [rows], "Seeds needed", class_="prose"))  # fmt: skip


def _methods(summary: dict[str, Any]) -> Html:
    paragraphs, references = methods(summary)
    said = [tag("p", paragraph) for paragraph in paragraphs]
    listed = tag("details", tag("summary", "References"), tag("ul", [tag("li", reference) for reference in references]))
    note = "For a paper; also in methods.md, and the tables in table.md and table.tex."
    return tag("section", tag("h2", "Methods"), tag("p", note, class_="note"), said, listed)


def _glossary(summary: dict[str, Any]) -> Html:
    terms = {
        "Score and interval": "The mean over the seeds that were run, on all test rows. The 95 % interval covers what "
        "these models would score on all groups of the kind that the test groups are of; how much seeds differ is told "
        "beside it. It is for one estimate and not corrected for their number: do not compare two strategies by "
        "whether their intervals overlap.",
        "Letters": "Two strategies that share a letter could not be told apart, after Holm’s correction over all "
        "pairs, which are a family of their own and more than the differences to references: a strategy may beat a "
        "reference and share its letter. That does not make them equal.",
        "Declared difference": "Whether fusion helps is one question: the fusion that was best on validation against "
        "the modality alone that was. It is tested first and alone, at 5 %. With folds, a validation row of one fold "
        "is a test row of another.",
        "Difference, Holm’s p": "The paired difference to a reference: same seeds, same resamples of the test groups. "
        "All but the declared one are tested only if that shows a difference, with Holm’s correction: the chance of "
        "any false claim among all of them stays at 5 %. Their intervals are corrected too, and so they are wider.",
        "Margin": "Up to which difference scores are called equal: that of the config, or a point, or a twentieth of "
        "the gain if that is more. Equal is said where the whole interval lies within.",
        "Class": "Additive strategies cannot model interactions of text and image, multiplicative ones mix two pooled "
        "vectors, and in token ones the tokens of both meet.",
        "EMAP gap": "What the score loses if the model is replaced by the additive model nearest to it: what "
        "interactions were good for. About 0 for additive strategies.",
        "Permutation": "What the score loses if one modality is dealt out to the test rows anew: what the model relies "
        "on. The losses of text and image do not add up.",
        "Shapley": "Divides the score above the class prior between text and image (φ). The interaction is negative "
        "where both say the same, positive where only both together say it.",
        "ECE, NLL": "Expected calibration error and negative log-likelihood; lower is better.",
        "Pareto front": "The strategies than which none is both better and cheaper.",
        "MACs": "Multiply-accumulates of the fusion for one example of mean length, without the encoders.",
        "Mined labels": "Labels that were read from the text itself: the text-only row then reads what made them.",
    }
    if summary["built_in"]:
        terms["Best from"] = "Bayes limits by exact enumeration of how the data were drawn; they are accuracies."
    entries = [(tag("dt", term), tag("dd", said)) for term, said in terms.items()]
    return tag("section", tag("h2", "How to read this"), tag("dl", entries, class_="glossary"))


def _provenance(summary: dict[str, Any]) -> Html:
    of = summary["provenance"]
    manifest = of["manifest"]
    matching = summary["matching"] + (f" of {summary['match_to']}" if summary["matching"] != "native" else " sizes")
    known = {
        "command": tag("code", shlex.join(of["command"])),
        "commit": of["commit"],
        "manifest": f"{manifest['name']}, version {manifest['version']}, sha256 {manifest['sha256']}",
        "seeds, folds, cells": f"{summary['seeds']}, {summary['folds']}, {of['cells']}",
        "matching": matching,
        "tuning trials": f"{summary['tuning_trials']} a strategy",
        "resamples": f"{summary['resamples']:,} of the test groups (B)",
        "encoders": "frozen" if summary["frozen"] else "trained with every cell",
        "time for features": f"{of['encoder_seconds']} s",
        "device, threads": f"{of['device']}, {of['threads']}",
        **({"precision": of["precision"]} if "precision" in of else {}),
        "platform": f"{of['platform']}, Python {of['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in of["versions"].items()),
    }
    config = yaml.safe_dump(of["config"], sort_keys=False)
    return tag("section", tag("h2", "Provenance"),
               facts({name: DASH if said is None else said for name, said in known.items()}),
               tag("details", tag("summary", "The whole config"), tag("pre", config)))  # fmt: skip
