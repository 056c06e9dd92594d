"""Which weights a run trains, and when: the one place that decides it, from what the config says of its towers."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmfuse.config import Config, ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.adapters import adapted_names
from mmfuse.model import FusionModel


class Tower(NamedTuple):
    """An encoder that a model has.

    Attributes:
        name: Its attribute of the model and its key of the config: "text_encoder" or "image_encoder".
        module: A TextEncoder or an ImageEncoder.
        config: What the run's config says of it.
    """

    name: str
    module: Any
    config: TextEncoderConfig | ImageEncoderConfig


def towers(model: FusionModel, config: Config) -> list[Tower]:
    """The encoders of the model, text first."""
    both = (
        Tower("text_encoder", model.text_encoder, config.text_encoder),
        Tower("image_encoder", model.image_encoder, config.image_encoder),
    )
    return [tower for tower in both if tower.module is not None]


def ever_trained(model: FusionModel, config: Config) -> set[str]:
    """The names of all that training may change, of `model.state_dict()`: not those of towers frozen for good.

    Of a tower with an adapter these are the adapter's.
    """
    found = set(model.state_dict())
    for tower in towers(model, config):
        kept = frozenset() if tower.config.first_trained is None else adapted_names(tower.module)
        if kept is not None:
            own = f"{tower.name}."
            found = {name for name in found if not name.startswith(own) or name.removeprefix(own) in kept}
    return found


def freeze_towers(model: FusionModel, config: Config, epoch: int | None = None) -> None:
    """Freeze the towers not trained in this epoch and release the others; without one, freeze those never trained."""
    for tower in towers(model, config):
        first = tower.config.first_trained
        tower.module.freeze(first is None or (epoch is not None and epoch < first))
