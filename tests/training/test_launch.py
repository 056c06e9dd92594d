"""What a launcher sets is heeded, or refused by its name."""

import os

import pytest
import torch
from accelerate import PartialState

import mmfuse
from mmfuse.predict import join_processes
from mmfuse.training.accelerator import open_accelerator
from mmfuse.training.launch import RULES, heed_launch

ON = {"ACCELERATE_USE_FSDP": "true"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in os.environ:
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "overrides", "message"),
    [
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            [],
            r"training\.accumulation is 1, but ACCELERATE_GRADIENT_ACC",
        ),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, ["training.accumulation=2"], "accumulation is 2, .* says 4"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, ["training.mixed_precision=bf16"], "is bf16, .* says fp16"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, [], "ACCELERATE_MIXED_PRECISION: no, bf16 or fp16"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, [], "set dynamo_backend to no"),
        ({"ACCELERATE_USE_IPEX": "true"}, [], "ACCELERATE_USE_IPEX: "),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, [], "ACCELERATE_USE_PARALLELISM_CONFIG: "),
        ({"ACCELERATE_USE_MEGATRON_LM": "1"}, [], "ACCELERATE_USE_MEGATRON_LM: "),
        ({"ACCELERATE_DOWNCAST_BF16": "true"}, [], "ACCELERATE_DOWNCAST_BF16: "),
        ({"ACCELERATE_USE_FSDP": "yes"}, [], "ACCELERATE_USE_FSDP: .*true or false is expected"),
        ({"ACCELERATE_USE_DEEPSPEED": "1"}, [], "ACCELERATE_USE_DEEPSPEED: .*true or false is expected"),
        (ON, [], "FSDP_VERSION: fsdp_version 2 is expected"),
        ({**ON, "FSDP_VERSION": "2", "FSDP_IGNORED_MODULES": "heads.*"}, [], "FSDP_IGNORED_MODULES: "),
        ({**ZERO, "ACCELERATE_GRADIENT_CLIPPING": "0.5"}, [], r"training\.clip_norm is 1\.0, but .* says 0\.5"),
        ({**ZERO, "ACCELERATE_FP8_BACKEND": "MSAMP"}, [], "ACCELERATE_FP8_BACKEND: none is expected"),
    ],
)
def test_what_is_not_done_as_asked_is_refused_by_name(tiny, monkeypatch, variables, overrides, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mmfuse.MmfuseError, match=message) as refused:
        mmfuse.train(tiny(*overrides))
    assert "\n" not in str(refused.value)
    assert not tiny().run_dir.exists()


@pytest.mark.parametrize("words", [{}, dict.fromkeys(RULES, "no"), dict.fromkeys(RULES, "false")])
def test_what_accelerate_launch_sets_where_nobody_asked_is_no_contradiction(tiny, monkeypatch, words):
    alike = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_GRADIENT_CLIPPING": "1.0"}
    for name, value in {**alike, **words, "FSDP_VERSION": "1"}.items():
        monkeypatch.setenv(name, value)
    for config in (tiny(), tiny("training.mixed_precision=bf16", "training.accumulation=4")):
        assert heed_launch(config) is config


def test_the_precision_of_a_launch_is_that_of_the_run(tiny, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = tiny("training.max_steps=1")
    run = mmfuse.train(config)
    assert config.training.mixed_precision is None  # the caller's own is left as it is
    assert "training.mixed_precision: bf16, as ACCELERATE_MIXED_PRECISION says" in capsys.readouterr().err
    assert "mixed_precision: bf16" in (run.dir / "config.yaml").read_text()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    with pytest.raises(mmfuse.MmfuseError, match=r"training.mixed_precision was 'bf16', is now None"):
        mmfuse.train(config)


def test_accumulation_is_done_once_where_both_ask_for_it(tiny, monkeypatch):
    """Accelerate would divide each loss again."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    config = heed_launch(tiny("training.accumulation=4"))
    with open_accelerator(config) as accelerator:
        weight = torch.ones(1, requires_grad=True)
        accelerator.backward(3 * weight.sum())
    assert weight.grad == 3


def test_a_cpu_is_not_asked_for_fp16(tiny):
    with pytest.raises(mmfuse.MmfuseError, match=r"training.mixed_precision: fp16 is for GPUs"):
        mmfuse.train(tiny("training.mixed_precision=fp16"))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "WORLD_SIZE: 2 processes, but Accelerate joins 1"),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE: 3 processes, but Accel"),
        ({"PMI_SIZE": "many"}, "PMI_SIZE: 'many' is not a number"),
    ],
)
def test_a_launch_that_accelerate_does_not_see_is_refused(tiny, monkeypatch, variables, message):
    """These tests have joined one process, as an Accelerate that reads other variables would."""
    PartialState()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mmfuse.MmfuseError, match=message):
        mmfuse.train(tiny())
    assert not tiny().run_dir.exists()


def test_a_number_of_processes_without_a_rank_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(mmfuse.MmfuseError, match="WORLD_SIZE: 2 processes, but no RANK or PMI_RANK says which"):
        join_processes()
