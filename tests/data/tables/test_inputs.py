"""What a model folder keeps of a table's recipe: nothing of a machine, and nothing that opens anything."""

import json

import pytest

from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.manifest import ImageSpec, Manifest, TextSpec
from mmfuse.types import MmfuseError

BOTH = ("text", "image")


def manifest(**values) -> Manifest:
    text = TextSpec(columns=["a", "b"], template="{b} of {a}", missing=["NA"], section=["indication"])
    image = ImageSpec(columns=["x", "y"], root="/data/set/films", urls=["https", "http://10.0.0.1"])
    csv = CsvSpec(separator=";", encoding="cp1252")
    values = {"rows": "/data/set/rows.csv", "text": text, "image": image, **values}
    return Manifest(id="study", name="m", csv=csv, **values)


def test_what_is_kept_comes_back_without_urls():
    kept = json.loads(json.dumps(TableInputs.of(manifest(), BOTH).to_dict()))
    found = TableInputs.from_dict(kept, BOTH)
    assert found.id == "study"
    assert found.csv == CsvSpec(";", "cp1252")
    assert found.recipe.text == manifest().text
    assert found.recipe.image == ImageSpec(columns=["x", "y"], root="films", urls=[])
    assert "10.0.0.1" not in json.dumps(kept)
    assert "/data" not in json.dumps(kept)


def test_only_what_the_model_reads_is_kept():
    assert TableInputs.of(manifest(), ("text",)).recipe.image is None
    assert TableInputs.of(manifest(), ("image",)).recipe.text is None


@pytest.mark.parametrize(
    ("rows", "root", "kept"),
    [
        ("d/rows.csv", "d", "."),
        ("d/rows.csv", "d/.", "."),
        ("rows.csv", "films/x", "films/x"),
        ("d/rows.csv", "films", "."),  # beside the table's folder, or anywhere else
        ("d/parts/*.csv", "d/films", "."),
        ("d/rows.csv", "/mnt/films", "."),
        ("d/rows.csv", "s3://b/films", "."),
        ("s3://b/d/rows.csv", "s3://b/d/films/", "films"),
        ("s3://b/d/rows.csv", "s3://b/d", "."),
        ("s3://b/d/rows.csv", "s3://b/d2", "."),
        ("s3://b/d/rows.csv", "/films", "."),
        ("d/shards.json", "d/films", "."),
    ],
)
def test_of_the_root_stays_what_is_below_the_table(rows, root, kept):
    image = TableInputs.of(manifest(rows=rows, image=ImageSpec(column="x", root=root)), BOTH).recipe.image
    assert image is not None
    assert image.root == kept


def edited(path, value):
    values = TableInputs.of(manifest(), BOTH).to_dict()
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    return values


@pytest.mark.parametrize(
    "root",
    [
        "/etc",
        "..",
        "a/../../b",
        "s3://b",
        "file:///etc",
        "a\\..\\b",
        "\\\\host\\x",
        "a\0",
        "a::b",
        "%2e%2e/b",
        "%2Fetc",
        "a?b",
    ],
)
def test_a_root_that_leads_elsewhere_is_refused(root):
    with pytest.raises(MmfuseError, match=r"^inputs.image.root: .*a folder below the table's own is expected$"):
        TableInputs.from_dict(edited("image.root", root), BOTH)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "inputs: an object"),
        ([], "inputs: an object"),
        ({}, "inputs: an object"),
        (edited("id", 7), "inputs: an object"),
        (edited("rows", "/etc/passwd"), "inputs: an object with text and image"),
        (edited("image.urls", ["http://127.0.0.1"]), "inputs.image.urls: a model folder permits none"),
        (edited("image.urls", ["file"]), "inputs.image.urls"),
        (edited("image.column", "z"), "inputs: image: give either column or columns"),
        (edited("image.size", 3), "inputs: .*no such key"),
        (edited("image", None), "inputs.image: it is there or absent"),
        (edited("text", None), "inputs.text: it is there or absent"),
        (edited("text.columns", []), "inputs: text.columns: name the columns"),
        (edited("text.columns", "a"), "inputs"),
        (edited("text.columns", {"a": "b"}), "inputs"),
        (edited("text.template", "{a.__class__}"), "is none of its columns"),
        (edited("text.template", "{c}"), "is none of its columns"),
        (edited("text.template", ["x"]), "inputs"),
        (edited("text.section", "all"), "not a section"),
        (edited("text.section", {"a": 1}), "not a section"),
        (edited("text.section", [[]]), "not a section"),
        (edited("csv.separator", "\n"), "inputs.csv"),
        (edited("csv.encoding", "rot13"), "inputs.csv"),
        (edited("csv.converters", "x"), "inputs.csv"),
    ],
)
def test_what_is_never_written_is_refused(values, reason):
    with pytest.raises(MmfuseError, match=reason) as refused:
        TableInputs.from_dict(values, BOTH)
    assert str(refused.value).startswith("inputs")


@pytest.mark.parametrize("leak", ["${oc.env:SECRET}", "\\${oc.env:SECRET}", "$${oc.env:SECRET}"])
def test_nothing_of_the_environment_is_read(monkeypatch, leak):
    monkeypatch.setenv("SECRET", "the secret")
    for path in ("id", "text.template", "image.root"):
        with pytest.raises(MmfuseError, match=r"^inputs: \$\{...\} stands for nothing here$"):
            TableInputs.from_dict(edited(path, leak), BOTH)
