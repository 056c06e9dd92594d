"""What a model folder keeps of how its inputs were made, so that `predict` makes those of a new table alike.

A model folder may be anyone's, so it says nothing that opens a file or a connection: which URLs may stand in cells, and
where images lie on the machine that trained it, are not kept. Of the images' root remains what lies below the table's
own folder, which cells reach anyway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from mmfuse.config import parse
from mmfuse.data.readers.features import FILES
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.hugging_face import is_dataset
from mmfuse.data.tables.manifest import ImageSpec, Manifest, is_shards
from mmfuse.data.tables.recipe import Recipe
from mmfuse.types import MmfuseError

_MOST = 200_000
"""Characters of what a model folder says of them: it is checked value by value, a quarter of a millisecond each."""


@dataclass(frozen=True)
class TableInputs:
    """Which columns of a table are what.

    Attributes:
        id: The column that names a row.
        recipe: How the others become texts and images; of the modalities that the model reads, and no others.
        csv: How csv and tsv files were written.
    """

    id: str
    recipe: Recipe
    csv: CsvSpec = field(default_factory=CsvSpec)

    @classmethod
    def of(cls, manifest: Manifest, uses: Sequence[str]) -> TableInputs:
        """Those of a manifest that are kept; `uses` are the model's modalities."""
        image = manifest.image if "image" in uses else None
        if image is not None:
            image = replace(image, urls=[], root=_below_the_table(image.root, manifest.rows))
        text = manifest.text if "text" in uses else None
        if text is not None and text.files is not None:
            text = replace(text, root=_below_the_table(text.root, manifest.rows))
        text, image = (spec and _with_file(spec, manifest.rows) for spec in (text, image))
        return cls(manifest.id, Recipe(text, image, manifest.id), manifest.csv)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for `from_dict`."""
        return {"id": self.id, **self.recipe.to_dict(), "csv": asdict(self.csv)}

    @classmethod
    def from_dict(cls, values: Any, uses: Sequence[str]) -> TableInputs:
        """From a model folder, which may be anyone's.

        Args:
            values: What JSON says.
            uses: The model's modalities.

        Raises:
            MmfuseError: `to_dict` does not write that.
        """
        if not isinstance(values, dict) or not isinstance(values.get("id"), str):
            raise MmfuseError("inputs: an object with id, text and image is expected")
        said = json.dumps(values)
        if len(said) > _MOST:
            raise MmfuseError(f"inputs: at most {_MOST:,} characters are expected")
        if "${" in said:  # no manifest may hold it either
            raise MmfuseError("inputs: ${...} stands for nothing here")
        recipe = Recipe.from_dict({name: spec for name, spec in values.items() if name not in ("id", "csv")}, "inputs")
        for name, spec in (("text", recipe.text), ("image", recipe.image)):
            if (spec is not None) != (name in uses):
                raise MmfuseError(f"inputs.{name}: it is there or absent as the model reads it or not")
            file = spec.features.file if spec is not None and spec.features is not None else None
            if file is not None and not (_stays_below(file) and file.endswith(FILES)):
                raise MmfuseError(f"inputs.{name}.features.file: {file!r:.100}: a file below the table's own folder")
        if recipe.image is not None:
            _check_image(recipe.image)
        if recipe.text is not None and recipe.text.files is not None:
            for name, said in (("files", recipe.text.files), ("root", recipe.text.root)):
                if not _stays_below(said):
                    raise MmfuseError(f"inputs.text.{name}: {said!r:.100}: a place below the table's own is expected")
        return cls(
            values["id"], replace(recipe, id=values["id"]), parse(CsvSpec, [("inputs.csv", values.get("csv", {}))])
        )


def _with_file(spec: Any, rows: str) -> Any:
    """With a file of features as it lies below the table's folder; one from elsewhere by its name alone, there too."""
    if spec.features is None or spec.features.file is None:
        return spec
    file = spec.features.file
    below = _below_the_table(file, rows)
    return replace(spec, features=replace(spec.features, file=file.rsplit("/", 1)[-1] if below == "." else below))


def _below_the_table(root: str, rows: str) -> str:
    """The images' root relative to the folder of the rows; "." where it is not in that, or unknown."""
    folder = os.path.dirname(rows)
    if is_dataset(rows) or os.path.isdir(rows):
        return "."
    if is_shards(rows) or ("://" in root) != ("://" in folder):
        return "."
    if "://" in root:
        return root.removeprefix(f"{folder}/").rstrip("/") if root.startswith(f"{folder}/") else "."
    found = os.path.relpath(root, folder or ".")
    return found if _stays_below(found) else "."


def _stays_below(root: str) -> bool:
    plain = unquote(root)  # the table, and this behind it, may be at a URL
    outside = os.path.isabs(plain) or any(part in plain for part in ("::", "://", "\\", "\0", "?", "#"))
    return not outside and ".." not in plain.split("/")


def _check_image(image: ImageSpec) -> None:
    if image.urls:
        raise MmfuseError("inputs.image.urls: a model folder permits none; who predicts does (--image-urls)")
    if image.template is not None and not _stays_below(image.template):
        raise MmfuseError(f"inputs.image.template: {image.template!r:.100}: a path below the table's own is expected")
    if not _stays_below(image.root):
        raise MmfuseError(f"inputs.image.root: {image.root!r:.100}: a folder below the table's own is expected")
