"""What a user has named of his data, and what was guessed of the rest."""

from __future__ import annotations

import copy
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mmfuse.data.rows.frames import write_frame


@dataclass(frozen=True)
class Given:
    """What a user has named; all of them are names of columns, and None is to be guessed.

    Attributes:
        target: What is to be predicted.
        image: Where the images are.
        text: What the text encoder reads: a name, or several.
        group: What is never in two splits.
        id: What names a row.
        split: What says train, validation or test.
    """

    target: str | None = None
    image: str | None = None
    text: str | Sequence[str] | None = None
    group: str | None = None
    id: str | None = None
    split: str | None = None

    @property
    def texts(self) -> list[str]:
        """The columns of `text`."""
        return [self.text] if isinstance(self.text, str) else list(self.text or [])


@dataclass
class Guess:
    """A manifest that was guessed.

    Attributes:
        manifest: Plain values, as `parse_manifest` takes them; `rows` and `image.root` are absolute. Where `made` is
            not None, `rows` is `rows_file`, which `write` puts beside the manifest.
        said: What was taken and why, a line each.
        unsure: What may be wrong, a line each; not in `said`.
        why: By key of the manifest, such as `id` or `tasks`, the comment above it.
        made: The rows as they are written down anew, where `train` cannot read the data as it is: a spreadsheet,
            JSON, a table without a header, a folder, several files.
        prepare: The name in `mmfuse data sources` and the folder of a public data set as it is downloaded: then the
            manifest is the one that `mmfuse data prepare` writes.
    """

    manifest: dict[str, Any]
    said: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    made: pd.DataFrame | None = field(default=None, repr=False)
    prepare: tuple[str, Path] | None = None

    @property
    def rows_file(self) -> str:
        """The name of the file that `write` puts the rows into, where they are made."""
        return f"{self.manifest['name']}.rows.parquet"

    def yaml(self, near: Path) -> str:
        """The manifest with a comment on each guess.

        Args:
            near: The folder that it is written to: paths are relative to it where that is short.
        """
        values = copy.deepcopy(self.manifest)
        values["rows"] = _from(values["rows"], near)
        if "root" in values.get("image", {}):
            values["image"]["root"] = _from(values["image"]["root"], near)
        lines = ["# Written by `mmfuse init`: guessed, so look at it; a wrong guess is one line to change."]
        for key, value in values.items():
            lines += [_comment(self.why[key])] if key in self.why else []
            flow = None if isinstance(value, dict) else False
            lines.append(
                yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=flow)
            )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def write(self, folder: Path, name: str = "manifest.yaml") -> list[Path]:
        """Write the manifest, and the rows where they are made; what is there is replaced.

        A public data set as it is downloaded is prepared, in a folder `data` in that one.

        Args:
            folder: Where to; made if it is not there.
            name: Of the manifest's file.

        Returns:
            What was written, the manifest first.
        """
        if self.prepare is not None:
            from mmfuse.data.public.prepare import prepare

            return [prepare(*self.prepare, folder / "data").manifest]
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / name]
        written[0].write_text(self.yaml(folder), encoding="utf-8")
        if self.made is not None:
            written.append(folder / self.rows_file)
            write_frame(self.made, written[1])
        return written


def _comment(text: str) -> str:
    return "\n".join(
        textwrap.fill(line, 118, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
        for line in text.splitlines()
    )


def _from(location: str, near: Path) -> str:
    """A path relative to a folder, where it lies in that or in one of the two above it."""
    if "://" in location or not os.path.isabs(location):
        return location
    relative = os.path.relpath(location, near.resolve())
    return location if relative.startswith("../../..") else relative
