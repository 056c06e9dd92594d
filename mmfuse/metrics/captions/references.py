"""What is checked of references before anything is scored."""

from __future__ import annotations

from collections.abc import Sequence

from mmfuse.types import MmfuseError


def as_lists(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each row's references.

    Raises:
        MmfuseError: A row has a string, whose characters would be taken for references.
    """
    for row, captions in enumerate(references):
        if isinstance(captions, str):
            raise MmfuseError(f"references of row {row} are a string, {captions[:40]!r}; they must be a list of them")
    return [list(captions) for captions in references]


def without_blank(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each row's references but for blank ones."""
    return [[caption for caption in captions if caption.strip()] for captions in as_lists(references)]


def check_number(name: str, number: int, rows: int) -> None:
    """Refuse captions, groups or keys that are not as many as there are rows with references.

    Raises:
        MmfuseError: They are not.
    """
    if number != rows:
        raise MmfuseError(f"there are {number} {name}, but references of {rows} rows")
