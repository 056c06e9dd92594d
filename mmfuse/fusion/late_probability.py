from __future__ import annotations

import math

import torch
from torch import Tensor

from mmfuse.fusion import FUSIONS
from mmfuse.fusion.late import LateFusion
from mmfuse.types import Features


@FUSIONS.register("late_probability")
class LateProbabilityFusion(LateFusion):
    """Decide by each modality alone and take the mean of the probabilities.

    `p = (softmax(z_t) + softmax(z_v)) / 2` with a branch per modality; additive in the probabilities, not in the
    logits.

    Reference: the mean rule, Kittler et al. 1998, doi 10.1109/34.667881.
    Differs: the branches are trained together, on the mean's likelihood, and share the head's weights.
    Prefer when: one modality may be badly wrong: a mean is not carried away by one sure branch, as a product is.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_layers: Of each branch; 0 or more.
        dropout: Probability, before each hidden layer's linear map.
    """

    additive_in = "probabilities"

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, hidden_layers: int = 1, dropout: float = 0.1
    ):
        super().__init__(text_dim, image_dim, out_dim, hidden_layers=hidden_layers, dropout=dropout)

    def branches(self, text: Features, image: Features) -> list[Features]:
        """The text's branch and the image's."""
        return [self.text.branch(text), self.image.branch(image)]

    def combine(self, branch_logits: list[Tensor]) -> Tensor:
        """The logarithm of the branches' mean probability, over the last axis."""
        log_probabilities = torch.stack([logits.log_softmax(-1) for logits in branch_logits])
        return log_probabilities.logsumexp(0) - math.log(len(branch_logits))
