"""Parameter groups, the learning rate's course, and the targets of an optimiser step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfuse.config import Config
from mmfuse.encoders.text import checkpoint_layers
from mmfuse.model import FusionModel
from mmfuse.training.learner import OBJECTIVES, Learner
from mmfuse.training.trained import ever_trained, towers
from mmfuse.types import Batch


def parameter_groups(learner: Learner, config: Config) -> list[dict[str, Any]]:
    """Groups by tower and weight decay, with `lr` and `base_lr` the peak rate; towers frozen for good are left out.

    Biases, norms, missing tokens and other vectors and scalars (gates) are not decayed. Objectives' come last.
    """
    training, model = config.training, learner.model
    rates = {
        f"{tower.name}.": tower.config.learning_rate
        for tower in towers(model, config)
        if tower.config.learning_rate is not None
    }
    for task in model.captioning:
        own = config.tasks.get(task)
        if own is not None and own.decoder.learning_rate is not None:
            rates[f"heads.{task}.decoder."] = own.decoder.learning_rate
    trained = ever_trained(model, config)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    own = ((name, parameter) for name, parameter in model.named_parameters() if name in trained)
    for name, parameter in (*own, *learner.objectives.named_parameters(prefix=OBJECTIVES)):
        if not parameter.requires_grad:
            continue
        rate = next((r for prefix, r in rates.items() if name.startswith(prefix)), training.learning_rate)
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "base_lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def checkpoint_gradients(model: FusionModel, config: Config) -> None:
    """Gradient checkpointing of all towers and decoders that the config trains.

    Raises:
        MmfuseError: One of them cannot.
    """
    for tower in towers(model, config):
        if tower.config.first_trained is not None:
            tower.module.checkpoint_gradients()
    for task in model.captioning:
        head: Any = model.heads[task]
        checkpoint_layers(head.decoder.model, f"tasks.{task}.decoder")


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """The share of the peak rate at `step` (from 0) of `total`: linear warm-up, then the schedule down to 0."""
    rise = math.ceil(warmup * total)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    done = (step - rise) / max(1, total - rise)
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done


def count_targets(model: FusionModel, batches: Sequence[Batch]) -> list[float]:
    """`(tasks + 1,)`: labelled targets in these batches as each head counts them, and their rows.

    A GPU is asked only by heads that count in a way of their own, and do not say that they can do so on the CPU.
    """
    heads: dict[str, Any] = dict(model.heads.items())
    counts = [sum(float(head.count(_target(batch, task, head))) for batch in batches) for task, head in heads.items()]
    return [*counts, float(sum(len(batch["row_ids"]) for batch in batches))]


def _target(batch: Batch, task: str, head: Any) -> Tensor:
    """A task's target where its head can count it, on the CPU if possible."""
    here = batch.get("targets_here", {}).get(task)
    counts = next(kind for kind in type(head).__mro__ if "count" in vars(kind))
    can = here is not None and vars(counts).get("counts_here", False)
    return torch.from_numpy(here) if can else batch[f"target.{task}"]
