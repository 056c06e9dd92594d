"""The stored values of a DICOM file's first frame. Numbers of bits that contradict each other are heeded, or refused.

Sections "C.x" and "8.x" in comments are those of the DICOM standard, PS3.3 and PS3.5.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from mmfuse.extras import install
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from pydicom import Dataset

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_ALLOCATED = (1, 8, 16, 32, 64)
_MAX_JPEG_SCANS = 100
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and JPEG-LS


def check_bits(dataset: Dataset) -> None:
    """Refuse a header whose numbers of bits and samples contradict each other (C.7.6.3, 8.1.1)."""
    allocated, samples = dataset.BitsAllocated, dataset.SamplesPerPixel
    if samples != (1 if dataset.PhotometricInterpretation in _ONE_SAMPLE else 3):
        raise MmfuseError(f"DICOM whose colour space does not fit its SamplesPerPixel, {samples}")
    if "PixelData" not in dataset:
        if allocated != (32 if "FloatPixelData" in dataset else 64):
            raise MmfuseError(f"DICOM of float pixels with BitsAllocated {allocated}")
        return
    if allocated not in _ALLOCATED:
        raise MmfuseError(f"DICOM with BitsAllocated {allocated}, which is not read; 1, 8, 16, 32 and 64 are")
    if not isinstance(dataset.get("BitsStored"), int):
        raise MmfuseError("DICOM without BitsStored")
    if dataset.get("HighBit") is None:
        dataset.HighBit = dataset.BitsStored - 1
    if not (isinstance(dataset.HighBit, int) and 1 <= dataset.BitsStored <= dataset.HighBit + 1 <= allocated):
        raise MmfuseError("DICOM whose BitsAllocated, BitsStored and HighBit contradict each other")
    if dataset.get("PixelRepresentation") not in ((0, 1) if samples == 1 else (0,)):
        raise MmfuseError("DICOM whose PixelRepresentation is missing or not legal")


def count_frames(dataset: Dataset) -> int:
    """Give the number of frames that the header says, or that are there, where that is more."""
    from pydicom.encaps import parse_basic_offsets
    from pydicom.pixels.utils import get_expected_length

    pixels = next(dataset[keyword] for keyword in PIXELS if keyword in dataset)
    if pixels.is_undefined_length:
        return max(dataset.NumberOfFrames, len(parse_basic_offsets(pixels.value)))
    return dataset.NumberOfFrames * max(1, len(pixels.value) // get_expected_length(dataset))


def decode_frame(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Decode the first frame; YBR becomes RGB. Returns the stored values and what they are."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import get_expected_length
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        implicit, little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise MmfuseError("DICOM of a transfer syntax that is not read") from None
    if not decoder.is_available:
        raise MmfuseError(f"DICOM of {syntax.name} needs a decoder: {install('dicom')}")
    precision = None
    if syntax.is_encapsulated:
        precision = _check_frame(dataset, syntax.name)
    elif len(next(dataset[keyword].value for keyword in PIXELS if keyword in dataset)) < get_expected_length(dataset):
        raise MmfuseError("truncated DICOM")
    by_hand = _holds_words(dataset, precision, syntax.name)
    try:
        pixels, properties = decoder.as_array(dataset, index=0, correct_unused_bits=not by_hand)  # type: ignore[arg-type]
    except RuntimeError:  # what the decoders say of it may hold anything
        raise MmfuseError("damaged DICOM: its compressed pixels cannot be decoded") from None
    return _stored_bits(pixels, dataset) if by_hand else pixels, str(properties["photometric_interpretation"])


def _holds_words(dataset: Dataset, precision: int | None, syntax: str) -> bool:
    """Tell whether the stored bits must be taken out of what is decoded, as pydicom does not heed HighBit.

    Args:
        dataset: Its numbers of bits are legal.
        precision: Bits of a value in the compressed frame; None where frames hold whole words, as they are or in RLE.
        syntax: Name of the transfer syntax.
    """
    if "PixelData" not in dataset or precision == dataset.BitsStored:  # these come out as they are
        return False
    shifted = dataset.HighBit != dataset.BitsStored - 1
    if shifted and precision not in (None, dataset.BitsAllocated):
        raise MmfuseError("DICOM whose HighBit and BitsStored do not fit its compressed pixels")
    is_gray = dataset.PhotometricInterpretation.startswith("MONOCHROME")
    cut_off = precision is not None and precision > dataset.BitsStored and not (is_gray and "2000" in syntax)
    if (shifted or cut_off) and dataset.PhotometricInterpretation.startswith("YBR"):
        raise MmfuseError("DICOM of YBR colour whose BitsStored or HighBit does not fit")
    return shifted or cut_off


def _stored_bits(words: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Give the values in words whose highest used bit is HighBit; other bits, such as old overlays, are dropped."""
    unused = 8 * words.dtype.itemsize - dataset.BitsStored
    values = words << (unused - (dataset.HighBit + 1 - dataset.BitsStored)) >> unused
    lower = words << unused >> unused  # as if HighBit were BitsStored - 1
    if dataset.HighBit == dataset.BitsStored - 1:
        if (lower != words).any():
            raise MmfuseError("DICOM whose compressed values have more bits than BitsStored")
    elif (lower == words).all() and (words & ((1 << (dataset.HighBit + 1 - dataset.BitsStored)) - 1)).any():
        raise MmfuseError("DICOM whose HighBit says upper bits, but whose values are in the lower ones")
    return values


def _check_frame(dataset: Dataset, syntax: str) -> int | None:
    """Refuse a compressed frame that would decode to more than the header says; give its bits a value, None of RLE."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=dataset.NumberOfFrames)
    samples = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    if syntax.startswith("RLE"):
        if len(frame) > samples * dataset.BitsAllocated // 8 * 5 // 4 + 1024:
            raise MmfuseError("damaged DICOM: more RLE data than pixels")
        return None
    *size, precision = _codestream_size(frame) or (None,)
    if size != [dataset.Columns, dataset.Rows, dataset.SamplesPerPixel]:
        raise MmfuseError("damaged DICOM: its compressed pixels are not of the size that its header says")
    # Decoders would make up the rest of one that is cut off.
    if frame.startswith(b"\xff\xd8") and b"\xff\xd9" not in frame[frame.rfind(b"\xff\xda") :]:
        raise MmfuseError("truncated DICOM: its JPEG has no end")
    if frame.startswith(b"\xff\xd8") and frame.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise MmfuseError(f"JPEG with more than {_MAX_JPEG_SCANS} scans")
    return precision


def _codestream_size(frame: bytes) -> tuple[int, int, int, int] | None:
    """Give columns, rows, samples and bits by the header of a JPEG, JPEG-LS or JPEG 2000 (ITU-T T.81, T.87, T.800)."""
    start = 0
    if frame.startswith(b"\0\0\0\x0cjP  "):  # JPEG 2000 in boxes; with one of length 0, pydicom would never end
        while frame[start + 4 : start + 8] != b"jp2c":
            length = int.from_bytes(frame[start : start + 4])
            if length < 8:
                return None
            start += length
        start += 8
    if frame[start : start + 4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top, samples, bits = struct.unpack_from(">IIII16xHB", frame, start + 8)
        return right - left, bottom - top, samples, (bits & 0x7F) + 1
    place = 2
    while frame.startswith(b"\xff\xd8") and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _JPEG_FRAMES:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
            return columns, rows, samples, bits
        place += 1 if marker == 0xFF else 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None
