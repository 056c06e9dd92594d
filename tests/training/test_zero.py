"""What of DeepSpeed needs no DeepSpeed; the rest is in benchmarks/deepspeed_check.py."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import mmfuse
from mmfuse.training import zero


@pytest.mark.parametrize(
    ("variables", "overrides", "message"),
    [
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, [], "ZERO_STAGE: 1 or 2 is expected"),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, [], "OFFLOAD_OPTIMIZER_DEVICE: none is expected"),
        ({"ACCELERATE_DEEPSPEED_CONFIG_FILE": "own.json"}, [], "CONFIG_FILE: none is expected"),
        ({}, ["training.mixed_precision=bf16"], r"training\.mixed_precision: with DeepSpeed"),
        ({}, ["text_encoder.frozen=true", "text_encoder.unfreeze_epoch=1"], r"text_encoder\.unfreeze_epoch: with Deep"),
        ({}, [], "DeepSpeed is not installed"),
    ],
)
def test_what_deepspeed_cannot_be_asked_for_is_refused(tiny, monkeypatch, variables, overrides, message):
    monkeypatch.setattr(zero, "is_deepspeed_available", lambda: False)
    for name, value in {"ACCELERATE_USE_DEEPSPEED": "true", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mmfuse.MmfuseError, match=message):
        mmfuse.train(tiny(*overrides))


def test_every_process_gives_every_trained_parameter_a_gradient():
    module = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 1), "unused": torch.nn.Linear(2, 1)})
    module["frozen"] = torch.nn.Linear(2, 1).requires_grad_(False)
    engine = SimpleNamespace(module=module, coalesce_grad_reduction=nullcontext)
    with zero.reduced_once(engine):
        for _ in range(2):
            module["used"](torch.ones(1, 2)).sum().backward()
    given = {name: None if p.grad is None else p.grad.flatten().tolist() for name, p in module.named_parameters()}
    assert given == {
        "used.weight": [2.0, 2.0],
        "used.bias": [2.0],
        "unused.weight": [0.0, 0.0],
        "unused.bias": [0.0],
        "frozen.weight": None,
        "frozen.bias": None,
    }


def test_a_checkpoint_with_unequal_steps_is_not_taken_into_one_partition():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    tensors = {"0.step": torch.tensor(4.0), "1.step": torch.tensor(3.0)}
    with pytest.raises(mmfuse.MmfuseError, match="some parameters had fewer steps than others"):
        zero.load_zero(SimpleNamespace(), torch.optim.AdamW(parameters), parameters, tensors)
