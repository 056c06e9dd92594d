"""Config keys that nothing reads beside the others that were chosen: refused, as a typo is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmfuse.types import MmfuseError

SAVED_TOWER = "mmfuse-model:"
"""Begins the name of a tower that is taken from a model folder as it is."""
_OF_SAVED = ("name", "frozen", "unfreeze_epoch", "learning_rate", "adapter")
_OWN = (None, "transformers", "timm")
"""Towers of texts and images; any other reads features."""
_READ_BY = {"text_encoder": "texts are read by transformers", "image_encoder": "images are read by timm"}
_OF_FEATURES = ("tower", "options", "frozen", "unfreeze_epoch", "learning_rate", "adapter")
_NEW_DECODER = ("hidden_dim", "num_layers", "num_heads", "options", "vocabulary", "vocab_size")


def check_effect(config: Any, layers: Iterable[tuple[str, Any]]) -> None:
    """Refuse keys that were given, and that nothing reads.

    Args:
        config: Of a run or a benchmark, parsed.
        layers: (where they come from, nested values), as the user wrote them.

    Raises:
        MmfuseError: There are such keys; the message names them, and the key that leaves them without effect.
    """
    layers = list(layers)
    for path, own, keys, why in _idle(config):
        for where, values in layers:
            found = [f"{'.'.join(path)}.{key}" for key in _given(values, path, own) if key in keys]
            if found:
                has, them = ("has", "it") if len(found) == 1 else ("have", "them")
                raise MmfuseError(f"{where}: {', '.join(found)} {has} no effect with {why}: remove {them}")


def settle_preset(config: Any, preset: Mapping[str, Any], layers: Iterable[tuple[str, Any]]) -> None:
    """Put back to their defaults the keys of a preset that nothing reads beside what was chosen, and choices by name.

    Args:
        config: Of a run, parsed of the preset and the layers; it is changed.
        preset: What the preset says.
        layers: (where they come from, nested values), as the user wrote them; a preset's choice by name gives way to
            theirs with all its options.
    """
    for tower in ("text_encoder", "image_encoder"):
        for _, values in layers:
            given = values.get(tower) if isinstance(values, dict) else None
            if isinstance(given, dict) and "adapter" in given:
                getattr(config, tower).adapter = given["adapter"]
    for path, own, keys, _ in list(_idle(config)):
        default = type(own)()
        for name in set(_given(preset, path, own)) & set(keys):
            if not any(name in _given(values, path, own) for _, values in layers):
                setattr(own, name, getattr(default, name))


def check_generation(values: Mapping[str, Any], generation: Any, where: str = "generation") -> None:
    """Refuse options of drawing where the likeliest tokens are taken.

    Args:
        values: As the user wrote them.
        generation: What they make of the `GenerationConfig`.
        where: What the error begins with.

    Raises:
        MmfuseError: There is one.
    """
    for name in ("temperature", "top_p"):
        if name in values and not generation.do_sample:
            raise MmfuseError(f"{where}.{name} has no effect with do_sample: false: remove it, or set do_sample: true")


def _idle(config: Any) -> Iterator[tuple[tuple[str, ...], Any, Iterable[str], str]]:
    """(path of an owner, the owner, its keys without effect, why they have none)."""
    parent = getattr(config, "init_from", None)  # a benchmark has none
    for tower in ("text_encoder", "image_encoder"):
        own = getattr(config, tower)
        if parent is not None and own.name != f"{SAVED_TOWER}{parent}":
            others = [item.name for item in dataclasses.fields(own) if item.name not in _OF_SAVED]
            yield (tower,), own, ["name", *others], f"init_from: {parent}, whose tower is taken as it is"
        elif own.tower not in _OWN and not own.name.startswith(SAVED_TOWER):
            others = [item.name for item in dataclasses.fields(own) if item.name not in _OF_FEATURES]
            yield (tower,), own, others, f"{tower}.tower: {own.tower}, which reads features ({_READ_BY[tower]})"
        elif own.name.startswith(SAVED_TOWER):
            others = [item.name for item in dataclasses.fields(own) if item.name not in _OF_SAVED]
            yield (tower,), own, others, f"{tower}.name: {own.name}, whose tower is taken as it is"
        elif tower == "text_encoder" and own.pretrained:
            yield (tower,), own, ("options", "vocabulary", "vocab_size"), f"{tower}.pretrained: true"
        elif tower == "text_encoder" and "/" in own.name:
            yield (tower,), own, ("vocabulary", "vocab_size"), f"the tokenizer of {own.name}"
        if not own.frozen:
            yield (tower,), own, ("unfreeze_epoch",), f"{tower}.frozen: false"
        elif own.unfreeze_epoch is None:
            yield (tower,), own, ("adapter",), f"{tower}.frozen: true and no unfreeze_epoch"
    for task, own in config.tasks.items():
        path, decoder = ("tasks", task, "decoder"), own.decoder
        if decoder.pretrained:
            yield path, decoder, _NEW_DECODER, f"tasks.{task}.decoder.pretrained: true"
        elif decoder.tokenizer == "encoder":
            yield path, decoder, ("vocabulary", "vocab_size"), f"tasks.{task}.decoder.tokenizer: encoder"
        if not own.generation.do_sample:
            why = f"tasks.{task}.generation.do_sample: false"
            yield ("tasks", task, "generation"), own.generation, ("temperature", "top_p"), why


def _given(values: Any, path: tuple[str, ...], own: Any) -> list[str]:
    """The keys that stand in a layer; of one that has all keys, as a run's config.yaml, those that say something."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        return []
    default = type(own)()
    whole = all(item.name in values for item in dataclasses.fields(own))
    return [key for key, value in values.items() if not (whole and value == getattr(default, key))]
