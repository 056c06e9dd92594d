"""How many pictures an image file holds, by its structure, without decoding one. `read_first_frame` gives the first."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import GifImagePlugin, ImageFile, TiffImagePlugin

_MAX_PARTS = 2**22
"""Blocks of a GIF and directories of a TIFF that are looked at; of a hostile file with more, the count is too low."""
_SUBFILE_TYPE, _IS_NO_PAGE = 254, 0b101  # of TIFF: a smaller version of another page (1), or its mask (4)
_MP_COUNT = 0xB001


class FirstFrame(NamedTuple):
    """The first frame of an image file.

    Attributes:
        pixels: `(H, W, 3)` uint8.
        frames: How many the file holds: slices of a CT, images of a cine, pages, steps of an animation, views. At least
            1; by what the file says of itself, which a damaged one may say wrongly.
    """

    pixels: np.ndarray
    frames: int


def frames_notice(name: str, frames: int) -> str:
    """What to say of an image of which the first of several frames was taken.

    Args:
        name: Of the file, without its folder; or which of its study's images it is; or "" for the only one.
        frames: As `FirstFrame` has it.
    """
    return f"{f'image {name}'.strip()}: first of {frames} frames"


def count_frames(image: ImageFile.ImageFile, data: bytes) -> int:
    """Count the frames of an opened image.

    Args:
        image: Opened by Pillow.
        data: Its whole file.
    """
    if isinstance(image, GifImagePlugin.GifImageFile):
        found = _gif_frames(data)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        found = _tiff_pages(data)
    elif image.format == "JPEG":
        found = _mp_images(image.info.get("mp", b""))
    else:
        found = getattr(image, "n_frames", 1)
    return max(1, found)


def _gif_frames(data: bytes) -> int:
    """Count image descriptors (GIF89a, section 20); those behind a cut are not known."""
    frames, place = 0, 13 + _colours(data[10])
    parts = 0
    try:
        while data[place] in b"!," and parts < _MAX_PARTS:
            if data[place] == 0x2C:
                frames += 1
                place += 11 + _colours(data[place + 9])
            else:
                place += 2
            while data[place] and parts < _MAX_PARTS:
                place += 1 + data[place]
                parts += 1
            place += 1
            parts += 1
    except IndexError:
        pass
    return frames


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff_pages(data: bytes) -> int:
    """Count directories that are no smaller version and no mask of another; the first is always one."""
    others = islice(_directories(data), 1, None)
    return 1 + sum(not tags.get(_SUBFILE_TYPE, 0) & _IS_NO_PAGE for tags in others)


def _mp_images(data: bytes) -> int:
    """What the index of a JPEG of several pictures says (CIPA DC-007)."""
    return next(_directories(data), {}).get(_MP_COUNT, 1)


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Give the numbers among the first 8 tags of each directory of a TIFF; other values are nonsense here."""
    order = "<" if data.startswith(b"I") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    pointer, count, width, value = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        while place and place not in seen and len(seen) < _MAX_PARTS:
            seen.add(place)
            (entries,) = struct.unpack_from(order + count, data, place)
            start = place + struct.calcsize(order + count)
            tags = {}
            for at in range(start, start + width * min(entries, 8), width):
                tag, kind = struct.unpack_from(order + "HH", data, at)
                (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + value)
            yield tags
            (place,) = struct.unpack_from(order + pointer, data, start + width * entries)
    except struct.error:  # it points beyond the end
        return
