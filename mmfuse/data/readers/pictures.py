"""Images that are in memory already, numpy arrays and PIL images, as pictures of gray levels from 0 to 255."""

from __future__ import annotations

from threading import Lock

import numpy as np
from PIL import Image

from mmfuse.types import MmfuseError

Picture = np.ndarray | Image.Image

_LOADING = Lock()
"""An image that Pillow has opened is decoded when its pixels are first asked for, which two threads must not do."""


def to_pil(picture: Picture) -> Image.Image:
    """A picture as PIL holds it, decoded.

    Args:
        picture: A PIL image of any mode; or an array `(H, W)`, `(H, W, 1)` or `(H, W, 3)`, RGB, of uint8 or of floats
            in [0, 1], of which v becomes the gray level round(255 v).

    Raises:
        MmfuseError: The array has another shape or type, or values that are no gray levels.
        Exception: Pillow's own, of an image that it opened and cannot decode.
    """
    if isinstance(picture, np.ndarray):
        return Image.fromarray(_gray_levels(picture))
    with _LOADING:
        picture.load()
    return picture


def frames_of(picture: Picture) -> int:
    """How many frames a PIL image has of which it is the first; 1 where its file is closed, or it is a later one."""
    with _LOADING:
        try:
            return 1 if isinstance(picture, np.ndarray) or picture.tell() else getattr(picture, "n_frames", 1)
        except Exception:  # each plugin has its own way to fail on a file that is closed or cut off
            return 1


def _gray_levels(array: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)` uint8."""
    _check_shape(array.shape)
    if array.dtype == np.uint8:
        levels = np.ascontiguousarray(array)
    elif array.dtype.kind == "f":
        levels = _scale(array)
    else:
        raise MmfuseError(
            f"an array of {array.dtype}: its scale is not known; legal: uint8, or floats in [0, 1] (such as "
            "array / array.max())"
        )
    return levels[:, :, 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) in (2, 3) and min(shape) > 0 and (len(shape) == 2 or shape[2] in (1, 3)):
        return
    hint = ""
    if len(shape) == 3 and shape[0] in (1, 3):
        hint = "; of channels first, give array.transpose(1, 2, 0)"
    elif len(shape) == 3 and shape[2] == 4:
        hint = '; of RGBA, give PIL.Image.fromarray(array, "RGBA")'
    elif len(shape) == 4:
        hint = "; of several images, give a list"
    raise MmfuseError(f"an array of shape {shape}; legal: (H, W), (H, W, 1), (H, W, 3){hint}")


def _scale(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise MmfuseError("an array of floats, not all of them finite")
    levels = np.rint(255 * array.astype(np.float64))
    if levels.min() < 0 or levels.max() > 255:
        raise MmfuseError(
            f"an array of floats from {array.min():g} to {array.max():g}; legal: in [0, 1] (of gray levels, give "
            "array / 255; what was normalised for another model must be undone)"
        )
    return levels.astype(np.uint8)
