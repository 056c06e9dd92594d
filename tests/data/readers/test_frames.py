"""How many pictures a file holds: every format that can hold several, by hand-made files and hostile ones."""

import importlib.util
import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from mmfuse.data.readers.frames import frames_notice
from mmfuse.data.readers.images import ImageOptions, read_first_frame, read_image

ANIMATED = ["GIF", "TIFF", "WEBP", "PNG", "MPO", *(["AVIF"] if importlib.util.find_spec("PIL._avif") else [])]


def pictures(count):
    """Each darker than the last, with a spot that moves: no format joins two of them."""
    made = [Image.new("RGB", (24, 24), (250 - 20 * i, 0, 0)) for i in range(count)]
    for i, image in enumerate(made):
        image.putpixel((i, i), (0, 255, 0))
    return made


def encode(fmt, count, **options):
    first, *others = pictures(count)
    out = io.BytesIO()
    first.save(out, fmt, save_all=True, append_images=others, **options)
    return out.getvalue()


@pytest.mark.parametrize("fmt", ANIMATED)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_are_counted_and_the_first_is_shown(fmt, count):
    data = encode(fmt, count)
    for options in (None, ImageOptions(size=(8, 8))):
        pixels, frames = read_first_frame(data, options)
        assert frames == count
        assert np.array_equal(pixels, read_image(data, options))
        assert np.abs(pixels[-1, -1].astype(int) - (250, 0, 0)).max() < 20


def test_other_pictures_are_one_frame():
    for fmt in ("JPEG", "BMP", "PPM"):
        out = io.BytesIO()
        pictures(1)[0].save(out, fmt)
        assert read_first_frame(out.getvalue()).frames == 1


def test_a_default_image_of_an_animated_png_is_one_more():
    assert read_first_frame(encode("PNG", 4, default_image=True)).frames == 4  # the default, and three frames
    assert read_first_frame(encode("PNG", 4)).frames == 4


def tiff(order, kinds, big=False, following=0):
    """A TIFF of 2 x 2 gray pages; `kinds` are their subfile types, and `following` where the last one points to."""
    pointer = "Q" if big else "I"
    start = struct.pack(order + "2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
    start += struct.pack(order + "HHQ", 8, 0, 20) if big else struct.pack(order + "I", 12)
    data = start + bytes([0, 50, 100, 250])
    for number, kind in enumerate(kinds, start=1):
        tags = [(254, 4, kind), (256, 3, 2), (257, 3, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, len(start))]
        data += struct.pack(order + ("Q" if big else "H"), len(tags) + 1)
        for tag, size, value in (*tags, (279, 4, 4)):
            data += struct.pack(order + "HH" + pointer, tag, size, 1)
            data += struct.pack(order + ("HH" if size == 3 else "I"), *([value, 0] if size == 3 else [value]))
            data += bytes(4 if big else 0)
        end = len(data) + struct.calcsize(order + pointer)
        data += struct.pack(order + pointer, following if number == len(kinds) else end)
    return data


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])  # Pillow reads no ">" and big
def test_pages_of_a_tiff_are_no_smaller_versions_and_no_masks(order, big):
    for kinds, frames in (([0], 1), ([0, 2], 2), ([0, 1, 4, 2, 5, 0], 3), ([1, 1], 1), ([2, 2, 2], 3)):
        pixels, found = read_first_frame(tiff(order, kinds, big))
        assert pixels[..., 0].tolist() == [[0, 50], [100, 250]]
        assert found == frames


@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_of_a_tiff_that_go_round_or_beyond_the_end(order):
    for following in (12, 5000, 2**32 - 1):
        for kinds in ([0], [0, 0]):
            pixels, found = read_first_frame(tiff(order, kinds, following=following))
            assert pixels[..., 0].tolist() == [[0, 50], [100, 250]]
            assert found == len(kinds)


def test_a_gif_that_is_cut_off_behind_its_first_frame():
    data = encode("GIF", 5)
    starts = [place for place in range(len(data) - 4) if data[place : place + 4] == b"\x21\xf9\x04\x08"]
    for cut in (starts[1], starts[1] + 3, starts[2]) if len(starts) > 2 else ():
        assert 1 <= read_first_frame(data[:cut]).frames <= 3
    assert read_first_frame(data[:-1]).frames == 5


def test_hostile_files_are_counted_in_no_time():
    gif = encode("GIF", 1)[:-1] + b"!\xfe" + b"\1x" * 5_000_000 + b"\0"
    tiff = bytearray(encode("TIFF", 1))
    empty = len(tiff) + len(tiff) % 2
    tiff += bytes(empty - len(tiff)) + b"".join(struct.pack("<HI", 0, empty + 6 * (i + 1)) for i in range(100_000))
    (start,) = struct.unpack_from("<I", tiff, 4)
    (entries,) = struct.unpack_from("<H", tiff, start)
    struct.pack_into("<I", tiff, start + 2 + 12 * entries, empty)
    for data, most in ((gif, 1), (bytes(tiff), 100_001)):
        began = time.process_time()
        assert 1 <= read_first_frame(data).frames <= most
        assert time.process_time() - began < 5


@pytest.mark.parametrize("fmt", ANIMATED)
def test_an_opened_image_of_several_frames(fmt, tmp_path):
    image = Image.open(io.BytesIO(encode(fmt, 3)))
    found = read_first_frame(image)
    assert found.frames == 3
    assert np.array_equal(found.pixels, read_image(encode(fmt, 3)))
    image.seek(1)  # chosen by whoever holds it
    assert read_first_frame(image).frames == 1
    (tmp_path / "a").write_bytes(encode(fmt, 1))
    with Image.open(tmp_path / "a") as closed:
        closed.load()
    assert read_first_frame(closed).frames == 1


def test_what_is_said():
    assert frames_notice("ct.dcm", 24) == "image ct.dcm: first of 24 frames"
    assert frames_notice("", 2) == "image: first of 2 frames"
