"""Towers by name, and how one is built: of a run's config, or of what a model folder says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.adapters import adapt
from mmfuse.encoders.features import FeatureTower, PrecomputedFeatures, check_class
from mmfuse.encoders.image import ImageEncoder, build_image_encoder
from mmfuse.encoders.saved import check_fit, damaged_tower, read_tower
from mmfuse.encoders.text import TextEncoder, build_text_encoder
from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

TOWERS = Registry("tower", reserved=("width", "model", "tokenizer", "max_length", "architecture", "preprocessing"))
TOWERS.register("transformers")(TextEncoder)
TOWERS.register("timm")(ImageEncoder)
TOWERS.register("features")(PrecomputedFeatures)

Tower = TextEncoder | ImageEncoder | FeatureTower

OWN = {"text": "transformers", "image": "timm"}
"""The towers of texts and images; every other one reads features."""
MOST_WIDTH = 1_000_000
_WORD = re.compile(r"[A-Za-z0-9_.+-]{0,100}")
_BESIDE = ("tower", "options", "name", "frozen", "unfreeze_epoch", "learning_rate", "adapter")
"""Keys of a tower's config that mean something where it reads features."""


class GivenFeatures(NamedTuple):
    """Features that stand in for a modality.

    Attributes:
        dim: Numbers of a vector, where the manifest says it.
        items: Gives the training rows' items, `(T, D)` each, anew each time it is called; None where they are streamed.
    """

    dim: int | None
    items: Callable[[], Iterable[np.ndarray]] | None


def build_tower(
    modality: str,
    config: TextEncoderConfig | ImageEncoderConfig,
    training_texts: Callable[[], Iterable[str]],
    features: GivenFeatures | None,
) -> Tower:
    """The tower that a run asks for, for texts, for images, or for features in place of them.

    Args:
        modality: "text" or "image".
        config: The run's.
        training_texts: Gives the training rows' texts, to train a vocabulary.
        features: What stands in for the modality; None where nothing does.

    Raises:
        MmfuseError: There is no such tower, it reads something else, or cannot be built.
    """
    where = f"{modality}_encoder"
    name = config.tower or ("features" if features is not None else OWN[modality])
    TOWERS.get(name)
    if (name == OWN[modality]) != (features is None) or (features is not None and name in OWN.values()):
        holds = f"features in place of {modality}s" if features is not None else f"{modality}s"
        legal = [n for n in TOWERS.names() if n not in OWN.values()] if features is not None else [OWN[modality]]
        raise MmfuseError(
            f"{where}.tower: the manifest gives {holds}, which {name!r} does not read; legal: {', '.join(legal)}"
        )
    if features is not None:
        tower: Tower = _of_config(name, config, where, features)
        tower.freeze(config.frozen)
    elif isinstance(config, TextEncoderConfig):
        tower = build_text_encoder(config, training_texts())
    else:
        tower = build_image_encoder(config)
    if config.adapter is not None:
        adapt(tower, config.adapter, f"{where}.adapter")
    return tower


def _of_config(name: str, config: Any, where: str, features: GivenFeatures) -> FeatureTower:
    default = type(config)()
    saved = config.name.startswith(SAVED_TOWER)
    idle = [item.name for item in fields(config) if item.name not in _BESIDE]
    idle += [] if saved else ["name"]
    idle += ["tower", "options"] if saved else []
    given = [key for key in idle if getattr(config, key) != getattr(default, key)]
    if given:
        raise MmfuseError(f"{where}.{given[0]} has no effect: the manifest gives features in its place; remove it")
    if saved:
        folder, spec, weights = read_tower(config.name, where)
        with damaged_tower(config.name, where):
            tower: Any = tower_from_spec(where.removesuffix("_encoder"), spec, folder, weights)
        if not isinstance(tower, FeatureTower):
            raise MmfuseError(f"{where}.name: the tower in {folder} reads no features")
        return tower
    if features.items is None and features.dim is None:
        raise MmfuseError(f"{where}: of features in shards the manifest must say how wide they are (features.dim)")
    width = features.dim
    if width is None and features.items is not None:
        first = next(iter(features.items()), None)
        if first is None:
            raise MmfuseError(f"{where}: no row of the training split has features: their width is not known")
        width = first.shape[1]
    try:
        tower = build_feature_tower(name, width or 0, dict(config.options))
    except MmfuseError as error:
        raise MmfuseError(f"{where}.options: {error}") from error
    if tower.fits and features.items is None:
        raise MmfuseError(
            f"{where}.tower: {name!r} learns from the training rows first, and rows in shards are streamed"
        )
    if tower.fits and features.items is not None:
        tower.fit(features.items())
    return tower


def build_feature_tower(name: str, width: int, options: dict[str, Any]) -> FeatureTower:
    """The registered tower `name` over vectors of so many numbers.

    Raises:
        MmfuseError: There is none, it has no such option, or cannot be built so.
    """
    cls: Any = TOWERS.get(name)
    check_class(name, cls)
    TOWERS.check_options(name, options)
    try:
        tower = cls(width, **options)
    except (TypeError, ValueError) as error:  # MmfuseError is a ValueError
        if isinstance(error, MmfuseError):
            raise
        raise MmfuseError(f"tower {name!r} cannot be built with {options} ({error})") from error
    tower.name, tower.width, tower.options = name, width, options
    return tower


def tower_from_spec(
    modality: str, spec: dict[str, Any], folder: Path, weights: dict[str, Tensor] | None = None
) -> Tower:
    """The tower that a model folder says, on its weights.

    Args:
        modality: "text" or "image".
        spec: As `spec` of a tower gave it; a model folder may be anyone's.
        folder: The model folder, for its tokenizer.
        weights: All of the tower's, by name; default: random ones.

    Raises:
        MmfuseError: A value is not legal, or the weights do not fit.
    """
    if "tower" not in spec:
        if modality == "text":
            return TextEncoder.from_spec(spec, folder, weights)
        return ImageEncoder.from_spec(spec, weights)
    name, width, options = spec["tower"], spec.get("width"), spec.get("options")
    if not isinstance(name, str) or name in OWN.values():
        raise MmfuseError(f"{modality} tower {str(name)[:60]!r}: one that reads features is expected")
    if type(width) is not int or not 1 <= width <= MOST_WIDTH:
        raise MmfuseError(f"{modality} tower width {str(width)[:60]}: a number from 1 to {MOST_WIDTH} is expected")
    if not isinstance(options, dict) or not _is_plain(options):
        raise MmfuseError(f"{modality} tower options {str(options)[:60]}: numbers and plain words are expected")
    tower = build_feature_tower(name, width, options)
    if weights is not None:
        check_fit(tower.state_dict(), weights)
        tower.load_state_dict(weights)
    return tower


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Numbers that are no bombs, words that are no paths, and lists and mappings of them."""
    if isinstance(value, (bool, int, float)) or value is None:
        return value is None or (math.isfinite(value) and abs(value) <= MOST_WIDTH)
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value)) and not value.startswith(".")
    if depth and isinstance(value, list):
        return len(value) <= MOST_WIDTH and all(_is_plain(item, depth - 1) for item in value)
    return bool(depth and isinstance(value, dict)) and all(
        isinstance(key, str) and _is_plain(item, depth - 1) for key, item in value.items()
    )


def tower_inputs(tower: Any, batch: Any, modality: str) -> tuple[Tensor, ...] | None:
    """What a tower takes of a packed batch; None where there is nothing."""
    if isinstance(tower, FeatureTower):
        return tower.inputs(batch, modality)
    if modality == "text":
        return (batch["input_ids"], batch["text_mask"]) if len(batch["input_ids"]) else None
    return (batch["pixels"],) if len(batch["pixels"]) else None


def blank_item(tower: Any, modality: str, device: torch.device) -> dict[str, Tensor]:
    """Entries of a batch that hold a text, an image or features which mean nothing."""
    if isinstance(tower, FeatureTower):
        return tower.blank(modality, device)
    if modality == "text":
        mask = torch.ones(1, 1, dtype=torch.bool, device=device)
        return {"input_ids": torch.zeros(1, 1, dtype=torch.long, device=device), "text_mask": mask}
    return {"pixels": torch.zeros(1, 3, *tower.preprocessing.size, dtype=torch.uint8, device=device)}
