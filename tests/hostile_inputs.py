"""Broken, odd and hostile inputs of every kind, each with the verdict it must get. All is generated, nothing is stored.

A verdict is None (read), a pattern of the reason (refused), or a `Notice` (read, and the user is told something).
"""

import gzip
import io
import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.model import FusionModel

REPORT = "Heart size is normal. No focal consolidation, no pleural effusion."
PATIENT = "Zyxwvut^Secretname"
"""Stands wherever a file could name a patient; no output may repeat it."""


class Notice(str):
    """A pattern of what the user is told of an input that is read."""


class Case(NamedTuple):
    """One input: `content` is its bytes or text, or writes it to a path itself."""

    kind: str
    name: str
    suffix: str
    content: bytes | str | Callable[[Path], object]
    verdict: str | None

    def write(self, path: Path) -> None:
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content.encode() if isinstance(self.content, str) else self.content)


# Special files: (how to make one at a path, what is said of it)


def unix_socket(path):
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:  # the path to bind may be no longer than 108 bytes
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(600 * 2**20)


def forbidden(content):
    def write(path):
        path.write_bytes(content)
        path.chmod(0)

    return write


SPECIAL = {
    "a FIFO": (os.mkfifo, "not a regular file"),
    "a socket": (unix_socket, "no such device|not a regular file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
    "a link to nowhere": (lambda path: path.symlink_to("gone"), "no such file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "600 MB of nothing": (sparse, "larger than [0-9]+ bytes"),
}


# Images


def picture(mode="RGB", size=(48, 40)):
    gray = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    return Image.fromarray(gray).convert(mode)


def encode(image, fmt, **options):
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows, extra=(), interlace=0):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def tiff(width, height, strip=b"", offset=None, next_ifd=0):
    """A gray TIFF with one strip."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    start = 8 + 2 + 12 * 8 + 4
    tags += [(273, 4, start if offset is None else offset), (278, 4, height), (279, 4, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", next_ifd) + strip


def webp_bomb():
    """16383 x 16383 pixels of one colour in 34 bytes: lossless, with codes of one symbol, which take no bits."""
    data = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\x88\x88\x08"
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def gif(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\xff\xff"
        + (b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;")
    )


def many_scans():
    data = encode(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 300 + data[-2:]


def jpeg_says(width, height):
    data = bytearray(encode(picture(), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(), "JPEG", exif=exif.tobytes())


def pages(fmt, mode="P", **options):
    return encode(picture(mode), fmt, save_all=True, append_images=[picture(mode).rotate(90)] * 2, **options)


def float_tiff(values):
    return encode(Image.fromarray(np.asarray(values, dtype=np.float32)), "TIFF")


def twins(path):
    path.write_bytes(encode(picture(), "PNG"))
    path.with_suffix(".jpg").write_bytes(encode(picture(), "JPEG"))


def images() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict."""
    good = {
        ".jpg": encode(picture(), "JPEG"),
        ".png": encode(picture(), "PNG"),
        ".gif": encode(picture("P"), "GIF"),
        ".webp": encode(picture(), "WEBP"),
        ".tif": encode(picture(), "TIFF"),
        ".bmp": encode(picture(), "BMP"),
        ".ppm": encode(picture(), "PPM"),
        ".pgm": encode(picture("L"), "PPM"),
    }
    for suffix, data in good.items():
        yield f"good {suffix[1:]}", suffix, data, None
        yield f"half of {suffix[1:]}", suffix, data[: len(data) // 2], "truncated|cannot be decoded|damaged"
        yield f"the first 12 bytes of {suffix[1:]}", suffix, data[:12], "truncated|cannot be decoded|damaged"
        if suffix != ".pgm":
            yield f"all but 30 bytes of {suffix[1:]}", suffix, data[:-30], "truncated|cannot be decoded|damaged"
    for orientation in range(1, 9):
        yield f"EXIF orientation {orientation}", ".jpg", turned(orientation), None
    exif = turned(6)
    place = exif.index(b"Exif\0\0") + 6
    yield "EXIF of noise", ".jpg", exif[: place + 4] + b"\xff" * 20 + exif[place + 24 :], None
    yield "EXIF orientation 99", ".jpg", turned(99), None

    bomb = "pixels: more than max_pixels"
    wide = b"\0" * (1 + 60_000 // 8)
    yield "bomb png", ".png", png(60_000, 60_000, 1, 0, wide * 600), bomb
    yield "bomb gif", ".gif", gif(60_000, 60_000), bomb
    yield "bomb webp", ".webp", webp_bomb(), f"{bomb}|exceeds limit"
    yield "bomb tiff", ".tif", tiff(60_000, 60_000), bomb
    yield "bomb jpg", ".jpg", jpeg_says(65_000, 65_000), bomb
    yield "bomb bmp", ".bmp", good[".bmp"][:18] + struct.pack("<ii", 60_000, 60_000) + good[".bmp"][26:], bomb
    yield "bomb ppm", ".ppm", b"P6 60000 60000 255\n\0\0\0", bomb
    yield "a thousandfold ratio", ".png", png(9_000, 9_000, 1, 0, b"\0" * (1 + 9_000 // 8) * 9_000), None
    text = b"k\0\0" + zlib.compress(b"\0" * 70 * 2**20)
    yield "a comment of 70 MB, packed", ".png", png(1, 1, 8, 0, b"\0\0", [(b"zTXt", text)]), "PNG cannot be decoded"
    profile = b"p\0\0" + zlib.compress(b"\0" * 70 * 2**20)
    yield "a profile of 70 MB, packed", ".png", png(1, 1, 8, 0, b"\0\0", [(b"iCCP", profile)]), "PNG cannot be decoded"
    yield "hundreds of scans", ".jpg", many_scans(), "JPEG with more than 100 scans"
    yield "progressive", ".jpg", encode(picture(), "JPEG", progressive=True), None

    yield "4000 x 3", ".png", encode(picture(size=(4000, 3)), "PNG"), None
    yield "3 x 4000", ".png", encode(picture(size=(3, 4000)), "PNG"), None
    yield "1 x 1", ".png", encode(picture(size=(1, 1)), "PNG"), None
    yield "1 x 1, interlaced", ".png", png(1, 1, 8, 0, b"\0\x80", interlace=1), None
    yield "0 x 0", ".png", png(0, 0, 8, 0, b""), "PNG cannot be decoded"
    yield "0 x 0 gif", ".gif", gif(0, 0), "GIF cannot be decoded"
    yield "jpg of no rows", ".jpg", jpeg_says(48, 0), "JPEG cannot be decoded"
    yield "16 bits", ".png", encode(Image.fromarray(np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)), "PNG"), None
    yield "16 bits a colour", ".png", png(2, 1, 16, 2, b"\0" + bytes(range(12))), None
    yield "2 bits", ".png", png(4, 1, 2, 0, b"\0\x1b"), None
    for mode, fmt, suffix in (
        *(("1", "PNG", ".png"), ("1", "TIFF", ".tif"), ("CMYK", "JPEG", ".jpg"), ("CMYK", "TIFF", ".tif")),
        *(("LA", "PNG", ".png"), ("RGBA", "WEBP", ".webp"), ("YCbCr", "JPEG", ".jpg"), ("L", "JPEG", ".jpg")),
    ):
        yield f"{mode} {fmt}", suffix, encode(picture(mode), fmt), None
    yield "palette with transparency", ".png", encode(picture("P"), "PNG", transparency=0), None
    yield "palette that is missing", ".png", png(1, 1, 8, 3, b"\0\x05"), None
    yield "animated gif", ".gif", pages("GIF"), Notice(": first of [23] frames")
    yield "animated webp", ".webp", pages("WEBP", "RGB"), Notice(": first of [23] frames")
    yield "animated png", ".png", pages("PNG", "RGB"), Notice(": first of [23] frames")
    yield "tiff of several pages", ".tif", pages("TIFF", "RGB"), Notice(": first of [23] frames")
    yield "tiff whose last page is its first", ".tif", tiff(4, 4, bytes(16), next_ifd=8), None
    yield "tiff whose pixels are elsewhere", ".tif", tiff(4, 4, bytes(16), offset=10**9), "TIFF cannot be decoded"
    yield "NaN", ".tif", float_tiff([[np.nan, 1.0], [2.0, np.nan]]), None
    yield "nothing but NaN", ".tif", float_tiff(np.full((4, 4), np.nan)), None
    yield "infinite", ".tif", float_tiff([[-np.inf, 1.0], [3e38, np.inf]]), None
    yield "all black", ".png", encode(Image.new("L", (48, 40)), "PNG"), None

    yield "empty", ".png", b"", "empty file"
    yield "one byte", ".jpg", b"\xff", "not an image"
    yield "PNG behind jpg", ".jpg", good[".png"], None
    yield "upper case", ".JPG", good[".jpg"], None
    yield "more behind the end", ".png", good[".png"] + b"tail" * 1000, None
    yield "a damaged chunk", ".png", good[".png"][:60] + b"\0\1\2" + good[".png"][63:], "a chunk has a wrong checksum"
    page = f"<html><body>{PATIENT}: please log in</body></html>".encode()
    yield "a login page", ".jpg", page, "not an image"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 12345\n"
    yield "a git-lfs pointer", ".png", pointer.encode(), "not an image"
    for name, data in {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
        "zip": b"PK\3\4" + bytes(60),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%stdin) run\n",
        "psd": b"8BPS" + bytes(60),
    }.items():
        yield f"a {name}", ".png", data, "not an image"
    yield "a heic", ".png", b"\0\0\0\x18ftypheic" + bytes(60), "HEI[CF] (needs pillow-heif|cannot be decoded)"
    for fmt, head in {
        "jpg": b"\xff\xd8\xff",
        "gif": b"GIF89a",
        "webp": b"RIFF\xff\xff\xff\xffWEBP",
        "tif": b"II*\0",
    }.items():
        noise = np.random.default_rng(3).bytes(500)
        yield f"noise behind the signature of {fmt}", f".{fmt}", head + noise, "cannot be decoded"

    for name, (make, reason) in SPECIAL.items():
        yield f"image: {name}", ".png", make, reason
    yield "a folder named as an image", ".png", Path.mkdir, "no image"
    yield "a link to a good image", ".png", lambda path: path.symlink_to("good png.png"), None
    yield "two images", ".png", twins, "2 images of the same name"
    if os.geteuid():
        yield "an unreadable image", ".png", forbidden(good[".png"]), "permission denied"
    for name in (
        "a name with\na line break",
        "not UTF-8 \udcff\udce4",
        "-rf",
        "\x1b[31mred",
        "é ü 中 🙂",
        "n" * 240,
        "%s{}$HOME`",
    ):
        yield name, ".png", good[".png"], None
    yield "broken, with\na line break", ".png", b"", "empty file"
    yield "broken, not UTF-8 \udcff", ".png", b"", "empty file"


# DICOM: behind .png, since the bytes and not the name tell what a file is


def dicom(change=None, syntax="1.2.840.10008.1.2.1", **values):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    pixels = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)
    made = Dataset()
    made.PatientName, made.PatientID, made.PatientBirthDate = PATIENT, PATIENT[:16], "19010203"
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 40, 48, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = pixels.astype(">u2" if syntax.endswith("2.2") else "<u2").tobytes()
    for name, value in values.items():
        setattr(made, name, value)
    if change:
        change(made)
    made["PixelData" if "PixelData" in made else "Rows"].VR = "OW" if "PixelData" in made else "US"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, "1.2.3.4"
    out = io.BytesIO()
    implicit, little = syntax.endswith(".1.2"), not syntax.endswith("1.2.2")
    made.save_as(out, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return out.getvalue()


def dicoms() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict; for the reader in `mmfuse.data.readers.dicom`."""
    from pydicom.encaps import encapsulate

    whole = dicom()
    rgb = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    rgb |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": bytes(3 * 40 * 48)}
    jpeg = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    good_frame, lossy = encode(picture("L"), "JPEG"), "1.2.840.10008.1.2.4.50"

    def private(made):
        block = made.private_block(0x0099, PATIENT, create=True)
        block.add_new(1, "LO", PATIENT)

    def without(name):
        return lambda made: delattr(made, name)

    frames = {"NumberOfFrames": 3, "PixelData": bytes(3 * 2 * 40 * 48)}
    found = {
        "good": (whole, None),
        "MONOCHROME1": (dicom(PhotometricInterpretation="MONOCHROME1"), None),
        "RGB": (dicom(**rgb), None),
        "several frames": (dicom(**frames), Notice(": first of 3 frames")),
        "implicit": (dicom(syntax="1.2.840.10008.1.2"), None),
        "big endian": (dicom(syntax="1.2.840.10008.1.2.2"), None),
        "no preamble": (whole[132:], None),
        "private tags": (dicom(private), None),
        "a good JPEG within": (dicom(syntax=lossy, PixelData=encapsulate([good_frame]), **jpeg), None),
        "a window of no width": (dicom(WindowCenter="100", WindowWidth="0"), None),
        "a slope of nonsense": (dicom(RescaleSlope="1e300", RescaleIntercept="-1e300"), None),
        "no pixels, as in a structured report": (dicom(without("PixelData")), "DICOM without pixels"),
        "no rows": (dicom(without("Rows")), "DICOM without Rows"),
        "no photometric interpretation": (dicom(without("PhotometricInterpretation")), "DICOM"),
        "pixels cut off": (whole[:-1000], "truncated DICOM|damaged DICOM"),
        "header cut off": (whole[:300], "DICOM"),
        "nothing but a preamble": (bytes(128) + b"DICM", "DICOM"),
        "bomb dicom": (dicom(Rows=65_000, Columns=65_000), "more than max_pixels"),
        "0 rows": (dicom(Rows=0), "DICOM"),
        "an unknown transfer syntax": (
            whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"),
            "transfer syntax",
        ),
        "a JPEG cut off": (
            dicom(syntax=lossy, PixelData=encapsulate([good_frame[:400] + bytes(50)]), **jpeg),
            "(damaged|truncated) DICOM",
        ),
        "a JPEG of another size": (
            dicom(syntax=lossy, PixelData=encapsulate([jpeg_says(9000, 9000)]), **jpeg),
            "damaged DICOM",
        ),
        "wrong bits": (dicom(BitsAllocated=7), "DICOM"),
        "an unknown colour space": (dicom(PhotometricInterpretation="HSV"), "DICOM"),
    }
    for name, (data, verdict) in found.items():
        yield f"dicom: {name}", ".png", data, verdict


# Texts


def texts() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict."""
    cut = Notice("truncated at")
    umlauts = "Pleuraerguß rechts, Herzgröße normal, keine Stauung. Zustand nach Thorakotomie, Drähte in situ."
    for name, encoding, text in (
        *(("utf-8", "utf-8", umlauts), ("utf-8 with mark", "utf-8-sig", umlauts), ("utf-16", "utf-16", REPORT)),
        *(("utf-16 BE with mark", "utf-16-be", "\ufeff" + REPORT), ("utf-16 LE without", "utf-16-le", REPORT)),
        *(("utf-16 BE without", "utf-16-be", REPORT), ("utf-32", "utf-32", REPORT), ("latin-1", "latin-1", umlauts)),
        ("cyrillic", "cp1251", "Легочные поля прозрачны, очаговых теней не выявлено. Сердце не увеличено."),
        ("chinese", "gb18030", "双肺纹理清晰，未见明显实质性病变。心影大小正常。"),
        ("japanese", "shift_jis", "両側肺野に明らかな浸潤影を認めない。心拡大なし。"),
        ("right to left", "utf-8", "לא נמצאו ממצאים חריגים بدون تغيرات"),
        ("emoji", "utf-8", "Normal 👍🏽 👩‍👩‍👧 ❤️"),
        ("mojibake", "utf-8", "Pleuraerguß".encode().decode("cp1252")),
    ):
        yield name, ".txt", text.encode(encoding), None
    yield "CRLF", ".txt", REPORT.replace(". ", ".\r\n").encode(), None
    yield "CR", ".txt", REPORT.replace(". ", ".\r").encode(), None
    yield "form feeds", ".txt", REPORT.replace(". ", ".\f").encode(), None
    yield "halves of UTF-16 in UTF-8", ".txt", b"Normal \xed\xa0\xbd heart", None
    yield "zero width", ".txt", "\u200b\u200d\u2060".encode(), None
    yield "template words", ".txt", b"{name} %s ${x} <script> '; DROP TABLE --", None
    yield "1 MB", ".txt", (REPORT + "\n").encode() * 15_000, cut
    yield "one word of 1 MB", ".txt", b"a" * 10**6, cut
    yield "20 MB", ".txt", (REPORT + "\n").encode() * 310_000, "larger than 10000000 bytes"
    for name, data in {
        "empty": b"",
        "white": b" \t\r\n\x0c \n" * 20,
        "mark": b"\xef\xbb\xbf",
        "utf-16 mark": b"\xff\xfe",
    }.items():
        yield f"nothing but {name}", ".txt", data, "no text"
    yield "utf-16 of an odd length", ".txt", REPORT.encode("utf-16") + b"x", "damaged UTF-16"
    yield "half of a pair in utf-16", ".txt", b"\xff\xfe\x3d\xd8a\0", "damaged UTF-16"
    yield "utf-32 of nonsense", ".txt", b"\xff\xfe\0\0\xff\xff\xff\xff", "damaged UTF-32"
    for name, data in {
        "NUL": REPORT.encode() + b"\0" + REPORT.encode(),
        "every byte": bytes(range(256)) * 8,
        "png": encode(picture(), "PNG"),
        "gzip": gzip.compress(REPORT.encode() * 9, mtime=0),
        "noise": np.random.default_rng(1).bytes(3000),
        "escape sequences": b"\x1b[2J\x1b]0;owned\x07 normal",
    }.items():
        yield f"text of {name}", ".txt", data, "binary, not text"
    for name, (make, reason) in SPECIAL.items():
        yield f"text: {name}", ".txt", make, reason
    yield "a folder named as a text", ".txt", Path.mkdir, "no text"
    if os.geteuid():
        yield "an unreadable text", ".txt", forbidden(REPORT.encode()), "permission denied"

    def two(path):
        path.write_text(REPORT)
        path.with_suffix(".report").write_text(REPORT)

    yield "two texts", ".txt", two, "2 texts of the same name"


def documents() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict; for the reader in `mmfuse.data.readers.documents`. Behind .txt: content tells."""
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    found = {
        "xml": (f"<report><FINDINGS>{REPORT}</FINDINGS></report>", None),
        "html": (f"<!DOCTYPE html><html><body><p>{REPORT}</p><p>Unclosed <b>bold</body>", None),
        "json": (json.dumps({"findings": REPORT, "impression": "Normal."}), None),
        "json with half a pair": ('{"report": "Normal \\ud83d heart"}', None),
        "rtf": (r"{\rtf1\ansi\ansicpg1252 Herzgr\'f6\'dfe normal.\par}", None),
        "less than": ("<5 mm nodule in the right upper lobe.", None),
        "an entity bomb": (f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY l0 "lol">{laughs}]><r>&l9;</r>', "entities"),
        "an entity of a file": (
            '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
            "entities",
        ),
        "xml cut off": (f"<report><FINDINGS>{PATIENT}</FINDINGS>", "damaged XML"),
        "deep xml": ("<r>" * 5000 + "</r>" * 5000, "XML nested"),
        "html with an open comment": (f"<html><body><!-- {PATIENT} <p>text</p></body></html>", "damaged HTML"),
        "json cut off": (f'{{"report": "{PATIENT}', "damaged JSON"),
        "deep json": ('{"a":' + "[" * 100_000, "JSON"),
        "json without a report": (f'{{"name": "{PATIENT}"}}', "JSON without a report"),
        "json of a number": ('{"report": 5}', "a string is expected"),
    }
    for name, (text, verdict) in found.items():
        yield f"document: {name}", ".txt", text.encode(), verdict


# Tables to predict: id, image, text


def table_rows(name, rows):
    return lambda path: getattr(pd.DataFrame(rows), name)(path)


def tables() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict."""
    head = "id,image,text\n"
    yield "good", ".csv", head + "1,a.png,normal\n", None
    yield "good, with a mark", ".csv", "\ufeff" + head + "1,a.png,normal\n", None
    yield "CRLF", ".csv", head.replace("\n", "\r\n") + "1,a.png,normal\r\n", None
    yield "lines in quotes", ".csv", head + '1,a.png,"one\ntwo, three ""four"""\n', None
    yield "tabs", ".tsv", head.replace(",", "\t") + "1\ta.png\tnormal\n", None
    yield "100,000 letters in a cell", ".csv", head + "1,a.png," + "word " * 20_000 + "\n", None
    yield "200,000 letters in quotes", ".csv", head + '1,a.png,"' + "word\n" * 40_000 + '"\n', None
    many = "".join(f",x{i}" for i in range(3000))
    yield "3,000 columns", ".csv", f"id,text{many}\n1,a{',0' * 3000}\n", None
    yield "3,000 columns and no id", ".csv", f"name,text{many}\n1,a{',0' * 3000}\n", "no column 'id'; .*3002 in all"
    yield "columns without a name", ".csv", "id,text,,\n1,normal,,\n", None
    yield "formulas", ".csv", head + "1,a.png,=cmd|' /C calc'!A0\n", None
    yield "a name in brackets", " [1].csv", head + "1,a.png,normal\n", None
    yield (
        "semicolons",
        ".csv",
        "id;image;text\n1;a.png;normal\n",
        r"separated by ';', not ','.*csv: \{separator: \";\"\}",
    )
    yield (
        "unbalanced quotes",
        ".csv",
        head + '1,a.png,"normal\n2,b.png,normal\n',
        "line 2: a field begins with a quote that nothing ends",
    )
    yield (
        "too many fields",
        ".csv",
        head + "1,a.png,normal\n2,b.png,normal,more\n",
        "line 3: 4 field.s., but the header has 3",
    )
    yield "too many fields in every row", ".csv", head + "1,a.png,normal,more\n", "line 2: 4 field.s., but the header"
    yield "too few fields", ".csv", head + "1,a.png,normal\n2\n", "line 3: 1 field.s., but the header has 3"
    yield "a column twice", ".csv", "id,image,text,text\n1,a.png,normal,effusion\n", "'text' is there twice"
    yield "no id column", ".csv", "image,text\na.png,normal\n", "no column 'id'"
    yield "neither image nor text", ".csv", "id,film\n1,a.png\n", "no column 'image'; legal: id, film"
    yield "an id twice", ".csv", head + "1,a.png,normal\n1,b.png,normal\n", "'1' names more than one row"
    yield "no id", ".csv", head + "1,a.png,normal\n,b.png,normal\n", "row 2 has no id"
    yield "empty", ".csv", "", "an empty file"
    yield "nothing but a header", ".csv", head, "no rows"
    yield "nothing but line ends", ".csv", "\n\n\n", "nothing but line ends"
    yield "NUL", ".csv", head + "1,a.png,nor\0mal\n", None
    yield "latin-1", ".csv", (head + "1,a.png,Erguß\n").encode("latin-1"), "line 2: not UTF-8: .*encoding: cp1252"
    yield "utf-16", ".csv", (head + "1,a.png,normal\n").encode("utf-16"), "it is UTF-16: .*encoding: utf-16"
    yield "png", ".csv", encode(picture(), "PNG"), "it is an image"
    yield "of another suffix", ".xlsx", b"PK\3\4", "spreadsheet .*save its sheet as CSV UTF-8"
    yield "without a suffix", "", head, "cannot tell what"
    yield "parquet", ".parquet", table_rows("to_parquet", {"id": [1], "text": ["normal"]}), None
    yield "parquet of numbers", ".parquet", table_rows("to_parquet", {"id": [1.5, 2], "text": [3, 4]}), None
    yield "parquet of bytes", ".parquet", table_rows("to_parquet", {"id": [b"\xff"], "text": [b"a"]}), "row 1: 1 bytes"
    yield "parquet of lists", ".parquet", table_rows("to_parquet", {"id": ["1"], "text": [["a", "b"]]}), "a list of 2"
    yield (
        "parquet of dates",
        ".parquet",
        table_rows("to_parquet", {"id": pd.to_datetime(["2020-01-01"]), "text": ["a"]}),
        None,
    )
    yield "parquet without rows", ".parquet", table_rows("to_parquet", {"id": [], "text": []}), "no rows"
    yield "csv behind parquet", ".parquet", head, "(?i)parquet|snappy"
    out = io.BytesIO()
    pd.DataFrame({"id": range(100), "text": ["normal"] * 100}).to_parquet(out)
    yield "parquet cut off", ".parquet", out.getvalue()[:-20], "(?i)parquet|snappy"
    yield "parquet without its middle", ".parquet", out.getvalue()[:60] + out.getvalue()[200:], "(?i)parquet|snappy"
    yield "parquet of noise", ".parquet", b"PAR1" + np.random.default_rng(0).bytes(300) + b"PAR1", "(?i)parquet|snappy"
    line = '{"id": "1", "text": "normal"}\n'
    yield "jsonl", ".jsonl", line + "\n" + line.replace("1", "2"), None
    yield "jsonl with half a pair", ".jsonl", '{"id": "1", "text": "normal \\ud83d"}\n', None
    yield "jsonl with half a pair as id", ".jsonl", '{"id": "\\ud83d", "text": "normal"}\n', None
    yield "jsonl of objects", ".jsonl", '{"id": {"a": 1}, "text": [null, 1e999]}\n', "an object with fields"
    yield "a line that is cut", ".jsonl", line + '{"id": "2", "te', "line 2: not JSON"
    yield "a line that is a list", ".jsonl", line + "[1, 2]\n", "line 2: an object"
    yield (
        "a key twice",
        ".jsonl",
        '{"id": "1", "text": "a", "text": "b"}\n',
        "line 1: the column 'text' is there twice",
    )
    yield "a line too deep", ".jsonl", '{"id": ' + "[" * 100_000 + "\n", "line 1: .*nested"
    yield "a number too long", ".jsonl", '{"id": ' + "9" * 10_000 + "}\n", "line 1: not JSON"
    yield "an array of rows", ".jsonl", f"[{line.strip()}]", "a JSON array"
    for name, (make, reason) in SPECIAL.items():
        if name not in ("600 MB of nothing", "a link to nowhere", "a link to itself"):
            yield name, ".csv", make, reason
    yield "a link to itself", ".csv", SPECIAL["a link to itself"][0], "no such file|too many levels"
    yield "a link to nowhere", ".csv", SPECIAL["a link to nowhere"][0], "no such file"


# What a row of a table may name as its image

CELLS = {
    "good": ("good.png", None),
    "in a folder above": ("../good.png", "no such file"),
    "above everything": ("../" * 40 + "etc/passwd", "not an image"),
    "absolute": ("/etc/passwd", "not an image"),
    "a device": ("/dev/zero", "not a regular file"),
    "a folder": (".", "is a directory|not a regular file"),
    "a URL where nobody listens": ("http://127.0.0.1:9/a.png", "address of this machine"),
    "a file URL": ("file:///etc/passwd", "does not permit URLs of file"),
    "a file URL to a device": ("file:///dev/zero", "does not permit URLs of file"),
    "an unknown protocol": ("foo://a.png", "of this protocol are never read"),
    "a chain": ("zip://a.png::file:///etc/passwd", "a URL with :: is never read"),
    "NUL": ("a\0.png", "cannot be read"),
    "too long": ("n" * 5000, "file name too long"),
    "data within": ("data:image/png;base64,AAAA", "an image written in a text"),
}


# Manifests, with rows.csv (id, image, text, y) beside them

ROWS = "id,image,text,y\n" + "".join(f"{i},a.png,{'no ' * (i % 5)}finding {i},{'uv'[i % 2]}\n" for i in range(20))
MANIFEST = "name: m\nrows: rows.csv\nid: id\ntext: {columns: [text]}\ntasks: {t: {column: y}}\n"


def manifests() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict."""

    def changed(old, new):
        assert old in MANIFEST
        return MANIFEST.replace(old, new)

    yield "good", ".yaml", MANIFEST, None
    yield "good, with a mark", ".yaml", "\ufeff" + MANIFEST, None
    yield (
        "good, as JSON",
        ".yaml",
        json.dumps(
            {
                "name": "m",
                "rows": "rows.csv",
                "id": "id",
                "text": {"columns": ["text"]},
                "tasks": {"t": {"column": "y"}},
            }
        ),
        None,
    )
    yield "an alias", ".yaml", changed("{columns: [text]}", "{columns: &c [text]}") + "subgroups: *c\n", None
    yield "empty", ".yaml", "", "is missing"
    yield "nothing but comments", ".yaml", "# name: m\n", "is missing"
    yield "a sentence", ".yaml", "this is no manifest", "a mapping"
    yield "a list", ".yaml", "- a\n- b\n", "a mapping"
    yield "a csv", ".yaml", ROWS, "a mapping"
    yield "two documents", ".yaml", MANIFEST + "---\n" + MANIFEST, "not valid YAML"
    yield "a png", ".yaml", encode(picture(), "PNG"), "not valid YAML"
    yield "NUL", ".yaml", changed("name: m", "name: m\0"), "not valid YAML"
    yield "latin-1", ".yaml", changed("name: m", "name: Thoraxübersicht").encode("latin-1"), "not valid YAML"
    yield "tabs", ".yaml", changed("text: {columns: [text]}", "text:\n\tcolumns: [text]"), "not valid YAML"
    yield "an open bracket", ".yaml", changed("[text]}", "[text"), "not valid YAML"
    yield "a key twice", ".yaml", MANIFEST + "name: n\n", "duplicate key"
    yield "an unknown key", ".yaml", MANIFEST + "subgroup: [y]\n", "subgroup: no such key; .*did you mean 'subgroups'"
    yield "a key of two lines", ".yaml", MANIFEST + '"a\\nb": x\n', "no such key"
    yield "a task of no column", ".yaml", changed("column: y", "column: ''"), "give either column or columns"
    yield "columns within columns", ".yaml", changed("[text]", "[[text]]"), "text.columns: one value for each item"
    yield "a share beyond numbers", ".yaml", MANIFEST + f"splits: {{ratios: {{test: {10**400}}}}}\n", "splits.ratios"
    yield "an unknown key within", ".yaml", changed("column: y", "colum: y"), "tasks.t.colum: no such key; .*'column'"
    yield "a key that is a number", ".yaml", MANIFEST + "3: x\n", "3: no such key"
    yield "a key that is a list", ".yaml", MANIFEST + "? [a]\n: x\n", "not valid YAML"
    yield "a key that is nothing", ".yaml", MANIFEST + "~: x\n", "key type 'NoneType'"
    yield "no rows", ".yaml", changed("rows: rows.csv\n", ""), "rows is missing: csv, tsv"
    yield "a list for a word", ".yaml", changed("id: id", "id: [id]"), "id: "
    yield "a word for a mapping", ".yaml", changed("{columns: [text]}", "text"), "text: a mapping"
    yield "a word for a list", ".yaml", changed("[text]", "text"), "text.columns: "
    yield "a mapping for a word", ".yaml", changed("name: m", "name: {a: b}"), "name: "
    yield "tasks as a list", ".yaml", changed("{t: {column: y}}", "[t]"), "tasks: a mapping"
    yield "nothing for a task", ".yaml", changed("{column: y}", ""), "tasks.t: field 'tasks.t' is not Optional"
    yield "norway", ".yaml", changed("column: y", "column: y, values: [u, no]"), "False is not a string .* quotes"
    yield "a date", ".yaml", changed("column: y", "column: y, missing: [12:30]"), "is not a string"
    yield "another tag", ".yaml", changed("name: m", "name: !!python/object/apply:os.system [id]"), "not valid YAML"
    yield "a tag of a module", ".yaml", changed("name: m", "name: !!python/name:os.system"), "not valid YAML"
    yield "a date by tag", ".yaml", changed("name: m", "name: !!timestamp 2020-01-01"), "name|not valid YAML"
    yield "bytes by tag", ".yaml", changed("name: m", "name: !!binary AAAA"), "name"
    levels = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 12))
    yield "an alias bomb", ".yaml", f"x0: &x0 [lol]\n{levels}\n{MANIFEST}", "aliases"
    merges = "\n".join(f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 10)}]}}" for i in range(1, 12))
    yield "a bomb of merges", ".yaml", f"x0: &x0 {{a: 1}}\n{merges}\n{MANIFEST}", "aliases"
    yield "an alias of itself", ".yaml", changed("{columns: [text]}", "&a {columns: *a}"), "alias"
    yield "an alias of nothing", ".yaml", changed("[text]", "*gone"), "undefined alias"
    yield "too deep", ".yaml", MANIFEST + "about: " + "[" * 5000 + "]" * 5000, "nested"
    yield "interpolation", ".yaml", changed("name: m", "name: '${oc.env:HOME}'"), "only .{data_root} can stand"
    yield "a number of 10,000 digits", ".yaml", MANIFEST + "version: " + "9" * 10_000, "version|not valid YAML"
    yield "a negative seed", ".yaml", MANIFEST + "splits: {seed: -1}\n", "splits.seed: -1 is out of range"
    yield "ratios of 0.9", ".yaml", MANIFEST + "splits: {ratios: {train: 0.5, test: 0.4}}\n", "they sum to 0.9, not 1"
    yield "ratios that are no numbers", ".yaml", MANIFEST + "splits: {ratios: {train: .nan, test: 1}}\n", "ratios"
    yield "an unknown split", ".yaml", MANIFEST + "splits: {ratios: {train: 0.5, dev: 0.5}}\n", "dev: no such split"
    yield "a million folds", ".yaml", MANIFEST + "splits: {folds: 1000000}\n", "folds"
    yield "an unknown stratum", ".yaml", MANIFEST + "splits: {stratify: y}\n", "'y' is not a task"
    yield "an unknown column", ".yaml", changed("column: y", "column: label"), "no column 'label'"
    yield "the target in the text", ".yaml", changed("[text]", "[text, y]"), "the model would read the answer"
    yield "rows that are nowhere", ".yaml", changed("rows.csv", "row.csv"), "row.csv: no such file"
    yield "rows of an unknown protocol", ".yaml", changed("rows.csv", "foo://rows.csv"), "foo"
    yield "rows that are itself", ".yaml", changed("rows.csv", "case.yaml"), "cannot tell what .yaml is"
    yield "rows of /dev/zero", ".yaml", changed("rows.csv", "/dev/zero"), "cannot tell what|not a regular file"
    yield "rows that are a folder", ".yaml", changed("rows.csv", "."), "directory|cannot tell|no such file"
    for name in ("a FIFO", "a socket", "a link to itself", "a link to nowhere", "a link to a device"):
        yield name, ".yaml", SPECIAL[name][0], "no such file|no regular file"
    yield "600 MB of nothing", ".yaml", sparse, "larger than"
    yield "a folder", ".yaml", Path.mkdir, "a folder; name a file"


# Configs

CONFIG = "name: run\ndata: {manifest: m.yaml}\n"


def configs() -> Iterator[tuple[str, str, object, str | None]]:
    """Name, suffix, content, verdict."""
    yield "good", ".yaml", CONFIG, None
    yield "good, with a number", ".yaml", CONFIG + "training: {learning_rate: 1e-4}\n", None
    yield "empty", ".yaml", "", "is missing"
    yield "not YAML", ".yaml", "name: [", "not valid YAML"
    yield "an unknown key", ".yaml", CONFIG + "training: {epoch: 3}\n", "training.epoch: no such key; .*'epochs'"
    yield "a word for a number", ".yaml", CONFIG + "seed: one\n", "seed"
    yield "an interpolation for a number", ".yaml", CONFIG + "training: {epochs: '${data_root}'}\n", "epochs"
    yield "half an epoch", ".yaml", CONFIG + "training: {epochs: 2.5}\n", "training.epochs"
    yield "NaN", ".yaml", CONFIG + "training: {learning_rate: .nan}\n", "learning_rate: nan"
    yield "infinite", ".yaml", CONFIG + "training: {learning_rate: .inf}\n", "learning_rate: inf"
    yield "out of range", ".yaml", CONFIG + "training: {epochs: 0}\n", "training.epochs: 0 is out of range"
    yield "not a choice", ".yaml", CONFIG + "training: {schedule: cosin}\n", "did you mean 'cosine'"
    yield "a size of one", ".yaml", CONFIG + "image_encoder: {size: [224]}\n", r"two numbers \[H, W\]"
    yield "a mapping for a list", ".yaml", CONFIG + "plugins: {a: b}\n", "plugins: a list is expected"
    yield "a word for fusion", ".yaml", CONFIG + "fusion: concat\n", "fusion: "
    yield "a list for fusion", ".yaml", CONFIG + "fusion: [concat]\n", "fusion: a mapping"
    yield "tasks as a list", ".yaml", CONFIG + "tasks: [t]\n", "tasks: a mapping"
    yield (
        "a bomb",
        ".yaml",
        CONFIG + "x0: &x0 [lol]\n" + "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        "aliases",
    )
    yield "a tag", ".yaml", CONFIG + "fusion: !!python/object/apply:os.system [id]\n", "not valid YAML"
    for tag in ("!!bool maybe", "!!int ''", "!!timestamp x", "!!float x"):
        yield f"{tag.split()[0][2:]} that is none", ".yaml", CONFIG + f"seed: {tag}\n", "not valid YAML"
    yield "a number without end", ".yaml", CONFIG + f"seed: 0x{'f' * 4000}\n", "a number of thousands of digits"
    yield "a FIFO", ".yaml", os.mkfifo, "no such file|no regular file"


# Model folders, each a good one with something done to it


def write_model(folder: Path) -> Path:
    """An untrained two-task model folder, tiny."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = TextEncoderConfig(name="bert", pretrained=False, options=sizes, max_length=32, vocab_size=200)
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    image = ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=vit)
    tasks = {
        "findings": {"type": "multilabel", "labels": ["effusion", "cardiomegaly"]},
        "sex": {"type": "classification", "labels": ["F", "M"]},
    }
    towers = build_text_encoder(text, [REPORT] * 9), build_image_encoder(image)
    FusionModel(*towers, {"name": "concat", "out_dim": 16}, tasks).eval().save_pretrained(folder)
    return folder


def edit(*path, **changes):
    """Change values in config.json, below `path`."""

    def do(folder):
        config = json.loads((folder / "config.json").read_text())
        place = config
        for name in path:
            place = place[name]
        place.update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return do


def config_is(content):
    return lambda folder: (folder / "config.json").write_bytes(content)


def weights_are(content):
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def weights(change):
    def do(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return do


def instead(name, make):
    def do(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return do


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def nothing(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def replaced(make):
    def do(folder):
        shutil.rmtree(folder)
        make(folder)

    return do


def header_says(text, size=None):
    data = text.encode()
    return weights_are(struct.pack("<Q", len(data) if size is None else size) + data + bytes(64))


def pickled(path):
    torch.save({"weight": torch.zeros(3)}, path)


def cut(name, size):
    def do(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:size])

    return do


MODELS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "good": (lambda folder: None, None),
    "good, with more in it": (lambda folder: (folder / "notes.txt").write_text("mine"), None),
    "an empty folder": (nothing, "config.json is missing"),
    "a file": (replaced(lambda path: path.write_text("model")), "no such model folder"),
    "nothing": (replaced(lambda path: None), "no such model folder"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path.name)), "no such model folder"),
    "a FIFO": (replaced(os.mkfifo), "no such model folder"),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer is missing"),
    "config.json a FIFO": (instead("config.json", os.mkfifo), "config.json: .*not a regular file"),
    "config.json a folder": (instead("config.json", Path.mkdir), "config.json: .*(not a regular file|directory)"),
    "config.json a link to itself": (instead("config.json", lambda p: p.symlink_to(p.name)), "config.json: .*levels"),
    "config.json endless": (
        instead("config.json", lambda p: p.symlink_to("/dev/zero")),
        "a link out of the model folder",
    ),
    "weights a FIFO": (instead("model.safetensors", os.mkfifo), "model.safetensors: .*not a regular file"),
    "weights a folder": (instead("model.safetensors", Path.mkdir), "model.safetensors: damaged"),
    "weights endless": (
        instead("model.safetensors", lambda p: p.symlink_to("/dev/zero")),
        "a link out of the model folder",
    ),
    "tokenizer a FIFO": (instead("tokenizer/tokenizer.json", os.mkfifo), "tokenizer.json: .*not a regular file"),
    "tokenizer a file": (instead("tokenizer", lambda path: path.write_text("x")), "tokenizer"),
    "config.json empty": (config_is(b""), "config.json: damaged"),
    "config.json not text": (config_is(b"\xff\xfe\0\0"), "config.json: damaged"),
    "config.json a list": (config_is(b"[1]"), "not a model of mmfuse"),
    "config.json too deep": (config_is(b"[" * 100_000), "config.json: damaged"),
    "config.json of transformers": (config_is(b'{"model_type": "bert", "hidden_size": 9}'), "not a model of mmfuse"),
    "a later format": (edit(format_version=99), "reads up to 1: upgrade"),
    "a format that is no number": (edit(format_version="1"), "not a model of mmfuse"),
    "a format that is a truth": (edit(format_version=True), "not a model of mmfuse"),
    "a format below 1": (edit(format_version=0), "not a model of mmfuse"),
    "an unknown fusion": (edit("fusion", name="conkat"), "unknown fusion 'conkat'.*did you mean 'concat'"),
    "an unknown option": (edit("fusion", depth=3), "fusion.depth is not an option"),
    "no fusion": (edit(fusion=None), "config.json"),
    "an unknown head": (edit("tasks", "sex", type="regresion"), "unknown head 'regresion'"),
    "an unknown text encoder": (edit("text_encoder", "architecture", model_type="brt"), "no such architecture"),
    "a text encoder that cannot run": (
        edit("text_encoder", "architecture", chunk_size_feed_forward=7),
        "no model can be built",
    ),
    "a tokenizer of more words": (
        lambda folder: (folder / "tokenizer/tokenizer.json").write_text(
            (folder / "tokenizer/tokenizer.json").read_text().replace('"[MASK]": 4', '"[MASK]": 99999')
        ),
        "the tokenizer has a token 99999|tokenizer: damaged",
    ),
    "an unknown image encoder": (edit("image_encoder", "architecture", name="vit_tini"), "no such architecture"),
    "a pretrained image encoder": (edit("image_encoder", "architecture", options={"pretrained": True}), "no option"),
    "code of its own": (
        edit("text_encoder", "architecture", auto_map={"AutoConfig": "evil.Config"}, trust_remote_code=True),
        None,  # it is never run
    ),
    "more layers than weights": (
        edit("text_encoder", "architecture", num_hidden_layers=10**6),
        "config.json describes a larger model than model.safetensors",
    ),
    "wider than weights": (
        edit("text_encoder", "architecture", intermediate_size=10**9),
        "larger model than model.safetensors|no model can be built",
    ),
    "an image of 100,000 pixels": (edit("image_encoder", "preprocessing", size=[10**5, 10**5]), "size"),
    "an image of no pixels": (edit("image_encoder", "preprocessing", size=[0, 0]), "size"),
    "an unknown resize": (edit("image_encoder", "preprocessing", resize="stretch"), "resize"),
    "an unknown pooling of texts": (edit("text_encoder", pooling="max"), "pooling"),
    "an unknown pooling of images": (edit("image_encoder", pooling="max"), "pooling"),
    "a text of no tokens": (edit("text_encoder", max_length=0), "max_length"),
    "a text of more tokens than positions": (edit("text_encoder", max_length=10**6), "max_length"),
    "a text of half a token": (edit("text_encoder", max_length="long"), "max_length"),
    "a label twice": (edit("tasks", "sex", labels=["F", "F"]), "label"),
    "labels that are numbers": (edit("tasks", "sex", labels=[1, 2]), "label"),
    "another number of labels": (edit("tasks", "sex", labels=["F", "M", "X"]), "does not fit config.json"),
    "no tasks": (edit(tasks={}), "config.json"),
    "a temperature of 0": (edit("decisions", "sex", temperature=0), "temperature"),
    "a temperature that is a word": (edit("decisions", "sex", temperature="hot"), "temperature"),
    "thresholds of another number": (edit("decisions", "findings", thresholds=[0.5]), "thresholds"),
    "thresholds that are words": (edit("decisions", "findings", thresholds=["a", "b"]), "thresholds"),
    "a decision on no task": (edit("decisions", gone={"temperature": 1.0, "thresholds": None}), "config.json"),
    "an unknown modality": (edit(accepts_missing="text"), "accepts_missing"),
    "a section that is none": (edit(text_sections=["indication", 32]), "text_sections"),
    "a curve of a word": (
        edit(selective={"sex": [{"rows": 1, "confidence": ["a"], "coverage": [1.0], "accuracy": [1.0]}]}),
        "selective.sex",
    ),
    "a curve of another length": (
        edit(selective={"sex": [{"rows": 1, "confidence": [0.5, 0.6], "coverage": [1.0], "accuracy": [1.0]}]}),
        "selective.sex",
    ),
    "two billion blocks": (edit("image_encoder", "architecture", "options", depth=2**31), "options.depth 2147483648"),
    "an absent plug-in": (edit(plugins={"fusion votes": "votes"}), "needs the 'fusion votes' from the plug-in 'votes'"),
    "plug-ins as a list": (edit(plugins=["votes"]), "config.json"),
    "weights empty": (weights_are(b""), "model.safetensors: damaged"),
    "weights cut": (cut("model.safetensors", -100), "model.safetensors: damaged"),
    "weights without an end of their header": (cut("model.safetensors", 50), "model.safetensors: damaged"),
    "weights as a pickle": (instead("model.safetensors", pickled), "model.safetensors: damaged"),
    "weights as pytorch_model.bin only": (rename("model.safetensors", "pytorch_model.bin"), "safetensors is missing"),
    "weights an LFS pointer": (weights_are(b"version https://git-lfs.github.com/spec/v1\n"), "safetensors: damaged"),
    "a header of 2**60 bytes": (header_says("{}", 2**60), "model.safetensors: damaged"),
    "a header that is no JSON": (header_says("{]"), "model.safetensors: damaged"),
    "a header of negative offsets": (
        header_says('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}'),
        "model.safetensors: damaged",
    ),
    "a tensor of 2**60 numbers": (
        header_says('{"a": {"dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 64]}}'),
        "model.safetensors: damaged",
    ),
    "a tensor missing": (weights(lambda state: state.pop(next(iter(state)))), "does not fit config.json"),
    "a tensor of another shape": (
        weights(lambda state: state.update({next(iter(state)): torch.zeros(3)})),
        "does not fit config.json",
    ),
    "NaN in the weights": (
        weights(lambda state: state["missing_tokens.text"].fill_(float("nan"))),
        "model.safetensors: .*contains NaN",
    ),
    "weights that overflow": (
        weights(lambda state: state["image_encoder.model.patch_embed.proj.weight"].fill_(3e38)),
        "features are no finite numbers",
    ),
    "a tensor of whole numbers": (
        weights(lambda state: state.update({"missing_tokens.text": torch.zeros(16, dtype=torch.int64)})),
        "does not fit config.json",
    ),
    "tokenizer.json empty": (cut("tokenizer/tokenizer.json", 0), "tokenizer: damaged"),
    "tokenizer.json cut": (cut("tokenizer/tokenizer.json", 500), "tokenizer: damaged"),
    "tokenizer_config.json cut": (cut("tokenizer/tokenizer_config.json", 20), "tokenizer: damaged"),
    "a tokenizer of code of its own": (
        instead(
            "tokenizer/tokenizer_config.json",
            lambda path: path.write_text(
                '{"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.E", null]}}'
            ),
        ),
        "its own code, which mmfuse never runs",
    ),
}


def cases(kind: str) -> list[Case]:
    """The cases of a kind; none of `dicoms` and `documents` where mmfuse has no reader for them yet."""
    found = globals()[kind]()
    return [Case(kind, name, suffix, content, verdict) for name, suffix, content, verdict in found]


def write_studies(folder: Path, studies: list[Case]) -> None:
    """Each case as a study of its own: the image or the report is the case, the other one is good."""
    folder.mkdir()
    good = encode(picture(), "PNG")
    for case in studies:
        case.write(folder / f"{case.name}{case.suffix}")
        if case.kind in ("texts", "documents"):
            (folder / f"{case.name}.png").write_bytes(good)
        else:
            (folder / f"{case.name}.txt").write_text(REPORT)
