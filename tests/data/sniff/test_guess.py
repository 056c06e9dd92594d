"""What is guessed of data as people have it: the table of layouts, and what is said and refused."""

import gzip
from typing import Any

import pandas as pd
import pytest
from public_sets import WRITERS
from raw_layouts import KINDS, LAYOUTS, png, put, sentence, table

from mmfuse.data.load import load_table
from mmfuse.data.public.sources import SOURCES
from mmfuse.data.sniff import Given, guess
from mmfuse.data.tables.manifest import load_manifest, parse_manifest
from mmfuse.types import MmfuseError

PUBLIC = {
    # as downloaded: file or folder, target, then id, image, text, group, kind
    "chexpert": ("CheXpert-v1.0-small/train.csv", None, "Path", "Path", None, "patient", "multilabel"),
    "roco_v2": ("train_captions.csv", "Caption", "ID", "{ID}.jpg", None, None, "captioning"),
    "flickr8k": (
        "Flickr8k_text/Flickr8k.token.txt",
        "column_2",
        "column_1",
        "image_file",
        None,
        "image_file",
        "captioning",
    ),
    "flickr30k": ("flickr30k_images/results.csv", "comment", "row", "image_name", None, "image_name", "captioning"),
    "coco_captions": (
        "annotations/captions_train2017.json",
        "caption",
        "id",
        "file_name",
        None,
        "image_id",
        "captioning",
    ),
    "mm_imdb": ("mmimdb/dataset", "genres", "id", "image", ["plot"], None, "multilabel"),
    "hateful_memes": ("train.jsonl", "label", "id", "img", ["text"], None, "classification"),
    "food101": ("texts/train_titles.csv", "column_3", "column_1", "image_file", ["column_2"], None, "classification"),
    "crisismmd": (
        "crisismmd_datasplit_all/task_informative_text_img_train.tsv",
        *("label", "image_id", "image", ["tweet_text"], "tweet_id", "classification"),
    ),
    "n24news": (
        "news/nytimes_train.json",
        "section",
        "image_id",
        "{image_id}.jpg",
        ["headline"],
        None,
        "classification",
    ),
}
REAL = {
    "emoji_google/data.csv": ("category", "id", "image", ["text"], None, "classification"),
    "flipkart_1050/data.csv": ("category", "id", "image", ["text"], None, "classification"),
    "covid_cxr/data.csv": ("finding", "id", "image", ["text"], "patientid", "multilabel"),
    "flickr8k_1000/data.csv": ("text", "id", "image", None, "image", "captioning"),
}


def roles(found):
    manifest = parse_manifest(found.manifest, "guessed")
    task, spec = next(iter(found.manifest["tasks"].items()))
    text = manifest.text.columns if manifest.text else None
    image = (manifest.image.column or manifest.image.template) if manifest.image else None
    return manifest.id, image, text, manifest.group, task, spec["type"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_roles_of_the_columns_are_guessed_and_what_is_written_is_read(name, tmp_path):
    write, target, expected = LAYOUTS[name]
    found = guess(write(tmp_path / name), Given(target=target))
    assert roles(found) == expected
    manifest = load_manifest(found.write(tmp_path / "out")[0])
    rows = load_table(manifest)
    assert len(rows) >= 30
    images = [image for row in rows.images() for image in row]
    assert all(isinstance(image, bytes) or pd.io.common.file_exists(image) for image in images)


@pytest.mark.parametrize("name", [name for name, (_, target, _) in LAYOUTS.items() if target])
def test_the_likeliest_target_is_taken_and_marked_as_unsure(name, tmp_path):
    write, _, expected = LAYOUTS[name]
    found = guess(write(tmp_path / name))
    assert roles(found)[4:] == expected[4:]
    assert any(line.startswith("target: none was named") for line in found.unsure)


@pytest.mark.parametrize("name", PUBLIC)
def test_tables_of_public_sets_as_downloaded(name, tmp_path):
    place, target, *expected = PUBLIC[name]
    WRITERS[name](tmp_path)
    found = roles(guess(tmp_path / place, Given(target=target)))
    assert [*found[:4], found[5]] == expected


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_public_set_as_downloaded_is_known_and_its_adapter_says_what_is_what(name, tmp_path):
    WRITERS[name](tmp_path)
    found = guess(tmp_path)
    assert found.prepare == (name, tmp_path.resolve())
    keys = SOURCES.get(name)().manifest(tmp_path)
    assert found.manifest["tasks"] == keys["tasks"]
    assert found.manifest.get("text") == keys.get("text")
    assert found.manifest.get("group") == keys.get("group")


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, test_data):
    target, *expected = REAL[name]
    found = roles(guess(test_data / "data" / name, Given(target=target)))
    assert [*found[:4], found[5]] == expected


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("template_captions", "caption"),
        ("titles_of_codes", "title"),
        ("key_is_value", "meta"),
        ("prices_in_texts", "advert"),
    ],
)
def test_what_tells_the_label_is_left_out_and_said_and_read_only_if_named(name, column, tmp_path):
    write, target, _ = LAYOUTS[name]
    path = write(tmp_path / name)
    said = guess(path, Given(target=target)).said
    assert any(line.startswith(f"text: {column} is left out: it tells the target") for line in said)
    named = guess(path, Given(target=target, text=column))
    assert named.manifest["text"]["columns"] == [column]
    assert any(f"{column} tells the target" in line for line in named.unsure)


def test_where_all_texts_tell_the_label_none_is_read(tmp_path):
    rows = []
    for i in range(30):
        put(tmp_path / f"{i}.png", png(i))
        rows.append(
            {"id": i, "image": f"{i}.png", "text": f"this picture shows a {KINDS[i % 3]}", "kind": KINDS[i % 3]}
        )
    found = guess(table(tmp_path / "a.csv", rows), Given(target="kind"))
    assert "text" not in found.manifest
    assert any("--text text reads it all the same" in line for line in found.unsure)


def column_of(values, tmp_path, **more):
    import random

    draw = random.Random(0)
    rows = [{"id": f"a{i}", "text": sentence(draw), "y": value} for i, value in enumerate(values)]
    found = guess(table(tmp_path / "a.csv", rows), Given(target="y"))
    return next(iter(found.manifest["tasks"].values())), found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["yes", "no"] * 20, {"type": "classification"}),
        (["1", "2", "3", "4"] * 10, {"type": "classification"}),
        ([str(i) for i in range(40)], {"type": "regression"}),
        ([f"{i / 7:.3f}" for i in range(40)], {"type": "regression"}),
        ([f"{i:02d}" for i in range(8)] * 5, {"type": "classification"}),
        (["a;b", "a", "b;c", "c"] * 10, {"type": "multilabel", "separator": ";"}),
        (["a, b", "a", "b, c", "c"] * 10, {"type": "multilabel", "separator": ", "}),
        (['["a", "b"]', "[]", '["b"]', '["a"]'] * 10, {"type": "multilabel", "empty": "negative"}),
        (["Hair, Skin and Nails", "Tools, Paint", "Toys"] * 10, {"type": "classification"}),
        (["1.0", "0.0", "-1.0", ""] * 10, {"values": {"1.0": "yes", "0.0": "no"}, "other": "missing"}),
        (["good", "bad", "None", "nan"] * 10, {"type": "classification", "missing": ["None", "nan"]}),
        ([f"A dog runs over the field number {i}, fast." for i in range(40)], {"type": "captioning"}),
        (["often"] * 98 + ["also"] * 98 + ["rare"] * 4, {"type": "classification", "min_count": 10}),
    ],
)
def test_the_kind_of_a_target(values, expected, tmp_path):
    spec, _ = column_of(values, tmp_path)
    assert expected.items() <= spec.items()


@pytest.mark.parametrize(("values", "why"), [(["one"] * 9, "all its cells are equal"), ([""] * 9, "it is empty")])
def test_what_cannot_be_a_target_is_refused(values, why, tmp_path):
    with pytest.raises(MmfuseError, match=f"a.csv: target: 'y' cannot be a target: {why}"):
        column_of(values, tmp_path)


def test_columns_of_flags_are_one_task_by_what_their_names_begin_with(tmp_path):
    rows = [{"id": f"a{i}", "text": f"word {i} and more of it", "f=x": i % 2, "f=y": (i + 1) % 2} for i in range(40)]
    found = guess(table(tmp_path / "a.csv", rows), Given(target="f"))
    assert found.manifest["tasks"]["f"]["columns"] == ["f=x", "f=y"]


def test_a_split_whose_groups_are_in_two_parts_is_not_followed(tmp_path):
    rows = [
        {"id": f"a{i}", "patient": f"p{i // 2}", "text": f"word {i} and more of it", "y": "ab"[i % 2 ^ i // 2 % 2]}
        | {"split": ("train", "test", "val")[i % 3]}
        for i in range(40)
    ]
    found = guess(table(tmp_path / "a.csv", rows), Given(target="y"))
    assert found.manifest["splits"]["ratios"]
    assert any("is not followed" in line for line in found.unsure)


def test_rows_that_are_written_anew_are_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfuse.data.sniff.look.MOST_ROWS", 1000)
    rows = [f"{i}.png,the patient came {i % 89} times with complaint {i},{'ab'[i * 7 % 5 % 2]}" for i in range(10_000)]
    (tmp_path / "a.csv").write_text("\n".join(["film,note,label", *rows]))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    kept = guess(tmp_path / "a.csv", Given(target="label"))
    assert (kept.made, kept.unsure[0]) == (None, "rows: only the first 8,192 were looked at")
    packed = guess(tmp_path / "b.csv.gz", Given(target="label"))
    assert packed.made is not None
    assert len(packed.made) == 10_000
    assert not any("were looked at" in line for line in packed.unsure)


def test_a_folder_of_which_rows_are_made_is_looked_at_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfuse.data.sniff.images._MOST_FILES", 3)
    for label in ("cat", "dog", "eel"):
        for i in range(5):
            put(tmp_path / "pets" / label / f"{label}{i}.png", png(hash((label, i)) % 1000))
    found = guess(tmp_path / "pets")
    assert found.made is not None
    assert len(found.made) == 15


def test_packed_tables_and_a_name_that_is_none(tmp_path):
    write, target, expected = LAYOUTS["texts_alone"]
    plain = write(tmp_path)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert roles(guess(tmp_path / "a.csv.gz", Given(target=target))) == expected
    with pytest.raises(MmfuseError, match=r"tweets.csv: target: no column 'sentimnt'.*did you mean 'sentiment'"):
        guess(plain, Given(target="sentimnt"))
    with pytest.raises(MmfuseError, match="no such file or folder"):
        guess(tmp_path / "none.csv")


def test_a_spreadsheet_is_read_by_its_first_sheet(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    write, target, expected = LAYOUTS["texts_alone"]
    book = openpyxl.Workbook()
    for row in [list(pd.read_csv(write(tmp_path))), *pd.read_csv(tmp_path / "tweets.csv").values.tolist()]:
        book.active.append(row)
    book.create_sheet("notes").append(["x"])
    book.save(tmp_path / "a.xlsx")
    found = guess(tmp_path / "a.xlsx", Given(target=target))
    assert roles(found) == expected
    assert "rows: the other sheets are not read: notes" in found.unsure
    assert len(load_table(load_manifest(found.write(tmp_path / "out")[0]))) == 60


def test_nothing_to_predict_is_refused(tmp_path):
    rows = [{"id": f"a{i}", "when": f"2024-01-{i + 1:02d}"} for i in range(20)]
    with pytest.raises(MmfuseError, match="no column looks like a target; name one with --target"):
        guess(table(tmp_path / "a.csv", rows))
    put(tmp_path / "pictures/1.png", png())
    put(tmp_path / "pictures/2.png", png())
    with pytest.raises(MmfuseError, match="nothing tells a label: put a labels"):
        guess(tmp_path / "pictures")


def test_the_yaml_has_a_comment_on_each_guess_and_paths_from_where_it_lies(tmp_path):
    write, target, _ = LAYOUTS["key_is_value"]
    found = guess(write(tmp_path / "data"), Given(target=target))
    text = found.yaml(tmp_path)
    assert "\nrows: data/scans.csv\n" in text
    assert "# UNSURE: " not in text
    assert "# meta is left out: it tells the target" in text


def test_a_dataset_of_hugging_face_keeps_its_pictures(tmp_path):
    import datasets

    write, target, expected = LAYOUTS["bytes_in_parquet"]
    rows = datasets.Dataset.from_parquet(str(write(tmp_path / "raw"))).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows.select(range(50)), "test": rows.select(range(50, 60))}).save_to_disk(
        tmp_path / "saved"
    )
    for place in (tmp_path / "saved", f"hf:{tmp_path / 'saved'}@train"):
        found = guess(place, Given(target=target))
        assert roles(found) == expected
    table = load_table(load_manifest(found.write(tmp_path / "out")[0]))
    assert table.images()[7][0] == png(7)
    with pytest.raises(MmfuseError, match=r"no split 'valid'; legal: train, test"):
        guess(f"hf:{tmp_path / 'saved'}@valid")


def test_rows_that_are_written_anew_keep_encoded_images(tmp_path):
    write, target, _ = LAYOUTS["bytes_in_parquet"]
    frame = pd.read_parquet(write(tmp_path / "raw")).rename(columns={"image": "thumbnail"})
    frame["path"] = [f"patient{i // 3}/x{i}.png" for i in range(len(frame))]
    for i, path in enumerate(frame["path"]):
        put(tmp_path / "own" / path, png(i))
    frame.to_parquet(tmp_path / "own" / "a.parquet")
    found = guess(tmp_path / "own" / "a.parquet", Given(target=target, image="path"))
    assert found.manifest["group"] == "patient"
    made: Any = found.made
    assert made["thumbnail"][5]["bytes"] == png(5)
