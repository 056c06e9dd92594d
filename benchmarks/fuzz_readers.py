"""Damaged files against the readers: each is read, or refused with the reader's own error, in bounded time and memory.

    python benchmarks/fuzz_readers.py --what image --minutes 10 [--first 0] [--keep FOUND]

A reader is a function of bytes, with the error that it may raise and the files to damage (`READERS`). Cases are
numbered: the same number is the same case. They run in a process of their own, so that a crash, a case of more than
5 s and one that takes more than 1 GB are found as well as a wrong exception or a warning; each is kept as a file.
"""

from __future__ import annotations

import io
import resource
import struct
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fuzzing import run
from PIL import Image

from mmfuse.data.readers.documents import decode_report
from mmfuse.data.readers.images import ImageError, ImageOptions, read_image, read_spacing
from mmfuse.data.readers.texts import TextError
from mmfuse.sections import split_sections

SECONDS, MEGABYTES = 5, 1024
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]


class Reader(NamedTuple):
    """What reads a file, the error with which it refuses one, and files to damage."""

    read: Callable[[bytes], object]
    refuses: type[Exception]
    seeds: Callable[[], list[bytes]]


def read_any_image(data: bytes) -> None:
    data = with_right_checksums(data) if data.startswith(b"\x89PNG") else data
    for size in (None, (32, 24)):
        pixels = read_image(data, ImageOptions(size=size, max_pixels=4_000_000))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*(size or pixels.shape[:2]), 3)


def read_any_dicom(data: bytes) -> None:
    read_spacing(data)
    read_any_image(data)


def image_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    few, deep = colour.convert("P"), Image.fromarray(rng.integers(0, 4096, (9, 9), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(colour, "JPEG", exif=exif),
        encode(colour, "JPEG", progressive=True),
        encode(colour.convert("CMYK"), "JPEG"),
        encode(colour, "PNG"),
        encode(few, "PNG", transparency=0),
        encode(deep, "PNG"),
        encode(colour, "PNG", save_all=True, append_images=[colour.rotate(90)]),
        encode(few, "GIF", save_all=True, append_images=[few.rotate(90)]),
        encode(colour, "WEBP"),
        encode(colour.convert("RGBA"), "WEBP", lossless=True),
        encode(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
        *(encode(colour, "TIFF", compression=kind) for kind in (None, "packbits", "tiff_lzw", "tiff_deflate", "jpeg")),
        encode(Image.fromarray(rng.normal(size=(9, 9)).astype(np.float32)), "TIFF"),
        encode(colour.convert("1"), "TIFF", compression="group4"),
        encode(colour, "BMP"),
        encode(few, "BMP"),
        encode(colour, "PPM"),
        b"P3\n3 2 255\n" + b"1 2 3 " * 6,
        encode(colour, "MPO", save_all=True, append_images=[colour.rotate(90)]),
        encode(colour, "TIFF", save_all=True, append_images=[colour.rotate(90)] * 2),
        *newer_files(colour, deep),
    ]


def newer_files(colour: Image.Image, deep: Image.Image) -> list[bytes]:
    """JPEG 2000, AVIF and HEIC; `--what newer` damages them alone, as each goes to a decoder of its own."""
    files = [encode(colour, "JPEG2000"), encode(deep, "JPEG2000", no_jp2=True)]
    files += [encode(colour, "AVIF"), encode(colour, "AVIF", save_all=True, append_images=[colour.rotate(90)])]
    try:
        from pillow_heif import from_pillow  # type: ignore[import-not-found]  (an extra)
    except ImportError:
        return files
    out = io.BytesIO()
    from_pillow(colour).save(out)
    return [*files, out.getvalue()]


def dicom_files() -> list[bytes]:
    """The small files that come with pydicom."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = (path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".py")
    return [data for data in files if data[128:132] == b"DICM" and len(data) < 50_000 and b"\xe0\x7f" in data]


def read_any_text(data: bytes) -> None:
    text = decode_report(data)
    text.encode()
    split_sections(text)


def text_files() -> list[bytes]:
    """Reports of every kind that is read; a structured one comes with pydicom."""
    import pydicom

    report = "INDICATION: Fièvre, cough.\n\nFINDINGS: No effusion; heart of normal size.\n\nIMPRESSION: Normal."
    sections = "".join(
        f"<AbstractText Label='{name}'>{name} said.</AbstractText>" for name in ("FINDINGS", "IMPRESSION")
    )
    rtf = r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 FINDINGS:\par No effusion \'e9t\'e9.\u233?{\b x}\par}"
    structured = Path(pydicom.__file__).parent / "data" / "test_files" / "test-SR.dcm"
    return [
        *(report.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-32")),
        f"<?xml version='1.0'?><eCitation><Abstract>{sections}</Abstract></eCitation>".encode(),
        b"<html><head><style>p {}</style></head><body><h1>Report</h1><p>No &amp; effusion<br>today</body></html>",
        b'{"findings": "a\\u00df", "impression": "Normal."}',
        rtf.encode(),
        structured.read_bytes(),
    ]


READERS = {
    "text": Reader(read_any_text, TextError, text_files),
    "image": Reader(read_any_image, ImageError, image_files),
    "newer": Reader(read_any_image, ImageError, lambda: image_files()[-5:]),
    "dicom": Reader(read_any_dicom, ImageError, dicom_files),
}


def encode(image: Image.Image, fmt: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def with_right_checksums(data: bytes) -> bytes:
    """Repair a damaged PNG's checksums, so that the damage reaches the decoder."""
    out, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunk = data[position + 4 : position + 8 + length]
        if position + 12 + length > len(data):
            break
        out += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
        position += 12 + length
    return out


def damage(seeds: list[bytes], number: int) -> bytes:
    """Give the case of a number: a file with bytes changed, numbers written over it, parts cut, copied or exchanged."""
    rng = np.random.default_rng(number)
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 6)):
        if len(data) < 8:
            break
        near = rng.choice([64, 1024, len(data)])  # more often in the header
        place, other = int(rng.integers(min(near, len(data)))), int(rng.integers(len(data)))
        length = int(rng.choice([1, 2, 4, 16, 256]))
        match rng.choice(
            ["flip", "byte", "number", "cut", "delete", "copy", "splice"], p=[0.3, 0.2, 0.25, *[0.0625] * 4]
        ):
            case "flip":
                data[place] ^= 1 << int(rng.integers(8))
            case "byte":
                data[place] = int(rng.integers(256))
            case "number":
                value, order = int(rng.choice(NUMBERS)), rng.choice(["big", "little"])
                width = int(rng.choice([2, 4]))
                data[place : place + width] = (value % 256**width).to_bytes(width, order)
            case "cut":
                del data[other:]
            case "delete":
                del data[place : place + length]
            case "copy":
                data[place:place] = data[other : other + length]
            case "splice":
                data[other:] = seeds[rng.integers(len(seeds))][other:]
    return bytes(data)


def work(what: str, first: int, current, found) -> None:
    """Read case after case; `current` holds the number of the one that is being read."""
    reader = READERS[what]
    seeds = reader.seeds()
    warnings.simplefilter("error")
    for number in range(first, 2**62):
        current.value = number
        data = damage(seeds, number)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            reader.read(data)
            found.put(("read", number))
        except reader.refuses as error:
            found.put(("refused", number) if "\n" not in str(error) else ("several lines", number))
        except Exception:
            found.put((traceback.format_exc(limit=-3), number))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MEGABYTES * 1024:
            found.put(("memory", number))


def keep(what: str, number: int, path: Path) -> None:
    path.with_suffix(".bin").write_bytes(damage(READERS[what].seeds(), number))


if __name__ == "__main__":
    run(__doc__, READERS, SECONDS, work, keep)
