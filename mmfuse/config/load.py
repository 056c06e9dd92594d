"""A run's config from a file or plain values: its keys one by one, and what they say together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmfuse.config.files import read_yaml
from mmfuse.config.keys import LARGEST_SIZE, AugmentationConfig, Config, TrainingConfig
from mmfuse.config.parsing import parse, read_overrides
from mmfuse.config.presets import preset_of
from mmfuse.effect import check_effect, settle_preset
from mmfuse.types import MmfuseError


def load_config(config: str | Path | dict[str, Any], overrides: Iterable[str] = ()) -> Config:
    """Read a run's config.

    Args:
        config: A YAML file, or what would stand in one, as nested dicts.
        overrides: `key=value` strings such as `training.epochs=3`; values are YAML.

    Raises:
        MmfuseError: No such file, not YAML, an unknown key, or a value that is not legal; the message says what is.
    """
    if isinstance(config, dict):
        return config_from_dict(config, overrides)
    path = Path(config)
    return config_from_dict(read_yaml(path), overrides, where=str(path))


def config_from_dict(values: dict[str, Any], overrides: Iterable[str] = (), where: str = "config") -> Config:
    """A config from plain values, as strictly checked as a file.

    Args:
        values: Nested dicts, as in the YAML file.
        overrides: `key=value` strings.
        where: Named in errors.

    Raises:
        MmfuseError: An unknown key, or a value that is not legal.
    """
    return config_of_layers([(where, values), ("command line", read_overrides(overrides))])


def config_of_layers(said: Sequence[tuple[str, Any]]) -> Config:
    """A config from plain values over others; options of another strategy, optimizer, ... do not carry over.

    Args:
        said: (where they come from, nested dicts), later ones on top; the first is named in errors on the whole.

    Raises:
        MmfuseError: An unknown key, or a value that is not legal.
    """
    where = said[0][0]
    base = preset_of(said)
    layers = [("preset", base), *said] if base else list(said)
    config = parse(Config, layers)
    config.fusion = _settle_fusion({"name": "concat"}, layers) if config.init_from is None else _settle_fusion({}, said)
    settle_choices(config.training, layers)
    if base:
        settle_preset(config, base, said)
    if config.image_encoder.size is not None and (
        len(config.image_encoder.size) != 2
        or min(config.image_encoder.size) < 8
        or max(config.image_encoder.size) > LARGEST_SIZE
    ):
        raise MmfuseError(
            f"{where}: image_encoder.size: two numbers [H, W] of at least 8 and at most {LARGEST_SIZE} are expected"
        )
    dropout = config.training.modality_dropout
    if dropout.text + dropout.image > 1:
        raise MmfuseError(
            f"{where}: training.modality_dropout: text and image of a row are never both hidden, so text "
            f"{dropout.text:g} and image {dropout.image:g} must sum to at most 1"
        )
    towers = {"text": config.text_encoder, "image": config.image_encoder}
    kept = [name for name, own in towers.items() if own.first_trained is None and config.cache.enabled]
    check_live(config.training.augmentation, kept, f"{where}: ")
    check_effect(config, said)
    return config


def _settle_fusion(fusion: dict[str, Any], layers: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The strategy that the last layer says; another one's options do not carry over."""
    for _, layer in layers:
        chosen = layer.get("fusion") if isinstance(layer, dict) else None
        if isinstance(chosen, dict):
            same = chosen.get("name", fusion.get("name")) == fusion.get("name")
            fusion = {**fusion, **chosen} if same else dict(chosen)
    return fusion


def settle_choices(training: TrainingConfig, layers: Iterable[tuple[str, Any]]) -> None:
    """Make each choice by name what the last layer says; options of another name do not carry over.

    Args:
        training: Parsed of these layers; it is changed.
        layers: (where they come from, nested values), later ones on top.
    """
    for key in ("optimizer", "order", "method"):
        chosen: Any = None
        for _, layer in layers:
            own = layer.get("training") if isinstance(layer, dict) else None
            given = own.get(key) if isinstance(own, dict) else None
            if given is None:
                continue
            last = chosen if isinstance(chosen, dict) else {"name": chosen}
            merges = isinstance(given, dict) and given.get("name", last.get("name")) == last.get("name")
            chosen = {**last, **given} if merges else given
        if chosen is not None:
            setattr(training, key, chosen)


def check_live(config: AugmentationConfig, kept: Iterable[str], where: str = "") -> None:
    """Refuse to change inputs that are not read again, as their features are computed once.

    Args:
        config: The run's.
        kept: The modalities ("text", "image") whose encoder is frozen and whose features are kept.
        where: What the error begins with.

    Raises:
        MmfuseError: One of them would be changed.
    """
    text = {f"text.{name}": bool(value) for name, value in vars(config.text).items()}
    changes = {
        "image": {"image": config.image != "none", "flip": config.flip != "none"},
        "text": {"flip": config.flip == "swap", **text},
    }
    for modality in kept:
        for name, asked in changes[modality].items():
            if asked:
                raise MmfuseError(
                    f"{where}training.augmentation.{name}: features of the frozen {modality} encoder are computed once "
                    f"and kept, so its {modality}s cannot change; leave it out, or set {modality}_encoder.frozen=false "
                    "or cache.enabled=false"
                )


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts of a config; `config_from_dict` reads them back."""
    return dataclasses.asdict(config)
