"""All that is guessed of a set of rows, in the order in which one guess needs another."""

from __future__ import annotations

import os
from pathlib import Path

from mmfuse.data.rows.read import read_rows
from mmfuse.data.sniff.guessed import Given, Guess
from mmfuse.types import MmfuseError


def guess(data: str | Path, given: Given | None = None) -> Guess:
    """A manifest for what people have, and what was guessed in it and why.

    Args:
        data: A file of rows, a folder, or `hf:NAME@split`.
        given: What the user has named.

    Raises:
        MmfuseError: Nothing can be made of it, or a column that is named is not there.
    """
    given = given or Given()
    frame = read_rows(str(data), str(data))
    unique = [name for name in frame if frame[name].is_unique]
    text, target = given.texts, given.target
    if not unique or not text or not target:
        raise MmfuseError(f"{data}: name --target and --text")
    tasks = {target: {"type": "classification", "column": target}}
    manifest = {"name": Path(data).stem, "rows": os.path.abspath(data), "id": given.id or unique[0]}
    manifest |= {"image": {"column": given.image, "root": str(Path(data).parent.resolve())}} if given.image else {}
    return Guess({**manifest, "text": {"columns": text}, "tasks": tasks}, ["a first, thin guess"])
