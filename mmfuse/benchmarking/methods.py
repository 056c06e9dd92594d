"""The methods paragraph of a paper: what was compared and how it was tested, from the summary alone."""

from __future__ import annotations

import inspect
import re
from typing import Any

from mmfuse.benchmarking.judge import POINT, SHARE
from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION
from mmfuse.benchmarking.verdict import ALPHA, listed
from mmfuse.evaluation.markdown import plain

STATISTICS = (
    "Banerjee 1960, Approximate confidence interval for linear functions of means of k populations when the population "
    "variances are not equal, Sankhya 22.",
    "Field and Welsh 2007, Bootstrapping clustered data, JRSS B 69.",
    "Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6.",
    "Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts "
    "estimated from survey data, Survey Methodology 24.",
    "Maurer, Hothorn and Lehmacher 1995, Multiple comparisons in drug clinical trials and preclinical assays: a-priori "
    "ordered hypotheses, in Biometrie in der chemisch-pharmazeutischen Industrie 6.",
    "Obuchowski and Rockette 1995, Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests, "
    "Communications in Statistics B 24.",
    "Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons, J. Comput. Graph. Stat. "
    "13.",
    "Smyth 2004, Linear models and empirical Bayes methods for assessing differential expression in microarray "
    "experiments, Stat. Appl. Genet. Mol. Biol. 3.",
)


def reference_of(strategy: Any) -> str:
    """What a strategy's docstring names as its reference, on one line; "" where it names none."""
    found = re.search(
        r"^Reference: (.+?)(?=^\w+( \w+)?:|^$|\Z)", inspect.getdoc(strategy) or "", re.MULTILINE | re.DOTALL
    )
    return " ".join(found[1].split()) if found else ""


def methods(summary: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The paragraphs, and the references as a list of lines."""
    strategies = [f"{label}: {row['reference']}" for label, row in summary["rows"].items() if row.get("reference")]
    return [_compared(summary), _trained(summary), *_tested(summary)], [*strategies, *STATISTICS]


def methods_text(summary: dict[str, Any]) -> str:
    """`methods.md`."""
    paragraphs, references = methods(summary)
    lines = ["# Methods", *(part for paragraph in paragraphs for part in ("", plain(paragraph)))]
    return "\n".join([*lines, "", "## References", "", *(f"- {plain(reference)}" for reference in references), ""])


def _compared(summary: dict[str, Any]) -> str:
    rows, config = summary["rows"], summary["provenance"]["config"]
    fusions = [label for label in rows if label not in NO_FUSION]
    said = f"On {summary['provenance']['manifest']['name']}, {len(fusions)} fusion strategies were compared"
    said += f" ({', '.join(fusions)}) with the text alone and the image alone"
    if COVARIATES in rows:
        said += f", and with the covariates alone ({', '.join(rows[COVARIATES]['uses'])}; a linear model)"
    towers = [(config.get(f"{m}_encoder") or {}).get("name") for m in ("text", "image")]
    if all(towers):
        said += f". All read the same encoders, {towers[0]} and {towers[1]}, "
        said += "which were frozen" if summary["frozen"] else "which were trained with them"
    if summary["matching"] == "native":
        said += "; each strategy has its own size"
    else:
        said += f"; sizes were matched by {summary['matching']} to {summary['match_to']}"
        unmatched = [label for label in fusions if rows[label]["matched"] not in ("native", "matched")]
        said += f", but for {', '.join(unmatched)}" if unmatched else ""
    failed = [f["row"] for f in summary["failed"]]
    return f"{said}." + (f" {listed(failed, len(failed))} failed and were left out." if failed else "")


def _trained(summary: dict[str, Any]) -> str:
    training = summary["provenance"]["config"].get("training", {})
    seeds, folds = summary["seeds"], summary["folds"]
    said = f"Each strategy was trained with {seeds} seed{'' if seeds == 1 else 's'}"
    said += f" on each of {folds} folds" if folds > 1 else ""
    told = {
        "epochs": "at most {} epochs",
        "batch_size": "batches of {}",
        "learning_rate": "a learning rate of {:g}",
        "weight_decay": "weight decay of {:g}",
        "mixed_precision": "mixed precision ({})",
    }
    options = [phrase.format(training[name]) for name, phrase in told.items() if training.get(name) is not None]
    said += f", with {listed(options)}" if options else ""
    if summary["tuning_trials"]:
        said += f"; learning rate and weight decay were chosen on validation rows, of {summary['tuning_trials']} trials"
    return f"{said}. The epoch that was kept, temperatures and thresholds were chosen on validation rows."


def _tested(summary: dict[str, Any]) -> list[str]:
    margin = next((task.get("margin") for task in summary["tasks"].values()), None)
    within = f"{100 * POINT:g} point (of a metric with a unit, {POINT:.0%} of the score of the modality alone), or "
    within += f"{SHARE:.0%} of the gain if that is more"
    scores = (
        "A score is the mean over seeds; its 95 % interval is for the seeds that were run and for other test groups: "
        "by the jackknife over groups, of a metric in a finite range that of Clopper and Pearson for an effective "
        "number of answers (Korn and Graubard 1998), of others on a logarithmic scale, or about the score."
    )
    said = (
        "A difference of two strategies is its mean over seeds, on the same test rows. Its variance has a part from "
        f"seeds and one from test groups (Obuchowski and Rockette 1995), by {summary['resamples']:,} bootstrap "
        "resamples of groups (Field and Welsh 2007); each part takes the quantile of its own degrees of freedom "
        "(Banerjee 1960), and strategies lend each other seed variance (Smyth 2004), but to the declared contrast. "
        f"That one was declared without any test score, and is tested alone at {ALPHA:.0%} (two-sided): the fusion "
        "against the modality alone, both the best on validation rows. Only if it is rejected are the others tested, "
        f"with Holm's (1979) correction, so that the chance of any false rejection is at most {ALPHA:.0%} (Maurer et "
        "al. 1995). Their intervals are corrected with them. Letters (Piepho 2004) are of all pairs, a family of their "
        "own. Two scores "
        "are called equal where the interval of their difference lies within "
        f"{within if margin is None else format(margin, 'g')}."
    )
    return [scores, said, *(_task(name, task) for name, task in summary["tasks"].items())]


def _task(name: str, task: dict[str, Any]) -> str:
    contrasts = [found for s in task["strategies"] for found in s["contrasts"].values()]
    first = next((f for f in contrasts if f["declared"]), None)
    said = f"{name}: {task['metric']} of {task['rows']:,} test rows in {task['groups']:,} groups; "
    if first is None:
        return said + f"{len(contrasts)} contrasts, none of which was declared, as there are no validation scores."
    others = len(contrasts) - 1
    gate = "tested" if all(f["tested"] for f in contrasts) else "not tested, as the declared one was not rejected"
    said += f"declared was {task['references']['declared']} against {task['references']['best_unimodal']}; "
    return said + (f"the other {others} contrasts were {gate}." if others else "there are no other contrasts.")
