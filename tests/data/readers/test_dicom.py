"""DICOM as hospitals send it: the pixels that a viewer shows, or one ImageError that names nobody."""

import logging
import struct
import sys
import traceback
import tracemalloc
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from child_processes import run_child
from dicom_files import NAME, NUMBER, encode, film
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from mmfuse.data.readers.images import ImageError, ImageOptions, read_image, read_spacing
from mmfuse.data.readers.kinds import FORMATS

OWN = Path(pydicom.__file__).parent / "data"
FILES = {
    str(path.relative_to(OWN)): path
    for folder in ("test_files", "charset_files", "palettes")
    for path in sorted((OWN / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".pyc")
}
DAMAGED = {
    "test_files/JPEG-lossy.dcm": "damaged DICOM: its compressed pixels cannot be decoded",
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": (
        "damaged DICOM: its compressed pixels are not of the size that its header says"
    ),
    "test_files/MR_truncated.dcm": "truncated DICOM",
    "test_files/meta_missing_tsyntax.dcm": "DICOM without Rows",
    "test_files/nested_priv_SQ.dcm": "DICOM without Rows",
}


def shown(values, dtype=np.uint16, **header):
    """What a row of stored values becomes."""
    return read_image(encode(film(np.array([values], dtype), **header)))[0, :, 0].tolist()


def table(first, entries, bits, **values):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.array(entries, np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def smooth(height=48, width=40, high=4095, dtype=np.uint16):
    """A picture of every level from 0 to `high`, rough enough that a wrong rounding shows."""
    ramp = np.linspace(0, high, height * width).reshape(height, width)
    return np.random.default_rng(0).permutation(ramp, axis=1).round().astype(dtype)


# --- pydicom's own files -------------------------------------------------------------------------------------------


def test_all_files_of_pydicom_are_read_or_refused_with_a_reason(capfd, caplog):
    caplog.set_level(logging.DEBUG)
    reasons = {}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for name, path in FILES.items():
            try:
                pixels = read_image(path)
                reasons[name] = "read"
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3
            except ImageError as error:
                reasons[name] = str(error)
    assert not heard
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.split(".")[0] != "PIL"]
    assert {name: reasons[name] for name in DAMAGED} == DAMAGED
    rest = {name: reason for name, reason in reasons.items() if name not in DAMAGED}
    without = "DICOM without pixels"
    foreign, packed = f"not an image ({FORMATS})", f"not an image that is read, but a packed file ({FORMATS})"
    assert Counter(rest.values()) == {"read": 102, without: 84, foreign: 11, packed: 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, reason in rest.items():
            dataset = pydicom.dcmread(FILES[name], force=True)
            assert ("PixelData" in dataset) == (reason == "read"), name
            assert (reason in (foreign, packed)) == ("SOPClassUID" not in dataset and not dataset.preamble), name


def rendered(dataset):
    """The first frame by pydicom's own functions."""
    stored = dataset.pixel_array
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        stored = stored[0]
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(stored, dataset) >> 8
    bits = dataset.BitsStored
    if dataset.SamplesPerPixel == 3:
        return stored >> (bits - 8)
    values = apply_modality_lut(stored, dataset)
    if "WindowWidth" in dataset:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
        low, high = (
            float(dataset.get("RescaleSlope", 1)) * end + float(dataset.get("RescaleIntercept", 0))
            for end in (low, high)
        )
        values = apply_voi_lut(values, dataset)
    elif bits <= 8:
        low, high = 0, 2**bits - 1
    else:
        known = values[stored != dataset.get("PixelPaddingValue", np.inf)]
        low, high = known.min(), known.max()
    gray = ((values - float(low)) / (float(high) - float(low))).clip(0, 1) * 255
    gray = 255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray
    return np.repeat(gray[..., None], 3, axis=2)


def test_pixels_are_those_of_pydicoms_own_functions():
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, path in FILES.items():
            dataset = pydicom.dcmread(path, force=True)
            if name in DAMAGED or name == "test_files/badVR.dcm" or "PixelData" not in dataset:
                continue
            difference = np.abs(read_image(path) - rendered(dataset).astype(float))
            assert difference.max() <= 0.5 + 1e-6, name
            compared += 1
    assert compared == 101


@pytest.mark.parametrize(
    ("plain", "others", "tolerance"),
    [
        ("MR_small", ["_RLE", "_jp2klossless", "_jpeg_ls_lossless", "_bigendian", "_expb", "_implicit", "_padded"], 0),
        ("rtdose", ["_rle", "_expb", "_1frame", "_rle_1frame"], 0),
        ("SC_rgb", ["_rle", "_jpeg_gdcm", "_rle_2frame", "_rle_16bit", "_rle_32bit"], 0),
        ("SC_rgb", ["_jpeg_dcmtk", "_gdcm_KY", "_jpeg_lossy_gdcm", "_dcmtk_+eb+cr", "_dcmtk_+eb+cy+np"], 3),
        ("SC_rgb_jpeg_dcmd", ["../SC_rgb_jpeg"], 2),
        ("SC_rgb_small_odd", ["_big_endian"], 0),
        ("SC_rgb_small_odd", ["_jpeg"], 4),
    ],
)
def test_a_compressed_file_shows_what_the_plain_one_does(plain, others, tolerance):
    folder = OWN / "test_files"
    expected = read_image(folder / ("SC_rgb_rle.dcm" if plain == "SC_rgb" else f"{plain}.dcm")).astype(int)
    for other in others:
        pixels = read_image(folder / (f"{other[3:]}.dcm" if other.startswith("../") else f"{plain}{other}.dcm"))
        assert np.abs(pixels - expected).mean() <= tolerance, other


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_a_film_of_12_bits_is_the_same_in_every_lossless_encoding(syntax, signed):
    stored = smooth().astype(np.int16) - 2048 if signed else smooth()
    plain, other = film(stored, 12), film(stored, 12)
    if syntax == DeflatedExplicitVRLittleEndian:
        other.file_meta.TransferSyntaxUID = syntax
    else:
        other.compress(syntax)
    assert len(encode(other)) < len(encode(plain))
    assert np.array_equal(read_image(encode(other)), read_image(encode(plain)))


# --- gray ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, (17, 19)])
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("header", [{}, {"bits": 12}, {"window": (1500, 700)}, {"rescale": (0.5, -100)}, {"pad": 7}])
def test_monochrome_1_and_2_of_one_picture_are_the_same_array(size, resize, header):
    dtype, top = (np.uint16, 4095) if header else (np.uint8, 255)
    stored = smooth(high=top, dtype=dtype)
    values = [{}, {}]
    if "window" in header:
        centre, width = header["window"]
        values = [{"WindowCenter": [c, 9], "WindowWidth": [width, 9]} for c in (centre, top + 1 - centre)]
    elif "rescale" in header:
        slope, intercept = header["rescale"]
        values = [{"RescaleSlope": slope, "RescaleIntercept": intercept}] * 2
    elif "pad" in header:
        values = [{"PixelPaddingValue": header["pad"]}, {"PixelPaddingValue": top - header["pad"]}]
    bits = 12 if header else 8
    second = film(stored, bits, **values[0])
    first = film(top - stored, bits, PhotometricInterpretation="MONOCHROME1", **values[1])
    options = ImageOptions(size=size, resize=resize)
    assert np.array_equal(read_image(encode(first), options), read_image(encode(second), options))
    assert len(np.unique(read_image(encode(second)))) > 100


def test_a_presentation_lut_shape_inverts_once():
    for photometric, shape, expected in [
        ("MONOCHROME2", "IDENTITY", [0, 10, 255]),
        ("MONOCHROME2", "INVERSE", [255, 245, 0]),
        ("MONOCHROME1", "INVERSE", [255, 245, 0]),
        ("MONOCHROME1", "IDENTITY", [255, 245, 0]),
    ]:
        header = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        assert shown([0, 10, 255], np.uint8, **header) == expected


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        # HU = stored / 2 - 1000 = -1, 0, 25, 50, 99, 100; the window goes from -0.5 to 99.5
        ("LINEAR", 101, [0, 1, 65, 129, 254, 255]),  # (HU + 0.5) / 100 * 255
        (None, 101, [0, 1, 65, 129, 254, 255]),
        ("LINEAR_EXACT", 100, [0, 0, 64, 128, 252, 255]),  # HU / 100 * 255
        ("SIGMOID", 100, [29, 30, 69, 128, 224, 225]),  # 255 / (1 + exp(-4 * (HU - 50) / 100))
        ("LINEAR", 1, [0, 0, 0, 255, 255, 255]),  # above 49.5
    ],
)
def test_rescale_and_window_by_hand(function, width, expected):
    header = {"RescaleSlope": 0.5, "RescaleIntercept": -1000, "WindowCenter": 50, "WindowWidth": width}
    if function:
        header["VOILUTFunction"] = function
    assert shown([1998, 2000, 2050, 2100, 2198, 2200], np.int16, **header) == expected


@pytest.mark.parametrize(
    ("stored", "dtype", "header", "expected"),
    [
        # Up to 8 bits without rescale, values are gray levels; else they go from their minimum to their maximum.
        ([0, 10, 200], np.uint8, {}, [0, 10, 200]),
        ([0, 5, 10], np.uint8, {"bits": 4}, [0, 85, 170]),
        ([0, 10, 200], np.uint8, {"RescaleSlope": 1, "RescaleIntercept": 0}, [0, 10, 200]),
        ([0, 10, 20], np.uint8, {"RescaleSlope": 3, "RescaleIntercept": 0}, [0, 128, 255]),
        ([0, 1000, 4095], np.uint16, {"bits": 12}, [0, 62, 255]),
        ([1000, 1500, 3000], np.uint16, {"bits": 12}, [0, 64, 255]),
        ([-1000, 0, 1000], np.int16, {}, [0, 128, 255]),
        ([-2048, 0, 2047], np.int16, {"bits": 12}, [0, 128, 255]),
        ([0, 3 * 10**9, 4 * 10**9], np.uint32, {}, [0, 191, 255]),
        ([7, 7, 7], np.uint16, {}, [0, 0, 0]),
        # A negative slope turns the picture over.
        ([0, 500, 1000], np.uint16, {"RescaleSlope": -1, "RescaleIntercept": 5}, [255, 128, 0]),
        # Padding has no say in the range.
        ([-2000, 0, 500, 1000], np.int16, {"PixelPaddingValue": -2000}, [0, 0, 128, 255]),
        ([9, 11, 0, 500, 1000], np.uint16, {"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 60_000}, [0, 0, 0, 0, 0]),
        ([60_000, 60_100, 0, 50, 100], np.uint16, {"PixelPaddingValue": 60_000, "PixelPaddingRangeLimit": 61_000},
         [255, 255, 0, 128, 255]),
        # The first of several windows; one without width, or without numbers, is none.
        ([0, 50, 200], np.uint8, {"WindowCenter": [50.5, 9], "WindowWidth": [101, 9]}, [0, 128, 255]),
        ([0, 100, 200], np.uint16, {"WindowCenter": 50, "WindowWidth": 0}, [0, 128, 255]),
        ([0, 100, 200], np.uint16, {"WindowCenter": 50, "WindowWidth": None}, [0, 128, 255]),
        # A VOI LUT wins over a window; values before and after it take its ends.
        ([0, 10, 11, 12, 99], np.uint16,
         {"VOILUTSequence": [table(10, [0, 512, 1023], 10)], "WindowCenter": 5, "WindowWidth": 2},
         [0, 0, 128, 255, 255]),
        # A modality LUT comes first.
        ([0, 1, 2, 3], np.uint16,
         {"ModalityLUTSequence": [table(0, [30, 20, 10], 16, ModalityLUTType="US")],
          "WindowCenter": 20.5, "WindowWidth": 21},
         [255, 128, 0, 0]),
        ([0, 1, 2, 3], np.uint16, {"ModalityLUTSequence": [table(0, [30, 20, 10, 0], 16, ModalityLUTType="US")]},
         [255, 170, 85, 0]),
    ],
)  # fmt: skip
def test_gray_by_hand(stored, dtype, header, expected):
    assert shown(stored, dtype, **header) == expected


def test_an_8_bit_lookup_table_of_many_entries_is_not_wrapped():
    entries = np.arange(4096) // 16
    packed = table(0, entries, 8)
    packed.LUTData = entries.astype(np.uint8).tobytes()
    for item in (table(0, entries, 8), packed):
        assert shown([0, 1600, 4095], bits=12, VOILUTSequence=[item]) == [0, 100, 255]


def test_floats_go_from_their_minimum_to_their_maximum():
    dataset = film(np.zeros((1, 5), np.uint32))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = np.array([-1, 0, 1, np.nan, np.inf], np.float32).tobytes()
    assert read_image(encode(dataset))[0, :, 0].tolist() == [0, 128, 255, 0, 255]


def test_an_enhanced_object_has_its_values_in_functional_groups():
    window, rescale, spacing = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 50.5, 101
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -1000
    spacing.PixelSpacing = [0.5, 0.25]
    shared, first, second = Dataset(), Dataset(), Dataset()
    shared.PixelMeasuresSequence, shared.FrameVOILUTSequence = [spacing], [window]
    first.PixelValueTransformationSequence = [rescale]
    dataset = film(np.array([[[450, 525, 550]]] * 2, np.uint16).reshape(2, 3), NumberOfFrames=2, Rows=1)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [first, second]
    assert read_image(encode(dataset))[0, :, 0].tolist() == [0, 128, 255]
    assert read_spacing(encode(dataset)) == (0.5, 0.25)


def test_several_frames_give_the_first():
    frames = np.arange(5, dtype=np.uint8).repeat(12).reshape(15, 4) * 50
    dataset = film(frames, Rows=3, NumberOfFrames=5)
    assert (read_image(encode(dataset)) == 0).all()
    dataset.PixelData = frames[::-1].tobytes()
    assert (read_image(encode(dataset)) == 200).all()
    dataset.compress(RLELossless)
    assert (read_image(encode(dataset)) == 200).all()


# --- colour --------------------------------------------------------------------------------------------------------


def test_colour_keeps_the_high_byte():
    for dtype, factor in ((np.uint8, 1), (np.uint16, 256)):
        pixels = (np.array([[[250, 10, 20], [1, 2, 3]]]) * factor).astype(dtype)
        assert read_image(encode(film(pixels)))[0].tolist() == [[250, 10, 20], [1, 2, 3]]
    half = film((np.array([[[250, 10, 20], [1, 2, 3]]]) * 16).astype(np.uint16), bits=12)
    assert read_image(encode(half))[0].tolist() == [[250, 10, 20], [1, 2, 3]]


def palette(stored, first=0, bits=16, **data):
    dataset = film(np.array([stored], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, first, bits])
        for prefix, value in data.items():
            setattr(dataset, f"{prefix.strip('_')}{colour}PaletteColorLookupTableData", value[colour])
    return dataset


def test_palettes_by_hand_and_by_pydicom():
    entries = {"Red": [0, 100, 200, 255], "Green": [1, 2, 3, 4], "Blue": [9, 9, 9, 0]}
    expected = [[0, 1, 9], [0, 1, 9], [100, 2, 9], [255, 4, 0], [255, 4, 0]]
    words = {colour: (np.array(row, np.uint16) * 256).tobytes() for colour, row in entries.items()}
    bytes_ = {colour: bytes(row) for colour, row in entries.items()}
    assert read_image(encode(palette([0, 10, 11, 13, 99], 10, 16, _=words)))[0].tolist() == expected
    assert read_image(encode(palette([0, 10, 11, 13, 99], 10, 8, _=bytes_)))[0].tolist() == expected
    # Discrete: 2 entries; linear: 2 more, up to the last.
    segments = {c: np.array([0, 2, 0, 25600, 1, 2, 51200], np.uint16).tobytes() for c in entries}
    dataset = palette([0, 1, 2, 3], 0, 16, Segmented=segments)
    assert read_image(encode(dataset))[0, :, 0].tolist() == [0, 100, 150, 200]
    assert (apply_color_lut(dataset.pixel_array, dataset)[0, :, 0] >> 8).tolist() == [0, 100, 150, 200]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([0, 1, 5] + [1, 65535, 0] * 200, "too many entries"),
        ([2, 50000, 0, 0] * 50, "indirect segments"),
        ([0, 0], "without entries"),
    ],
)
def test_a_palette_that_would_unfold_without_end_is_refused(words, reason):
    segments = dict.fromkeys(("Red", "Green", "Blue"), np.array(words, np.uint16).tobytes())
    with pytest.raises(ImageError, match=reason):
        read_image(encode(palette([0, 1], Segmented=segments)))


# --- what is DICOM -------------------------------------------------------------------------------------------------


def test_a_file_without_preamble_is_read_and_others_are_not_taken_for_one():
    plain = encode(film(smooth()))
    assert np.array_equal(read_image(plain[132:]), read_image(plain))  # with the file header
    for name in ("MR_small", "MR_small_implicit", "MR_small_bigendian"):
        data = (OWN / f"test_files/{name}.dcm").read_bytes()
        start = 144 + struct.unpack_from("<I", data, 140)[0]
        assert np.array_equal(read_image(data[start:]), read_image(data)), name
    for data in (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", b"\x08\0" * 500, b"1.2.840.10008." * 99, plain[4:]):
        with pytest.raises(ImageError, match="not an image"):
            read_image(data)


def test_without_pydicom_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for read in (read_image, read_spacing):
        with pytest.raises(ImageError, match=r'pip install "mmfuse\[dicom\]"'):
            read(SEEDS[0])


def test_pydicom_is_imported_for_dicom_alone(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    program = (
        "import sys; from mmfuse.data.readers import images; images.read_image(sys.argv[1]); "
        "sys.exit('pydicom' in sys.modules)"
    )
    assert run_child([sys.executable, "-c", program, path]).returncode == 0


def test_warnings_and_logs_are_as_before_also_from_threads():
    files = [FILES[name] for name in FILES if name.startswith("test_files/SC_")] * 2
    expected = [read_image(path) for path in files]
    filters, propagate = list(warnings.filters), logging.getLogger("pydicom").propagate
    with ThreadPoolExecutor(8) as pool:
        for want, got in zip(expected, pool.map(read_image, files), strict=True):
            assert np.array_equal(want, got)
    assert list(warnings.filters) == filters
    assert logging.getLogger("pydicom").propagate is propagate is True


# --- spacing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"PixelSpacing": [0.2, 0.4], "ImagerPixelSpacing": [1, 1]}, (0.2, 0.4)),
        ({"ImagerPixelSpacing": [0.143, 0.139]}, (0.143, 0.139)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.1, 0.1]}, (0.1, 0.1)),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [0.1]}, None),
        ({}, None),
    ],
)
def test_spacing(header, expected, tmp_path):
    path = tmp_path / "film"
    path.write_bytes(encode(film(smooth(), **header)))
    assert read_spacing(path) == read_spacing(str(path)) == expected


def test_other_images_have_no_spacing():
    out = BytesIO()
    Image.new("L", (4, 4)).save(out, "PNG", dpi=(300, 300))
    assert read_spacing(out.getvalue()) is None
    with pytest.raises(ImageError, match="no such file"):
        read_spacing("nowhere.dcm")


# --- hostile -------------------------------------------------------------------------------------------------------


def own(name):
    return (OWN / "test_files" / f"{name}.dcm").read_bytes()


def changed(change, pixels=None, syntax=None):
    dataset = film(smooth() if pixels is None else pixels)
    if syntax:
        dataset.compress(syntax)
    change(dataset)
    return encode(dataset)


def deflated_bomb():
    header = encode(film(np.zeros((1, 2), np.uint8), syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + struct.unpack_from("<I", header, 140)[0]
    packer = zlib.compressobj(9, wbits=-15)
    megabyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return header[:start] + 600 * megabyte + packer.flush()


def larger_codestream(dataset):
    data = bytearray(dataset.PixelData)
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, 50_000, 50_000)
    dataset.PixelData = bytes(data)


def larger_runs(dataset):
    dataset.PixelData = encapsulate([b"\x81\0" * 10_000])


def as_video(dataset):
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML


def named_table():
    """A palette whose descriptor is a text."""
    data = encode(palette([0, 1], _=dict.fromkeys(("Red", "Green", "Blue"), bytes(8))))
    plain = b"\x28\0\x01\x11US\x06\0" + struct.pack("<3H", 4, 0, 16)
    assert plain in data
    return data.replace(plain, b"\x28\0\x01\x11LO\x14\0" + NAME.encode() + b"\\1\\10")


def setting(**values):
    return lambda dataset: [setattr(dataset, keyword, value) for keyword, value in values.items()]


SEEDS = [
    encode(film(smooth(), 12, WindowCenter=2000, WindowWidth=900, PixelSpacing=[0.1, 0.1])),
    changed(setting(), syntax=RLELossless),
    changed(setting(), syntax=JPEG2000Lossless),
    encode(film(smooth(), syntax=DeflatedExplicitVRLittleEndian, VOILUTSequence=[table(0, range(64), 10)])),
    encode(
        palette(
            [0, 1, 2, 3], Segmented=dict.fromkeys(("Red", "Green", "Blue"), struct.pack("<7H", 0, 2, 0, 9, 1, 2, 9))
        )
    ),
    *map(own, ["MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_gdcm", "SC_rgb_dcmtk_+eb+cy+np", "MR_small_implicit"]),
    *map(own, ["ExplVR_BigEnd", "rtdose_rle", "SC_rgb_small_odd_jpeg", "JPGExtended", "reportsi"]),
]
SEEDS += [SEEDS[0][132:], SEEDS[8][144 + struct.unpack_from("<I", SEEDS[8], 140)[0] :]]

HOSTILE = {
    "no pixels": (changed(lambda d: d.__delitem__("PixelData")), "DICOM without pixels"),
    "no rows": (changed(lambda d: d.__delitem__("Rows")), "DICOM without Rows"),
    "rows as a text": (SEEDS[0].replace(b"\x28\0\x10\0US", b"\x28\0\x10\0LO"), "DICOM without Rows"),
    "header bomb": (changed(setting(Rows=60_000, Columns=60_000)), "60000 x 60000 pixels: more than max_pixels"),
    "no columns at all": (changed(setting(Columns=0)), "damaged DICOM"),
    "cut": (encode(film(smooth()))[:-100], "truncated DICOM"),
    "frames": (changed(setting(NumberOfFrames=2**31 - 1)), "truncated DICOM"),
    "codestream bomb": (changed(larger_codestream, syntax=JPEG2000Lossless), "not of the size that its header says"),
    "RLE bomb": (changed(larger_runs, syntax=RLELossless), "more RLE data than pixels"),
    "endless boxes": (own("GDCMJ2K_TextGBR").replace(b"\0\0\0\x1cftyp", bytes(4) + b"ftyp"), "not of the size"),
    "deflated bomb": (deflated_bomb(), "deflated DICOM of more than"),
    "video": (changed(as_video, syntax=RLELossless), "transfer syntax that is not read"),
    "colour space": (changed(setting(PhotometricInterpretation="HSV")), "colour space that is not read"),
    "name as a colour space": (changed(setting(PhotometricInterpretation=NAME.split("^")[0])), "colour space"),
    "name as a number": (named_table(), "damaged DICOM"),
    "palette missing": (changed(setting(PhotometricInterpretation="PALETTE COLOR")), "palette that is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_the_reason(case):
    data, reason = HOSTILE[case]
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(data)
    assert len(str(caught.value)) < 160
    assert "\n" not in str(caught.value)
    whole = "".join(traceback.format_exception(caught.value))
    assert NAME.split("^")[0] not in whole
    assert NUMBER not in whole


def test_bombs_take_no_memory():
    read_image(SEEDS[0])
    tracemalloc.start()
    try:
        for case in ("header bomb", "codestream bomb", "deflated bomb"):
            with pytest.raises(ImageError):
                read_image(HOSTILE[case][0])
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


# --- properties ----------------------------------------------------------------------------------------------------


@pytest.mark.heavy
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.none() | st.floats(0, 1),
    st.none() | st.just((7, 9)),
)
def test_damaged_files_give_an_image_or_an_image_error_that_names_nobody(data, changes, cut, size):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place**2 * len(damaged))] = value  # more often in the header
    damaged = bytes(damaged[: None if cut is None else int(cut * len(damaged))])
    for read in (read_spacing, lambda data: read_image(data, ImageOptions(size=size, max_pixels=2_000_000))):
        found, said = None, ""
        try:
            found = read(damaged)
        except ImageError as error:
            said = "".join(traceback.format_exception(error)[-1:])
        assert said.strip().count("\n") == 0
        assert not any(part in said for part in ("SECRET", "NAME^", "MARY", "987654", "ID-9"))
        if isinstance(found, np.ndarray):
            assert found.dtype == np.uint8
            assert found.ndim == 3
            assert size is None or found.shape == (*size, 3)
