"""Every part on a card that is not there: PyTorch's fake tensors know their device and their shape, and no number.

So what would meet on two devices, or ask the card for a number while it runs, is an error without a GPU.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_parts import (
    CAPTIONS,
    DECODERS,
    TARGETS,
    WIDTH,
    both,
    caption_input,
    captioner,
    features,
    image_tower,
    text_tower,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmfuse.data.batches.collate import pad_tokens
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.heads import build_head
from mmfuse.types import Features

CARD = torch.device("cuda:0")


def run_faked(module: nn.Module, call: Callable[[Any, Any], Any], given: Any) -> None:
    """Call a module on the fake card, whose tensors must stay there."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def faked(value: Any) -> Any:
            if isinstance(value, Tensor):
                return mode.from_tensor(value.detach()).to(CARD)
            if isinstance(value, Features):
                return Features(*map(faked, value))
            return [faked(part) for part in value]

        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                setattr(part, name, nn.Parameter(faked(parameter)))
            for name, buffer in part.named_buffers(recurse=False):
                setattr(part, name, faked(buffer))
        found = call(module, faked(given))
        assert {part.device.type for part in found} == {"cuda"}


@pytest.mark.parametrize("name", sorted(FUSIONS.names()))
def test_fusion(name):
    fusion = build_fusion(name, 12, 20, {"out_dim": WIDTH})
    run_faked(fusion, lambda m, x: [b.pooled for b in m.branches(*x)] if hasattr(m, "combine") else m(*x), both())


@pytest.mark.parametrize("kind", TARGETS)
def test_label_head(kind):
    head = build_head(kind, WIDTH, [] if kind == "regression" else ["a", "b", "c"])
    head.task.fit(lambda: TARGETS[kind].numpy())
    run_faked(head, lambda m, x: [m.loss(m(x[0]), x[1])], [features(WIDTH, [3, 1, 2, 3, 3], 2), TARGETS[kind]])


@pytest.mark.parametrize(("name", "mode"), DECODERS)
def test_decoder(name, mode):
    head = captioner(name, mode)
    run_faked(head, lambda m, x: [m.loss(m(*x), x[1])], caption_input(head))


def test_towers():
    tower = text_tower()
    run_faked(tower, lambda m, x: m(*x), pad_tokens(tower.tokenize(CAPTIONS)[0], 0))
    for name in ("vit_tiny_patch16_224", "resnet10t"):
        run_faked(image_tower(name), lambda m, x: m(x), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("wrong", ["asks the card", "meets the CPU"])
def test_what_would_be_wrong_is_found(wrong):
    def call(module, x):
        y = module(x)
        return [y[: int(y.max())] if wrong == "asks the card" else y + torch.ones(3, 4).sum(0, keepdim=True)]

    expected = DataDependentOutputException if wrong == "asks the card" else RuntimeError
    with pytest.raises(expected):
        run_faked(nn.Linear(2, 4), call, torch.ones(3, 2))
