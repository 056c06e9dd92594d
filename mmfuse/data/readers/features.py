"""Precomputed features, an item of a row: a cell of numbers, a file of an array, or encoded bytes to `(T, D)` float32.

In a table an item is what an image is there, encoded bytes or a location, so that shards, streams, splits by content
and `predict` treat both alike; where it stands in for a text, its bytes are written as one (`as_text`).
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors

from mmfuse.data.files.locations import read_location
from mmfuse.data.files.read import read_bytes
from mmfuse.data.readers.images import ImageError
from mmfuse.types import MmfuseError

MOST_NUMBERS = 64 * 2**20
"""Of an item: 256 MiB."""
_MAX_BYTES = 512 * 2**20
_MAX_FILE_BYTES = 64 * 2**30
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
FILES = (".npz", ".npy", ".safetensors")


@dataclass(frozen=True)
class FeatureOptions:
    """How an item is read.

    Attributes:
        dim: Numbers of a vector, `D`; None: any.
        array: Which array of a file that holds several.
    """

    dim: int | None = None
    array: str | None = None


def read_features(
    source: str | Path | bytes | np.ndarray, options: FeatureOptions, urls: Sequence[str] = ()
) -> np.ndarray:
    """Read one item.

    Args:
        source: A path or URL of a .npy, .npz or .safetensors file, its bytes, or an array.
        options: What to expect of it.
        urls: Which URLs are read (see `mmfuse.data.files.locations`); by default none.

    Returns:
        `(T, D)` float32, finite; a vector `(D,)` is one token.

    Raises:
        ImageError: It cannot be read, or is something else; the message is the reason, never the path.
    """
    try:
        if isinstance(source, np.ndarray):
            return _checked(source, options.dim)
        if not isinstance(source, bytes):
            source = read_location(source, _MAX_BYTES, urls)
        return _checked(_array(source, options.array), options.dim)
    except MmfuseError as error:
        raise ImageError(str(error)) from error


def as_bytes(numbers: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file of float32; equal ones give equal bytes."""
    handle = io.BytesIO()
    np.lib.format.write_array(handle, np.ascontiguousarray(numbers, np.float32), version=(1, 0), allow_pickle=False)
    return handle.getvalue()


def as_text(encoded: bytes) -> str:
    """Such bytes as the text of a row."""
    return base64.b64encode(encoded).decode()


def from_text(text: str, options: FeatureOptions) -> np.ndarray:
    """What `as_text` wrote, as `read_features` gives it.

    Raises:
        ImageError: It is another text.
    """
    try:
        return read_features(base64.b64decode(text, validate=True), options)
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("a text, where features are expected (mmfuse.data.readers.features.as_text)") from error


def numbers_of(cell: Any, dim: int | None) -> np.ndarray | None:
    """The numbers of a cell: one, a list, a list of lists, or one of these written as text; None of another text.

    Raises:
        MmfuseError: They are no features; the message is the reason.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell) if cell.lstrip()[:1] == "[" else float(cell)
        except (ValueError, RecursionError):
            return None
    if isinstance(cell, (bytes, dict)):
        raise MmfuseError("numbers, a list of them, or the name of a file is expected")
    try:
        found = np.asarray(cell, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise MmfuseError("a list of something else than numbers, or of lists of unequal length") from error
    return _checked(found.reshape(1) if found.ndim == 0 else found, dim)


def read_keyed(location: str, wanted: Sequence[str], dim: int | None) -> dict[str, np.ndarray]:
    """Of a .npz or .safetensors file, the arrays that are named as the rows are.

    Raises:
        MmfuseError: It cannot be read, or an array in it is no features; the message names it.
    """
    try:
        local = os.stat(location) if os.path.isfile(location) else None
        arrays = _opened(location, local and (local.st_mtime_ns, local.st_size))
        chosen, found = set(wanted), {}
        for name in arrays:
            if name in chosen:
                try:
                    found[name] = _checked(arrays[name], dim)
                except MmfuseError as error:
                    raise MmfuseError(f"{name!r:.100}: {error}") from error
        return found
    except MmfuseError as error:
        raise MmfuseError(f"{location}: {error}") from error
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MmfuseError(f"{location}: damaged, or another format ({type(error).__name__})") from error


@lru_cache(maxsize=1)
def _opened(location: str, state: Any) -> Mapping[str, np.ndarray]:
    """The arrays of a file, kept for the next rows of the same table: they are read some thousand at a time."""
    return _arrays(read_bytes(location, _MAX_FILE_BYTES))


def _arrays(data: bytes) -> Mapping[str, np.ndarray]:
    """By name the arrays of an archive."""
    if data[:4] == _ZIP:
        return _Npz(zipfile.ZipFile(io.BytesIO(data)))
    try:
        return load_safetensors(data)
    except Exception as error:  # safetensors' own is no ValueError, and it raises KeyError of types numpy lacks
        raise MmfuseError(f"no file of arrays ({', '.join(FILES)})") from error


class _Npz(Mapping):
    """The arrays of a .npz file, decoded when they are asked for; none larger than an item may be."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __getitem__(self, name: str) -> np.ndarray:
        with self._archive.open(self._members[name]) as member:
            return _from_npy(member.read(_MAX_BYTES))


def _array(data: bytes, key: str | None) -> np.ndarray:
    """The one array of a file's bytes, or that of this name."""
    try:
        if data[:6] == _NPY:
            return _from_npy(data)
        arrays = _arrays(data)
        names = list(arrays)
        if key is None and len(names) != 1:
            raise MmfuseError(f"it holds {len(names)} arrays: name one as features.array: {', '.join(names)[:200]}")
        if key is not None and key not in names:
            raise MmfuseError(f"it holds no array {key!r}, but {', '.join(names)[:200]}")
        return arrays[key or names[0]]
    except MmfuseError:
        raise
    except Exception as error:  # numpy's parser raises many kinds, of zlib and zipfile too
        raise MmfuseError(
            f"damaged, or of another format ({type(error).__name__}); legal: arrays of numbers"
        ) from error


def _from_npy(data: bytes) -> np.ndarray:
    """The array of a .npy file; numpy would first take the memory that its header promises."""
    handle = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(handle)
    read: Any = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, kind = read(handle)
    if math.prod(shape) * kind.itemsize > len(data):
        raise MmfuseError("damaged: it is cut short")
    return np.load(io.BytesIO(data), allow_pickle=False)


def _checked(found: np.ndarray, dim: int | None) -> np.ndarray:
    """`(T, D)` float32.

    Raises:
        MmfuseError: Its type, shape, width or values are not legal.
    """
    if found.dtype.kind not in "fiub":
        raise MmfuseError(f"an array of {found.dtype}; numbers are expected")
    if found.ndim not in (1, 2) or not found.size or found.size > MOST_NUMBERS:
        raise MmfuseError(
            f"an array of shape {list(found.shape)}; [{dim or 'D'}] or [tokens, {dim or 'D'}] is expected, of at most "
            f"{MOST_NUMBERS:,} numbers"
        )
    if dim is not None and found.shape[-1] != dim:
        raise MmfuseError(f"{found.shape[-1]} numbers in a vector; {dim} are expected")
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(found.reshape(-1, found.shape[-1]), dtype=np.float32)
    if not np.isfinite(found).all():
        raise MmfuseError("NaN or an infinite number among them; finite ones are expected, and a missing item as empty")
    return found
