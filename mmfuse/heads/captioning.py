from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.config import GenerationConfig, parse
from mmfuse.heads import HEADS, Head
from mmfuse.heads.decoder import CaptionDecoder
from mmfuse.tasks import TaskKind
from mmfuse.types import MISSING_CLASS, Features, MmfuseError


@HEADS.register("captioning")
class CaptioningHead(Head):
    """Write a text from the fused tokens, word by word.

    The decoder's memory is the fused `pooled` vector and, behind it, the fused tokens, normalised and mapped to the
    decoder's width: `p(w_u | w_<u, W LN[pooled; tokens])`. It learns by teacher forcing: cross-entropy of each word
    given the right words before it.

    Reference: Xu et al. 2015, "Show, Attend and Tell", arXiv 1502.03044, with a transformer decoder (Vaswani et al.
        2017, arXiv 1706.03762); two-pass scheduled sampling: Mihaylova and Martins 2019, arXiv 1906.07651.
    Differs: the memory is fused from image and text; scheduled sampling takes the likeliest word, at a fixed rate.
    Prefer when: the answer is a sentence: a report, a caption, an answer to a question.

    Args:
        in_dim: Width of the fused features.
        task: Without labels; its `decoder` becomes this one.
        decoder: The language model with its tokenizer.
        label_smoothing: Share of the probability that goes to all other words.
        scheduled_sampling: Probability that an input word of training is the model's own, not the right one.
        generation: How captions are written.

    Raises:
        MmfuseError: The decoder cannot write captions of these lengths.
    """

    reads = frozenset({"pooled", "tokens"})
    generates = True
    counts_here = True

    def __init__(
        self,
        in_dim: int,
        task: TaskKind,
        *,
        decoder: CaptionDecoder,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        generation: GenerationConfig | None = None,
    ):
        super().__init__(task)
        self.decoder = decoder
        task.decoder = decoder  # type: ignore[attr-defined]
        self.label_smoothing = label_smoothing
        self.scheduled_sampling = scheduled_sampling
        self.set_generation(generation or GenerationConfig())
        self.bridge = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, decoder.dim))

    def set_generation(self, generation: GenerationConfig) -> None:
        """Write captions in this way from now on.

        Raises:
            MmfuseError: The decoder cannot write captions of these lengths.
        """
        self.decoder.check_lengths(generation)
        self.generation = generation

    def memory(self, features: Features) -> tuple[Tensor, Tensor]:
        """What the decoder reads: `(B, 1 + S, dim)`, the pooled vector first, and its mask."""
        tokens = torch.cat([features.pooled.unsqueeze(1), features.tokens], dim=1)
        return self.bridge(tokens), F.pad(features.mask, (1, 0), value=True)

    def forward(self, features: Features, target: Tensor) -> Tensor:
        """Logits of each word given the right ones before it.

        Args:
            features: Fused.
            target: `(B, U)` int64 token ids, -100 behind the end; all -100 where there is no caption.

        Returns:
            `(B, U - 1, vocabulary)`: of the words 1 to U - 1 of `target`.
        """
        memory, mask = self.memory(features)
        ids, known = self._inputs(target)
        if self.training and self.scheduled_sampling > 0:
            with torch.no_grad():
                said = self.decoder(memory, mask, ids, known).argmax(-1)
            own = torch.rand(ids[:, 1:].shape, device=ids.device) < self.scheduled_sampling
            ids = torch.cat([ids[:, :1], torch.where(own & known[:, 1:], said[:, :-1], ids[:, 1:])], dim=1)
        return self.decoder(memory, mask, ids, known)

    def _inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """What teacher forcing puts in: all but the last word; the first one of a row is always there."""
        ids = target[:, :-1]
        known = ids != MISSING_CLASS
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        ids = torch.where(known, ids, self.decoder.pad)
        return torch.where(first, self.decoder.bos, ids), known | first

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of the words' cross-entropies over `target (B, U)`; -100 is none."""
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            target[:, 1:].flatten(),
            ignore_index=MISSING_CLASS,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def count(self, target: Tensor) -> Tensor:
        """Number of words to be said."""
        return (target[:, 1:] != MISSING_CLASS).sum().float()

    def weigh(self, targets: np.ndarray) -> None:
        """Captions have no classes to balance.

        Raises:
            MmfuseError: Always.
        """
        raise MmfuseError("class_weights: balanced is not for captioning")

    def predict(self, features: Features, target: Tensor | None, *, use_cache: bool = True) -> np.ndarray:
        """Write a caption for each row.

        Args:
            features: Fused.
            target: As in `forward`, for the likelihood of the right caption; None where there is none.
            use_cache: As in `CaptionDecoder.generate`.

        Returns:
            `(B,)` of `prediction_type()`.
        """
        memory, mask = self.memory(features)
        ids, log_probabilities, score = self.decoder.generate(memory, mask, self.generation, use_cache=use_cache)
        kind = self.prediction_type()
        found = np.zeros(len(memory), dtype=kind)
        width = min(ids.shape[1], kind["ids"].shape[0])
        found["ids"] = self.decoder.pad
        found["ids"][:, :width] = ids[:, :width].cpu().numpy()
        found["log_probabilities"][:, :width] = log_probabilities[:, :width].float().cpu().numpy()
        found["score"] = score.float().cpu().numpy()
        if target is not None:
            logits = self.decoder(memory, mask, *self._inputs(target)).float()
            each = F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=MISSING_CLASS, reduction="none")
            found["target_loss"] = each.sum(1).cpu().numpy()
            found["target_tokens"] = (target[:, 1:] != MISSING_CLASS).sum(1).cpu().numpy()
        return found

    def prediction_type(self) -> np.dtype:
        """What is said of a row.

        `ids` and `log_probabilities` of the tokens behind the first one, `score` of the caption, and of the right
        caption, where it is known, the sum of its words' cross-entropies `target_loss` and their number.
        """
        most = max(self.generation.max_length or 0, self.decoder.max_length)
        return np.dtype(
            [
                ("ids", np.int32, (most,)),
                ("log_probabilities", np.float32, (most,)),
                ("score", np.float32),
                ("target_loss", np.float32),
                ("target_tokens", np.int32),
            ]
        )

    def said_loss(self, said: np.ndarray, target: np.ndarray, device: Any) -> tuple[float, float]:
        """What was written says no likelihood, so its record has that of the target."""
        return float(said["target_loss"].sum()), float(said["target_tokens"].sum())

    def text(self, said: np.void) -> str:
        """The caption of one row of what `predict` gives."""
        return self.task.text(said)  # type: ignore[attr-defined]

    def spec(self) -> dict[str, Any]:
        """What `from_spec` builds the head from; JSON."""
        return {
            "decoder": self.decoder.spec(),
            "label_smoothing": self.label_smoothing,
            "scheduled_sampling": self.scheduled_sampling,
            "generation": asdict(self.generation),
        }

    def save_files(self, folder: Path) -> None:
        """Write what the weights do not hold, the tokenizer, to `folder`."""
        self.decoder.save_tokenizer(folder)

    @classmethod
    def read_options(cls, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The constructor's options from what `spec` and `save_files` wrote.

        Raises:
            MmfuseError: The tokenizer is missing or damaged, or a value is not legal.
        """
        return {
            **spec,
            "decoder": CaptionDecoder.from_spec(spec["decoder"], folder),
            "generation": parse(GenerationConfig, [("generation", spec["generation"])]),
        }
