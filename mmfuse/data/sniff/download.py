"""A public data set as it is downloaded: its adapter knows what a guess could only guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmfuse.data.public.cards import SEPARATOR
from mmfuse.data.public.sources import SOURCES, Source
from mmfuse.data.sniff.guessed import Given, Guess


def guess_download(name: str, folder: Path, given: Given) -> Guess | None:
    """The manifest that `mmfuse data prepare` is going to write.

    Args:
        name: Of the source, whose download the folder is.
        folder: The download.
        given: What the user has named.

    Returns:
        None where the user names what the adapter does not have: then the tables in the folder are guessed at.
    """
    source: Source = SOURCES.get(name)()
    keys = source.manifest(folder)
    split = keys.pop("split_is", source.card.split)
    tasks: dict[str, Any] = keys.pop("tasks", {})
    chosen = [t for t, spec in tasks.items() if given.target in (None, t, spec.get("column"))]
    others = (given.image, given.group, given.id, given.split)
    if not chosen or any(others) or any(text not in keys.get("text", {}).get("columns", []) for text in given.texts):
        return None
    first = chosen[0]
    manifest = {"name": name, "rows": "rows.parquet", "id": "id"} | (
        {"group": keys.pop("group")} if "group" in keys else {}
    )
    manifest |= {"image": {"column": "images", "separator": SEPARATOR, "root": "images"}, **keys}
    manifest["tasks"] = {first: tasks[first], **{t: spec for t, spec in tasks.items() if t != first}}
    said = [
        f"rows: the folder is {name} as downloaded: mmfuse data prepare reads it, and writes rows, images and manifest",
        f"target: {first} is {tasks[first]['type']}",
        f"splits: {split}",
    ]
    unsure = [f"rows: {trap}" for trap in source.card.traps]
    if given.target is None and len(tasks) > 1:
        unsure.insert(
            0, f"target: none was named; {first} is taken; others, with --target: {', '.join(list(tasks)[1:])}"
        )
    return Guess(manifest, said, unsure, prepare=(name, folder.resolve()))
