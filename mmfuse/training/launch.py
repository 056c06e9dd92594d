"""What a launcher or the environment asks of training: heeded, or refused by name, before anything is begun."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple, Protocol, TypeVar

from accelerate import Accelerator

from mmfuse.config import TrainingConfig
from mmfuse.types import MmfuseError

_OFF = ("", "false", "no", "none", "0", "off")
_FSDP2, _ZERO2 = (f"(mmfuse config --copy accelerate/{name})" for name in ("fsdp2", "deepspeed_zero2"))
_WORD = "Accelerate takes only true for yes, wherever it looks; true or false is expected"


class Rule(NamedTuple):
    """What a variable that Accelerate reads may say, so that training is what the run's config says it is.

    Attributes:
        legal: Its values, in lower case.
        otherwise: What is said of any other.
        under: A variable without which this one has no effect.
        unset: What Accelerate takes where it is not set.
    """

    legal: tuple[str, ...]
    otherwise: str
    under: str | None = None
    unset: str = ""


_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
RULES = {
    _FSDP: Rule(("true", *_OFF), _WORD),
    _DEEPSPEED: Rule(("true", *_OFF), _WORD),
    "ACCELERATE_USE_MEGATRON_LM": Rule(_OFF, f"Megatron-LM trains its own models {_FSDP2}"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": Rule(_OFF, f"a model is not cut up by heads or by sequence here {_FSDP2}"),
    "ACCELERATE_USE_IPEX": Rule(_OFF, "IPEX would exchange layers; set it to false"),
    "ACCELERATE_DYNAMO_BACKEND": Rule(_OFF, "models are not compiled here; set dynamo_backend to no"),
    "ACCELERATE_DOWNCAST_BF16": Rule(_OFF, "it is of TPUs, on which mmfuse does not train; leave it out"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": Rule(
        _OFF,
        "fsdp_cpu_ram_efficient_loading leaves every process but the first without weights; set it to false " + _FSDP2,
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": Rule(
        _OFF,
        "fsdp_activation_checkpointing repeats layers with another dropout; set it to false, and "
        f"training.gradient_checkpointing to true {_FSDP2}",
    ),
    "FSDP_VERSION": Rule(("2",), f"fsdp_version 2 is expected {_FSDP2}", _FSDP, "1"),
    "FSDP_IGNORED_MODULES": Rule(_OFF, "what is not sharded would differ between processes; leave it out", _FSDP),
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": Rule(("1", "2"), f"1 or 2 is expected {_ZERO2}", _DEEPSPEED, "2"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": Rule(_OFF, f"none is expected {_ZERO2}", _DEEPSPEED),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": Rule(_OFF, f"none is expected {_ZERO2}", _DEEPSPEED),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": Rule(_OFF, f"none is expected {_ZERO2}", _DEEPSPEED),
    "ACCELERATE_FP8_BACKEND": Rule(_OFF, f"none is expected {_ZERO2}", _DEEPSPEED),
    "ACCELERATE_MIXED_PRECISION": Rule(("bf16", "fp16", *_OFF), "no, bf16 or fp16 is expected"),
}
"""All that Accelerate reads (1.7 to 1.15) and that changes what is trained, but for what has a key of ours.

Not here is what changes where and how fast, and what only tells: devices, affinity, debugging, resharding, trackers.
"""


class _Trains(Protocol):
    training: TrainingConfig


_Config = TypeVar("_Config", bound=_Trains)


def is_on(name: str) -> bool:
    """Whether a flag is set; `heed_launch` has refused what Accelerate would not read as we do."""
    return os.environ.get(name, "").lower() == "true"


def heed_launch(config: _Config) -> _Config:
    """The config with what the environment says where it says nothing itself: the precision.

    Args:
        config: Of a run, or of a benchmark; it is left as it is.

    Raises:
        MmfuseError: The environment asks for what this loop does not do, or contradicts the config.
    """
    for name, rule in RULES.items():
        said = _said(name) or rule.unset
        if said not in rule.legal and (rule.under is None or is_on(rule.under)):
            raise MmfuseError(f"{name}: {rule.otherwise}")
    training = config.training
    accumulation = _said("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    if accumulation not in ("", "1", "auto", str(training.accumulation)):
        raise _contradiction("accumulation", training.accumulation, "GRADIENT_ACCUMULATION_STEPS", accumulation)
    clipping = _said("ACCELERATE_GRADIENT_CLIPPING")
    if is_on(_DEEPSPEED) and clipping not in ("", "auto", "none") and not _equal(clipping, training.clip_norm):
        raise _contradiction("clip_norm", training.clip_norm, "GRADIENT_CLIPPING", clipping)
    precision = _said("ACCELERATE_MIXED_PRECISION")
    if precision in _OFF or precision == training.mixed_precision:  # accelerate launch says no where nobody did
        return config
    if training.mixed_precision is not None:
        raise _contradiction("mixed_precision", training.mixed_precision, "MIXED_PRECISION", precision)
    heeded = dataclasses.replace(training, mixed_precision=precision)
    return dataclasses.replace(config, training=heeded)  # type: ignore[type-var]


def check_precision(config: _Trains, accelerator: Accelerator) -> None:
    """Refuse what Accelerate would leave out without a word.

    Raises:
        MmfuseError: A CPU is asked for fp16, or FSDP2 for a precision of each tower.
    """
    asked = config.training.mixed_precision
    if asked == "fp16" and accelerator.device.type == "cpu":
        raise MmfuseError("training.mixed_precision: fp16 is for GPUs; on a CPU auto, bf16 or null is expected")
    if asked == "auto" and accelerator.is_fsdp2:
        raise MmfuseError("training.mixed_precision: FSDP2 casts what it shards itself; bf16 or null is expected")


def _said(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def _equal(text: str, number: float | None) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _contradiction(key: str, own: object, name: str, said: str) -> MmfuseError:
    return MmfuseError(
        f"training.{key} is {own}, but ACCELERATE_{name} says {said}: make them equal, or unset the variable "
        "(accelerate launch sets it from its own config)"
    )
