"""The one module that Accelerate wraps: the model and its losses, so that DDP and FSDP2 see all that a loss reaches."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from mmfuse.config import Config
from mmfuse.model import FusionModel
from mmfuse.training.objectives import build_objectives, choose
from mmfuse.types import Batch, Features, MmfuseError, Outputs, Step

OBJECTIVES = "objectives"
"""Begins the names of the objectives' weights in a checkpoint, where the model's have their own."""
_BEFORE = "log_variances."
"""Began those of learned task weights, when they were the model's."""


class Told:
    """What is reported of a forward pass; no tuple or dataclass, as wrappers would cast and copy what is in it.

    Attributes:
        parts: `(tasks + objectives with a term,)`, this batch's shares, the tasks' without factors; detached.
        outputs: What was kept of the pass, detached.
    """

    def __init__(self, parts: Tensor, outputs: Outputs):
        self.parts, self.outputs = parts, outputs


class Held:
    """A batch into which wrappers do not look: FSDP2 would cast its targets to half precision."""

    def __init__(self, batch: Batch):
        self.batch = batch


class Learner(nn.Module):
    """A model with the losses that it is trained by.

    Args:
        model: Its heads know the tasks' losses.
        config: Of the run: what beside the tasks' losses counts, and how much.

    Attributes:
        objectives: By name, those of the run.
        parts: What the numbers of `Told.parts` are.

    Raises:
        MmfuseError: An objective does not exist, has no such option, or cannot be had with this model.
    """

    def __init__(self, model: FusionModel, config: Config):
        super().__init__()
        training = config.training
        chosen = choose(training.objectives, training.task_weights, hasattr(model.fusion, "auxiliary_loss"))
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 4)  # behind those of `mmfuse.training.build`
            self.objectives, self.weights = build_objectives(model, chosen)
        self.objectives.to(next(model.parameters()).device)
        self.task_weights = {t: config.tasks[t].weight if t in config.tasks else 1.0 for t in model.heads}
        objectives: dict[str, Any] = dict(self.objectives.items())
        self.weighing = [name for name, objective in objectives.items() if hasattr(objective, "weigh")]
        self.terms = [name for name in objectives if name not in self.weighing]
        self.parts = [*model.heads, *(f"{OBJECTIVES}.{name}" for name in self.terms)]
        self.keep: frozenset[str] = frozenset().union(*(objective.reads for objective in objectives.values()))

    def forward(self, batch: Batch | Held, step: Step) -> tuple[Tensor, Told]:
        """This batch's share of the step's loss.

        Of a task, the sum over its targets over their number in the whole step; then what the objectives add.

        Args:
            batch: With the targets.
            step: Tells the whole step's targets and rows.

        Returns:
            The loss, a scalar, and what is reported of it.
        """
        batch = batch.batch if isinstance(batch, Held) else batch
        said = self.model.run(batch, keep=self.keep)
        said = said._replace(logits=convert_to_fp32(said.logits))
        losses = self._task_losses(said, batch, step)
        each = [own.detach() for own in losses.values()]
        objective: Any
        for name in self.weighing:
            objective = self.objectives[name]
            losses = objective.weigh(losses, batch, step)
        loss = torch.zeros((), device=batch["row_ids"].device)
        for task, own in losses.items():
            loss = loss + self.task_weights[task] * own
        for name in self.terms:
            objective = self.objectives[name]
            term = objective(_only(said, objective.reads), batch, step)
            if not (isinstance(term, Tensor) and term.ndim == 0):
                given = f"a tensor {tuple(term.shape)}" if isinstance(term, Tensor) else f"{term!r:.60}"
                raise MmfuseError(f"objective {name!r} gives {given}: a term is a scalar tensor")
            each.append(term.detach())
            loss = loss + self.weights[name] * term
        return loss, Told(torch.stack(each), _detached(_only(said, self.keep)))

    def _task_losses(self, said: Outputs, batch: Batch, step: Step) -> dict[str, Tensor]:
        heads: dict[str, Any] = dict(self.model.heads.items())
        losses = {}
        for task, head in heads.items():
            total = step.targets[task]
            losses[task] = head.loss(said.logits[task], batch[f"target.{task}"]) * (1 / total if total else 0.0)
        return losses

    def own_state(self) -> dict[str, Tensor]:
        """The objectives' weights, by their names in a checkpoint."""
        return self.objectives.state_dict(prefix=f"{OBJECTIVES}.")

    @property
    def _no_split_modules(self) -> list[str]:
        """Those of the model, for Accelerate."""
        return self.model._no_split_modules


def current_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights by the names that they have today."""
    return {
        f"{OBJECTIVES}.uncertainty.{name}" if name.startswith(_BEFORE) else name: tensor
        for name, tensor in weights.items()
    }


def _only(said: Outputs, names: frozenset[str]) -> Outputs:
    """The outputs with those features that were asked for."""
    return said._replace(**{name: None for name in ("text", "image", "fused") if name not in names})


def _detached(said: Outputs) -> Outputs:
    features = {
        name: Features(*(part.detach() for part in found))
        for name in ("text", "image", "fused")
        if (found := getattr(said, name)) is not None
    }
    return said._replace(**features, logits={task: logits.detach() for task, logits in said.logits.items()})
