"""The config that goes with a guessed manifest."""

from __future__ import annotations

from typing import Any

import yaml

from mmfuse.data.sniff.guessed import Guess


def config_values(guess: Guess, manifest: str, preset: str = "balanced") -> dict[str, Any]:
    """A run's config, nested.

    Args:
        guess: Of the data.
        manifest: Where it is, from where `mmfuse train` is started.
        preset: What sets the rest (`mmfuse config --preset NAME`).
    """
    values: dict[str, Any] = {"name": guess.manifest["name"], "preset": preset, "data": {"manifest": manifest}}
    tasks = list(guess.manifest["tasks"])
    if len(tasks) > 1:
        values["data"]["tasks"] = tasks[:1]
    lacking = [slot for slot in ("text", "image") if slot not in guess.manifest]
    if lacking:
        values["fusion"] = {"name": "image_only" if lacking[0] == "text" else "text_only"}
    return values


def config_text(guess: Guess, manifest: str) -> str:
    """The same as commented YAML."""
    above = [
        "# Written by `mmfuse init`. `mmfuse config --preset balanced` prints what it sets, `mmfuse config` every",
        "# key; `preset: quick` is faster. Without a network, name local folders: text_encoder: {name: DIR}.",
    ]
    lines = []
    for key, value in config_values(guess, manifest).items():
        flow = None if isinstance(value, dict) else False
        lines.append(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=flow))
    return "\n".join(above) + "\n" + "".join(lines)
