"""What --restart throws away, and only when what takes its place begins."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

BEFORE = ".mmfuse-before"
"""In a folder: what was there, until it is thrown away or put back."""
_THROWN = ".mmfuse-thrown"


def set_aside(folder: Path, *keep: str) -> None:
    """Move what is in the folder into a folder of its own in it.

    Args:
        folder: Of a run or benchmark.
        *keep: Names of files that stay: the lock, and what is read there.
    """
    before = folder / BEFORE
    before.mkdir()
    for child in _others(folder, keep):
        child.rename(before / child.name)


def throw_away(folder: Path) -> None:
    """Delete what was set aside, if anything was."""
    if (folder / BEFORE).is_dir():
        (folder / BEFORE).rename(folder / _THROWN)  # half of a run must not be put back
    if (folder / _THROWN).is_dir():
        shutil.rmtree(folder / _THROWN)


def put_back(folder: Path, *keep: str) -> None:
    """Put what was set aside in the place of all that came after, if anything was."""
    before = folder / BEFORE
    if not before.is_dir():
        return
    clear(folder, *keep)
    for child in before.iterdir():
        child.rename(folder / child.name)
    before.rmdir()


def clear(folder: Path, *keep: str) -> None:
    """Delete all that is in the folder, but for the files `keep` and what was set aside."""
    for child in _others(folder, keep):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _others(folder: Path, keep: Collection[str]) -> list[Path]:
    return [child for child in folder.iterdir() if child.name not in (*keep, BEFORE, _THROWN)]
