"""Steps of training on PyTorch's "meta" device, whose tensors have no numbers.

So what would ask a card for a number, and wait for it, is an error without a GPU. Of the optimiser's own step it says
nothing: the fused ones are not for this device.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from test_parts import CAPTIONS, DECODERS, batch_of, caption_input, captioner, model_of
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import mmfuse
from mmfuse.data.batches.loader import move_batch
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.fusion import FUSIONS
from mmfuse.heads import build_head
from mmfuse.heads.classification import ClassificationHead
from mmfuse.training import loop
from mmfuse.training.optimization import count_targets, parameter_groups

CARD = torch.device("meta")


class Copies(TorchFunctionMode):
    """Refuses copies to the card that the program would wait for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.to) and found.device.type == CARD.type:
            came = func is Tensor.to and args[0].device.type == CARD.type
            assert came or (kwargs or {}).get("non_blocking"), f"{func} copies to the card, and waits"
        return found


class Done(BaseException):
    """The run has shown what it was begun for."""


@pytest.fixture
def first_step(tiny, monkeypatch):
    """Begin a run, and take its first step on the card: `first_step(overrides)`."""
    reached = []

    def step(trainer: Any, _: Any) -> None:
        monkeypatch.setattr(type(trainer.accelerator), "device", CARD)
        trainer.learner.to(CARD)
        trainer.optimizer = torch.optim.SGD(parameter_groups(trainer.learner, trainer.config), lr=0.1, foreach=False)
        trainer.prepared = trainer.accelerator.prepare(trainer.optimizer)
        trainer.wrapped.train()
        batches = [trainer.pairs.at(0)[part[0]] for part in trainer.plan(0)[: trainer.training.accumulation]]
        with Copies():
            reached.append(trainer.step([move_batch(batch, CARD) for batch in batches]))
        raise Done

    monkeypatch.setattr(loop.Trainer, "_train_epoch", step)
    monkeypatch.setattr(loop, "Taken", lambda numbers, *_: numbers)
    monkeypatch.setattr(torch, "get_device_module", lambda _: torch)  # it is asked for the card's random state

    def take(*overrides: str) -> None:
        with pytest.raises(Done):
            mmfuse.train(tiny(*overrides))
        assert reached.pop().device.type == CARD.type

    return take


@pytest.mark.parametrize(
    "chosen",
    [
        ("training.accumulation=2", "training.modality_dropout={text: 0.2, image: 0.2}"),
        ("training.method=fgm", "training.task_weights=uncertainty", "fusion={name: mixture_of_experts, out_dim: 16}"),
        ("image_encoder.frozen=true", "fusion={name: cross_attention, out_dim: 16}"),
    ],
    ids=["accumulation, hidden modalities", "fgm, objectives", "cached features"],
)
def test_a_step_asks_the_card_for_nothing(first_step, chosen):
    first_step(*chosen)


def test_a_step_of_captions_asks_the_card_for_nothing(first_step, phantom):
    manifest, *_ = write_language(phantom.parent, 0)
    decoder = "{hidden_dim: 16, num_layers: 1, num_heads: 2, max_length: 24, vocab_size: 200}"
    first_step(f"data.manifest={manifest}", f"tasks.report.decoder={decoder}")


def moved(batch: Any) -> Any:
    return move_batch(batch, CARD)


@pytest.mark.parametrize("name", sorted(FUSIONS.names()))
def test_no_fusion_asks(name):
    """With rows that lack a modality and one of three images."""
    found = model_of(name).train().to(CARD)(moved(batch_of([CAPTIONS[0], None, CAPTIONS[1]], [1, 3, 0])))
    sum(logits.sum() for logits in found.values()).backward()


@pytest.mark.parametrize(("name", "mode"), DECODERS)
def test_no_decoder_asks(name, mode):
    head = captioner(name, mode).train().to(CARD)
    fused, target = caption_input(head)
    fused = type(fused)(*(part.to(CARD) for part in fused))
    head.loss(head(fused, target.to(CARD)), target.to(CARD)).backward()


@pytest.mark.parametrize("wrong", ["masks", "most_images", "text_full"])
def test_what_is_not_told_is_asked_or_not_needed(wrong, monkeypatch):
    """A batch by hand may leave the plain values out: a mask is then made, and the images are counted on the card."""
    batch = moved(batch_of([CAPTIONS[0], CAPTIONS[1]], [1, 3]))
    batch.pop(wrong, None)
    if wrong == "masks":
        monkeypatch.setattr("mmfuse.encoders.text.masks_unasked", lambda *_: nullcontext())
    model = model_of("concat").to(CARD)
    if wrong == "text_full":
        model(batch)
        return
    with pytest.raises(RuntimeError, match="meta"):
        model(batch)


class Copied(ClassificationHead):
    """Counts in a way of its own, and says nothing of where."""

    def count(self, target):
        return (target >= 0).sum() * self.class_weights.sum()


def test_targets_are_counted_here_unless_a_head_counts_in_its_own_way():
    head: Any = build_head("classification", 4, ["a", "b"])
    head.weigh(np.array([0, 0, 0, 1]))
    batch = {"row_ids": torch.arange(4), "target.y": torch.tensor([0, -100, 1, 1])}
    model: Any = nn.Module()
    model.heads = {"y": head}
    wanted = count_targets(model, [batch, batch])
    assert wanted == pytest.approx([2 * (2 / 3 + 2 + 2), 8.0])
    head.to(CARD)
    assert count_targets(model, [moved(batch)] * 2) == wanted
    head.__class__ = Copied
    with pytest.raises(RuntimeError, match="meta"):
        count_targets(model, [moved(batch)])
