"""Presets: what a run sets where its user says nothing, by name; each key can be set otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import yaml

from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

_TEXT = {"name": "sentence-transformers/all-MiniLM-L6-v2", "max_length": 128}
_IMAGE = {"name": "timm/tf_efficientnet_lite0.in1k", "size": [224, 224]}
_FUSION = {"name": "concat", "out_dim": 128}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "quick": (
        "frozen encoders, whose features are computed once and kept, so that an epoch takes little",
        {
            "text_encoder": {**_TEXT, "frozen": True},
            "image_encoder": {**_IMAGE, "frozen": True},
            "fusion": _FUSION,
            "training": {
                "epochs": 20,
                "batch_size": 32,
                "learning_rate": 0.001,
                "weight_decay": 0.05,
                "patience": 5,
            },
        },
    ),
    "balanced": (
        "the encoders' last layers are fine-tuned, at rates below the fusion's; the others stay as they are",
        {
            "text_encoder": {**_TEXT, "adapter": {"name": "last_layers", "layers": 2}, "learning_rate": 0.0001},
            "image_encoder": {**_IMAGE, "adapter": {"name": "last_layers", "layers": 4}, "learning_rate": 0.0003},
            "fusion": _FUSION,
            "training": {
                "epochs": 10,
                "batch_size": 32,
                "learning_rate": 0.001,
                "weight_decay": 0.05,
                "patience": 3,
            },
        },
    ),
}
"""By name, what it does in words, and the keys that it sets. Both encoders are Apache-2.0."""
_OF_PRETRAINED = ("frozen", "adapter", "learning_rate")
"""Keys of a tower that are for pretrained ones alone."""


def preset(name: str) -> dict[str, Any]:
    """The config values of a preset, nested as in a run's YAML file; a copy.

    Args:
        name: "quick" or "balanced".

    Raises:
        MmfuseError: There is no such preset.
    """
    if name not in PRESETS:
        raise MmfuseError(f"preset: {str(name)[:60]!r} is not legal; {nearest(str(name), PRESETS)}")
    return copy.deepcopy(PRESETS[name][1])


def preset_text(name: str) -> str:
    """A preset as commented YAML: what `mmfuse config --preset NAME` prints.

    Raises:
        MmfuseError: There is no such preset.
    """
    values = yaml.safe_dump({"preset": name, **preset(name)}, sort_keys=False, default_flow_style=None, width=110)
    about = f"# {name}: {PRESETS[name][0]}.\n"
    about += f"# A config with `preset: {name}` sets all of this; what it sets itself counts.\n"
    return about + values


def preset_of(layers: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What the preset sets that these layers name, beside what they set themselves; {} where they name none.

    Of a tower of random weights (`pretrained: false`) it freezes nothing.

    Args:
        layers: (where they come from, nested values), later ones on top.

    Raises:
        MmfuseError: There is no such preset.
    """
    layers = [(where, values) for where, values in layers if isinstance(values, dict)]
    name = next((values["preset"] for _, values in reversed(layers) if "preset" in values), None)
    if name is None:
        return {}
    found = preset(name)
    for tower in ("text_encoder", "image_encoder"):
        own = [values[tower] for _, values in layers if isinstance(values.get(tower), dict)]
        if next((given["pretrained"] for given in reversed(own) if "pretrained" in given), True) is False:
            found[tower] = {key: value for key, value in found[tower].items() if key not in _OF_PRETRAINED}
    return found
