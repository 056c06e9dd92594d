"""What a strategy is to others: exported as a graph, and read by a caption decoder."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from mmfuse.config import DecoderConfig
from mmfuse.heads import build_head
from mmfuse.heads.decoder import build_decoder
from mmfuse.testing.fusion.subject import EQUAL, ROWS, build, example, features_gap, gap, padded, run
from mmfuse.testing.suite import Candidate, ConformanceError, require
from mmfuse.types import Features

_STEPS = 60


def export(candidate: Candidate) -> None:
    """`torch.export` takes it with every length free, and what it exports gives the same output on other inputs."""
    subject = build(candidate, torch.float32)
    one, other = example(0, torch.float32), example(1, torch.float32)
    rows = torch.export.Dim("B")
    lengths = [{0: rows, 1: torch.export.Dim(name)} for name in ("T", "P")]
    free: Any = tuple(Features(*(both, both, {0: rows}, {0: rows})) for both in lengths)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a forward keeps for `auxiliary_loss`
            given = (one["text"], one["image"])
            program = torch.export.export(subject, given, dynamic_shapes=free, strict=False).module()
    except Exception as error:
        if "specialized it to be a constant" in str(error):
            raise ConformanceError(
                "torch.export takes it for one length alone: len(x) and int(tensor) are constants; take x.shape[0]"
            ) from error
        raise ConformanceError(
            f"torch.export does not take it ({type(error).__name__}): does a Python branch depend on a tensor's values?"
        ) from error
    difference = features_gap(run(subject, **other), run(program, **other))
    hint = "does a Python branch depend on the inputs' values?"
    require(difference < 1e-5, f"the exported program gives another output: {hint}")


class _Words:
    """A vocabulary of twelve words: all that a decoder must know of a tokenizer to be trained."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0
    cls_token_id = sep_token_id = None

    def __len__(self) -> int:
        return 12

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(len(self))}

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}


def captioning(candidate: Candidate) -> None:
    """A caption decoder on its output learns 8 captions, reads every modality in `uses`, and sees no padding."""
    fusion = build(candidate, torch.float32, dropout=False).fusion
    config = DecoderConfig(hidden_dim=32, num_layers=1, num_heads=4, max_length=8, tokenizer="own")
    config.options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    decoder = build_decoder(config, lambda: _Words(), None, "decoder")  # type: ignore[arg-type,return-value]
    head: Any = build_head("captioning", fusion.out_dim, [], {"decoder": decoder})
    captions = torch.randint(3, 12, (8, 6))
    captions[:, 0], captions[:, -1] = 1, 2
    _learn_captions(fusion, head, captions)
    one, other = example(seed=0), example(seed=1)
    for part in (fusion, head):
        part.double().eval()

    def logits(given: dict[str, Features]) -> Tensor:
        with torch.no_grad():
            return head(fusion(**given), captions[:ROWS])

    base = logits(one)
    for modality in candidate.cls.uses:
        require(gap(base, logits(one | {modality: other[modality]})) > EQUAL, f"{modality} does not move a caption")
    longer = {m: padded(features, 5) for m, features in one.items()}
    require(gap(base, logits(longer)) <= EQUAL, "padded tokens move a caption: is `mask` right?")


def _learn_captions(fusion: Any, head: Any, captions: Tensor) -> None:
    """Train until a quarter of the loss is left, or fail."""
    examples = [example(seed, torch.float32) for seed in range(2)]
    batches = list(zip(examples, captions.split(ROWS), strict=True))
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=5e-3)
    before = now = 0.0
    for step in range(_STEPS + 1):
        total = sum(head.loss(head(fusion(**given), target), target) for given, target in batches)
        loss: Any = total / head.count(captions)
        now = loss.item()
        before = now if step == 0 else before
        if now < 0.25 * before:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    require(
        False,
        f"a caption decoder does not learn 8 captions from its tokens and `pooled` (loss {before:.2f}, then "
        f"{now:.2f}): do they distinguish the rows?",
    )
