"""Pictures in memory as encoded files that are read to the same pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from mmfuse.data.readers.images import orientation_of, read_image
from mmfuse.data.readers.pictures import Picture, frames_of, to_pil
from mmfuse.data.readers.quiet import quiet
from mmfuse.types import MmfuseError

_ORIENTATION = 0x0112


def encode_picture(picture: Picture) -> bytes:
    """A picture as a PNG file, or as a TIFF file where its levels are none of PNG's; the same bytes each time.

    `read_image` gives the same pixels of the file as of the picture, in any size and over any background. Of what else
    a file may say, such as where a photograph was taken, nothing is kept.

    Args:
        picture: As `mmfuse.data.readers.pictures.to_pil` takes it.

    Raises:
        MmfuseError: It is no legal picture, has several frames, cannot be decoded, or cannot be kept exactly.
    """
    try:
        with quiet():
            frames = frames_of(picture)
            image = to_pil(picture)
            if frames > 1:
                raise MmfuseError(f"a picture of {frames} frames, of which one can be kept: give it, picture.copy()")
            kept = _of_png(image)
            if kept.mode in ("I", "F"):
                return _checked(_saved(kept, format="TIFF"), image)
            turned = orientation_of(image.info.get("exif") or b"")
            exif = None
            if turned > 1:
                exif = Image.Exif()
                exif[_ORIENTATION] = turned
            data = _saved(kept, format="PNG", compress_level=1, icc_profile=None, exif=exif)
            return data if image.mode in ("L", "RGB") and turned == 1 else _checked(data, image)
    except MmfuseError:
        raise
    except Exception as error:  # Pillow's own, of an image that it opened and cannot decode
        raise MmfuseError(f"a PIL image that cannot be decoded ({type(error).__name__})") from error


def _of_png(image: Image.Image) -> Image.Image:
    """In mode L, RGB, RGBA or I;16; I or F of levels that none of these holds."""
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() >= 0 and levels.max() < 2**16:
            return Image.fromarray(levels.astype(np.uint16))
        return image.convert("I")
    if image.mode in ("L", "RGB", "F"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _checked(data: bytes, image: Image.Image) -> bytes:
    """The file, if it is read to the picture's pixels."""
    if not np.array_equal(read_image(data), read_image(image)):
        raise MmfuseError(
            f"a picture of mode {image.mode} that no PNG or TIFF holds exactly: save it, and give its path"
        )
    return data
