"""The items of a table's rows where features stand in for texts or images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from mmfuse.data.readers.features import FeatureOptions, from_text, read_features
from mmfuse.data.readers.images import ImageError
from mmfuse.data.tables.table import Table
from mmfuse.types import MmfuseError


def feature_values(table: Table, modality: str, rows: Iterable[int]) -> Iterator[np.ndarray]:
    """The items of those rows that have one, `(T, D)` float32 each.

    Args:
        table: With features in place of a modality.
        modality: "text" or "image".
        rows: Their numbers.

    Raises:
        MmfuseError: One cannot be read, or is of another width; the message names the row and the reason.
    """
    spec = getattr(table.manifest, modality)
    options = FeatureOptions(spec.features.dim, spec.features.array)
    texts, images = (table.rows["text"][:], ()) if modality == "text" else ((), table.images())
    for row in rows:
        try:
            if modality == "text":
                if texts[row] is not None:
                    yield from_text(texts[row], options)
            else:
                yield from (read_features(item, options, table.manifest.urls) for item in images[row])
        except ImageError as error:
            raise MmfuseError(
                f"{table.manifest.source}: row {table.rows[row]['id']!r}: {modality}.features: {error}"
            ) from error
