"""What is told of a public dataset: its card in lines, and the manifest that is written for it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mmfuse.data.public.sources import READY, SOURCES, Source

SEPARATOR = ";"
"""Stands between the images of a row."""


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifest_text(name: str, folder: Path | None = None, notes: Sequence[str] = ()) -> str:
    """The manifest of a source as YAML, with its traps as comments.

    Args:
        name: A registered source.
        folder: The download; None: of a complete one.
        notes: What must be said of this download.
    """
    source: Source = SOURCES.get(name)()
    card, keys = source.card, source.manifest(folder)
    split = keys.pop("split_is", card.split)
    facts = {key: getattr(card, key) for key in ("about", "homepage", "licence", "citation", "obtain")}
    image = {"column": "images", "separator": SEPARATOR, "root": "images"}
    manifest = {"name": name, "version": 1, **facts, "rows": "rows.parquet", "id": "id"}
    manifest |= {"notes": list(notes)} if notes else {}
    manifest |= {"group": keys["group"]} if "group" in keys else {}
    manifest |= {"image": image, **{key: value for key, value in keys.items() if key != "group"}}
    above = [f"Written by `mmfuse data prepare {name}`.", f"Split: {split}", *card.traps]
    comment = "\n".join(textwrap.fill(n, 118, initial_indent="# ", subsequent_indent="#   ") for n in above)
    body = yaml.dump(manifest, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return f"{comment}\n{body}"


def source_lines() -> list[str]:
    """A line on each source, and on each set that needs no preparing."""
    lines = {name: SOURCES.get(name)().card.about.split(". ")[0].rstrip(".") + "." for name in SOURCES.names()}
    lines |= {name: f"{about} Ready: mmfuse config --copy {name}" for name, about in READY.items()}
    return [f"{name}: {line}" for name, line in sorted(lines.items())]


def card_text(name: str) -> str:
    """All that is known of a source, in lines.

    Raises:
        MmfuseError: No such source.
    """
    if name in READY:
        return f"{name}: {READY[name]}\nNothing to prepare; its card: mmfuse config --copy data_manifests/{name}"
    source: Source = SOURCES.get(name)()
    card, keys = source.card, source.manifest(None)
    facts = {key: getattr(card, key) for key in ("about", "homepage", "licence", "citation", "obtain")}
    facts["files"] = _files(card.files)
    facts |= {f"or {layout.about}": _files(layout.files) for layout in card.layouts}
    facts |= {"group": keys.get("group", "none: each row is its own"), "split": card.split}
    facts |= {
        f"task {task}": f"{spec['type']}, labels {spec['label_origin']}" for task, spec in keys.get("tasks", {}).items()
    }
    parts = [*facts.items(), *(("trap", trap) for trap in card.traps)]
    return "\n".join([name, *(textwrap.fill(f"{k}: {v}", 118, subsequent_indent="    ") for k, v in parts)])


def _files(files: tuple[tuple[str, ...], ...]) -> str:
    return "; ".join(" or ".join(patterns) for patterns in files)
