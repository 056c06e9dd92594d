"""Every way in which an image arrives: the right pixels, or one ImageError; never another exception, never a hang."""

import hashlib
import io
import os
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from child_processes import run_child
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmfuse.data.readers.images import ImageError, ImageOptions, content_hash, read_image
from mmfuse.types import MmfuseError

SMALL = ImageOptions(size=(32, 32))


def encode(image, fmt, **options):
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def picture(width=160, height=128):
    """A smooth colour picture whose four corners differ: red grows to the right, green downwards."""
    red = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=2).round().astype(np.uint8))


def photo(width, height, seed=0):
    """Blobs and noise: as hard to scale as a real photograph."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8))
    pixels = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC)) + rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def rotated(orientation, image=None, fmt="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image or picture(), fmt, exif=exif.tobytes() if fmt != "TIFF" else exif, **options)


def png_chunk(tag, data):
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def png_bomb(side):
    """A black square of one bit a pixel, whose rows are not all there: it is refused by what its header says."""
    data = zlib.compress(bytes(2**24))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def jpeg_of_size(width, height):
    data = bytearray(encode(picture(8, 8), "JPEG"))
    struct.pack_into(">HH", data, data.find(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def gif_of_frame(width, height):
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x44\1\0;"


def mean_difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


def ramp(low, high, dtype, size=(128, 160)):
    return np.linspace(low, high, size[0] * size[1]).reshape(size).astype(dtype)


PIXELS = np.asarray(picture())
JPEG, PNG = encode(picture(), "JPEG", quality=95), encode(picture(), "PNG")


# --- formats and modes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_give_the_very_pixels(fmt):
    assert np.array_equal(read_image(encode(picture(), fmt)), PIXELS)


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
    ],
)
def test_other_formats_are_close(fmt, options):
    assert mean_difference(read_image(encode(picture(), fmt, **options)), PIXELS) < 6


def test_result_is_a_writable_contiguous_uint8_array():
    for options in (None, SMALL):
        pixels = read_image(PNG, options)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA", "LAB"])
def test_modes_are_close_to_rgb(mode):
    gray = mode in ("1", "L", "LA")
    expected = np.asarray(picture().convert("L").convert("RGB")) if gray else PIXELS
    image = picture().quantize(256) if mode == "P" else picture().convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    fmt = "JPEG" if mode == "CMYK" else "TIFF" if mode in ("YCbCr", "LAB") else "PNG"
    data = encode(image, fmt, **({"quality": 95} if fmt == "JPEG" else {}))
    # Black and white is dithered, and 256 colours are few: compared after averaging.
    options = ImageOptions(size=(16, 20)) if mode in ("1", "P") else None
    expected = read_image(encode(Image.fromarray(expected), "PNG"), options)
    assert mean_difference(read_image(data, options), expected) < 8


def test_gray_is_equal_in_all_channels():
    pixels = read_image(encode(photo(64, 64).convert("L"), "JPEG"), SMALL)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P bytes", "L key", "RGB key"])
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_transparency_shows_the_background(mode, background, level):
    options = ImageOptions(background=background)
    image = Image.new(mode.split()[0], (20, 10))
    transparency = {"P": 0, "P bytes": bytes([0]), "L key": 0, "RGB key": (0, 0, 0)}.get(mode)
    if mode.startswith("P"):
        image.putpalette([10, 10, 10, 90, 90, 90])
        image.paste(1, (10, 0, 20, 10))
    else:
        colour = {"RGBA": (90, 90, 90, 255), "LA": (90, 255), "L key": 90, "RGB key": (90, 90, 90)}[mode]
        image.paste(colour, (10, 0, 20, 10))
    pixels = read_image(
        encode(image, "PNG", **({} if transparency is None else {"transparency": transparency})), options
    )
    assert (pixels[:, :10] == level).all()
    assert (pixels[:, 10:] == 90).all()


def test_half_transparent_is_mixed_and_hidden_colour_does_not_bleed():
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))  # invisible red
    image.paste((0, 0, 0, 128), (0, 0, 20, 40))
    pixels = read_image(encode(image, "PNG"), ImageOptions(size=(20, 20)))
    assert abs(int(pixels[10, 2, 0]) - 127) <= 1
    assert (pixels.max(axis=2) == pixels.min(axis=2)).all()


def test_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    for fmt, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        pixels = read_image(encode(first, fmt, save_all=True, append_images=[second], **options))
        assert pixels[5, 5].tolist() == [255, 0, 0], fmt


def test_jpeg_with_several_pictures_gives_the_first_at_reduced_size_too():
    data = encode(photo(400, 300), "MPO", save_all=True, append_images=[photo(400, 300, seed=1)])
    single = encode(photo(400, 300), "JPEG")
    assert mean_difference(read_image(data, SMALL), read_image(single, SMALL)) < 1


# --- more than 8 bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
@pytest.mark.parametrize("size", [None, (128, 160), (32, 40)])
def test_gray16_is_scaled_not_clipped(fmt, size):
    data = encode(Image.fromarray(ramp(0, 4095, np.uint16)), fmt)
    gray = read_image(data, ImageOptions(size=size))[..., 0].astype(int)
    assert (np.diff(gray[:, 0]) >= 0).all()
    assert gray[0, 0] <= 8
    assert gray[-1, -1] >= 247
    if size is None:
        assert len(np.unique(gray)) == 256


@pytest.mark.parametrize(("peak", "bits"), [(100, 8), (255, 8), (256, 9), (3000, 12), (4095, 12), (65535, 16)])
def test_gray16_keeps_its_absolute_level(peak, bits):
    levels = np.array([[peak // 3, peak // 2, peak]], dtype=np.uint16)
    expected = (levels * (255 / (2**bits - 1))).round()
    assert read_image(encode(Image.fromarray(levels), "PNG"))[..., 0].tolist() == expected.astype(int).tolist()


def test_16_bit_pgm_and_tiff_of_both_byte_orders():
    levels = np.array([[0, 1000], [2000, 4095]], dtype=np.uint16)
    expected = read_image(encode(Image.fromarray(levels), "PNG"))
    assert np.array_equal(read_image(b"P5 2 2 4095\n" + levels.astype(">u2").tobytes()), expected)
    for mark, order, photometric in ((b"II", "<", 1), (b"MM", ">", 1), (b"II", "<", 0)):  # 0: white is zero
        tags = {256: 2, 257: 2, 258: 16, 259: 1, 262: photometric, 273: 16, 277: 1, 278: 2, 279: 8}
        header = mark + struct.pack(order + "HI", 42, 24) + bytes(8)
        entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
        directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
        pixels = read_image(header + levels.astype(order + "u2").tobytes() + directory)
        assert mean_difference(pixels if photometric else 255 - pixels, expected) < 1


def test_signed_and_wide_integers_and_floats_go_from_minimum_to_maximum():
    for values in ([-1000, 0, 1000], [0, 50_000, 100_000]):
        data = encode(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF")
        assert read_image(data)[0, :, 0].tolist() == [0, 128, 255]
    data = encode(Image.fromarray(np.array([[-0.5, 0.0, 0.5]], dtype=np.float32)), "TIFF")
    assert read_image(data)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.nan, 1.0, 3.0, np.inf, -np.inf], [0, 0, 255, 255, 0]),
        ([np.nan, np.nan], [0, 0]),
        ([7.0, 7.0], [0, 0]),
        ([-3e38, 3e38], [0, 255]),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_hostile_floats(values, expected, interpolation):
    data = encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert read_image(data)[0, :, 0].tolist() == expected
    assert read_image(data, ImageOptions(size=(3, 3), interpolation=interpolation)).shape == (3, 3, 3)


def tiff(tags, data):
    """Tags of one short value each; several bits per sample lie behind the pixels."""
    entries = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, count, value in tags)
    return b"II" + struct.pack("<HI", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def rgb_tiff(bits, data, *more):
    place, rows = 8 + len(data), 1
    data += struct.pack("<3H", bits, bits, bits)
    head = [(256, 1, 2), (257, 1, 1), (258, 3, place), (259, 1, 1), (262, 1, 2), (273, 1, 8), (277, 1, 3)]
    return tiff([*head, (278, 1, rows), (279, 1, place - 8), *more], data)


def test_colour_of_16_bits_keeps_its_high_byte():
    channels = [0x1280, 0x34FF, 0x5600, 65535, 0, 256]
    expected = [[0x12, 0x34, 0x56], [255, 0, 1]]
    big = struct.pack(">6H", *channels)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" + big)) + png_chunk(b"IEND", b"")
    for data in (png, rgb_tiff(16, struct.pack("<6H", *channels))):
        assert read_image(data)[0].tolist() == expected


def test_what_pillow_only_warns_of_is_read_in_silence(caplog):
    caplog.set_level("DEBUG")
    data = rgb_tiff(8, bytes([1, 2, 3, 4, 5, 6]), (284, 2, 1))  # one value too many
    assert read_image(data)[0].tolist() == [[1, 2, 3], [4, 5, 6]]  # warnings are errors here
    assert not caplog.records


# --- orientation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation, fmt):
    # EXIF: which side of the picture the file's first row and its first column are.
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p[:, ::-1].transpose(1, 0, 2),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: p[::-1].transpose(1, 0, 2),
    }[orientation](PIXELS)
    options = {"lossless": True} if fmt == "WEBP" else {"quality": 95} if fmt == "JPEG" else {}
    data = rotated(orientation, Image.fromarray(np.ascontiguousarray(stored)), fmt, **options)
    assert mean_difference(read_image(data), PIXELS) < 2
    for resize in ("squash", "pad", "crop"):
        wanted = ImageOptions(size=(20, 40), resize=resize)
        assert mean_difference(read_image(data, wanted), read_image(PNG, wanted)) < 3


def test_rotation_puts_the_corner_right():
    image = Image.new("RGB", (160, 128))
    image.paste("white", (0, 0, 16, 16))
    pixels = read_image(rotated(6, image))  # to be turned right: the top left corner becomes the top right one
    assert pixels.shape == (160, 128, 3)
    assert pixels[4, -5].tolist() == [255, 255, 255]
    assert pixels[4, 4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("exif", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"garbage" * 9])
def test_damaged_exif_is_no_reason_to_refuse(exif):
    segment = b"Exif\0\0" + exif
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]
    assert np.array_equal(read_image(data), read_image(JPEG))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_unknown_orientation_is_none(orientation):
    for options in (None, ImageOptions(size=(20, 40))):
        assert np.array_equal(read_image(rotated(orientation), options), read_image(rotated(1), options))


def test_exif_behind_the_pixels_of_a_png_is_seen():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = PNG[:-12] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + PNG[-12:]
    assert read_image(data).shape == (160, 128, 3)
    assert read_image(data, ImageOptions(size=(16, 8))).shape == (16, 8, 3)


# --- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(160, 128), (4000, 3), (3, 4000), (1, 1), (5, 7), (1000, 1000)])
def test_size_is_what_was_asked_for(resize, shape):
    for fmt in ("PNG", "JPEG"):
        for interpolation in ("bilinear", "bicubic"):
            options = ImageOptions(size=(24, 56), resize=resize, interpolation=interpolation)
            assert read_image(encode(picture(*shape), fmt), options).shape == (24, 56, 3)


def test_squash_keeps_all_corners():
    pixels = read_image(PNG, ImageOptions(size=(20, 90)))
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert np.abs(pixels[row, column].astype(int) - PIXELS[row, column]).max() < 10


@pytest.mark.parametrize("background", ["white", "black"])
def test_pad_keeps_proportions_in_the_middle(background):
    level = 255 if background == "white" else 0
    image = Image.new("RGB", (80, 40), (90, 90, 90))
    pixels = read_image(encode(image, "PNG"), ImageOptions(size=(60, 60), resize="pad", background=background))
    assert (pixels[15:45] == 90).all()
    assert (pixels[:15] == level).all()
    assert (pixels[45:] == level).all()


def test_crop_takes_the_centre():
    image = Image.new("RGB", (80, 40), "red")
    image.paste("blue", (20, 0, 60, 40))
    pixels = read_image(encode(image, "PNG"), ImageOptions(size=(20, 20), resize="crop"))
    assert (pixels[:, 1:-1] == (0, 0, 255)).all()
    assert (pixels[:, 0, 2] > 200).all()


def test_interpolation_is_antialiased():
    fine = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], dtype=np.uint8), (64, 64)))
    for interpolation in ("bilinear", "bicubic"):
        pixels = read_image(encode(fine, "PNG"), ImageOptions(size=(24, 24), interpolation=interpolation))
        assert np.abs(pixels.astype(int) - 127).max() < 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", (0, 5)),
        ("size", (5, -1)),
        ("size", (5,)),
        ("size", (2.5, 5)),
        ("size", "ab"),
        ("size", (100_000, 100_000)),
        ("resize", "stretch"),
        ("interpolation", "nearest"),
        ("background", "red"),
        ("max_pixels", 0),
    ],
)
def test_illegal_options_are_named(key, value):
    with pytest.raises(MmfuseError, match=key):
        ImageOptions(**{key: value})


# --- reduced decoding of JPEGs -------------------------------------------------------------------------------------


def in_full(data, options):
    """The same without reduced decoding: the decoded JPEG as a PNG."""
    return read_image(encode(Image.fromarray(read_image(data)), "PNG"), options)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(640, 480), (480, 640), (1333, 901), (230, 2000), (450, 449)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_reduced_decoding_is_close_to_the_full_one(resize, shape, mode):
    data = rotated(6 if shape[0] > 1000 else 1, photo(*shape).convert(mode), quality=90)
    options = ImageOptions(size=(112, 96), resize=resize)
    assert mean_difference(read_image(data, options), in_full(data, options)) < 4


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("size", [(100, 200), (200, 100), (150, 150), (299, 301)])
def test_reduced_decoding_is_never_below_the_needed_size(monkeypatch, orientation, resize, size):
    seen = []
    resize_image = Image.Image.resize

    def spy(image, size, resample=None, box=None, reducing_gap=None):
        seen.append((size, box or (0, 0, *image.size)))
        return resize_image(image, size, resample, box, reducing_gap)

    data = rotated(orientation, photo(640, 480))
    monkeypatch.setattr(Image.Image, "resize", spy)
    read_image(data, ImageOptions(size=size, resize=resize))
    ((width, height), (left, top, right, bottom)) = seen[0]
    assert right - left >= width
    assert bottom - top >= height
    assert min((right - left) / width, (bottom - top) / height) < 4, "it was not reduced at all"


@pytest.mark.heavy
def test_reduced_decoding_is_used():
    """The speed itself is measured in benchmarks; here only that most of the work of a large JPEG is saved."""
    data = encode(photo(2048, 2048), "JPEG", quality=90)

    def seconds(options):
        start = time.process_time()
        read_image(data, options)
        return time.process_time() - start

    assert min(seconds(SMALL) for _ in range(3)) < 0.7 * min(seconds(None) for _ in range(3))


# --- broken and hostile --------------------------------------------------------------------------------------------


BROKEN = {
    "0 bytes": (b"", "empty"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated PNG": (PNG[: len(PNG) // 2], "truncated"),
    "PNG without its last chunk": (PNG[:-12], "truncated"),
    "truncated header": (JPEG[:20], "JPEG"),
    "not an image": (b"this is no picture\n" * 20, "not an image"),
    "damaged PNG": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "checksum"),
    "format not on the list": (encode(picture(), "ICO"), "not an image"),
    "EPS": (encode(picture(), "EPS"), "not an image"),
    "PNG bomb": (png_bomb(60_000), "60000 x 60000 pixels"),
    "JPEG bomb": (jpeg_of_size(65_000, 65_000), "65000 x 65000 pixels"),
    "GIF bomb": (gif_of_frame(60_000, 60_000), "exceeds limit"),
    "GIF of a frame beyond its screen": (gif_of_frame(12_000, 12_000), "12000 x 12000 pixels"),
    "TIFF bomb": (tiff([(256, 1, 60_000), (257, 1, 60_000), (258, 1, 8), (273, 1, 8)], b""), "60000 x 60000 pixels"),
    "text bomb": (PNG[:33] + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24))) + PNG[33:], "too large"),
    "PPM bomb": (b"P6 99999999 99999999 255\n", "pixels"),
    "scan bomb": (JPEG + b"\xff\xda\0" * 5000, "scans"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images_are_refused_with_the_reason(case, tmp_path):
    data, reason = BROKEN[case]
    path = tmp_path / "image.png"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(source, SMALL)
        message = str(caught.value)
        assert str(tmp_path) not in message
        assert "\n" not in message
        assert len(message) < 160


def test_every_damaged_byte_of_a_png_is_seen():
    for position in range(8, len(PNG), 97):
        with pytest.raises(ImageError):
            read_image(PNG[:position] + bytes([PNG[position] ^ 4]) + PNG[position + 1 :])


def test_bombs_take_no_memory(tmp_path):
    program = """if True:
        import resource, sys
        from mmfuse.data.readers.images import ImageError, ImageOptions, read_image
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sys.argv[1:]:
            try:
                read_image(path, ImageOptions(size=(32, 32)))
            except ImageError:
                continue
            sys.exit(f"{path} was read")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
    """
    paths = [tmp_path / "bomb.png", tmp_path / "bomb.jpg"]
    paths[0].write_bytes(png_bomb(30_000))
    paths[1].write_bytes(jpeg_of_size(60_000, 60_000))
    done = run_child([sys.executable, "-c", program, *paths])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50, "MiB"


def test_max_pixels_is_a_limit_of_the_header():
    assert read_image(PNG, ImageOptions(max_pixels=160 * 128)).shape == (128, 160, 3)
    with pytest.raises(ImageError, match="more than max_pixels, 20479"):
        read_image(PNG, ImageOptions(max_pixels=160 * 128 - 1))


def test_between_pillows_limit_and_ours_there_is_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert read_image(JPEG, SMALL).shape == (32, 32, 3)  # warnings are errors here


def test_no_message_repeats_bytes_of_the_file():
    for data in (b"P2 SECRET 5\n", b"P5 1234567890SECRET 5\n", b"P3 2 1 255\nSECRET 1 1"):
        with pytest.raises(ImageError) as caught:
            read_image(data)
        assert "SECRET" not in str(caught.value)


# --- sources -------------------------------------------------------------------------------------------------------


def test_suffix_is_not_trusted(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(PNG)
    assert np.array_equal(read_image(path), PIXELS)
    assert np.array_equal(read_image(str(path)), PIXELS)
    assert np.array_equal(read_image(path.as_uri(), urls=["file"]), PIXELS)


def test_urls_are_read_with_fsspec():
    with fsspec.open("memory://images/a.png", "wb") as file:
        file.write(PNG)
    below = ["memory://images"]
    assert np.array_equal(read_image("memory://images/a.png", urls=below), PIXELS)
    assert content_hash("memory://images/a.png", urls=below) == content_hash(PNG)
    for url in ("memory://images/missing.png", "nosuchprotocol://a.png", "file:///nowhere/a.png"):
        for urls in ([], ["file", *below]):
            with pytest.raises(ImageError) as caught:
                read_image(url, urls=urls)
            assert url.split("://")[1] not in str(caught.value)


def test_content_hash(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    assert content_hash(path) == content_hash(str(path)) == content_hash(PNG) == hashlib.sha256(PNG).hexdigest()
    with pytest.raises(ImageError, match="no such file"):
        content_hash(tmp_path / "b.png")


def test_fifo_device_and_folder_are_refused_at_once(tmp_path):
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    for source in (fifo, fifo.as_uri(), tmp_path, "/dev/zero", tmp_path / "missing.png", "a\0b.png", "x" * 5000):
        with pytest.raises(ImageError) as caught:
            read_image(source)
        assert str(tmp_path) not in str(caught.value)


def test_threads_agree():
    files = [encode(photo(300, 200, seed), fmt) for seed in range(8) for fmt in ("JPEG", "PNG", "WEBP")]
    expected = [read_image(data, SMALL) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for want, got in zip(expected, pool.map(lambda data: read_image(data, SMALL), files), strict=True):
                assert np.array_equal(want, got)


# --- properties ----------------------------------------------------------------------------------------------------

tiny = photo(24, 20)
SEEDS = [
    rotated(6, tiny),
    encode(tiny, "JPEG", progressive=True),
    encode(tiny.convert("CMYK"), "JPEG"),
    encode(tiny, "PNG"),
    encode(tiny.convert("P"), "PNG", transparency=0),
    encode(Image.fromarray(ramp(0, 4095, np.uint16, (9, 9))), "PNG"),
    encode(tiny.convert("P"), "GIF", save_all=True, append_images=[tiny.convert("P").rotate(90)]),
    encode(tiny, "WEBP"),
    encode(tiny.convert("RGBA"), "WEBP", lossless=True),
    encode(tiny, "TIFF"),
    encode(tiny, "TIFF", compression="packbits"),
    encode(Image.fromarray(ramp(-1, 1, np.float32, (9, 9))), "TIFF"),
    encode(tiny, "BMP"),
    encode(tiny, "PPM"),
    b"P3\n3 2 255\n" + b"1 2 3 " * 6,
]
SIGNATURES = [data[:16] for data in SEEDS]
all_options = st.builds(
    ImageOptions,
    size=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["squash", "pad", "crop"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    max_pixels=st.just(2_000_000),
)


def with_right_checksums(data):
    """Repair the checksums of a damaged PNG, so that the damage reaches the decoder."""
    out, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if position + 12 + length > len(data):
            break
        out += png_chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        position += 12 + length
    return out


def read_or_refuse(data, options):
    try:
        pixels = read_image(data, options)
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert options.size is None or pixels.shape == (*options.size, 3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", *SIGNATURES]), st.binary(max_size=300), all_options)
def test_random_bytes_give_an_image_or_an_image_error(signature, data, options):
    read_or_refuse(signature + data, options)


@pytest.mark.heavy
@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.floats(0, 1),
    all_options,
)
def test_damaged_files_give_an_image_or_an_image_error(data, changes, cut, options):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place**2 * len(damaged))] = value  # more often in the header
    damaged = bytes(damaged[: None if cut is None else int(cut * len(damaged))])
    read_or_refuse(with_right_checksums(damaged) if damaged.startswith(b"\x89PNG") else damaged, options)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["PNG", "JPEG"]), all_options)
def test_any_shape_becomes_any_size(width, height, fmt, options):
    pixels = read_image(encode(picture(width, height), fmt), options)
    assert pixels.shape == (*(options.size or (height, width)), 3)
