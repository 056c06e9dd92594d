"""How a row of a table becomes a model's inputs: which columns, in which template, which images from where."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from mmfuse import cells
from mmfuse.config import parse
from mmfuse.data.files.locations import place
from mmfuse.data.readers.features import as_text
from mmfuse.data.tables.features import feature_items
from mmfuse.data.tables.manifest import ImageSpec, Manifest, TextSpec, check_image, check_text, image_key
from mmfuse.data.tables.paths import PLACEHOLDER, filled, read_texts
from mmfuse.sections import select_sections
from mmfuse.types import MmfuseError


@dataclass(frozen=True)
class Recipe:
    """How a row becomes a text and images.

    Attributes:
        text: None where no text is read.
        image: None where no image is read.
        id: The column of the ids, which name the arrays of a file of features.
    """

    text: TextSpec | None
    image: ImageSpec | None
    id: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, manifest: Manifest) -> Recipe:
        """A manifest's."""
        return cls(manifest.text, manifest.image, manifest.id)

    def columns(self) -> list[str]:
        """All columns that are read."""
        images = self.image.named if self.image else []
        return list(dict.fromkeys([*(self.text.named if self.text else []), *images]))

    def permitted(self) -> tuple[str, ...]:
        """What `mmfuse.data.files.locations` may open of the images' locations beside paths."""
        return self.image.permitted if self.image else ()

    def texts(self, frame: pd.DataFrame, where: str, first: int = 0) -> list[str | None]:
        """By row its text, None where it is missing.

        Args:
            frame: Rows as `read_rows` gives them.
            where: Named in errors.
            first: The number of the first row, from 0; named in errors.

        Raises:
            MmfuseError: A column holds something else than texts, or a text file cannot be read.
        """
        spec = self.text
        if spec is None:
            return [None] * len(frame)
        if spec.features is not None:
            items = feature_items(frame, spec.features, "text", self.id, where, first)
            return [as_text(item) if isinstance(item, bytes) else None for item in items]
        absent, sections = {"", *spec.missing}, spec.sections
        names, columns = spec.columns, [cells.texts(frame, name, where, "text.columns", first) for name in spec.columns]
        if spec.files is not None:
            names, columns = [spec.files], [read_texts(frame, spec.files, spec.root, spec.missing, where, first)]
        texts: list[str | None] = []
        for values in zip(*columns, strict=True):
            parts = {n: ("" if v.strip() in absent else v.strip()) for n, v in zip(names, values, strict=True)}
            if sections:
                chosen = {name: select_sections(report, sections) for name, report in parts.items()}
                parts = {name: "" if text in absent else text for name, text in chosen.items()}
            if not any(parts.values()):
                texts.append(None)
            elif spec.template is None:
                texts.append("\n".join(p for p in parts.values() if p))
            else:
                texts.append(_fill(spec.template, parts).strip() or None)
        return texts

    def images(self, frame: pd.DataFrame, where: str, first: int = 0) -> list[list[str | bytes]]:
        """By row its images: paths below the root, URLs as they are, or encoded bytes.

        Whether a URL may be opened is asked where it is (`mmfuse.data.files.locations`), with `permitted`.

        Args:
            frame: Rows as `read_rows` gives them.
            where: Named in errors.
            first: The number of the first row, from 0; named in errors.

        Raises:
            MmfuseError: A column holds something else than images.
        """
        spec = self.image
        if spec is None:
            return [[] for _ in range(len(frame))]
        if spec.features is not None:
            items = feature_items(frame, spec.features, "image", self.id, where, first)
            placed = [place(item, spec.root) if isinstance(item, str) else item for item in items]
            return [[] if item is None else [item] for item in placed]
        if spec.template is not None:
            paths = filled(frame, spec.template, spec.separator, where, "image.template", first)
            return [[place(path, spec.root) for path in row] for row in paths]
        key = image_key(spec)
        rows: list[list[str | bytes]] = []
        for row, values in enumerate(zip(*(frame[name] for name in spec.named), strict=True), start=first + 1):
            try:
                found = [image for value in values for image in cells.images(value, spec.separator)]
            except MmfuseError as error:
                raise MmfuseError(f"{where}: {key}: {' or '.join(spec.named)}, row {row}: {error}") from error
            rows.append([place(image, spec.root) if isinstance(image, str) else image for image in found])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for `from_dict`."""
        return {name: _said(spec) for name, spec in (("text", self.text), ("image", self.image)) if spec is not None}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Recipe:
        """A recipe from JSON that may be anyone's.

        Raises:
            MmfuseError: It is not legal; the message begins with `where`.
        """
        if not isinstance(values, dict) or not values.keys() <= {"text", "image"}:
            raise MmfuseError(f"{where}: an object with text and image is expected")
        text = parse(TextSpec, [(where, values["text"])]) if values.get("text") is not None else None
        image = parse(ImageSpec, [(where, values["image"])]) if values.get("image") is not None else None
        check_text(text, where)
        check_image(image, where)
        return cls(text, image)


def _said(spec: TextSpec | ImageSpec) -> dict[str, Any]:
    values = asdict(spec)
    later = {"features": None, "files": None, "template": None}  # keys that older versions do not know
    if isinstance(spec, TextSpec):
        later = {"features": None, "files": None} | ({"root": values["root"]} if spec.files is None else {})
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def _fill(template: str, parts: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: parts[found[1]], template)
