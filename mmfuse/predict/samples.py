"""What people hold, samples or dicts with images and texts of many kinds, as `Sample`s."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mmfuse.data.readers.pictures import Picture
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, Sample

KEYS = ("id", "image", "images", "text")
"""Of a dict."""


def to_sample(given: Any, position: int) -> Sample:
    """A sample of what one holds; what is wrong with it is its `problem`, without any of its text.

    Args:
        given: A `Sample`, or a dict with some of `KEYS`. Images are paths, URLs, encoded bytes, PIL images, arrays (as
            `mmfuse.data.readers.pictures.to_pil` takes them) or dicts of `bytes` and `path`: one, or a list. A text is
            a str. None, NaN, "" and pandas' NA are what is missing.
        position: Its place, from 0; the id where it has none.
    """
    id = str(position)
    try:
        if isinstance(given, Sample):
            id = id if _is_missing(given.id) else str(given.id)
            return replace(given, id=id, images=_images(given.images), text=_text(given.text))
        if not isinstance(given, Mapping):
            raise MmfuseError(f"a Sample or a dict is expected, not {type(given).__name__}")
        id = id if _is_missing(given.get("id")) else str(given["id"])
        unknown = next((key for key in given if key not in KEYS), None)
        if unknown is not None:
            raise MmfuseError(f"a dict with the key {unknown!r:.50}; {nearest(str(unknown), KEYS)}")
        if "image" in given and "images" in given:
            raise MmfuseError("a dict with image and images; give one of them")
        images = _images(given.get("image", given.get("images")))
        return Sample(id, images, _text(given.get("text")), group=id)
    except MmfuseError as error:
        return Sample(id, group=id, problem=str(error))


def _text(given: Any) -> str | None:
    if isinstance(given, str):
        return given
    if _is_missing(given):
        return None
    raise MmfuseError(f"text: a str is expected, not {type(given).__name__}")


def _images(given: Any) -> tuple[Any, ...]:
    """A flat tuple of paths, URLs, bytes and pictures, without those that are missing."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS":  # a list of paths, as pandas and Arrow give it
        given = given.tolist()
    if isinstance(given, (list, tuple)):
        return tuple(image for each in given for image in _images(each))
    if isinstance(given, Mapping) and {"bytes", "path"} & set(given):  # as Hugging Face datasets keep it
        given = given.get("path") if _is_missing(given.get("bytes")) else given["bytes"]
    if isinstance(given, (bytearray, memoryview)):
        given = bytes(given)
    if _is_missing(given):
        return ()
    if isinstance(given, (str, bytes, Picture)):
        return (given,)
    if isinstance(given, os.PathLike):
        return (os.fsdecode(given),)
    kind = type(given).__name__
    if type(given).__module__.partition(".")[0] in ("torch", "tensorflow", "jax"):
        raise MmfuseError(
            f"image: a {kind}, whose order of axes and scale are not known; give an array (H, W, 3), such as "
            "tensor.permute(1, 2, 0).numpy()"
        )
    raise MmfuseError(
        f"image: a path, a URL, bytes, a PIL image, a numpy array or a list of them is expected, not {kind}"
    )


def _is_missing(given: Any) -> bool:
    return not given.strip() if isinstance(given, str) else bool(pd.api.types.is_scalar(given) and pd.isna(given))
