"""Any image file, URL, encoded bytes or picture in memory -> uint8 RGB, safely and fast."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mmfuse.data.files.locations import read_location
from mmfuse.data.readers.dicom import decode_dicom, dicom_spacing, is_dicom
from mmfuse.data.readers.frames import FirstFrame, count_frames
from mmfuse.data.readers.kinds import FORMATS, HEAD, format_of
from mmfuse.data.readers.pictures import Picture, frames_of, to_pil
from mmfuse.data.readers.quiet import quiet
from mmfuse.extras import install
from mmfuse.types import MmfuseError

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
Background = Literal["white", "black"]

_MAX_BYTES = 512 * 2**20
_MAX_JPEG_SCANS = 100
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_REDUCING_GAP = 2.0  # large pictures are first averaged over whole pixels, to at least twice the wanted size
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(MmfuseError):
    """An image that cannot be read; the message is the reason, never the path."""


@dataclass(frozen=True)
class ImageOptions:
    """What an image becomes when it is read.

    Attributes:
        size: `(H, W)` of the result; None leaves the image as large as it is.
        resize: How another shape fits: `squash` distorts, `pad` adds background, `crop` keeps the centre.
        interpolation: `bilinear` or `bicubic`, both antialiased.
        background: The colour behind transparent pixels and beside padded images.
        max_pixels: A file whose header says more is refused before it is decoded.

    Raises:
        MmfuseError: A value is not legal.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "squash"
    interpolation: Interpolation = "bilinear"
    background: Background = "white"
    max_pixels: int = 100_000_000

    def __post_init__(self):
        for key, legal in (("resize", Resize), ("interpolation", Interpolation), ("background", Background)):
            if getattr(self, key) not in get_args(legal):
                raise MmfuseError(f"image {key} {getattr(self, key)!r}: expected one of {', '.join(get_args(legal))}")
        if self.max_pixels < 1:
            raise MmfuseError(f"image max_pixels {self.max_pixels!r}: expected at least 1")
        if self.size is not None and not (
            len(self.size) == 2
            and all(isinstance(side, int) and side > 0 for side in self.size)
            and self.size[0] * self.size[1] <= self.max_pixels
        ):
            raise MmfuseError(f"image size {self.size!r}: expected (H, W), positive, of at most max_pixels pixels")


def read_image(
    source: str | Path | bytes | Picture, options: ImageOptions | None = None, urls: Sequence[str] = ()
) -> np.ndarray:
    """Read one image as RGB, upright, in the size that is wanted.

    JPEG, PNG, GIF, WebP, TIFF, BMP, PPM/PGM/PBM, AVIF, JPEG 2000, HEIC (with pillow-heif) and DICOM, told apart by
    their bytes, never by the file's name. EXIF orientation is applied, transparency is laid over the background; an
    animation, a TIFF of several pages and a DICOM of several frames give the first; colour profiles are ignored. Of
    DICOM, `mmfuse.data.readers.dicom.decode_dicom` says how it is shown.

    Gray levels of more than 8 bits are scaled, not clipped:

    - Integers are divided by the smallest 2**bits - 1, 8 <= bits <= 16, that holds the image's largest value. So a
      12-bit film keeps its absolute gray. Images with negative values or more than 16 bits are treated as floats.
    - Floats go from the image's finite minimum (0) to its maximum (255).
    - Colour of 16 bits keeps the high byte of each channel (PPM rounds).

    JPEGs are decoded at the smallest of 1/8, 1/4, 1/2 and 1 of their size that is not below the wanted one.

    Args:
        source: A path, a URL (contains `://`), encoded bytes, or a picture as `mmfuse.data.readers.pictures.to_pil`
            takes it: an array gives what a PNG of it gives.
        options: What to make of it; by default the image as it is.
        urls: Which URLs are read (see `mmfuse.data.files.locations`); by default none.

    Returns:
        `(H, W, 3)` uint8 in [0, 255], writable and C-contiguous.

    Raises:
        ImageError: It cannot be read, is damaged, of another format, or larger than `options.max_pixels`.
    """
    return read_first_frame(source, options, urls).pixels


def read_first_frame(
    source: str | Path | bytes | Picture, options: ImageOptions | None = None, urls: Sequence[str] = ()
) -> FirstFrame:
    """As `read_image`, with the number of frames of which this is the first.

    Raises:
        ImageError: As `read_image`.
    """
    options = options or ImageOptions()
    if isinstance(source, Picture):
        return _decode_picture(source, options)
    data = _read(source, urls)
    if is_dicom(data):
        try:
            pixels, frames = decode_dicom(data, options.max_pixels)
            return FirstFrame(_decode(Image.fromarray(pixels), options), frames)
        except MmfuseError as error:
            raise ImageError(str(error)) from None
    plugin = _plugin_of(data)
    try:
        with quiet():
            image = plugin(io.BytesIO(data))
            return FirstFrame(_decode(image, options), count_frames(image, data))
    except ImageError:
        raise
    except Exception as error:  # hostile bytes bring nearly every exception out of Pillow, MemoryError included
        words = re.sub(r"b?'.*'|[^ -~]+", " ", str(error)).strip() or type(error).__name__  # never bytes of the file
        raise ImageError(f"{plugin.format} cannot be decoded: {words[:100]}") from error


def _decode_picture(picture: Picture, options: ImageOptions) -> FirstFrame:
    try:
        with quiet():
            frames = frames_of(picture)  # before it is decoded: Pillow seeks to the last one
            return FirstFrame(_decode(to_pil(picture), options), frames)
    except MmfuseError as error:
        raise ImageError(str(error)) from None
    except Exception as error:  # as of a file: Pillow may not have decoded it yet
        raise ImageError(f"a PIL image that cannot be decoded ({type(error).__name__})") from error


def read_spacing(source: str | Path | bytes, urls: Sequence[str] = ()) -> tuple[float, float] | None:
    """Give the physical size of an image's pixels as they are stored, before any resizing.

    Args:
        source: A path, a URL (contains `://`), or encoded bytes.
        urls: Which URLs are read (see `mmfuse.data.files.locations`); by default none.

    Returns:
        Distance of rows and of columns in mm, of a DICOM file: PixelSpacing, else ImagerPixelSpacing, which is measured
        at the detector. None where neither is there, and of all other formats.

    Raises:
        ImageError: The file cannot be read, or is a damaged DICOM.
    """
    data = _read(source, urls)
    try:
        return dicom_spacing(data) if is_dicom(data) else None
    except MmfuseError as error:
        raise ImageError(str(error)) from None


def content_hash(source: str | Path | bytes, urls: Sequence[str] = ()) -> str:
    """Give the SHA-256 of the encoded bytes, in hexadecimal; of URLs those are read that `urls` permits.

    Raises:
        ImageError: The file cannot be read.
    """
    return hashlib.sha256(_read(source, urls)).hexdigest()


def _read(source: str | Path | bytes, urls: Sequence[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return read_location(source, _MAX_BYTES, urls)
    except MmfuseError as error:
        raise ImageError(str(error)) from error


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG that does not parse all EXIF tags for its dpi when it is opened: slow, and damaged ones give warnings."""

    def _read_dpi_from_exif(self) -> None:
        pass


# The plugins are called directly: Image.open would add a DecompressionBombWarning of its own limit, and read JPEGs with
# several pictures as another format.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}


def _plugin_of(data: bytes) -> type[ImageFile.ImageFile]:
    if not data:
        raise ImageError("empty file")
    name, _ = format_of(data[:HEAD]) or ("", None)
    if name in ("AVIF", "HEIC"):
        return _import_plugin(name)
    plugin = _PLUGINS.get(name)
    if plugin is None and data.startswith(b"BM"):
        plugin = BmpImagePlugin.BmpImageFile
    if plugin is None and re.match(rb"P[1-6f]\s", data):
        plugin = PpmImagePlugin.PpmImageFile
    if plugin is None:
        raise ImageError(f"not an image{f' that is read, but {name}' if name else ''} ({FORMATS})")
    if plugin is PngImagePlugin.PngImageFile:
        _check_png(data)
    # In JPEG data these two bytes only begin a scan. A small file with thousands of scans would decode for hours.
    if plugin is _JpegFile and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise ImageError(f"JPEG with more than {_MAX_JPEG_SCANS} scans")
    return plugin


def _import_plugin(name: str) -> type[ImageFile.ImageFile]:
    """What reads formats that need more than every Pillow has."""
    try:
        if name == "HEIC":
            from pillow_heif import HeifImageFile  # type: ignore[import-not-found]

            return HeifImageFile
        from PIL import AvifImagePlugin

        if not AvifImagePlugin.SUPPORTED:
            raise ImportError
    except ImportError:
        way = f"pillow-heif: {install('heic')}" if name == "HEIC" else "Pillow 11.3 or later, with AVIF in it"
        raise ImageError(f"{name} needs {way}") from None
    return AvifImagePlugin.AvifImageFile


def _check_png(data: bytes) -> None:
    """Check every chunk's CRC: Pillow skips those of the pixel data, and damaged pixels would pass."""
    view = memoryview(data)
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageError("damaged PNG: a chunk has a wrong checksum")
        if kind == b"IEND":
            return
        position = end + 4
    raise ImageError("truncated PNG")


def _decode(image: Image.Image, options: ImageOptions) -> np.ndarray:
    if image.width * image.height > options.max_pixels:
        raise ImageError(f"{image.width} x {image.height} pixels: more than max_pixels, {options.max_pixels}")
    if not isinstance(image, _JpegFile):
        image.load()  # before the orientation is asked for: PNGs may carry it at the end, TIFFs apply it themselves
    orientation = orientation_of(image.info.get("exif") or b"")
    content, drafted = image.size, None  # (W, H), as the image is stored
    if options.size is not None:
        height, width = options.size
        content = (height, width) if orientation >= 5 else (width, height)
        if options.resize == "pad":
            content = _fit(image.size, content)
        drafted = image.draft(None, content)
    # A draft of 450 pixels at 1/4 is 113 wide, of which 112.5 are the image.
    box = drafted[1] if drafted else (0, 0, *image.size)
    if options.resize == "crop":
        box = _centre(box[2:], content)
    image = _flatten(image, options.background)
    image = image.resize(content, Image.Resampling[options.interpolation.upper()], box, _REDUCING_GAP)
    if image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).round().astype(np.uint8))
    if image.mode == "L":
        image = image.convert("RGB")
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return np.array(_pad(image, options) if options.resize == "pad" else image)


def _pad(image: Image.Image, options: ImageOptions) -> Image.Image:
    if options.size is None:
        return image
    height, width = options.size
    canvas = Image.new("RGB", (width, height), options.background)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _fit(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Give the largest `(W, H)` within the target that keeps the proportions, each at least 1."""
    shrink = max(size[0] / target[0], size[1] / target[1])
    return max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))


def _centre(size: tuple[float, float], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Give the largest centred box (left, top, right, bottom) of the image that has the target's proportions."""
    shrink = min(size[0] / target[0], size[1] / target[1])
    left = max(0.0, (size[0] - target[0] * shrink) / 2)
    top = max(0.0, (size[1] - target[1] * shrink) / 2)
    return left, top, size[0] - left, size[1] - top


def orientation_of(exif: bytes) -> int:
    """Give the EXIF orientation, 1 to 8; 1 where there is none, or only a damaged one."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for i in range(count):
            tag, value = struct.unpack_from(order + "H6xH", tiff, start + 2 + 12 * i)
            if tag == _EXIF_ORIENTATION:
                return value if value in _TURNS else 1
    except struct.error:
        pass
    return 1


def _flatten(image: Image.Image, background: Background) -> Image.Image:
    """Give the image in mode L or RGB, or F with values in [0, 255] where it has more than 8 bits of gray."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _scale_gray(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, background)
        canvas.paste(image, mask=image.getchannel("A"))
        return canvas
    return image.convert("L" if image.mode == "1" else "RGB")


def _scale_gray(image: Image.Image) -> Image.Image:
    """Give gray of more than 8 bits in mode F, scaled to [0, 255] as `read_image` says."""
    gray = np.array(image, dtype=np.float32)
    known = gray[np.isfinite(gray)] if image.mode == "F" else gray
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if image.mode != "F" and low >= 0 and high < 2**16:
        low, high = 0.0, 2.0 ** max(8, int(high).bit_length()) - 1
    with np.errstate(all="ignore"):  # hostile floats overflow, and are clipped
        gray -= low
        gray *= 255 / (high - low) if high > low else 0
    if image.mode == "F":
        gray = np.nan_to_num(gray, copy=False, nan=0, posinf=255, neginf=0)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero
        gray = 255 - gray
    return Image.fromarray(gray.clip(0, 255, out=gray))
