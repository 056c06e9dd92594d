"""BitFit: only a tower's biases are trained."""

from __future__ import annotations

from torch import nn

from mmfuse.encoders.adapters import ADAPTERS, Adapter
from mmfuse.types import MmfuseError


@ADAPTERS.register("bit_fit")
class BitFit(Adapter):
    """Only the biases of a tower are trained, those of its norms too; some thousandths of its weights.

    Reference: Ben Zaken, Goldberg and Ravfogel 2022, "BitFit", ACL (arXiv 2106.10199).
    Differs: all towers, not BERT alone; the heads are trained as always, and so is the fusion.
    Prefer when: rows are few, or many models are kept of one encoder; with many rows, training all of it gives more.
    """

    def apply(self, tower: nn.Module) -> None:
        """Release the biases."""
        biases = [parameter for name, parameter in tower.named_parameters() if name.rpartition(".")[2] == "bias"]
        if not biases:
            raise MmfuseError("bit_fit: this tower has no biases")
        for bias in biases:
            bias.requires_grad_(True)

    def merge(self, tower: nn.Module) -> None:
        """Nothing: the biases are the tower's own."""
