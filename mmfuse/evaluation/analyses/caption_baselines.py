"""What written captions must be better than: two baselines that know no decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.evaluation.analyses import ANALYSES, Analysis, Scored
from mmfuse.evaluation.markdown import score_cells
from mmfuse.metrics.captions import compare_captioning, consensus_caption, retrieve_captions, score_captioning
from mmfuse.model import FusionModel
from mmfuse.predict import table_features

COMPARED = ("bleu4", "rouge_l", "cider_d", "chrf")
_CHUNK = 512


@ANALYSES.register("caption_baselines")
class CaptionBaselines(Analysis):
    """Captions against the training captions' consensus, and those of the nearest training row.

    `consensus` writes the one caption of the training split that agrees best with all of them (mean CIDEr-D);
    `retrieval` that of the training row whose encoders' pooled features are nearest. Of each come its metrics, and the
    difference of the model's to them, with its interval over the same resampled groups. It applies to captioning tasks
    where the table has a training row with a caption.

    Reference: Devlin et al. 2015, arXiv:1505.04467 (captions of nearest neighbours).
    Differs: one neighbour, by the features of both encoders; the consensus is of all training captions.
    Prefer when: captions are scored: a decoder that ignores its input comes close to `consensus`.
    """

    by_itself = True
    beside = "baselines"

    def __call__(self, scored: Scored) -> dict[str, Any] | None:
        """By task and baseline, `metrics` and `difference`."""
        found = {}
        table, rows = scored.table, scored.rows
        for task in scored.model.captioning:
            references, language = table.targets[task], table.manifest.tasks[task].language
            train = [i for i, split in enumerate(table.splits) if split == "train" and references[i]]
            if task not in scored.scores or not train:
                continue
            head: Any = scored.model.heads[task]
            candidates, right = [head.text(row) for row in scored.said[task]], list(references[list(rows)])
            train_references = [references[i] for i in train]
            here, there = (_pooled(scored.model, scored.pairs, part, scored.batch_size) for part in (rows, train))
            options: Any = (scored.groups, scored.resamples, 0, language)
            written = {
                "consensus": [consensus_caption(train_references, language)] * len(rows),
                "retrieval": retrieve_captions(here, there, train_references, language),
            }
            found[task] = {
                name: {
                    "metrics": score_captioning(captions, right, *options)["metrics"],
                    "difference": compare_captioning(candidates, captions, right, *options),
                }
                for name, captions in written.items()
            }
        return found or None

    def lines(self, found: dict[str, Any]) -> list[str]:
        """A task's baselines: their value, and how much better the model is."""
        lines = []
        for name, of in (pair for task in found.values() for pair in task.items()):
            lines += ["", f"| against {name} | its value | model - {name} | 95 % interval |", "|---|---|---|---|"]
            for metric in (name for name in COMPARED if name in of["metrics"]):  # reports of before have no chrF
                value = of["metrics"][metric]["value"]
                lines.append(f"| {metric} | {value:.3f} | {score_cells(of['difference'][metric])} |")
        return lines


def _pooled(model: FusionModel, pairs: PairDataset, rows: Sequence[int], batch_size: int) -> np.ndarray:
    """`(rows, D)`: the encoders' pooled features, each modality of length 1."""
    found = []
    for start in range(0, len(rows), _CHUNK):  # the features of a chunk have tokens too
        chunk = table_features(model, pairs, rows[start : start + _CHUNK], batch_size=batch_size)
        pooled = [f.pooled for f in chunk if f is not None]
        found.append(
            np.concatenate([(p / p.norm(dim=1, keepdim=True).clamp_min(1e-9)).numpy() for p in pooled], axis=1)
        )
    return np.concatenate(found)
