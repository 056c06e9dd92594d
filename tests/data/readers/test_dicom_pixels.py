"""DICOM whose numbers of bits are odd: the values that are stored there, by hand, or one line that refuses it."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import encode, film
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from mmfuse.data.readers.images import ImageError, read_first_frame, read_image

OWN = Path(pydicom.__file__).parent / "data" / "test_files"
VALUES = np.array([[0, 1, 7, 100], [2047, 2048, 4000, 4095]])  # of 12 bits
JUNK = np.array([[0, 3, 15, 9], [1, 7, 12, 5]])  # of 4


def bits(words, dtype, stored, high, **values):
    return film(words.astype(dtype), BitsStored=stored, HighBit=high, **values)


def gray(values):
    """From the least value (0) to the largest (255), as films without a window are shown."""
    values = np.asarray(values, float)
    return ((values - values.min()) / (values.max() - values.min()) * 255).round().astype(np.uint8)


SIGNED = VALUES - 2048
WORDS = {
    "12 in the upper of 16": (VALUES << 4, np.uint16, 12, 15, VALUES),
    "12 in the upper of 16, an overlay below": (VALUES << 4 | JUNK, np.uint16, 12, 15, VALUES),
    "12 in the middle of 16, overlays around": (JUNK % 4 << 14 | VALUES << 2 | JUNK % 4, np.uint16, 12, 13, VALUES),
    "12 in the lower of 16, an overlay above": (JUNK << 12 | VALUES, np.uint16, 12, 11, VALUES),
    "12 signed in the upper of 16": (SIGNED * 16 | JUNK, np.int16, 12, 15, SIGNED),
    "12 signed, without the signs above": (SIGNED & 0xFFF, np.int16, 12, 11, SIGNED),
    "13 signed in the middle of 16": ((SIGNED & 0x1FFF) << 2 | 0x8001, np.uint16, 13, 14, SIGNED),
    "7 in the upper of 8": (VALUES % 128 << 1 | JUNK % 2, np.uint8, 7, 7, None),
    "10 in the middle of 32": (JUNK << 25 | VALUES % 1024 << 11 | JUNK, np.uint32, 10, 20, VALUES % 1024),
    "16 in the upper of 32": (VALUES << 20 | JUNK, np.uint32, 16, 31, VALUES << 4),
    "12 in the upper of 64": (VALUES.astype(np.uint64) << np.uint64(52), np.uint64, 12, 63, VALUES),
    "8 in the upper of 16": (VALUES << 4, np.uint16, 8, 15, None),
}


@pytest.mark.parametrize("case", WORDS)
def test_the_stored_bits_are_those_that_the_header_names(case):
    words, dtype, stored, high, values = WORDS[case]
    representation = int((values if values is not None else words).min() < 0)
    data = encode(bits(words, dtype, stored, high, PixelRepresentation=representation))
    levels = ((words >> high + 1 - stored) * 255 / (2.0**stored - 1)).round()  # values of up to 8 bits are gray levels
    assert read_image(data)[..., 0].tolist() == (levels if stored <= 8 else gray(values)).tolist()


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("case", [case for case in WORDS if case.startswith("12 in") and "of 16" in case])
def test_words_in_another_order_or_packed_are_the_same(syntax, case):
    words, dtype, stored, high, _ = WORDS[case]
    plain, other = (bits(words, dtype, stored, high) for _ in range(2))
    if syntax == RLELossless:
        other.compress(RLELossless)
    else:
        other.file_meta.TransferSyntaxUID = syntax
        other.PixelData = words.astype(">u2").tobytes()
    assert read_image(encode(other)).tolist() == read_image(encode(plain)).tolist()


def test_the_bits_of_colour_and_of_palettes_too():
    colour = np.array([[[250, 10, 20], [1, 2, 3]]])
    assert read_image(encode(bits(colour << 8 | 7, np.uint16, 12, 15)))[0].tolist() == colour[0].tolist()
    assert read_image(encode(bits(colour >> 4, np.uint8, 4, 3)))[0, 0].tolist() == [255, 0, 17]
    palette = bits(np.array([[0, 1, 2, 1]]) << 4 | 3, np.uint8, 4, 7, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 8])
        setattr(palette, f"{name}PaletteColorLookupTableData", bytes([5, 100, 200, 0]))
    assert read_image(encode(palette))[0, :, 0].tolist() == [5, 100, 200, 100]


def compressed(values, dtype, before, after, syntax=JPEG2000Lossless):
    """A film that is compressed with some BitsStored, and then says another BitsStored and HighBit."""
    dataset = film(values.astype(dtype), bits=before)
    dataset.compress(syntax)
    dataset.BitsStored, dataset.HighBit = after
    return encode(dataset)


def test_a_compressed_stream_says_itself_how_many_bits_a_value_has():
    values = np.resize(VALUES, (40, 40))
    expected = gray(values).tolist()
    assert read_image(compressed(values, np.uint16, 12, (12, 15)))[..., 0].tolist() == expected
    assert read_image(compressed(values << 4, np.uint16, 16, (12, 15)))[..., 0].tolist() == expected
    assert read_image(compressed(values, np.uint16, 16, (12, 11)))[..., 0].tolist() == expected
    signed = values - 2048
    assert read_image(compressed(signed * 16, np.int16, 16, (12, 15)))[..., 0].tolist() == expected
    with pytest.raises(ImageError, match="HighBit and BitsStored do not fit its compressed pixels"):
        read_image(compressed(values << 2, np.uint16, 14, (12, 13)))


def test_compressed_values_of_more_bits_than_stored_are_not_wrapped():
    dataset = pydicom.dcmread(OWN / "MR_small_jpeg_ls_lossless.dcm")
    whole = read_image(encode(dataset))
    highest = int(dataset.pixel_array.max())
    enough = highest.bit_length() + 1  # they are signed
    dataset.BitsStored, dataset.HighBit = enough, enough - 1
    assert read_image(encode(dataset)).tolist() == whole.tolist()
    dataset.BitsStored, dataset.HighBit = enough - 1, enough - 2
    with pytest.raises(ImageError, match="more bits than BitsStored"):
        read_image(encode(dataset))


REFUSED = {
    "stored above allocated": ({"BitsStored": 17, "HighBit": 16}, "contradict each other"),
    "high above allocated": ({"HighBit": 16}, "contradict each other"),
    "high below stored": ({"BitsStored": 12, "HighBit": 7}, "contradict each other"),
    "nothing stored": ({"BitsStored": 0, "HighBit": 15}, "contradict each other"),
    "packed 12 bits": ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated 12, which is not read"),
    "three bytes": ({"BitsAllocated": 24, "BitsStored": 24, "HighBit": 23}, "BitsAllocated 24, which is not read"),
    "no BitsStored": ({"BitsStored": None}, "DICOM without BitsStored"),
    "no sign": ({"PixelRepresentation": None}, "PixelRepresentation is missing or not legal"),
    "a third sign": ({"PixelRepresentation": 2}, "PixelRepresentation is missing or not legal"),
    "gray of three samples": ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "SamplesPerPixel, 3"),
    "colour of one sample": ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel, 1"),
    "a HighBit that lies": ({"BitsStored": 12, "HighBit": 15}, "whose values are in the lower ones"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_contradicts_itself_is_refused_in_one_line(case):
    header, reason = REFUSED[case]
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(encode(film(VALUES.astype(np.uint16), **header)))
    assert "\n" not in str(caught.value)


def test_colour_of_signed_numbers_and_floats_of_16_bits_are_refused():
    with pytest.raises(ImageError, match="PixelRepresentation"):
        read_image(encode(film(np.zeros((2, 2, 3), np.uint8), PixelRepresentation=1)))
    dataset = film(VALUES.astype(np.uint16))
    dataset.FloatPixelData = dataset.PixelData
    del dataset.PixelData
    with pytest.raises(ImageError, match="float pixels with BitsAllocated 16"):
        read_image(encode(dataset))


def test_a_missing_high_bit_is_the_one_below_stored():
    dataset = film(VALUES.astype(np.uint16), bits=12)
    del dataset.HighBit
    assert read_image(encode(dataset))[..., 0].tolist() == gray(VALUES).tolist()


def test_doubles_single_bits_and_64_bits_are_read():
    dataset = film(VALUES.astype(np.uint64))
    assert read_image(encode(dataset))[..., 0].tolist() == gray(VALUES).tolist()
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit
    dataset.DoubleFloatPixelData = (VALUES / 7).tobytes()
    assert read_image(encode(dataset))[..., 0].tolist() == gray(VALUES).tolist()
    mask = film(np.array([[0b01010110]], np.uint8), Rows=2, Columns=4, BitsAllocated=1, BitsStored=1, HighBit=0)
    assert read_image(encode(mask))[..., 0].tolist() == [[0, 255, 255, 0], [255, 0, 255, 0]]  # the lowest bit first


# --- frames --------------------------------------------------------------------------------------------------------


def frames(data):
    return read_first_frame(data).frames


def test_frames_are_those_that_the_header_says_or_that_are_there():
    stack = np.arange(24, dtype=np.uint8).repeat(12).reshape(72, 4)
    dataset = film(stack, Rows=3, NumberOfFrames=24)
    assert frames(encode(dataset)) == 24
    dataset.NumberOfFrames = None
    assert frames(encode(dataset)) == 24
    dataset.NumberOfFrames = 1
    assert frames(encode(dataset)) == 24
    assert frames(encode(film(stack, NumberOfFrames="1"))) == 1
    packed = film(stack, Rows=3, NumberOfFrames=24)
    packed.compress(RLELossless)
    assert frames(encode(packed)) == 24
    del packed.NumberOfFrames
    assert frames(encode(packed)) == 24
    one = film(stack)
    one.compress(RLELossless)
    assert frames(encode(one)) == 1
