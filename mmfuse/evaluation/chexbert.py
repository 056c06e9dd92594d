"""CheXbert, which reads findings from chest film reports: `report_metrics: ["chexbert:FOLDER"]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mmfuse.types import MmfuseError


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
