"""What written reports say against what they should say: metrics of findings, by name, those of plug-ins among them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mmfuse.data.tables.manifest import Manifest
from mmfuse.evaluation.report_labels import rule_label_counts
from mmfuse.metrics.bootstrap import GroupBootstrap, interval
from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

REPORT_METRICS = Registry("report_metric")


class ReportMetric(Protocol):
    """A class registered as `NAME` serves `report_metrics: [NAME]` and, given what follows a colon, `NAME:FOLDER`.

    Attributes:
        key: What the score is called in a report.
    """

    key: str

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> NDArray[Any]:
        """Either `(N, 3)` hits, false alarms and misses of each row, scored as F1 of all rows together, or `(N,)`."""
        ...


@REPORT_METRICS.register("chest_rules")
class ChestRules:
    """F1 of 14 findings that written rules read (`report_labels`), uncertain ones counted as there.

    Reference: Irvin et al. 2019, arXiv:1901.07031, for the categories.
    Differs: the labels are our rules'; not comparable to an F1 of CheXpert's or CheXbert's.
    Prefer when: a difference must be traced to a phrase.
    """

    key = "rule_label_f1"

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> NDArray[Any]:
        """`(N, 3)`."""
        return rule_label_counts(candidates, references).sum(axis=1)


@REPORT_METRICS.register("chexbert")
class CheXbert:
    """F1 of 14 findings that CheXbert reads, uncertain ones counted as there. The user has its weights.

    Reference: Smit et al. 2020, "CheXbert", arXiv:2004.09167.
    Differs: weights are read from safetensors; the network and the order of its heads are the published ones.
    Prefer when: a score must compare with published ones.

    Args:
        folder: `config.json` and the tokenizer's files of the BERT it was trained from, and `model.safetensors` with
            the published weights (the docs on captioning tell how to make it).

    Raises:
        MmfuseError: The folder does not hold that.
    """

    key = "chexbert_f1"

    def __init__(self, folder: str):
        path = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise MmfuseError(f"report_metrics: chexbert:{folder}: there is no {name}")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        bert = AutoModel.from_config(
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False), trust_remote_code=False
        )
        # blank, positive, negative or uncertain for 13 findings; absent or present for No Finding
        heads = [nn.Linear(bert.config.hidden_size, classes) for classes in [4] * 13 + [2]]
        self.model = nn.ModuleDict({"bert": bert, "linear_heads": nn.ModuleList(heads)}).eval()
        weights = load_file(path / "model.safetensors")
        weights.pop("bert.embeddings.position_ids", None)  # not a weight; older versions saved it
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise MmfuseError(
                f"report_metrics: chexbert:{folder}: model.safetensors is not CheXbert's with this config.json"
            ) from error

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> NDArray[Any]:
        """`(N, 3)`."""
        written, true = self.labels(candidates), self.labels(references)
        return np.stack([written & true, written & ~true, ~written & true], axis=-1).sum(axis=1)

    @torch.inference_mode()
    def labels(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.bool_]:
        """`(N, 14)`: whether a finding is positive or uncertain, in the published order; No Finding is the last."""
        found = []
        for start in range(0, len(texts), batch_size):
            words = [" ".join(text.split()) for text in texts[start : start + batch_size]]
            given = self.tokenizer(words, padding=True, truncation=True, max_length=512, return_tensors="pt")
            first = self.model["bert"](**given).last_hidden_state[:, 0]
            classes = torch.stack([head(first).argmax(1) for head in self.model["linear_heads"]], dim=1)  # type: ignore[union-attr]
            found.append(((classes == 1) | (classes == 3)).numpy())
        return np.concatenate(found) if found else np.zeros((0, 14), dtype=bool)


@lru_cache(maxsize=4)
def build_report_metric(name: str) -> ReportMetric:
    """The metric that a manifest calls `NAME` or `NAME:FOLDER`; built once.

    Raises:
        MmfuseError: There is no such metric, or its folder is missing or not legal.
    """
    kind, _, folder = name.partition(":")
    cls = REPORT_METRICS.get(kind)
    try:
        return cls(folder) if folder else cls()
    except TypeError as error:
        wanted = f"{kind}:FOLDER" if not folder else kind
        raise MmfuseError(f"report_metrics: {name!r}: write {wanted}") from error


def check_report_metrics(manifest: Manifest) -> None:
    """Build what a manifest names, so that a mistake is told before anything is trained.

    Raises:
        MmfuseError: As `build_report_metric`.
    """
    for task in manifest.tasks.values():
        for name in task.report_metrics:
            build_report_metric(name)


def score_reports(
    name: str, candidates: Sequence[str], references: Sequence[str], groups: Sequence[str], resamples: int
) -> dict[str, dict[str, float | None]]:
    """A report metric with its bootstrap interval over groups.

    Args:
        name: As in the manifest.
        candidates: N reports.
        references: N reports, in the same order.
        groups: N; rows of one group are drawn together.
        resamples: 0 for no interval.

    Returns:
        `{key: {"value", "low", "high"}}`; None where it is undefined.
    """
    metric = build_report_metric(name)
    found = np.asarray(metric(candidates, references), dtype=float)
    parts = np.stack([found, np.ones_like(found)], axis=1) if found.ndim == 1 else found
    reduce = _mean if found.ndim == 1 else _f1
    bootstrap = GroupBootstrap(groups, resamples)
    by_group = np.stack([np.bincount(bootstrap.row_group, column) for column in parts.T], axis=1)
    low, high = float("nan"), float("nan")
    if bootstrap.resamples:
        low, high = interval(reduce(bootstrap.multiplicities(0, bootstrap.resamples) @ by_group))
    score = {"value": float(reduce(parts.sum(axis=0))), "low": low, "high": high}
    return {metric.key: {k: None if np.isnan(v) else v for k, v in score.items()}}


def _mean(sums: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _f1(counts: NDArray[Any]) -> NDArray[Any]:
    hits, false_alarms, misses = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / (2 * hits + false_alarms + misses))
