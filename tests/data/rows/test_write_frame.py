"""DataFrames and Datasets as parquet: what is read again is what was meant."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmfuse import cells
from mmfuse.data.readers.encoded import encode_picture
from mmfuse.data.readers.images import ImageOptions, read_image
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.rows.read import read_rows
from mmfuse.types import MmfuseError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test's own working directory, which relative paths are relative to."""
    monkeypatch.chdir(tmp_path)


def kept(data, told: list[str] | None = None) -> pd.DataFrame:
    path = write_frame(data, "kept.parquet", (told if told is not None else []).append)
    return read_rows(str(path), "m.yaml")


def column(values, **options) -> list:
    return list(kept(pd.DataFrame({"x": pd.Series(values, **options)}))["x"])


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "int64", ["1", "2"]),
        ([1, None], None, ["1", ""]),  # pandas has made 1.0 of it
        ([1, None], "Int64", ["1", ""]),
        ([1, None, 2], "category", ["1", "", "2"]),
        ([2.5, 3.0, -0.5, np.inf], None, ["2.5", "3", "-0.5", "inf"]),
        ([0.1, 7], "float32", ["0.1", "7"]),
        ([0.1, None], "float32[pyarrow]", ["0.1", ""]),
        ([1e300], None, ["1e+300"]),
        ([2**70, 1], None, [str(2**70), "1"]),
        ([2**63, 1], "uint64", [str(2**63), "1"]),
        (["007", None, "NA", "None", " a "], None, ["007", "", "NA", "None", " a "]),
        (["b", None, "a"], "category", ["b", "", "a"]),
        ([True, None], None, ["True", ""]),
        ([True, None], "boolean", ["True", ""]),
        ([pd.NA, pd.NaT, float("nan"), None, "x"], "object", ["", "", "", "", "x"]),
        ([datetime.date(2020, 1, 2)], None, ["2020-01-02"]),
        (["2020-01-02 03:04", None], "datetime64[us]", ["2020-01-02 03:04:00", ""]),
        ([np.int8(3), np.float64(4), np.str_("s"), np.bool_(False)], "object", ["3", "4", "s", "False"]),
        ([np.datetime64("2020-01-02")], "object", ["2020-01-02 00:00:00"]),
    ],
)
def test_scalars_are_what_they_are_called(values, dtype, expected):
    assert column(values, dtype=dtype) == expected


def test_a_class_is_called_alike_whatever_other_rows_have():
    whole, gaps = pd.DataFrame({"y": [1, 0, 1]}), pd.DataFrame({"y": [1, None, 1]})
    told: list[str] = []
    assert [kept(frame, told)["y"][0] for frame in (whole, gaps, gaps.dropna())] == ["1"] * 3
    assert told == ["column 'y': floats that are whole numbers are written without .0, as integers are"] * 2


def test_lists_stay_lists():
    frame = pd.DataFrame(
        {
            "labels": [["a", "b"], [], None],
            "captions": [("one", "two"), np.array(["three", None], dtype=object), float("nan")],
            "names": [{"b", "a"}, set(), None],
            "vector": [np.array([0.5, 1], "float32"), [2, 3.5], None],
            "tokens": [np.ones((2, 2)), None, np.zeros((1, 2))],
        }
    )
    found = kept(frame).to_dict("list")
    assert found["labels"] == [["a", "b"], [], ""]
    assert found["captions"] == [["one", "two"], ["three"], ""]
    assert found["names"] == [["a", "b"], [], ""]
    assert found["vector"] == [[0.5, 1.0], [2.0, 3.5], ""]
    assert found["tokens"] == [[[1.0, 1.0], [1.0, 1.0]], "", [[0.0, 0.0]]]
    assert cells.labels(kept(pd.DataFrame({"y": [[1, 2]]}))["y"][0]) == ["1", "2"]


def pictures() -> dict[str, Image.Image]:
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    rgb = Image.fromarray(levels[..., :3])
    turned, palette, clear = rgb.copy(), rgb.quantize(16), rgb.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    clear.info["transparency"] = 3
    return {
        "L": rgb.convert("L"),
        "RGB": rgb,
        "RGBA": Image.fromarray(levels),
        "LA": Image.fromarray(levels).convert("LA"),
        "1": rgb.convert("1"),
        "P": palette,
        "P, transparent": clear,
        "CMYK": rgb.convert("CMYK"),
        "YCbCr": rgb.convert("YCbCr"),
        "I;16": Image.fromarray(levels[..., 0].astype(np.uint16) * 16),
        "I": Image.fromarray(levels[..., 0].astype(np.int32) - 90),
        "F": Image.fromarray(levels[..., 0].astype(np.float32) / 7 - 3),
        "turned": turned,
    }


@pytest.mark.parametrize("name", pictures())
def test_pictures_are_kept_to_the_pixel(name):
    picture = pictures()[name]
    (image,) = cells.images(column([picture])[0])
    for options in (None, ImageOptions(size=(4, 5)), ImageOptions(size=(4, 4), resize="pad", background="black")):
        np.testing.assert_array_equal(read_image(image, options), read_image(picture, options))
    assert encode_picture(picture) == encode_picture(picture.copy())


def test_what_a_picture_cannot_keep_is_refused():
    frames = [Image.new("L", (4, 4), level) for level in (0, 9)]
    frames[0].save("two.gif", save_all=True, append_images=frames[1:])
    with Image.open("two.gif") as moving, pytest.raises(MmfuseError, match=r"column 'x', row 2: a picture of 2 frames"):
        column([Image.new("L", (1, 1)), moving])
    with pytest.raises(MmfuseError, match=r"column 'x', row 1: an array of shape \(3, 4, 9\)"):
        column([np.zeros((3, 4, 9))])


def test_images_of_every_kind_in_one_column():
    Path("films").mkdir()
    Image.new("L", (2, 2), 7).save("films/a.png")
    data = Path("films/a.png").read_bytes()
    array = np.full((2, 2), 7, np.uint8)
    images = [array, data, "films/a.png", {"bytes": data, "path": "x"}, {"bytes": None, "path": "films/a.png"}, None]
    several = [[array, "films/a.png"], ["films/a.png"], [], None, data, [None, Path("films/a.png")]]
    told: list[str] = []
    found = kept(pd.DataFrame({"one": images, "many": several}), told)
    os.makedirs("elsewhere")
    os.chdir("elsewhere")  # the run folder works from there
    for name, counts in (("one", [1, 1, 1, 1, 1, 0]), ("many", [2, 1, 0, 0, 1, 1])):
        read = [cells.images(cell) for cell in found[name]]
        assert [len(images) for images in read] == counts
        assert all((read_image(image) == 7).all() for images in read for image in images)
        assert f"'{name}'" in told[0]
    assert "absolute" in told[0]


def test_paths_below_the_working_directory_become_absolute():
    Path("films").mkdir()
    Path("films/a.png").touch()
    told: list[str] = []
    found = kept(
        pd.DataFrame({"film": ["films/a.png", "films/b.png", "https://h/a.png", ""], "s": ["a", "b", "c", ""]}), told
    )
    assert list(found["film"]) == [os.path.abspath("films/a.png"), "films/b.png", "https://h/a.png", ""]
    assert told == ["column 'film': relative paths of files below the working directory are written as absolute ones"]


def test_an_index_that_carries_the_ids():
    rows = {"y": ["a", "b"]}
    assert list(kept(pd.DataFrame(rows, index=pd.Index(["p", "q"], name="study")))["study"]) == ["p", "q"]
    assert list(kept(pd.DataFrame(rows, index=["p", "q"]))["index"]) == ["p", "q"]
    assert list(kept(pd.DataFrame(rows, index=[7, 9])).columns) == ["y"]
    with pytest.raises(MmfuseError, match="the column 'y' is there 2 times"):
        kept(pd.DataFrame(rows, index=pd.Index(["p", "q"], name="y")))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), "the column 'x' is there 2 times"),
        (pd.DataFrame([["a", "b"]]), "column 1: its name is 0, where a text is expected"),
        (pd.DataFrame({"x": []}), "a DataFrame of 0 rows"),
        (pd.DataFrame({"x": ["a", ["b"]]}), "column 'x', row 2: a list, and in row 1 a text or a number"),
        (pd.DataFrame({"x": [["a"], ["a", 1]]}), "column 'x', row 2: what it holds is of several kinds"),
        (pd.DataFrame({"x": ["a", object()]}), "column 'x', row 2: builtins.object: no file of rows holds it"),
        (pd.DataFrame({"x": [1.0, 2.0**53]}), "column 'x', row 2: 9007199254740992.0: as a float"),
        (pd.DataFrame({"x": ["\ud800"]}, dtype=object), "column 'x', row 1: a text with half of a UTF-16 pair"),
        ([{"x": 1}], "a pandas DataFrame or a datasets.Dataset is expected, not a list"),
        (
            datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": [1]})}),
            r"one of its splits, such as data\['train'\]",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_line(frame, reason):
    with pytest.raises(MmfuseError, match=reason) as found:
        kept(frame)
    assert "\n" not in str(found.value)
    assert not Path("kept.parquet").exists()


def test_equal_frames_give_equal_bytes():
    frame = pd.DataFrame({"id": range(3), "x": [{"b", "a", "c"}] * 3, "film": [np.eye(5, dtype=np.uint8)] * 3})
    one, other = (write_frame(frame.copy(), name).read_bytes() for name in ("a.parquet", "b.parquet"))
    assert one == other


def dataset() -> datasets.Dataset:
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "finding": datasets.ClassLabel(names=["none", "mass"]),
            "signs": datasets.List(datasets.ClassLabel(names=["cough", "fever"])),
            "film": datasets.Image(),
            "films": datasets.List(datasets.Image()),
            "grade": datasets.Value("float32"),
            "vector": datasets.List(datasets.Value("float32")),
            "grid": datasets.Array2D((2, 2), "float32"),
            "captions": datasets.List(datasets.Value("string")),
            "when": datasets.Value("date32"),
        }
    )
    film = Image.fromarray(np.full((3, 3, 3), 9, np.uint8))
    row = {
        "id": "a",
        "finding": 1,
        "signs": [0, 1],
        "film": film,
        "films": [film, film],
        "grade": 2.0,
        "vector": [0.5, 1.0],
        "grid": [[1, 2], [3, 4]],
        "captions": ["x", "y"],
        "when": datetime.date(2020, 1, 2),
    }
    empty = {"id": "b", "finding": -1, **dict.fromkeys(list(features)[2:])}
    return datasets.Dataset.from_list([empty, row, {**row, "grade": 0.1}], features=features).select([1, 0])


def test_a_dataset_is_kept_with_the_names_of_its_classes():
    told: list[str] = []
    full, empty = kept(dataset(), told).to_dict("records")
    assert set(empty.values()) == {"b", ""}
    for name in ("film", "films"):
        assert all((read_image(image) == 9).all() for image in cells.images(full.pop(name)))
    assert full == {
        "id": "a",
        "finding": "mass",
        "signs": ["cough", "fever"],
        "grade": "2",
        "vector": [0.5, 1.0],
        "grid": [[1.0, 2.0], [3.0, 4.0]],
        "captions": ["x", "y"],
        "when": "2020-01-02",
    }
    assert told == [
        "column 'grade': floats that are whole numbers are written without .0, as integers are",
        "column 'finding', 'signs': class numbers are written as their names",
    ]


def test_a_dataset_that_is_made_when_it_is_read_is_refused():
    with pytest.raises(MmfuseError, match="a Dataset with a transform"):
        kept(dataset().with_transform(lambda batch: batch))


def test_images_of_a_dataset_that_are_paths_stay_paths(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    path, packed = str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()
    cells_given = [{"bytes": None, "path": path}, {"bytes": packed, "path": None}, None]
    data = datasets.Dataset.from_dict({"image": cells_given}).cast_column("image", datasets.Image(decode=False))
    told = []
    found = read_rows(str(write_frame(data, tmp_path / "rows.parquet", told.append)), "here")["image"]
    assert [cells.images(cell) for cell in found] == [[path], [packed], []]
    assert told == []
