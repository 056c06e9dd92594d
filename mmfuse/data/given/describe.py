"""Rows that a caller gives, and what is known of them, as the manifest and the rows of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmfuse.data.given.held import is_in_memory, location
from mmfuse.data.given.joined import join_parts
from mmfuse.data.given.own import ROWS, OwnData
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.sniff import Given, Guess, guess
from mmfuse.types import MmfuseError

Columns = str | Sequence[str] | Mapping[str, Any] | None
"""How a modality is named: a column, several, a manifest's mapping such as `{"column": ..., "root": ...}`, or not."""


@dataclass(frozen=True)
class Named:
    """What the caller says of the rows; None is guessed.

    Attributes:
        target: The column that is to be predicted.
        image: Where the images are.
        text: What the text encoder reads.
        group: The column that is never in two splits.
        id: The column that names a row.
    """

    target: str | None = None
    image: Columns = None
    text: Columns = None
    group: str | None = None
    id: str | None = None

    def given(self, **more: Any) -> Given:
        """As the guess takes it."""
        image = _columns_of(self.image, "image")
        return Given(
            target=self.target,
            image=image[0] if len(image) == 1 else None,
            text=_columns_of(self.text, "text") or None,
            group=self.group,
            id=self.id,
            **more,
        )


@dataclass(frozen=True)
class Described:
    """A manifest that was guessed, and its rows.

    Attributes:
        guess: The manifest, and what was guessed in it and why.
        rows: The rows where they are written down anew; None where they are read where they lie.
    """

    guess: Guess
    rows: Path | None

    def own(self, folder: Path) -> OwnData:
        """What is put into a run's folder."""
        return OwnData(self.guess.yaml(folder), self.rows)

    def said(self) -> list[str]:
        """What was taken and why, and what may be wrong, a line each."""
        return [*self.guess.said, *(f"unsure: {line}" for line in self.guess.unsure)]


@contextmanager
def described(data: Any, named: Named, valid: Any = None, test: Any = None) -> Iterator[Described]:
    """The manifest of some rows; as long as it is open, its rows lie in a temporary folder.

    Args:
        data: A pandas DataFrame, a `datasets.Dataset`, or where rows lie: a file, a folder, `hf:NAME@split`.
        named: What the caller says of them.
        valid: Validation rows of their own, of the same kinds and columns; None: a share of `data`.
        test: The same of the test rows.

    Raises:
        MmfuseError: Nothing can be made of the rows, or a column that is named is not there.
    """
    with TemporaryDirectory(prefix="mmfuse-") as folder:
        scratch, in_memory, base = Path(folder), is_in_memory(data), _base(named.image)
        base = Path.cwd() if in_memory and base is None else base
        told: list[str] = []
        parts = {name: part for name, part in (("data", data), ("valid", valid), ("test", test)) if part is not None}
        if len(parts) > 1:
            base = base or _folder_of(location(data))
            rows, column = join_parts(parts, lambda file: guess(file, named.given(), base), scratch)
            found = guess(rows, named.given(split=column), base)
        elif in_memory:
            rows = write_frame(data, scratch / ROWS, told.append)
            found = guess(rows, named.given(), base)
        else:
            found, rows = guess(location(data), named.given(), base), None
        if found.prepare is not None:
            raise MmfuseError(
                f"{data}: it is the public data set {found.prepare[0]} as it is downloaded; write it as a table first: "
                f"mmfuse data prepare {found.prepare[0]} --from {data} --out FOLDER"
            )
        if found.made is not None:
            rows = write_frame(found.made, scratch / "made.parquet")
        manifest = dict(found.manifest)
        if rows is not None:
            manifest["rows"] = ROWS
            manifest.pop("csv", None)
        if in_memory:
            manifest["name"] = named.target or "data"
        for slot, columns in (("image", named.image), ("text", named.text)):
            if isinstance(columns, Mapping):
                manifest[slot] = {**manifest.get(slot, {}), **_absolute(columns)}
        yield Described(replace(found, manifest=manifest, made=None, said=[*told, *found.said]), rows)


def _folder_of(place: str) -> Path:
    return Path(place) if os.path.isdir(place) else Path(place).parent


def _base(image: Columns) -> Path | None:
    """Where the caller says that images lie."""
    root = image.get("root") if isinstance(image, Mapping) else None
    return None if root is None or "://" in root else Path(location(root))


def _columns_of(named: Columns, key: str) -> list[str]:
    if isinstance(named, Mapping):
        named = named.get("column") or named.get("columns") or named.get("files")
    found = [named] if isinstance(named, str) else list(named or [])
    if not all(isinstance(name, str) for name in found):
        raise MmfuseError(f"{key}: the name of a column, a list of names, or a manifest's {key} mapping is expected")
    return found


def _absolute(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's mapping, its root found from anywhere: what a caller types is relative to where he is."""
    return {**columns, "root": location(columns["root"])} if "root" in columns else dict(columns)
