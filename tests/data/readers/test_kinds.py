"""What a file is: by its bytes where they are looked at, by its suffix else, and without a word where it is clutter."""

import importlib.util
import io
import os
import sys

import numpy as np
import pytest
from dicom_files import encode, film
from PIL import Image

from mmfuse.data.readers.images import ImageError, ImageOptions, read_first_frame, read_image
from mmfuse.data.readers.kinds import format_of, kind_of, stem_of
from mmfuse.data.rows.folder import pair_folder

HAS_AVIF = importlib.util.find_spec("PIL._avif") is not None


def pixels(width=64, height=48):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 4, rows * 5, 255 - columns * 4], axis=2).astype(np.uint8)


def saved(fmt, **options):
    out = io.BytesIO()
    Image.fromarray(pixels()).save(out, fmt, **options)
    return out.getvalue()


READ = {
    "JPEG": saved("JPEG"),
    "PNG": saved("PNG"),
    "GIF": saved("GIF"),
    "WebP": saved("WEBP"),
    "TIFF": saved("TIFF"),
    "JPEG 2000": saved("JPEG2000"),
    "DICOM": encode(film(pixels())),
    **({"AVIF": saved("AVIF")} if HAS_AVIF else {}),
}
NOT_READ = {
    "JPEG XL": [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "NIfTI": [b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", b"\0\0\x01\x5c" + bytes(340) + b"ni1\0"],
    "PDF": [b"%PDF-1.7\n"],
    "a video": [b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI LIST"],
    "Photoshop": [b"8BPS\0\1"],
    "a Microsoft Office file": [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"],
}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("name", ["p.jfif", "p.jpg_large", "p.jpg?w=3", "p", "p.ima", "p.raw", "p.heic"])
def test_images_are_read_by_any_name(tmp_path, form, name):
    (tmp_path / name).write_bytes(READ[form])
    (tmp_path / "p.txt").write_text("a report")
    if (form, name) == ("TIFF", "p.raw"):  # a camera's, whose first page is a thumbnail
        assert kind_of(tmp_path / name) == "unread"
        return
    ((entry,), ignored) = pair_folder(tmp_path)
    assert (entry.id, len(entry.images), len(entry.texts), entry.problem, ignored) == ("p", 1, 1, None, [])
    assert read_image(entry.images[0]).shape == (48, 64, 3)


@pytest.mark.parametrize("form", NOT_READ)
def test_what_is_not_read_is_told_by_its_bytes(tmp_path, form):
    for data in NOT_READ[form]:
        assert format_of(data) == (form, "unread")
        with pytest.raises(ImageError, match=rf"not an image that is read, but {form} \(JPEG, PNG.*DICOM\)"):
            read_image(data)
        (tmp_path / "p.xyz").write_bytes(data)
        assert kind_of(tmp_path / "p.xyz") == "unread"


def test_texts_are_taken_for_no_image():
    for text in ("BM aspirate: normal.", "P5 film.", "PK parameters", "ID: 1", "%", "8 BPS", "", "\u00ff\n"):
        assert format_of(text.encode()) is None


@pytest.mark.parametrize(
    ("name", "kind", "stem"),
    [
        ("a.JPG", "image", "a"),
        ("a.b.hif", "image", "a.b"),
        ("a.Txt", "text", "a"),
        ("x.nii.gz", "unread", "x"),
        ("x.y.txt.GZ", "unread", "x.y"),
        ("x.tar.gz", "aside", "x"),
        ("x.gz", "aside", "x"),
        ("x.csv.gz", "other", "x"),
        ("x.csv", "other", "x"),
        ("x.jpg~", "other", "x.jpg~"),
        ("x.part", "other", "x"),
        ("README.md", "other", "README"),
        ("LICENSE.pdf", "other", "LICENSE"),
        ("readmes.pdf", "unread", "readmes"),
        ("Makefile", "other", "Makefile"),
        ("IM.0001", "other", "IM.0001"),
    ],
)
def test_names(tmp_path, name, kind, stem):
    (tmp_path / name).write_bytes(b"plain text")
    assert kind_of(tmp_path / name) == kind
    assert stem_of(name, kind) == stem


def test_only_files_of_unknown_names_are_opened_and_none_is_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    assert kind_of(tmp_path / "fifo") == "other"
    assert kind_of(tmp_path / "absent") == "other"
    (tmp_path / "folder.x").mkdir()
    assert kind_of(tmp_path / "folder.x") == "other"
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    for name in ("a.jpg", "a.txt", "a.csv", "a.md", "a.zip", "a.npy", "a.bak"):
        kind_of(tmp_path / name)


# --- formats that not every Pillow reads ---------------------------------------------------------------------------


def test_jpeg_2000():
    for options in ({}, {"no_jp2": True}):
        data = saved("JPEG2000", **options)
        assert np.array_equal(read_image(data), pixels())
        for cut in (30, len(data) // 2, len(data) - 1):
            with pytest.raises(ImageError):
                read_image(data[:cut])
        with pytest.raises(ImageError, match="64 x 48 pixels: more than max_pixels"):
            read_image(data, ImageOptions(max_pixels=3000))
    deep = io.BytesIO()
    Image.fromarray((np.arange(48 * 64).reshape(48, 64)).astype(np.uint16)).save(deep, "JPEG2000")
    expected = np.arange(48 * 64).reshape(48, 64) * 255 / 4095
    assert np.abs(read_image(deep.getvalue())[..., 0] - expected).max() <= 0.5


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow reads no AVIF")
def test_avif():
    data = saved("AVIF", quality=95)
    assert np.abs(read_image(data).astype(int) - pixels()).mean() < 3
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(saved("AVIF", quality=95, exif=exif))
    assert np.abs(turned.astype(int) - np.rot90(pixels(), -1)).mean() < 3
    for cut in (20, len(data) // 2, len(data) - 1):
        with pytest.raises(ImageError):
            read_image(data[:cut])
    with pytest.raises(ImageError, match="64 x 48 pixels: more than max_pixels"):
        read_image(data, ImageOptions(max_pixels=3000))


def test_a_pillow_without_avif_and_a_missing_extra_are_named(monkeypatch):
    if HAS_AVIF:
        monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    with pytest.raises(ImageError, match=r"AVIF needs Pillow 11\.3 or later"):
        read_image(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r'HEIC needs pillow-heif: pip install "mmfuse\[heic\]"'):
        read_image(HEIC)


def test_heic():
    heif = pytest.importorskip("pillow_heif")

    def heic(pictures, **options):
        out, file = io.BytesIO(), heif.HeifFile()
        for picture in pictures:
            file.add_from_pillow(Image.fromarray(picture))
        file.save(out, quality=95, **options)
        return out.getvalue()

    data = heic([pixels()])
    found = read_first_frame(data)
    assert found.frames == 1
    assert np.abs(found.pixels.astype(int) - pixels()).mean() < 4
    assert read_first_frame(heic([pixels(), pixels()])).frames == 2
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(heic([pixels()], exif=exif.tobytes()))
    assert np.abs(turned.astype(int) - np.rot90(pixels(), -1)).mean() < 4
    with pytest.raises(ImageError, match="64 x 48 pixels: more than max_pixels"):
        read_image(data, ImageOptions(max_pixels=3000))
    for cut in (30, len(data) // 2, len(data) - 1):
        with pytest.raises(ImageError):
            read_image(data[:cut])
