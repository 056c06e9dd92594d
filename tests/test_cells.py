"""Lists stay lists, bytes stay bytes, structs of both are images, and whatever else is refused without a byte of it."""

import base64
import datetime
import decimal
import io
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from mmfuse import cells
from mmfuse.data.audit import audit
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.rows.read import read_rows
from mmfuse.data.shards.folder import open_shards
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.blocks import FileBlocks, open_blocks
from mmfuse.data.tables.manifest import ImageSpec, TextSpec, load_manifest
from mmfuse.data.tables.recipe import Recipe
from mmfuse.types import MmfuseError


def picture(shade):
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(data, "PNG")
    return data.getvalue()


PICTURE = picture(7)
LIST = pa.list_(pa.string())


@pytest.fixture
def manifest(tmp_path):
    """Columns to a manifest of one task, by default of labels, over a parquet or a jsonl file."""

    def make(columns, kind="parquet", **keys):
        rows = len(next(iter(columns.values())))
        columns = {"id": [f"r{i}" for i in range(rows)], "note": [f"note {i}" for i in range(rows)], **columns}
        path = tmp_path / f"rows.{kind}"
        if kind == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
            path.write_text("\n".join(lines))
        values = {"name": "set", "rows": path.name, "id": "id", "text": {"columns": ["note"]}}
        values["splits"] = {"ratios": {"train": 1.0}}
        if "y" in columns:
            values["tasks"] = {"t": {"type": "multilabel", "column": "y", "empty": "negative"}}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | keys))
        return load_manifest(tmp_path / "m.yaml")

    return make


def refusal(call, *args):
    with pytest.raises(MmfuseError) as error:
        call(*args)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    assert "PNG\\r" not in message
    assert "\\x" not in message
    return message


# As they are read.

OF_ALL_TYPES = {
    "list": (pa.array([["a", None, "b"], [], None], LIST), [["a", "b"], [], ""]),
    "large_list": (pa.array([["a"], [], None], pa.large_list(pa.string())), [["a"], [], ""]),
    "fixed_size_list": (
        pa.array([["a", "b"], ["c", "d"], None], pa.list_(pa.string(), 2)),
        [["a", "b"], ["c", "d"], ""],
    ),
    "nested": (pa.array([[["a"], []], [], None], pa.list_(LIST)), [[["a"], []], [], ""]),
    "numbers": (pa.array([[0, 2], [], None], pa.list_(pa.int8())), [[0, 2], [], ""]),
    "dates": (pa.array([[datetime.date(2020, 1, 2)], [], None]), [["2020-01-02"], [], ""]),
    "binary": (pa.array([b"\xff", b"", None]), [b"\xff", b"", ""]),
    "large_binary": (pa.array([b"\xff", b"a", None], pa.large_binary()), [b"\xff", b"a", ""]),
    "fixed_binary": (pa.array([b"\xff\xfe", b"ab", None], pa.binary(2)), [b"\xff\xfe", b"ab", ""]),
    "struct": (
        pa.array([{"bytes": b"\xff", "path": None}, {"bytes": None, "path": "a"}, None]),
        [{"bytes": b"\xff", "path": ""}, {"bytes": "", "path": "a"}, ""],
    ),
    "structs": (pa.array([[{"path": "a"}], [], None]), [[{"path": "a"}], [], ""]),
    "map": (pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())), [[["k", "v"]], [], ""]),
    "dictionary": (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", ""]),
    "dictionary of bytes": (pa.array([b"\xff", b"b", None]).dictionary_encode(), [b"\xff", b"b", ""]),
    "large_string": (pa.array(["a", "", None], pa.large_string()), ["a", "", ""]),
    "null": (pa.nulls(3), ["", "", ""]),
    "whole": (pa.array([1, 2, None]), ["1", "2", ""]),
    "part": (pa.array([0.5, 2.0, None]), ["0.5", "2.0", ""]),
    "flag": (pa.array([True, False, None]), ["True", "False", ""]),
    "date": (pa.array([datetime.date(2020, 1, 2)] * 2 + [None]), ["2020-01-02", "2020-01-02", ""]),
    "time": (pa.array([datetime.datetime(2020, 1, 2, 3)] * 2 + [None]), ["2020-01-02 03:00:00"] * 2 + [""]),
    "decimal": (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00"), None]), ["1.50", "2.00", ""]),
}


def test_every_type_of_parquet(tmp_path):
    pq.write_table(pa.table({name: column for name, (column, _) in OF_ALL_TYPES.items()}), tmp_path / "r.parquet")
    found = read_rows(str(tmp_path / "r.parquet"), "m")
    for name, (_, expected) in OF_ALL_TYPES.items():
        assert found[name].tolist() == expected, name
    some = read_rows(str(tmp_path / "r.parquet"), "m", ["decimal", "list"])
    assert some.columns.tolist() == ["list", "decimal"]


def test_jsonl(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        '{"a": ["x", 1, null, true], "b": {"c": null, "d": 2}, "e": 1.5, "f": "\\ud83d"}\n'
    )
    found = read_rows(str(tmp_path / "r.jsonl"), "m").to_dict("records")
    assert found == [{"a": ["x", 1, True], "b": {"c": "", "d": "2"}, "e": "1.5", "f": "\\ud83d"}]


# Labels.


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("separator", [None, ";"])
def test_lists_of_labels(manifest, kind, separator):
    y = [["drama", "comedy"], ["drama"], [], None, [" horror; slow "]]
    task = {"type": "multilabel", "column": "y", "empty": "negative", "separator": separator}
    made = load_table(manifest({"y": y}, kind, tasks={"t": task}))
    assert made.labels == {"t": ["comedy", "drama", "horror; slow"]}
    assert made.targets["t"].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    task["empty"] = "missing"
    assert np.isnan(load_table(manifest({"y": y}, kind, tasks={"t": task})).targets["t"]).any(axis=1).tolist() == [
        *(False, False, True, True, False)
    ]


def test_lists_of_numbers_are_labels(manifest):
    made = load_table(manifest({"y": pa.array([[0, 2], [2], []], pa.large_list(pa.int64()))}))
    assert made.labels == {"t": ["0", "2"]}
    assert made.targets["t"].tolist() == [[1, 1], [0, 1], [0, 0]]


LISTS_IN_TEXTS = ['["a", "b c"]', "['a', 'b c']", "['a',\n 'b c',]", "('a', 'b c')", "{'a', 'b c'}", """["a", 'b c']"""]


@pytest.mark.parametrize("cell", LISTS_IN_TEXTS)
def test_lists_in_csv(cell):
    assert cells.labels(cell) == ["a", "b c"]
    assert cells.captions(cell) == ["a", "b c"]
    assert cells.images(cell if cell[0] == "[" else "a;b c", ";") == ["a", "b c"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[]", []),
        ("set()", []),
        ("()", []),
        ("[1, 2.5]", ["1", "2.5"]),
        ("[None, 'a']", ["a"]),
        (r"['it\'s', 'a, b', \"it's\"]".replace('\\"', '"'), ["it's", "a, b", "it's"]),
        (r"['C:\data', '\\d\n']", [r"C:\data", r"\d"]),  # as Python reads them, without its warning
        ("a", None),
        ("", None),
        ("{}", None),
        ("(mild) effusion;edema", None),
        ("{a};{b}", None),
        ("a;[b]", None),
    ],
)
def test_what_is_a_list_and_what_is_not(cell, expected):
    assert cells.labels(cell) == expected


NUMPY = ["['a' 'b']", "['a'\n 'b']", """['a' "b's"]""", "['a' 'b' ... 'z']", "array(['a', 'b'], dtype=object)"]


@pytest.mark.parametrize("cell", NUMPY)
def test_what_numpy_prints_is_never_joined(cell):
    for take in (cells.labels, cells.captions, cells.images):
        assert "jsonl or parquet" in refusal(take, cell)


@pytest.mark.parametrize(
    "cell",
    [
        *("[0 2]", "[a, b]", "[nan]", "[['a'], ['b']]", "[__import__('os')]", "[" * 10_000 + "]"),
        *("{a,b}", "{'a': 1}", "frozenset({'a'})", "Index(['a'])"),
    ],
)
def test_what_looks_like_a_list_is_no_label(cell):
    refusal(cells.labels, cell)


@pytest.mark.parametrize("cell", ["[sic] a dog", "[a dog]", "(a dog)", "a list: ['a' 'b']", "{a} dog", "[0 2]", "['"])
def test_a_caption_may_be_in_brackets(cell):
    assert cells.captions(cell) is None


def test_a_class_may_be_named_that_is_written_like_a_list(manifest):
    bins = ["[0, 10]", "[10, 20]"]
    made = manifest({"y": bins}, tasks={"t": {"type": "classification", "column": "y", "values": bins}})
    assert load_table(made).targets["t"].tolist() == [0, 1]
    assert "labels.illegal" not in {found.check for found in audit(made, find=None).findings}
    with pytest.raises(MmfuseError, match="a class that is written so is named in values"):
        load_table(manifest({"y": bins}, tasks={"t": {"type": "classification", "column": "y"}}))


def test_what_means_no_target_is_no_label_of_a_list(manifest):
    task = {"type": "multilabel", "column": "y", "missing": ["NA"], "empty": "negative", "separator": ";"}
    for kind, cells_ in (("jsonl", [["a"], ["NA"], ["a", "NA"], []]), ("parquet", ["a", "NA", "a;NA", ""])):
        table = load_table(manifest({"y": cells_}, kind, tasks={"t": task}))
        assert table.labels["t"] == ["a"]
        np.testing.assert_array_equal(table.targets["t"][:, 0], [1, np.nan, 1, 0])


def test_a_long_path_is_no_image_in_base64():
    for path in ("/".join(["abc"] * 100), "/9j/film.jpg", "R0lGOD"):
        assert cells.images(path) == [path]


def test_images_alone_whose_labels_are_not_legal_are_audited_all_the_same(manifest):
    made = manifest({"y": ["u", "u"], "picture": [PICTURE, picture(90)]}, image={"column": "picture"}, text=None)
    assert {"labels.illegal"} == {found.check for found in audit(made, find=None).findings if found.severity == "error"}


def test_a_list_is_no_class_and_no_text(manifest):
    of_class = {"tasks": {"t": {"type": "classification", "column": "y"}}}
    assert "tasks.t: row 1: a list, where one class" in refusal(load_table, manifest({"y": [["a"], ["b"]]}, **of_class))
    assert "row 1: a list, where one class" in refusal(load_table, manifest({"y": ["['a', 'b']", "c"]}, **of_class))
    message = refusal(load_table, manifest({"words": [["a", "b"], ["c"]]}, text={"columns": ["words"]}))
    assert "text.columns: column 'words', row 1: a list of 2, where a text is expected; make it one text" in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"id": "odd"}, "id: column 'odd'"),
        ({"group": "odd"}, "group: column 'odd'"),
        ({"subgroups": ["odd"]}, "subgroups: column 'odd'"),
        ({"splits": {"column": "odd"}}, "splits.column: column 'odd'"),
        ({"text": {"columns": ["note", "odd"]}}, "text.columns: column 'odd'"),
        ({"tasks": {"t": {"type": "multilabel", "columns": ["odd"]}}}, "tasks.t: columns: column 'odd'"),
        ({"tasks": {"t": {"type": "multilabel", "column": "odd"}}}, "tasks.t: row 1: "),
        ({"tasks": {"t": {"type": "classification", "column": "odd"}}}, "tasks.t: row 1: "),
        ({"tasks": {"t": {"type": "captioning", "column": "odd"}}}, "tasks.t: row 1: "),
    ],
)
@pytest.mark.parametrize("odd", [[PICTURE, b"b"], [{"x": "secret"}, {"x": "b"}]], ids=["bytes", "struct"])
def test_bytes_and_objects_are_refused_where_texts_are_wanted(manifest, keys, words, odd):
    made = manifest({"odd": odd}, **keys)
    for read in (load_table, FileBlocks):
        message = refusal(read, made)
        assert words in message
        assert "secret" not in message


def test_columns_that_nobody_names_are_never_complained_about(manifest):
    made = manifest({"y": [["a"], []], "blob": [PICTURE, None], "odd": [{"a": [b"x"]}, None]})
    assert len(load_table(made)) == 2
    assert FileBlocks(made).labels == {"t": ["a"]}


# Captions.


def captions_of(table):
    return [list(found) for found in table.targets["t"]]


@pytest.mark.parametrize("column", [LIST, pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)])
def test_lists_of_captions(manifest, column):
    y = pa.array([["a dog runs", "a brown  dog"], ["one cat", "the 'cat'"]], column)
    made = manifest({"y": y}, tasks={"t": {"type": "captioning", "column": "y"}})
    assert captions_of(load_table(made)) == [["a dog runs", "a brown dog"], ["one cat", "the 'cat'"]]


def test_nested_captions_are_refused(manifest):
    made = manifest({"y": [[["a"]], [["b"]]]}, tasks={"t": {"type": "captioning", "column": "y"}})
    assert "row 1: a list of captions is expected to hold strings only, but one of them is a list" in refusal(
        load_table, made
    )


# Images.

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = {
    "binary": (pa.array([PICTURE, None, picture(9)]), [[PICTURE], [], [picture(9)]]),
    "large_binary": (pa.array([PICTURE, None], pa.large_binary()), [[PICTURE], []]),
    "struct": (
        pa.array([{"bytes": PICTURE, "path": "a.png"}, {"bytes": None, "path": "b.png"}, None, {}], STRUCT),
        [[PICTURE], ["b.png"], [], []],
    ),
    "paths of a struct": (pa.array([{"path": "b.png"}, {"path": None}]), [["b.png"], []]),
    "list of bytes": (pa.array([[PICTURE, picture(9)], [], None]), [[PICTURE, picture(9)], [], []]),
    "list of structs": (
        pa.array([[{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "b.png"}], []], pa.list_(STRUCT)),
        [[PICTURE, "b.png"], []],
    ),
    "list of paths": (pa.array([["a.png", "b.png"], []]), [["a.png", "b.png"], []]),
    "large_list": (pa.array([["a.png"], None], pa.large_list(pa.string())), [["a.png"], []]),
    "dictionary": (pa.array(["a.png", "a.png"]).dictionary_encode(), [["a.png"], ["a.png"]]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_all_forms(manifest, tmp_path, name):
    column, expected = IMAGES[name]
    made = manifest({"picture": column}, image={"column": "picture"})
    expected = [[f"{tmp_path}/{i}" if isinstance(i, str) else i for i in images] for images in expected]
    table = load_table(made, allow_leaks=True)
    assert list(table.images()) == expected
    assert [list(table.sample(i).images) for i in range(len(table))] == expected
    assert table.has_image().tolist() == [bool(images) for images in expected]
    assert [images for block in FileBlocks(made).blocks() for images in block["images"]] == expected
    assert [images for block in open_blocks(made).blocks() for images in block["images"]] == expected


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([{"array": [1.0], "path": "a.wav"}]), "fields are not bytes and path"),
        (pa.array([[[1, 2], [3, 4]]]), "a list of 2, where an image is expected"),
        (pa.array([[0.5, 0.25]]), "a number, where an image is expected"),
        (pa.array([{"bytes": "iVBORw0KGgo=", "path": None}]), "JSON holds no bytes"),
        (pa.array(["['a.png' 'b.png']"]), "no commas between them"),
        (pa.array([base64.b64encode(PICTURE * 5).decode()]), "written in a text .base64.: keep the images as files"),
        (pa.array(["data:image/png;base64," + base64.b64encode(PICTURE).decode()]), "base64"),
        (pa.array([[base64.encodebytes(PICTURE * 5).decode()]]), "base64"),
    ],
)
def test_what_is_no_image_is_refused(manifest, column, words):
    message = refusal(load_table, manifest({"picture": column}, image={"column": "picture"}))
    assert "image.column: picture, row 1: " in message
    assert re.search(words, message)
    assert len(message) < 400


def test_encoded_images_are_trained_on_audited_and_sharded(manifest, tmp_path):
    (tmp_path / "b.png").write_bytes(picture(99))
    packed = [{"bytes": picture(i), "path": None} for i in range(6)]
    packed += [
        {"bytes": None, "path": "b.png"},
        {"bytes": picture(0), "path": "x"},
        {"bytes": b"no image", "path": None},
    ]
    made = manifest({"picture": pa.array(packed, STRUCT), "y": [["a"], []] * 4 + [["a"]]}, image={"column": "picture"})
    table = load_table(made)
    pairs = PairDataset(table, token_ids=None, image_options=ImageOptions(size=(8, 8)))
    batch = pairs[[0, 6, 7]]
    assert batch["pixels"][:, 0, 0, 0].tolist() == [0, 99, 0]
    assert "row 'r8': image 1: not an image" in refusal(pairs.__getitem__, [8])

    found = {finding.check: finding for finding in audit(table).findings}
    assert "r8" in str(found["images.unreadable"])
    assert "no image" not in str(found["images.unreadable"])
    assert "r7" in str(found["images.copies"])

    shards = write_shards(table, str(tmp_path / "shards"))
    again = write_shards(open_blocks(made), str(tmp_path / "blocks"))
    assert [shard.sha256 for shard in shards.shards] == [shard.sha256 for shard in again.shards]
    opened = open_shards(tmp_path / "shards")
    assert opened.errors == 1
    assert "image 1: not an image" in (tmp_path / "shards/errors.jsonl").read_text()
    by_id = {row["id"]: row for row in opened.read(opened.shards[0], 0, 9).to_pylist()}
    assert by_id["r6"]["images"] == [picture(99)]
    assert by_id["r7"]["images"] == [picture(0)]


def test_a_shard_whose_images_are_texts_is_refused(manifest, tmp_path):
    """They would be opened as paths."""
    made = manifest({"picture": pa.array([PICTURE] * 2), "y": [["a"], []]}, image={"column": "picture"})
    shards = write_shards(load_table(made, allow_leaks=True), str(tmp_path / "shards"))
    path = tmp_path / "shards" / shards.shards[0].file
    table = pq.read_table(path)
    place = table.column_names.index("images")
    texts = pa.array([["/etc/passwd"]] * len(table))
    pq.write_table(table.set_column(place, "images", texts), path)
    index = json.loads((tmp_path / "shards/shards.json").read_text())
    index["shards"][0] |= {"bytes": path.stat().st_size, "footer_bytes": 0, "footer_sha256": ""}
    (tmp_path / "shards/shards.json").write_text(json.dumps(index))
    opened = open_shards(tmp_path / "shards")
    assert "its images are not of type" in refusal(opened.read, opened.shards[0], 0, 2)


def test_copies_across_splits_are_found_by_bytes(manifest):
    packed = pa.array([{"bytes": picture(1), "path": "a"}, {"bytes": picture(1), "path": "b"}], STRUCT)
    keys = {"text": None, "image": {"column": "picture"}, "splits": {"column": "split"}}
    made = manifest({"picture": packed, "split": ["train", "test"], "y": [["a"], ["a"]]}, **keys)
    for read in (load_table, FileBlocks):
        assert "1 exact duplicate(s) across splits" in refusal(read, made)


# Recipes.


def frame(**columns):
    return pd.DataFrame(columns, dtype="object")


def test_a_recipe_makes_texts_and_images():
    recipe = Recipe(
        TextSpec(columns=["a", "b"], template="{a}: {b}", missing=["n/a"]),
        ImageSpec(columns=["x", "y"], root="/films", separator=None, urls=["https"]),
    )
    assert recipe.columns() == ["a", "b", "x", "y"]
    assert recipe.permitted() == ("https",)
    rows = frame(a=["A", "n/a"], b=[" B ", ""], x=["p.png", ["q.png", b"\0"]], y=["", "https://h/r.png"])
    assert recipe.texts(rows, "m") == ["A: B", None]
    assert recipe.images(rows, "m") == [["/films/p.png"], ["/films/q.png", b"\0", "https://h/r.png"]]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())), "model") == recipe
    assert Recipe.from_dict({}, "model") == Recipe(None, None)
    assert "row 8" in refusal(recipe.texts, frame(a=["A", ["B"]], b=["", ""]), "m", 6)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"texts": {}},
        {"text": {"columns": []}},
        {"text": {"columns": ["a"], "template": "{b}"}},
        {"text": {"columns": ["a"], "section": "nonsense"}},
        {"text": {"columns": "a"}},
        {"text": {"columns": ["a"], "more": 1}},
        {"image": {"column": "a", "columns": ["b"]}},
        {"image": {}},
        {"image": {"column": "a", "urls": ["reference"]}},
        {"image": {"column": {"a": 1}}},
    ],
)
def test_a_recipe_of_a_model_folder_is_checked(values):
    assert refusal(Recipe.from_dict, values, "config.json").startswith("config.json")


@pytest.mark.parametrize(
    "cell", ["['a'" + " " * 600_000 + "x]", "['a'" + " ," * 300_000 + "x]", "[" + "1 , " * 180_000 + "x]"]
)
def test_a_long_cell_takes_no_longer_than_its_length(cell):
    """With the square of it, an hour: pytest's limit ends it."""
    with pytest.raises(MmfuseError, match="looks like a list"):
        cells.labels(cell)
    assert cells.captions(cell) is None or cells.images(cell)


def test_a_long_path_with_spaces_takes_no_longer_than_its_length():
    """As above."""
    cell = f"Qk{'a' * 300}{' ' * 600_000}!"
    assert cells.images(cell) == [cell]
