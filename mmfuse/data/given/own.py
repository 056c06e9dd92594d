"""A manifest and its rows that lie in the folder of the run that reads them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse.types import MmfuseError

MANIFEST, ROWS = "manifest.yaml", "rows.parquet"
"""Their names."""
_READ_AT_ONCE = 4096


@dataclass(frozen=True)
class OwnData:
    """What a run is given that is to lie in its folder.

    Attributes:
        manifest: Text of the manifest; paths in it may be relative to the folder.
        rows: The file of the rows, wherever it is now; None where the manifest names those of another place.
    """

    manifest: str
    rows: Path | None = None

    def place(self, folder: Path) -> None:
        """Write both into the folder.

        Raises:
            MmfuseError: It cannot be written.
        """
        scratch = folder / f"{ROWS}.tmp"
        try:
            if self.rows is not None:
                shutil.copyfile(self.rows, scratch)
                scratch.replace(folder / ROWS)
            (folder / MANIFEST).write_text(self.manifest, encoding="utf-8")
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise MmfuseError(f"{folder}: the rows cannot be written there: {error.strerror or error}") from error

    def check_same(self, folder: Path) -> None:
        """Refuse a folder in which another manifest or other rows lie.

        Raises:
            MmfuseError: It names what differs.
        """
        there = folder / MANIFEST
        then = yaml.safe_load(there.read_text(encoding="utf-8")) if there.is_file() else None
        differs = _first_difference(then, yaml.safe_load(self.manifest))
        if differs is not None:
            raise MmfuseError(
                f"{folder}: holds a run of other data ({differs}); choose another out=, or restart=True to discard it"
            )
        if self.rows is not None and not _same_rows(folder / ROWS, self.rows):
            raise MmfuseError(
                f"{folder}: holds a run of other rows ({ROWS} differs from the data that is given now); choose another "
                "out=, or restart=True to discard it"
            )


def read_here(folder: Path, manifest: str) -> tuple[str, ...]:
    """The names of what lies in a run's folder and is read there, and so is not thrown away with the run.

    Args:
        folder: The run's.
        manifest: What its config names.
    """
    if "://" in manifest or os.path.realpath(manifest) != os.path.realpath(folder / MANIFEST):
        return ()
    return (MANIFEST, ROWS)


def _first_difference(then: Any, now: Any, path: str = "") -> str | None:
    """Where two manifests differ first, in words; None where they say the same."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**now, **then}:
            found = _first_difference(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
            if found is not None:
                return found
        return None
    return None if then == now else f"{path or 'the manifest'} was {then!r:.80}, is now {now!r:.80}"


def _same_rows(one: Path, other: Path) -> bool:
    """Whether two parquet files hold the same, be they compressed alike or not."""
    try:
        first, second = pq.ParquetFile(one), pq.ParquetFile(other)
        if not first.schema_arrow.equals(second.schema_arrow) or first.metadata.num_rows != second.metadata.num_rows:
            return False
        blocks = (file.iter_batches(_READ_AT_ONCE) for file in (first, second))
        return all(a is not None and a.equals(b) for a, b in zip_longest(*blocks))
    except (OSError, pa.ArrowException):  # it is not there, or damaged
        return False
