"""The noun `Table`: a dataset as it is trained on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmfuse.data.rows.spreadsheet import harmless
from mmfuse.data.tables.manifest import Manifest
from mmfuse.tasks import TaskKind, task_of
from mmfuse.types import MmfuseError, Sample


@dataclass
class Table:
    """A dataset as it is trained on.

    Attributes:
        manifest: Where it comes from.
        rows: Columns `id`, `group`, `text` (None where missing), `subgroup.<name>`, and `images`: lists of locations,
            or of structs of `bytes` and `path` where any image is encoded in the table itself.
        labels: By task, the label names in the order of the logits.
        targets: By task, as its kind encodes them (`mmfuse.tasks`): `(rows,)` int64 with -100 where missing, or
            `(rows, L)` float32 with NaN where missing; of a captioning task `(rows,)` objects, the tuple of references,
            empty where missing.
        splits: By row: train, validation or test.
    """

    manifest: Manifest
    rows: datasets.Dataset
    labels: dict[str, list[str]]
    targets: dict[str, np.ndarray]
    splits: list[str]

    block: ClassVar[int | None] = None
    """Where images are read from shards, how many rows' at once."""

    def __len__(self) -> int:
        return len(self.rows)

    def indices(self, split: str) -> list[int]:
        """The rows of a split, in the table's order.

        Raises:
            MmfuseError: No such split, or it is empty.
        """
        chosen = [i for i, name in enumerate(self.splits) if name == split]
        if not chosen:
            counts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(self.splits).items()))
            raise MmfuseError(f"{self.manifest.source}: no row is in split {split!r}; rows a split: {counts}")
        return chosen

    def counts(self) -> dict[str, int]:
        """Rows a split, of those splits that have any."""
        return dict(Counter(self.splits))

    def lacks(self, split: str) -> dict[str, int]:
        """How many rows of a split have no `text`, and no `image`."""
        rows = self.indices(split)
        return {"text": int((~self.has_text()[rows]).sum()), "image": int((~self.has_image()[rows]).sum())}

    def texts(self, split: str) -> Iterable[str]:
        """The texts of a split, empty where there is none; they may be gone through more than once."""
        texts: list[str | None] = self.rows["text"][:]
        return [texts[row] or "" for row in self.indices(split)]

    def kind(self, task: str) -> TaskKind:
        """What a task's targets are."""
        return task_of(self.manifest.tasks[task], self.labels[task])

    def targets_of(self, task: str, split: str) -> np.ndarray:
        """A task's targets of a split, as in `targets`."""
        return self.targets[task][self.indices(split)]

    def counted_targets(self, task: str, split: str) -> np.ndarray:
        """Targets of a split in which each label is as often as in its rows; for tables that know no more, its own."""
        return self.targets_of(task, split)

    def has_target(self, task: str, split: str) -> bool:
        """Whether any row of a split says anything of a task."""
        return bool(self.kind(task).labelled(self.targets_of(task, split)).any())

    def captions(self, task: str, split: str) -> Iterable[str]:
        """All references of a captioning task in a split; they may be gone through more than once."""
        return [caption for captions in self.targets_of(task, split) for caption in captions]

    def images(self) -> Sequence[Sequence[str | bytes]]:
        """By row its images: paths and URLs, or encoded bytes."""
        column = self.rows.data.column("images")
        return PackedImages(column) if pa.types.is_struct(column.type.value_type) else self.rows["images"][:]

    def columns(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Some of `rows` as columns, their images as locations and encoded bytes."""
        found: dict[str, list[Any]] = self.rows[rows]
        return {**found, "images": [unpack_images(images) for images in found["images"]]}

    def sample(self, index: int) -> Sample:
        """One row as a sample, without its targets."""
        row: dict[str, Any] = self.rows[index]
        return Sample(
            id=row["id"],
            images=tuple(unpack_images(row["images"])),
            text=row["text"],
            group=row["group"],
            urls=self.manifest.urls,
            subgroups={k.removeprefix("subgroup."): v for k, v in row.items() if k.startswith("subgroup.")},
        )

    def has_text(self) -> np.ndarray:
        """`(rows,)` bool."""
        return np.array([text is not None for text in self.rows["text"]], dtype=bool)

    def has_image(self) -> np.ndarray:
        """`(rows,)` bool."""
        lengths = pc.list_value_length(self.rows.data.column("images"))  # type: ignore[attr-defined]
        return lengths.fill_null(0).to_numpy() > 0

    def save_splits(self, path: Path) -> None:
        """Write `id,group,split`, a line a row; for people, so each cell is `harmless`."""
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "group", "split"])
            rows = zip(self.rows["id"], self.rows["group"], self.splits, strict=True)
            writer.writerows(map(harmless, row) for row in rows)


_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])


def pack_images(rows: Sequence[Sequence[str | bytes]]) -> pa.Array:
    """Rows' images as the column of `Table.rows`: locations, or structs where any image is encoded."""
    if not any(isinstance(image, bytes) for images in rows for image in images):
        return pa.array(rows, pa.list_(pa.string()))
    packed = ([{"bytes": i, "path": None} if isinstance(i, bytes) else {"path": i} for i in images] for images in rows)
    return pa.array(packed, pa.list_(_IMAGE))


class PackedImages(Sequence):
    """By row its images, locations and bytes, taken out of an Arrow column when they are asked for."""

    def __init__(self, column: pa.ChunkedArray):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return unpack_images(self.column[row].as_py())


def unpack_images(images: Sequence[Any]) -> list[str | bytes]:
    """A row's images out of `Table.rows`, as locations and bytes."""
    return [image if not isinstance(image, dict) else image["path"] or image["bytes"] for image in images]
