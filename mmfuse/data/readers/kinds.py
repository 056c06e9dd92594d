"""What a file in a folder of studies is, by its first bytes and its name: an image or a report that is read, or not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from mmfuse.data.readers.dicom import is_dicom

Kind = Literal["image", "text", "unread", "aside", "other"]
"""Of a file in a folder of studies:

- `image` and `text` are read;
- `unread` is an image, a report or a recording that is not: what is in it would be missing from its study;
- `aside` may be one (notes, an archive, an array, a drawing): it matters where its study lacks an image or a text;
- `other` is none.
"""

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".heic", ".heif", ".hif"),
)
IMAGE_SUFFIXES = (*PICTURES, ".dcm", ".dicom")
TEXT_SUFFIXES = (".txt", ".text", ".report", ".xml", ".html", ".htm", ".json", ".rtf", ".sr")
FORMATS = "JPEG, PNG, GIF, WebP, TIFF, BMP, PPM, AVIF, JPEG 2000, HEIC or DICOM"
"""The images that are read, in words."""
HEAD = 4096
"""Bytes of a file that tell its kind."""

_UNREAD_PICTURES = """
    .jxl .jxr .wdp .hdp .psd .psb .eps .ps .ai .tga .pcx .exr .hdr .dds .xcf .qoi .flif .bpg
    .pict .sgi .ras .xbm .xpm .djvu .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf .dng .raf .orf .rw2 .pef .srw .x3f
    .3fr .iiq .kdc .dcr .erf .mef .mos .rwl .raw .img .nii .nia .mgz .mgh .mnc .nrrd .nhdr .mha .mhd .fits .fit .svs
    .ndpi .scn .mrxs .vsi .czi .lif .nd2 .mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mj2
"""
_UNREAD_TEXTS = ".pdf .doc .docx .docm .odt .pages .wpd .wps .ppt .pptx .odp .epub .mobi .xps .hwp .hwpx .eml .msg"
_ASIDE = """
    .md .markdown .rst .adoc .org .tex .zip .7z .rar .tar .tgz .gz .bz2 .xz .zst .npy .npz .mat .h5 .hdf5
    .svg .svgz .ico .icns .cur .wmf .emf .wav .mp3 .m4a .ogg .opus .flac .aac .wma
"""
_OTHER = """
    .csv .tsv .xls .xlsx .ods .parquet .arrow .feather .jsonl .ndjson .yaml .yml .toml .ini .cfg .conf .py .ipynb .sh
    .bat .r .js .css .db .sqlite .sqlite3 .log .md5 .sha1 .sha256 .url .lnk .bak .old .orig .tmp .temp .part .partial
    .crdownload .download .swp .lock .pkl .pt .pth .safetensors .onnx .bib
"""
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_BY_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(_OTHER.split(), "other"),
    **dict.fromkeys(_ASIDE.split(), "aside"),
    **dict.fromkeys((_UNREAD_PICTURES + _UNREAD_TEXTS).split(), "unread"),
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
}
_ABOUT = re.compile(r"(readme|licen[cs]e|copying|changelog|notice|authors|citation)\b", re.IGNORECASE)
"""Names of files that tell of a whole data set."""

# Of what no text begins with: BMP and PPM are left out.
_SIGNATURES: tuple[tuple[bytes, str, Kind], ...] = (
    (rb"\xff\xd8\xff", "JPEG", "image"),
    (rb"\x89PNG\r\n\x1a\n", "PNG", "image"),
    (rb"GIF8[79]a", "GIF", "image"),
    (rb"RIFF....WEBP", "WebP", "image"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF", "image"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000", "image"),
    (rb"....ftyp(?:avi[fs]|(?:mif1|msf1)....(?:....){0,20}avif)", "AVIF", "image"),
    (rb"....ftyp(?:he[iv][cmsx]|mif1|msf1)", "HEIC", "image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "unread"),
    (rb"II\xbc[\0\x01]", "JPEG XR", "unread"),
    (rb"8BPS\0[\x01\x02]", "Photoshop", "unread"),
    (rb"%PDF-", "PDF", "unread"),
    (rb"%!PS", "PostScript", "unread"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft Office file", "unread"),
    (rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]", "a video", "unread"),
    (rb".{344}(?:n\+1|ni1)\0|\x5c\x01\0\0|\0\0\x01\x5c", "NIfTI", "unread"),
    (rb"\x76\x2f\x31\x01|#\?RADIANCE|NRRD000|qoif|FLIF|BPG\xfb|AT&TFORM", "an image of a rare format", "unread"),
    (rb"PK\x03\x04", "ZIP, as docx and odt are too", "aside"),
    (rb"\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a", "a packed file", "aside"),
    (rb"\x93NUMPY|\x89HDF\r\n\x1a\n", "an array", "aside"),
)
_COMPILED: tuple[tuple[re.Pattern[bytes], str, Kind], ...] = tuple(
    (re.compile(mark, re.DOTALL), name, kind) for mark, name, kind in _SIGNATURES
)


def format_of(head: bytes) -> tuple[str, Kind] | None:
    """Tell a file's format by how it begins.

    Returns:
        Its name, and what it is in a folder of studies; None where it is not known: text, BMP, PPM, anything.
    """
    if is_dicom(head):
        return "DICOM", "image"
    return next(((name, kind) for mark, name, kind in _COMPILED if mark.match(head)), None)


def kind_of(path: str | Path) -> Kind:
    """Tell what a local file is to a study; it is opened only where its name leaves a doubt, and never waited for."""
    name = os.path.basename(path)
    suffix = suffix_of(name)
    kind = "other" if name.endswith("~") else _BY_SUFFIX.get(suffix)
    if kind == "aside" and suffix in _PACKED and suffix_of(name[: -len(suffix)]):
        kind = _BY_SUFFIX.get(suffix_of(name[: -len(suffix)]), "aside")
        kind = "unread" if kind in ("image", "text") else kind  # x.txt.gz
    elif kind in (None, "unread"):
        form, seen = format_of(head_of(path)) or (None, "other")
        # Raw files of cameras and scans of slides are TIFFs whose first page is a thumbnail.
        kind = seen if kind is None or (seen == "image" and form != "TIFF") else kind
    return "other" if kind in ("unread", "aside") and _ABOUT.match(name) else kind


def stem_of(name: str, kind: Kind | None = None) -> str:
    """Give the name that the files of a study share: without its suffix, `x` for `x.nii.gz` too.

    Args:
        name: Of the file.
        kind: Its kind: an unknown suffix of letters is one then, as in `x.jpg_large`, but not that of `IM.0001`.
    """
    suffix = suffix_of(name)
    if suffix not in _BY_SUFFIX and (kind in (None, "other") or not suffix[1:2].isalpha() or " " in suffix):
        return name
    stem = os.path.splitext(name)[0]
    packed = suffix in _PACKED and suffix_of(stem) in _BY_SUFFIX
    return os.path.splitext(stem)[0] if packed else stem


def suffix_of(name: str) -> str:
    """Give the suffix in lower case, with its dot; "" without one."""
    return os.path.splitext(name)[1].lower()


def is_picture(name: str) -> bool:
    """Tell whether an `unread` file is a picture, by its suffix; else it is a report, or not known."""
    stem, suffix = os.path.splitext(name.lower())
    return (suffix_of(stem) if suffix in _PACKED else suffix) in _UNREAD_PICTURES.split()


def head_of(path: str | Path) -> bytes:
    """Give a local file's first bytes; none where it cannot be read. Never blocks on a FIFO."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            return file.read(HEAD)
    except OSError:
        return b""
