"""What a run's page says first: how good the model is, and against what."""

from __future__ import annotations

from typing import Any

from mmfuse.evaluation.run_page.folder import Scores
from mmfuse.pages.markup import amount, in_words, known, points, score, signed

ALONE = {"text": "the text alone", "image": "the image alone"}
Measured = dict[str, Any]
"""A task's part of what `measure_run` found; empty where nothing was measured."""


def baseline(name: str, kind: Any) -> str:
    """A baseline's name in tables."""
    if name == "model":
        return "this model"
    if name == "prior":
        if kind.has_labels:
            return "most frequent class" if kind.exclusive else "each label as often as in training"
        return "always the training mean"
    return f"{name} alone (probe)"


def verdict(task: Scores, measured: Measured, split: str) -> tuple[str, str]:
    """The first sentence, and those behind it."""
    kind = task.kind
    if kind.is_text:
        lead, rest = _captions(task, split)
    elif kind.has_labels and kind.exclusive:
        lead, rest = _classes(task, measured, split), [_against(task, measured)]
    elif kind.has_labels:
        lead, rest = _labels(task, split), [_against(task, measured)]
    else:
        lead, rest = _number(task, measured, split), [_against(task, measured)]
    if task.origin == "mined_from_text":
        rest.append("The labels were mined from the text: a model that reads that text proves little by them.")
    return lead, " ".join(part for part in rest if part)


def _rows(task: Scores, split: str) -> str:
    return f"{task.scores['n']:,} {split} rows"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if 0.1 < value < 0.9 else f"{100 * value:.1f} %"


def _reach(of: dict[str, Any]) -> str:
    if not known(of["low"]):
        return ""
    return f" (95 % interval {_percent(of['low'])} to {_percent(of['high'])})"


def _classes(task: Scores, measured: Measured, split: str) -> str:
    of = task.scores["metrics"]["accuracy"]
    prior = measured.get("scores", {}).get("prior")
    than = f"; always saying the most frequent class is right for {_percent(prior['value'])}" if prior else ""
    return f"Right for {_percent(of['value'])} of {_rows(task, split)}{_reach(of)}{than}."


def _labels(task: Scores, split: str) -> str:
    of = task.scores["metrics"]["auroc_macro"]
    if of["value"] is None:
        return "Whether it tells rows with a label from others cannot be said: no label has both here."
    over = task.scores.get("macro_over", {}).get("auroc_macro", len(task.kind.labels))
    return (
        f"Of a row with a label and one without, it gives the right one the higher probability in "
        f"{_percent(of['value'])} of cases{_reach(of)}; chance is 50 % "
        f"(mean AUROC of {over} labels, {_rows(task, split)})."
    )


def _number(task: Scores, measured: Measured, split: str) -> str:
    metrics = task.scores["metrics"]
    first = measured.get("metric") or next(iter(metrics))
    of = metrics[first]
    if of["value"] is None:
        return f"How good it is cannot be said: {in_words(first)} is undefined on {_rows(task, split)}."
    if first.startswith("r2"):
        spread = "the logarithm of " if first == "r2_log" else ""
        parts = f"Explains {_percent(of['value'])} of how much {spread}{task.name} differs between {_rows(task, split)}"
        parts += f"{_reach(of)}; always saying the training mean explains none"
        unit = f" {task.kind.unit}" if task.kind.unit else ""
        mae = metrics.get("mae", {}).get("value")
        return parts + (f". On average it is off by {mae:.3g}{unit}." if mae is not None else ".")
    return f"{in_words(first)} is {of['value']:.4g} on {_rows(task, split)}."


def _captions(task: Scores, split: str) -> tuple[str, list[str]]:
    metrics, rivals = task.scores["metrics"], task.scores.get("baselines", {})
    first = "rouge_l" if "rouge_l" in metrics else next(iter(metrics))
    of = metrics[first]
    ends = f" [{score(of['low'])}, {score(of['high'])}]" if known(of["low"]) else ""
    lead = f"Its captions score {in_words(first)} {score(of['value'])}{ends} on {_rows(task, split)}"
    told = {"consensus": "one caption for all rows", "retrieval": "the caption of the nearest training row"}
    against = [f"{told[n]} {score(r['metrics'][first]['value'])}" for n, r in rivals.items()
               if n in told and first in r["metrics"]]  # fmt: skip
    lead += f"; {', '.join(against)}." if against else "."
    rest = []
    for name, rival in rivals.items():
        gap = rival.get("difference", {}).get(first)
        if gap and name in told:
            shown = "is better" if known(gap["low"]) and gap["low"] > 0 else "is not shown to be better"
            rest.append(f"It {shown} than {told[name]}: {_gap(gap, False)}.")
    return lead, rest


def _against(task: Scores, measured: Measured) -> str:
    """The difference to the better modality alone, as its interval allows to say it."""
    alone = {m: measured["scores"][m]["value"] for m in ALONE if m in measured.get("scores", {})}
    alone = {m: value for m, value in alone.items() if value is not None}
    if not alone:
        return ""
    less = measured["metric"] in task.kind.lower_is_better
    best = min(alone, key=lambda m: alone[m] if less else -alone[m])
    others = ", ".join(f"{ALONE[m]} reaches {score(value)}" for m, value in alone.items())
    gap = measured["against"][best]
    unit = measured["metric"] in task.kind.units
    if not known(gap["low"]):
        said = f"it differs from {ALONE[best]} by {_gap(gap, unit)}"
    elif gap["low"] > 0:
        said = f"it beats {ALONE[best]} by {_gap(gap, unit)}"
    elif gap["high"] < 0:
        said = f"{ALONE[best]} beats it: {_gap(gap, unit)}"
    else:
        said = f"that it beats {ALONE[best]} is not shown: {_gap(gap, unit)}"
    name = in_words(measured["metric"])
    return f"By linear probes on the encoders' features {others} ({name}); {said}."


def _gap(of: dict[str, Any], unit: bool) -> str:
    write = signed if unit else points
    ends = f" [{write(of['low'])}, {write(of['high'])}]" if known(of["low"]) else ""
    return f"{write(of['value'])}{ends}{'' if unit else ' points'}".replace("-", "−")


def seconds(value: float | None) -> str:
    """A time in words, such as 12.3 s, 4 min 10 s or 2 h 5 min."""
    if value is None or not known(value):
        return "not known"
    if value < 60:
        return f"{amount(value, 1)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
