"""Optimizers by name: their options, and that a killed run goes on to the same bits with each."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mmfuse
from mmfuse.config import config_from_dict
from mmfuse.training.checkpoint import load_optimizer, optimizer_state
from mmfuse.training.optimizers import OPTIMIZERS, build_optimizer, check_optimizer, moments
from mmfuse.types import MmfuseError

CHOSEN = {
    "adamw": "adamw",
    "amsgrad": {"name": "adamw", "amsgrad": True, "betas": [0.8, 0.99]},
    "adam": "adam",
    "sgd": "sgd",
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "adafactor": "adafactor",
    "lion": {"name": "lion", "caution": True},
}


def groups():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    return [
        {"params": [matrix, torch.nn.Parameter(torch.randn(5, 1))], "lr": 0.1, "base_lr": 0.1, "weight_decay": 0.01},
        {"params": [torch.nn.Parameter(torch.randn(3))], "lr": 0.1, "base_lr": 0.1, "weight_decay": 0.0},
    ]


def steps(optimizer, first, last):
    """Some steps, of which the last group has no gradient in the first one."""
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        for i, group in enumerate(optimizer.param_groups):
            group["lr"] = 0.1 / (number + 1)
            for p in group["params"]:
                gradient = torch.randn(p.shape, generator=generator)
                p.grad = None if i and not number else torch.empty_like(p).copy_(gradient)
        optimizer.step()
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


def test_all_are_tried():
    assert {value if isinstance(value, str) else value["name"] for value in CHOSEN.values()} == set(OPTIMIZERS.names())


@pytest.mark.parametrize("value", CHOSEN.values(), ids=CHOSEN)
def test_an_optimizer_goes_on_from_what_a_checkpoint_keeps(value):
    """Its state through safetensors and JSON: matrices that lie channels last, vectors, and one that came later."""
    whole = steps(build_optimizer(value, groups()), 0, 5)
    first = build_optimizer(value, groups())
    kept = [p.clone() for p in steps(first, 0, 3)]
    tensors, plain = optimizer_state(first)
    again = build_optimizer(value, groups())
    with torch.no_grad():
        for group in again.param_groups:
            for p in group["params"]:
                p.copy_(kept.pop(0))
    load_optimizer(again, tensors, plain)
    assert all(a.equal(b) for a, b in zip(whole, steps(again, 3, 5), strict=True))
    assert not whole[0].equal(groups()[0]["params"][0])
    of_one = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("0.") and name != "0.step")
    assert value == "adafactor" or of_one // 48 == moments(value)  # whose rows and columns are many in 2 x 2 kernels


@pytest.mark.parametrize("name", ["nesterov", "lion", "adafactor"])
def test_a_killed_run_goes_on_to_the_same_bits(tiny, killed_at, name):
    options = (f"training.optimizer={CHOSEN[name]}", "training.checkpoint_every=3", "training.epochs=1")
    whole = mmfuse.train(tiny(*options, run="whole"))
    again = killed_at(tiny(*options, run="killed"), 5)
    first, second = (load_file(run.model_dir / "model.safetensors") for run in (whole, again))
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("adamv", r"training.optimizer: unknown optimizer 'adamv'.*did you mean 'adam"),
        ({"name": "sgd", "momentun": 0.9}, r"optimizer.momentun is not an option of optimizer 'sgd'.*'momentum'"),
        ({"name": "sgd", "nesterov": True}, "training.optimizer: sgd: Nesterov momentum requires"),
        ({"name": "adam", "betas": 0.9}, "training.optimizer: adam: "),
        ({"name": "adam", "lr": 0.9}, "optimizer.lr is not an option"),
    ],
)
def test_what_is_no_optimizer_is_refused(value, message):
    with pytest.raises(MmfuseError, match=message):
        check_optimizer(value, sharded=False)


def test_what_cannot_be_sharded_is_refused(tiny, monkeypatch, tmp_path):
    with pytest.raises(MmfuseError, match="adafactor cannot be had with FSDP"):
        check_optimizer("adafactor", sharded=True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(MmfuseError, match="with DeepSpeed, adamw is expected"):
        mmfuse.train(tiny("training.optimizer=sgd"))
    with pytest.raises(MmfuseError, match="with DeepSpeed, plain is expected"):
        mmfuse.train(tiny("training.method=fgm"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.optimizer=adam", "adam"),
        ("training.optimizer={name: adam, eps: 1e-6}", {"name": "adam", "eps": 1e-6}),
        ("training.optimizer.momentum=0.8", {"name": "sgd", "momentum": 0.8, "nesterov": True}),
    ],
)
def test_options_of_another_optimizer_do_not_carry_over(override, expected):
    sgd = {"name": "sgd", "momentum": 0.9, "nesterov": True}
    values = {"name": "x", "data": {"manifest": "m"}, "training": {"optimizer": sgd}}
    assert config_from_dict(values, [override]).training.optimizer == expected


def test_another_optimizer_is_another_run(tiny, tmp_path, kill_at):
    kill_at(tiny("training.optimizer={name: sgd, momentum: 0.9}", "training.checkpoint_every=2"), 3)
    assert Path(tmp_path / "run" / "checkpoints").exists()
    for other in ("adamw", "{name: sgd}", "{name: sgd, momentum: 0.8}"):
        with pytest.raises(MmfuseError, match=r"holds a run with another config \(training.optimizer"):
            mmfuse.train(tiny(f"training.optimizer={other}", "training.checkpoint_every=2"))
