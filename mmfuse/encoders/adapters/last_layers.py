"""Last layers: those of a tower that are nearest to its output are trained, the others stay as they are."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfuse.encoders.adapters import ADAPTERS, Adapter
from mmfuse.types import MmfuseError


@ADAPTERS.register("last_layers")
class LastLayers(Adapter):
    """The last layers of a tower are trained; no gradient goes through those before them, which saves time and memory.

    Reference: Yosinski et al. 2014, "How transferable are features in deep neural networks?", NeurIPS (arXiv
        1411.1792).
    Differs: what a layer of an image tower is, timm says, as it does for rates by layer: most often a block, and what
        follows the last of them belongs to it. Of a text tower they are the transformer's layers alone.
    Prefer when: rows are some thousands or the time is short; with many rows, training all of a tower gives more.

    Args:
        layers: How many.
    """

    def __init__(self, *, layers: int = 1):
        if type(layers) is not int or layers < 1:
            raise MmfuseError(f"layers: {layers!r:.60} is not legal; a number of at least 1 is expected")
        self.layers = layers

    def apply(self, tower: nn.Module) -> None:
        """Release the last layers; batch norms stay frozen."""
        model: Any = getattr(tower, "model", None)
        if model is None:
            raise MmfuseError("last_layers: this tower has no layers")
        found = _timm_layers(model) if hasattr(model, "group_matcher") else _transformer_layers(model)
        if self.layers > len(found):
            raise MmfuseError(f"last_layers: layers: {self.layers}: this tower has {len(found)}")
        norms = {id(p) for module in model.modules() if isinstance(module, _BatchNorm) for p in module.parameters()}
        for layer in found[-self.layers :]:
            for parameter in layer:
                parameter.requires_grad_(id(parameter) not in norms)

    def merge(self, tower: nn.Module) -> None:
        """Nothing: the layers are the tower's own."""


def _timm_layers(model: Any) -> list[list[nn.Parameter]]:
    """The parameters of each of a timm model's layers, from its input to its output."""
    from timm.models import group_parameters

    parameters = dict(model.named_parameters())
    groups = group_parameters(model, model.group_matcher(coarse=False))
    return [[parameters[name] for name in groups[number] if name in parameters] for number in sorted(groups)]


def _transformer_layers(model: Any) -> list[list[nn.Parameter]]:
    """The parameters of each layer of a transformers model."""
    number = getattr(model.config, "num_hidden_layers", None)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == number]
    if not lists:  # ALBERT runs one layer many times
        raise MmfuseError(f"last_layers: a {model.config.model_type} model has no list of its {number} layers")
    largest = max(lists, key=lambda each: sum(p.numel() for p in each.parameters()))
    return [list(layer.parameters()) for layer in largest]
