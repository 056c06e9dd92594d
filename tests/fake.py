"""Summaries of benchmarks that never ran, in the shape that `analyse` and `run.py` give them; from a seed."""

from __future__ import annotations

import json
import math
from string import ascii_letters
from typing import Any

import numpy as np
from scipy import stats

from mmfuse.benchmarking.plan import UNIMODAL
from mmfuse.benchmarking.verdict import FEWEST_POSITIVES, verdict

ROWS = {  # row: class, modalities, parameters, MACs
    "text_only": ("additive", ("text",), 66560, 3211264),
    "image_only": ("additive", ("image",), 183040, 8208384),
    "bottleneck": ("token", ("text", "image"), 1044352, 63715840),
    "concat": ("multiplicative", ("text", "image"), 265984, 11436032),
    "cross_attention": ("token", ("text", "image"), 646784, 35693568),
    "factorized_bilinear": ("multiplicative", ("text", "image"), 1069568, 56934400),
    "film": ("multiplicative", ("text", "image"), 265856, 14581760),
    "gated": ("multiplicative", ("text", "image"), 249472, 11419648),
    "gated_cross_attention": ("token", ("text", "image"), 630404, 37643264),
    "late": ("additive", ("text", "image"), 249600, 11419648),
    "late_probability": ("additive", ("text", "image"), 249600, 11419648),
    "low_rank_bilinear": ("multiplicative", ("text", "image"), 462720, 26509312),
    "low_rank_tensor": ("multiplicative", ("text", "image"), 856452, 45547520),
    "merged_attention": ("token", ("text", "image"), 448256, 37415168),
    "mixture_of_experts": ("multiplicative", ("text", "image"), 250114, 11633152),
    "mutan": ("multiplicative", ("text", "image"), 381696, 20807680),
    "perceiver": ("token", ("text", "image"), 632448, 26304512),
    "squeeze_excite": ("multiplicative", ("text", "image"), 315392, 11485184),
    "sum": ("additive", ("text", "image"), 216576, 11386880),
    "tensor": ("multiplicative", ("text", "image"), 212672, 3479808),
    "weighted_concat": ("additive", ("text", "image"), 249474, 11419648),
    "concat_linear": ("additive", ("text", "image"), 249472, 11419648),
    "cross_attention_text": ("token", ("text", "image"), 431872, 24523264),
    "cross_attention_image": ("token", ("text", "image"), 431872, 22557184),
}
BAYES = {
    "redundant": {"text": 0.715625, "image": 0.715625, "both": 0.8359375},
    "unique_text": {"text": 0.9125, "image": 0.125, "both": 0.9125},
    "unique_image": {"text": 0.125, "image": 0.825, "both": 0.825},
    "modular_sum": {"text": 0.125, "image": 0.125, "both": 0.755},
    "match": {"text": 0.5, "image": 0.5, "both": 0.86},
    "binding": {"text": 0.125, "image": 0.3546875, "both": 0.825},
}
FINDINGS = ("opacity", "effusion", "pneumothorax", "nodule", "large heart", "fracture", "device", "no finding")
KINDS = ("matte", "glossy", "satin")


def fake_summary(seed: int = 0, *, diagnostics: bool = True, emap: bool = True, seeds: int = 3, folds: int = 1) -> dict:
    """Two tasks of a medical set with 24 strategies: one with several labels where fusion helps, one where it hurts."""
    rng = np.random.default_rng(seed)
    options = {"diagnostics": diagnostics, "emap": emap, "seeds": seeds}
    findings = _task(rng, "auroc_macro", FINDINGS, (0.781, 0.842, 0.868, 0.874, 0.876), spread=0.003, **options)
    findings["positives"] |= {"fracture": 7}
    kind = _task(rng, "f1_macro", KINDS, (0.716, 0.614, 0.700, 0.705, 0.690), spread=0.012, **options)
    return _summary("chest", {"findings": findings, "kind": kind}, seeds=seeds, folds=folds)


def fake_built_in(seed: int = 0) -> dict:
    """The six tasks of the built-in set, with their Bayes limits."""
    rng = np.random.default_rng(seed)
    tasks = {}
    for name, bayes in BAYES.items():
        text, image, both = (bayes[m] - 0.01 for m in ("text", "image", "both"))
        additive = both if name in ("redundant", "unique_text", "unique_image") else max(text, image) + 0.004
        tokens = both if name == "binding" else both - 0.01
        pooled = max(text, image) + 0.05 if name == "binding" else both
        labels = [f"{name} {i}" for i in range(2 if name == "match" else 8)]
        tasks[name] = _task(rng, "accuracy", labels, (text, image, additive, pooled, tokens), bayes=bayes)
    summary = _summary("interactions", tasks)
    return summary | {"built_in": True}


def mine(summary: dict[str, Any], task: str) -> dict[str, Any]:
    """The same with the labels of a task mined from the text."""
    summary["tasks"][task]["label_origin"] = "mined_from_text"
    return finish(summary)


def finish(summary: dict[str, Any]) -> dict[str, Any]:
    """What follows from the rest of each task: rare labels and the verdict; and no NaN survives as a number."""
    for task in summary["tasks"].values():
        task["rare_labels"] = [name for name, count in task["positives"].items() if count < FEWEST_POSITIVES]
        task["verdict"] = verdict(task)
    return json.loads(json.dumps(summary))


def _summary(name: str, tasks: dict[str, Any], seeds: int = 3, folds: int = 1) -> dict[str, Any]:
    rows = {
        label: {
            "label": label,
            "fusion": {"name": label, "out_dim": 128},
            "interaction": kind,
            "uses": list(uses),
            "parameters": parameters,
            "macs": macs,
            "matched": "native",
        }
        for label, (kind, uses, parameters, macs) in ROWS.items()
    }
    provenance = {
        "command": ["mmfuse", "benchmark", f"configs/{name}.yaml", "seeds=3"],
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "manifest": {"name": name, "version": 1, "sha256": "ab" * 32},
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "device": "cpu",
        "threads": 2,
        "versions": {"mmfuse": "0.1.0", "torch": "2.14.1", "numpy": "2.3.0"},
        "cells": len(rows) * seeds * folds,
        "encoder_seconds": 84.2,
        "leaks": [],
        "config": {"name": "chest", "width": 64},
    }
    return finish(
        {
            "tasks": tasks,
            "rows": rows,
            "failed": [],
            "seeds": seeds,
            "folds": folds,
            "frozen": True,
            "built_in": False,
            "matching": "native",
            "match_to": "concat",
            "tuning_trials": 0,
            "resamples": 10000,
            "name": name,
            "provenance": provenance,
        }
    )


def _task(
    rng: np.random.Generator,
    metric: str,
    labels: Any,
    levels: tuple[float, float, float, float, float],
    *,
    spread: float = 0.004,
    diagnostics: bool = True,
    emap: bool = True,
    seeds: int = 3,
    bayes: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Levels are those of text_only, image_only, and the additive, multiplicative and token strategies."""
    kinds = ("text_only", "image_only", "additive", "multiplicative", "token")
    level: dict[Any, float] = dict(zip(kinds, levels, strict=True))
    truth = {row: level.get(row, level[ROWS[row][0]]) + spread * rng.normal() for row in ROWS}
    truth |= {"text_only": level["text_only"], "image_only": level["image_only"]}
    error, sd = 0.6 * spread, 0.5 * spread
    order = sorted(truth, key=lambda row: -truth[row])
    reference = max(("text_only", "image_only"), key=lambda row: truth[row])
    validation = {row: truth[row] + 0.003 * rng.normal() for row in order}
    declared = max((row for row in order if row not in UNIMODAL), key=lambda row: validation[row])
    references = {"best_unimodal": reference, "late": "late", "concat": "concat", "declared": declared}
    chosen = list(dict.fromkeys(references.values()))
    pairs = [(s, r) for i, r in enumerate(chosen) for s in order if s != r and s not in chosen[:i]]
    raw = np.array([2 * stats.norm.sf(abs(truth[s] - truth[r]) / error) for s, r in pairs])
    contrasts: dict[str, dict[str, Any]] = {row: {} for row in order}
    first = pairs.index((declared, reference))
    corrected = np.insert(_holm(np.delete(raw, first)), first, raw[first])
    for i, (s, r) in enumerate(pairs):
        gap, covers = truth[s] - truth[r], 0.95 if i == first else 1 - 0.05 / (len(pairs) - 1)
        half = float(stats.norm.isf((1 - covers) / 2)) * error
        contrasts[s][r] = {
            "difference": gap,
            "low": gap - half,
            "high": gap + half,
            "p": raw[i],
            "p_holm": corrected[i],
            "level": covers,
            "declared": i == first,
            "tested": i == first or bool(raw[first] <= 0.05),
        }
    groups = _groups([truth[row] for row in order], 3.4 * error)
    letters = ["".join(ascii_letters[i] for i, group in enumerate(groups) if place in group) for place in range(24)]
    strategies = [
        _strategy(rng, row, place, letters[place], truth, metric, labels, contrasts[row], validation, error, sd, seeds)
        for place, row in enumerate(order)
    ]
    prior = bayes["text"] * 0 + 1 / len(labels) if bayes else 0.5
    if diagnostics:
        for strategy in strategies:
            strategy |= _diagnostics(rng, strategy["row"], truth, level, metric, prior, emap)
    return {
        "metric": metric,
        "rows": 1840,
        "groups": 612,
        "labels": list(labels),
        "positives": {name: int(rng.integers(20, 700)) for name in labels},
        "rare_labels": [],
        "label_origin": "synthetic" if bayes else "human",
        "references": references,
        "margin": None,
        "strategies": strategies,
        "indistinguishable": [[order[i] for i in group] for group in groups],
        "seeds_needed": [
            {"strategy": declared, "reference": reference, "seeds": 6, "reason": ""},
            {"strategy": declared, "reference": "concat", "seeds": None, "reason": "no difference was observed"},
        ],
        "undefined_resamples": 0,
        "bayes": bayes,
    }


def _strategy(
    rng: np.random.Generator,
    row: str,
    place: int,
    letters: str,
    truth: dict[str, float],
    metric: str,
    labels: Any,
    contrasts: dict[str, Any],
    validation: dict[str, float],
    error: float,
    sd: float,
    seeds: int,
) -> dict[str, Any]:
    kind, uses, parameters, macs = ROWS[row]
    mean, width = truth[row], error * (1.6 + 0.8 * rng.random())
    ece = 0.02 + 0.01 * rng.random()
    return {
        "row": row,
        "rank": place + 1,
        "letters": letters,
        "score": {
            "mean": mean,
            "low": mean - width,
            "high": mean + width,
            "standard_error": width / 2,
            "seed_sd": math.nan if seeds == 1 else sd * (0.4 + rng.random()),
            "test_variance": error**2 / 2,
            "seeds": seeds,
            "resamples": 10000,
            "undefined_resamples": 0,
            "without_seed_variance": seeds == 1,
        },
        "validation": validation[row],
        "interaction": kind,
        "uses": list(uses),
        "parameters": parameters,
        "macs": macs,
        "matched": "native",
        "contrasts": contrasts,
        "seconds": 12 + macs / 4e5 * (0.9 + 0.2 * rng.random()),
        "samples_per_s": 6e10 / (macs + 4e6) * (0.9 + 0.2 * rng.random()),
        "peak_mib": 900 + macs / 1e5,
        "steps": 820.0,
        "metrics": {"accuracy": mean - 0.02, metric: mean, "ece": ece, "nll": 0.61 - 0.2 * mean, "brier": 0.11},
        "uncalibrated": {"ece": ece + 0.03 * rng.random(), "nll": 0.68 - 0.2 * mean},
        "per_label": {
            name: {k: float(np.clip(mean + 0.05 * rng.normal(), 0, 1)) for k in ("auroc", "average_precision", "f1")}
            for name in labels
        },
        "worse_without": [],
    }


def _diagnostics(
    rng: np.random.Generator,
    row: str,
    truth: dict[str, float],
    level: dict[str, float],
    metric: str,
    prior: float,
    emap: bool,
) -> dict[str, Any]:
    """Permutation scores, Shapley values, missing curves and EMAP, as `_of_task` merges them."""
    uses, both = ROWS[row][1], truth[row]
    alone = {m: (level[f"{m}_only"] - 0.02 * rng.random() if m in uses else prior) for m in ("text", "image")}
    alone = {m: both if uses == (m,) else value for m, value in alone.items()}
    metrics = dict.fromkeys(("accuracy", metric))
    shares = [i / 10 for i in range(11)]

    def each(value: Any) -> dict[str, Any]:
        return dict.fromkeys(metrics, value)

    def drop(modality: str) -> dict[str, Any]:
        other = alone["image" if modality == "text" else "text"]
        lost = (both - other) * 1.1 if modality in uses else 0.0
        return {"values": [both - lost] * 5, "drop": lost, "drop_of_score": lost / both, "drop_of_range": lost}

    def curve(gone: str) -> dict[str, Any]:
        left = alone["image" if gone == "text" else "text"] if gone in uses else both
        values = [both + (left - both) * share for share in shares]
        return {"values": values, "mean": float(np.mean(values))}

    found = {
        "permutation": {
            "rows": 1840,
            "permutations": 5,
            "n": 1840,
            "score": each(both),
            "prior": each(prior),
            "text": each(drop("text")),
            "image": each(drop("image")),
        },
        "shapley": {
            "rows": 1790,
            "left_out": 50,
            "untrained": [],
            "n": 1790,
            **each(
                {
                    "none": prior,
                    **alone,
                    "both": both,
                    "phi_text": (alone["text"] - prior + both - alone["image"]) / 2,
                    "phi_image": (alone["image"] - prior + both - alone["text"]) / 2,
                    "interaction": both - alone["text"] - alone["image"] + prior,
                }
            ),
        },
        "missing": {
            "rows": 1840,
            "shares": shares,
            "lacking": {"text": shares, "image": shares},
            "empty": {"text": [0.0] * 11, "image": [0.0] * 11},
            "untrained": [],
            "n": 1840,
            "text": each(curve("text")),
            "image": each(curve("image")),
        },
    }
    if emap:
        gap = 0.0 if ROWS[row][0] == "additive" else max(both - level["additive"], 0) + 0.002 * rng.random()
        found["emap"] = {
            "rows": 200,
            "space": "logits",
            "n": 200,
            "model": each(both),
            "projection": each(both - gap),
            "gap": each(gap),
        }
    if row == "mutan":
        found["worse_without"] = ["text"]
    return found


def _groups(values: list[float], apart: float) -> list[list[int]]:
    """The maximal runs of values, best first, whose ends are not further apart."""
    runs = []
    for start in range(len(values)):
        run = [i for i in range(start, len(values)) if values[start] - values[i] <= apart]
        if not runs or run[-1] > runs[-1][-1]:
            runs.append(run)
    return runs


def _holm(p: np.ndarray) -> np.ndarray:
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected
