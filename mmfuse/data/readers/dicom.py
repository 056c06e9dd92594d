"""The bytes of a DICOM file -> uint8 pixels, as a viewer first shows them, and their spacing. Nothing else of the file.

Of the header, only what `_KEYWORDS` lists is ever parsed, and no message repeats a value of it: headers name patients.
Sections "C.x" and "8.x" in comments are those of the DICOM standard, PS3.3 and PS3.5.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfuse.data.readers.dicom_pixels import PIXELS, check_bits, count_frames, decode_frame
from mmfuse.data.readers.quiet import quiet
from mmfuse.extras import extra
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from pydicom import Dataset

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")
_REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = ("PixelMeasuresSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence")
_KEYWORDS = (
    *PIXELS,
    *_SPACINGS,
    *_REQUIRED,
    *_GROUPS,
    *("PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    "NumberOfFrames",
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(
        f"{segmented}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
)
_COLOURS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MAX_INFLATED = 512 * 2**20
_MAX_ENTRIES = 2**16  # of a lookup table, as its descriptor can say
_HEAD = 4096  # bytes in which a data set names its class
_PIECE = 2**14  # deflate makes at most 1,032 times as much of it
_DICOM_UID = b"1.2.840.10008."  # every class of objects and every transfer syntax of the standard begins with it
# A data set without preamble begins with an element of group 8 or 2: explicit VR, implicit with a short value, or big
# endian, which is explicit.
_BARE = re.compile(rb"[\x02\x08]\0.\0(?:[A-Z]{2}|..\0\0)|\0[\x02\x08]\0.[A-Z]{2}", re.DOTALL)
_STRUCTURED_REPORT = re.compile(rb"\x02\0\x02\0UI..1\.2\.840\.10008\.5\.1\.4\.1\.1\.88\.", re.DOTALL)


def is_dicom(data: bytes) -> bool:
    """Tell by its first bytes whether a file is DICOM; also a bare data set, without preamble and file header."""
    return data[128:132] == b"DICM" or (_BARE.match(data) is not None and _DICOM_UID in data[:_HEAD])


def is_structured_report(head: bytes) -> bool:
    """Tell by the class in its file header whether a file that begins so is a DICOM report."""
    return _STRUCTURED_REPORT.search(head) is not None


def decode_dicom(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """Decode the first frame.

    Gray goes through the modality LUT or rescale, then through the first VOI LUT, else the first window. Where there is
    neither, unsigned values of at most 8 bits are gray levels as they are, and all others go from their minimum (0) to
    their maximum (255), padding left out. MONOCHROME1, or a presentation LUT shape INVERSE, is inverted. Colour of more
    than 8 bits keeps its high byte. Of an enhanced object, the functional groups of the first frame are used. Overlays,
    ICC profiles and supplemental palettes are ignored.

    Args:
        data: The whole file.
        max_pixels: A frame whose header says more is refused before it is decoded.

    Returns:
        `(H, W)` or `(H, W, 3)` uint8; and how many frames the file says it has, at least 1.

    Raises:
        MmfuseError: Why it cannot be read; pydicom or a plug-in that is missing, too.

    Reference:
        DICOM PS3.3, C.7.6.3 (image pixels), C.11.1 and C.11.2 (modality and VOI LUT), C.7.9 (palettes).
    """
    with _pydicom():
        dataset = _read(data)
        if not any(keyword in dataset for keyword in PIXELS):
            raise MmfuseError("DICOM without pixels")
        for keyword in _REQUIRED:
            if not isinstance(dataset.get(keyword), int):  # a long text, multiplied, would fill the memory
                raise MmfuseError(f"DICOM without {keyword}")
        dataset.NumberOfFrames = max(1, int(_number(dataset, "NumberOfFrames") or 1))
        columns, rows = dataset.Columns, dataset.Rows
        if columns * rows > max_pixels:
            raise MmfuseError(f"{columns} x {rows} pixels: more than max_pixels, {max_pixels}")
        if dataset.get("PhotometricInterpretation") not in _COLOURS:
            raise MmfuseError("DICOM of a colour space that is not read")
        check_bits(dataset)
        return _shown(dataset), count_frames(dataset)


def _shown(dataset: Dataset) -> np.ndarray:
    """Give the first frame as a viewer shows it."""
    stored, photometric = decode_frame(dataset)
    if stored.shape[:2] != (dataset.Rows, dataset.Columns) or not stored.size:
        raise MmfuseError("damaged DICOM: no pixels of the size that its header says")
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        # For a MONOCHROME1 film the shape must be INVERSE (C.8.11.3): one inversion, said twice.
        inverse = photometric == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
        gray = _gray(stored, dataset)
        return 255 - gray if inverse else gray
    if photometric == "PALETTE COLOR":
        return _palette(stored, dataset)
    if photometric != "RGB":  # YBR_ICT and YBR_RCT are legal in JPEG 2000 alone
        raise MmfuseError("damaged DICOM: its colour space and its compression do not fit")
    bits = int(dataset.BitsStored)
    if bits < 8:
        return (stored * (255 / (2**bits - 1))).round().astype(np.uint8)
    return (stored >> (bits - 8)).clip(0, 255).astype(np.uint8)


def dicom_spacing(data: bytes) -> tuple[float, float] | None:
    """Give the distance of rows and of columns in mm: PixelSpacing, else ImagerPixelSpacing; None if neither is there.

    Raises:
        MmfuseError: The file is damaged, or pydicom is not installed.
    """
    with _pydicom():
        dataset = _read(data)
        for keyword in _SPACINGS:
            try:
                row, column = (float(value) for value in dataset.get(keyword) or ())
            except (TypeError, ValueError):  # not two numbers
                continue
            if 0 < row < math.inf and 0 < column < math.inf:
                return row, column
    return None


@contextmanager
def _pydicom() -> Iterator[None]:
    """Say pydicom's errors in words of our own."""
    with extra("dicom", "DICOM needs pydicom"):
        import pydicom  # noqa: F401
    try:
        with quiet(), np.errstate(all="ignore"):  # hostile numbers overflow, and are clipped
            yield
    except MmfuseError:
        raise
    except Exception as error:  # hostile bytes bring nearly every exception out of pydicom and its plug-ins
        raise MmfuseError(f"damaged DICOM ({type(error).__name__})") from None


def _read(data: bytes) -> Dataset:
    """Parse what is needed, with the first frame's functional groups moved to where older objects have their values."""
    from pydicom import dcmread
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file = io.BytesIO(data)
    read_preamble(file, force=True)
    header = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    list(header)  # a damaged one is refused here; pydicom would read it in another way, and inflate without a limit
    if header.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        _check_inflated(data[file.tell() :])
    dataset = dcmread(io.BytesIO(data), force=True, specific_tags=list(_KEYWORDS))
    for group in _GROUPS:
        for frame in (dataset.get(group) or [])[:1]:
            for macro in _MACROS:
                for item in (frame.get(macro) or [])[:1]:
                    dataset.update(item)
    return dataset


def _check_inflated(deflated: bytes) -> None:
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for start in range(0, len(deflated), _PIECE):
        size += len(inflater.decompress(deflated[start : start + _PIECE]))
        if size > _MAX_INFLATED:
            raise MmfuseError(f"deflated DICOM of more than {_MAX_INFLATED} bytes")


def _gray(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Give `(H, W)` uint8 of stored values as they are displayed, but for an inversion."""
    known = stored[np.isfinite(stored) & ~_is_padding(stored, dataset)]
    if not known.size:
        return np.zeros(stored.shape, np.uint8)
    low, high = stored.min(), stored.max()
    if stored.dtype.kind == "f" or int(high) - int(low) >= _MAX_ENTRIES:
        return _display(stored, known.min(), known.max(), dataset)
    # Of few levels, each is computed once.
    levels = np.arange(int(low), int(high) + 1)
    return _display(levels, known.min(), known.max(), dataset)[stored.astype(np.int64) - int(low)]


def _is_padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    first = _number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = _number(dataset, "PixelPaddingRangeLimit")
    last = first if last is None else last
    return (stored >= min(first, last)) & (stored <= max(first, last))


def _display(stored: np.ndarray, low: Any, high: Any, dataset: Dataset) -> np.ndarray:
    """Give uint8 of stored values; `low` and `high` are the least and the largest of the picture."""
    values = _modality(stored, dataset)
    table = _lookup_table(dataset, "VOILUTSequence")
    window = _window(values, dataset) if table is None else None
    if table is not None:
        first, entries, bits = table
        shown = entries[(values.round() - first).clip(0, len(entries) - 1).astype(np.int64)] / (2.0**bits - 1)
    elif window is not None:
        shown = window
    else:
        ends = _modality(np.array([low, high]), dataset)
        bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        if bits <= 8 and not dataset.get("PixelRepresentation") and (ends == [low, high]).all():
            ends = np.array([0, 2.0**bits - 1])
        least, most = ends.min(), ends.max()
        shown = (values - least) / (most - least) if most > least else np.zeros(values.shape)
    return (np.nan_to_num(shown, nan=0, posinf=1, neginf=0).clip(0, 1) * 255).round().astype(np.uint8)


def _modality(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Apply the modality LUT or rescale (C.11.1): float64 in the modality's unit."""
    table = _lookup_table(dataset, "ModalityLUTSequence")
    if table is not None:
        first, entries, _ = table
        return entries[(np.nan_to_num(stored) - first).clip(0, len(entries) - 1).astype(np.int64)].astype(np.float64)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    return stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _window(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Apply the first window (C.11.2.1.2 and 3): 0 to 1 within it; None where there is none, or one of no width."""
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if centre is None or width is None or width <= 0 or (width < 1 and function == "LINEAR"):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _lookup_table(dataset: Dataset, keyword: str) -> tuple[int, np.ndarray, int] | None:
    """Give the first value mapped, the entries, and their bits, of the first table of a sequence; None without one."""
    for item in (dataset.get(keyword) or [])[:1]:
        if item.get("LUTDescriptor") and item.get("LUTData"):
            _, first, bits = map(int, item.LUTDescriptor)
            return first, _entries(item.LUTDescriptor, item.LUTData, dataset), bits
    return None


def _palette(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Give `(H, W, 3)` uint8 of indices into the palette."""
    channels = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
        data = dataset.get(f"{colour}PaletteColorLookupTableData")
        segments = dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
        if not descriptor or not (data or segments):
            raise MmfuseError("DICOM of a palette that is missing")
        _, first, bits = map(int, descriptor)
        entries = _entries(descriptor, data, dataset) if data else _unfold(descriptor, segments, dataset)
        if bits > 8 or entries.max() > 255:
            entries = entries >> 8
        channels.append(entries.astype(np.uint8)[(stored.astype(np.int64) - first).clip(0, len(entries) - 1)])
    return np.stack(channels, axis=-1)


def _entries(descriptor: Any, data: Any, dataset: Dataset) -> np.ndarray:
    """Give a table's entries as integers: numbers, 16-bit words, or bytes where there are too few for words."""
    size = int(descriptor[0]) % _MAX_ENTRIES or _MAX_ENTRIES
    if isinstance(data, bytes):
        entries = _words(data, dataset) if len(data) >= 2 * size else np.frombuffer(data, np.uint8)
    else:
        entries = np.atleast_1d(np.asarray(data))
    if len(entries) < size:
        raise MmfuseError("damaged DICOM: a lookup table is cut off")
    return entries[:size].astype(np.int64)


def _words(data: bytes, dataset: Dataset) -> np.ndarray:
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if dataset.original_encoding[1] else ">u2")


def _unfold(descriptor: Any, data: bytes, dataset: Dataset) -> np.ndarray:
    """Give the entries of a segmented table (C.7.9.2), of discrete and linear segments."""
    words = (np.frombuffer(data, np.uint8) if int(descriptor[2]) <= 8 else _words(data, dataset)).tolist()
    entries: list[float] = []
    place = 0
    while place + 2 < len(words):
        kind, length = words[place : place + 2]
        if kind == 0:
            entries += words[place + 2 : place + 2 + length]
            place += 2 + length
        elif kind == 1 and entries:
            entries += np.linspace(entries[-1], words[place + 2], length + 1).round()[1:].tolist()
            place += 3
        else:
            raise MmfuseError("DICOM of a palette with indirect segments")
        if len(entries) > _MAX_ENTRIES:
            raise MmfuseError("damaged DICOM: a palette of too many entries")
    if not entries:
        raise MmfuseError("damaged DICOM: a palette without entries")
    return np.array(entries, np.int64)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """Give the first value as a finite number; None where it is missing, or none."""
    try:
        value = dataset.get(keyword)
        value = float(value[0] if isinstance(value, MutableSequence) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
