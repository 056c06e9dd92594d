"""One value of a DataFrame, a Python object of nearly any kind, as what stands for it in a file of rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
from PIL import Image

from mmfuse.data.readers.encoded import encode_picture
from mmfuse.data.readers.kinds import IMAGE_SUFFIXES, TEXT_SUFFIXES
from mmfuse.types import MmfuseError

Kind = Literal["text", "image", "list", "images", "object"]
"""Of a value that is there: a scalar; bytes, a picture, or a struct of bytes and path; a list; one of images; any."""

_AS_TEXT = (str, bool, np.bool_, int, np.integer, float, np.floating, os.PathLike, Decimal, UUID)
_TIMES = (datetime, date, time, timedelta, np.datetime64, np.timedelta64, pd.Period, pd.Interval)
_LISTS = (list, tuple, set, frozenset, pd.Series, pd.Index)
_BYTES = (bytes, bytearray, memoryview)
_FILES = (*IMAGE_SUFFIXES, *TEXT_SUFFIXES)
_NAME_MAX = 4096


class ImageCell(NamedTuple):
    """An image of a row: its encoded bytes, or else its path."""

    bytes: bytes | None
    path: str | None


def is_absent(value: Any) -> bool:
    """Whether it stands for no value: None, NaN, NaT and pandas' NA."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, (float, np.floating, Decimal, np.datetime64, np.timedelta64)) and bool(value != value)


def kind_of(value: Any) -> Kind:
    """What a value is that is there.

    Raises:
        MmfuseError: No file of rows holds such a value.
    """
    if isinstance(value, (*_AS_TEXT, *_TIMES)):
        return "text"
    if isinstance(value, (*_BYTES, Image.Image)):
        return "image"
    if isinstance(value, np.ndarray):
        if value.ndim > 2 or (value.ndim == 2 and value.dtype == np.uint8):
            return "image"
        return "list" if value.ndim and value.dtype != object else kind_of(value.tolist())
    if isinstance(value, Mapping):
        return "image" if value and value.keys() <= {"bytes", "path"} else "object"
    if isinstance(value, _LISTS):
        kinds = {kind_of(item) for item in value if not is_absent(item)}
        return "images" if "image" in kinds or "images" in kinds else "list"
    raise MmfuseError(f"{type(value).__module__}.{type(value).__name__}: no file of rows holds it; {_instead(value)}")


def _instead(value: Any) -> str:
    if type(value).__module__.partition(".")[0] in ("torch", "tensorflow", "jax"):
        return "give a numpy array: of an image (H, W, 3) of uint8, such as tensor.permute(1, 2, 0).numpy()"
    return "give texts, numbers, dates, images or lists of them, or leave the column out"


def text_of(value: Any) -> str:
    """A scalar as text: a float that is a whole number without `.0`, as its int would be written.

    pandas makes floats of ints as soon as one of them is missing, and so a class that is called 1 would be called 1.0
    in one table and 1 in the next. What a value is called must not depend on other rows.

    Raises:
        MmfuseError: A float beyond which ints have lost digits; half of a UTF-16 pair.
    """
    if isinstance(value, str):
        return checked(str(value))
    if isinstance(value, os.PathLike):
        return checked(os.path.abspath(os.fsdecode(value)))
    if isinstance(value, (float, np.floating)) and np.isfinite(value) and float(value).is_integer():
        digits = np.finfo(value.dtype if isinstance(value, np.floating) else float).nmant + 1
        if 2**digits <= abs(value) < 2**64:
            raise MmfuseError(
                f"{value!s}: as a float, a whole number beyond 2**{digits} has lost digits; give an integer type "
                "(Int64), or texts"
            )
        return str(int(value)) if abs(value) < 2**64 else str(value)
    return str(pd.Timestamp(value)) if isinstance(value, np.datetime64) else str(value)


def is_whole(value: Any) -> bool:
    """Whether `text_of` says a float without its `.0`."""
    return isinstance(value, (float, np.floating)) and bool(np.isfinite(value)) and float(value).is_integer()


def checked(text: str) -> str:
    """A text that UTF-8 can hold.

    Raises:
        MmfuseError: It cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MmfuseError("a text with half of a UTF-16 pair, which is no Unicode") from error
    return text


def found_here(text: str) -> str:
    """The absolute path of an image or a report that a text names relative to the working directory; else the text."""
    if text[-12:].lower().endswith(_FILES) and len(text) <= _NAME_MAX and "://" not in text and "\0" not in text:
        path = os.path.abspath(text)
        return path if not os.path.isabs(text) and os.path.isfile(path) else text
    return text


def image_cell(value: Any) -> ImageCell:
    """An image: a path, encoded bytes, a picture, or a struct of bytes and path.

    Raises:
        MmfuseError: It is none.
    """
    if isinstance(value, Mapping):
        data = value.get("bytes")
        nothing = is_absent(data) or (isinstance(data, (str, *_BYTES)) and not data)  # of an Arrow struct it is ""
        value = value.get("path") if nothing else data
        if is_absent(value):
            return ImageCell(None, None)
    if isinstance(value, _BYTES):
        return ImageCell(bytes(value), None)
    if isinstance(value, (np.ndarray, Image.Image)):
        return ImageCell(encode_picture(value), None)
    if isinstance(value, (str, os.PathLike)):
        return ImageCell(None, found_here(text_of(value)))
    raise MmfuseError(f"{type(value).__name__} among images; a path, bytes, a picture or an array is expected")


def list_of(value: Any) -> Any:
    """A list as Arrow takes it; floats stay floats, dates become texts, what is missing among texts is left out.

    Raises:
        MmfuseError: It holds what no list of rows can.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value if value.ndim == 1 else list(value)
    items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)
    kept = [_item(item) for item in items]
    return [item for item in kept if not is_absent(item)] if any(isinstance(item, str) for item in kept) else kept


def _item(value: Any) -> Any:
    if is_absent(value):
        return float("nan") if isinstance(value, (float, np.floating)) else None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, str):
        return found_here(checked(str(value)))
    if kind_of(value) == "text":
        return text_of(value)
    return list_of(value) if kind_of(value) == "list" else _struct(value)


def _struct(value: Any) -> dict[str, Any]:
    return {str(name): None if is_absent(item) else _item(item) for name, item in value.items()}


def object_of(value: Any) -> Any:
    """An object with fields, which no column of a model is, as Arrow takes it.

    Raises:
        MmfuseError: It holds what no file of rows can.
    """
    return _struct(value)
