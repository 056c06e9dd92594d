"""Public sets as Hugging Face copies in parquet files: rows, classes, splits, and images that become files."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from public_sets import text

from mmfuse.data.load import load_table
from mmfuse.data.public import prepare as engine
from mmfuse.data.public.prepare import prepare
from mmfuse.data.public.sources.chexpert import FINDINGS
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(number, kind="JPEG"):
    """A small image; no two numbers give equal ones."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def image(number, path=None, kind="JPEG"):
    return {"bytes": encoded(number, kind), "path": path}


def write(path, rows, classes=None, images=("image",), row_group=2):
    """A parquet file as `datasets` writes it: images as structs, class names in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    for name in images:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.array([row[name] for row in rows], IMAGE))
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
    features |= {name: {"_type": "Image"} for name in images}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group)


class Made:
    def __init__(self, name, root):
        self.out = root.parent / "out"
        self.done = prepare(name, root, self.out)
        self.manifest = yaml.safe_load((self.out / "manifest.yaml").read_text())
        self.rows = {row["id"]: row for row in pd.read_parquet(self.out / "rows.parquet").to_dict("records")}
        self.skipped = [json.loads(line) for line in (self.out / "skipped.jsonl").read_text().splitlines()]

    def bytes_of(self, name):
        return (self.out / "images" / self.rows[name]["images"]).read_bytes()

    def table(self):
        manifest = load_manifest(self.done.manifest)
        for task in manifest.tasks.values():
            task.min_count = 1
        return load_table(manifest)


def test_flickr30k_with_a_split_column(tmp_path):
    """The files' name says test, the column says which."""
    rows = [
        {
            "image": image(n, f"{n}.jpg"),
            "caption": [f"One {n} .", f"Two {n} ."],
            "split": split,
            "filename": f"{name}.jpg",
        }
        for n, (name, split) in enumerate([("1000092795", "train"), ("10002456", "val"), ("1000268201", "test")])
    ]
    write(tmp_path / "d/data/test-00000-of-00001.parquet", rows)
    made = Made("flickr30k", tmp_path / "d")
    assert made.rows["10002456"] == {
        "id": "10002456",
        "split": "val",
        "captions": '["One 1 .", "Two 1 ."]',
        "images": "val/10002456.jpg",
    }
    assert [made.bytes_of(row["filename"][:-4]) for row in rows] == [encoded(n) for n in range(3)]
    assert made.table().splits == ["train", "validation", "test"]
    assert made.skipped == []


def test_flickr8k_with_a_caption_a_column_and_no_names(tmp_path):
    for split, numbers in {"train": (0, 1, 2), "validation": (3,), "test": (4,)}.items():
        rows = [{"image": image(n, kind="PNG")} | {f"caption_{i}": f"{n} {i} ." for i in range(5)} for n in numbers]
        write(tmp_path / f"d/data/{split}-00000-of-00001-abc.parquet", rows)
    made = Made("flickr8k", tmp_path / "d")
    name = "data/train-00000-of-00001-abc/000003"
    assert made.rows[name]["images"] == f"train/{name}.png"
    assert made.bytes_of(name) == encoded(2, "PNG")
    assert json.loads(made.rows[name]["captions"]) == [f"2 {i} ." for i in range(5)]
    assert made.table().splits == ["train"] * 3 + ["validation", "test"]
    assert "notes" not in made.manifest


def test_coco_with_a_row_a_caption(tmp_path):
    files = ["COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009.jpg", "COCO_val2014_000000000042.jpg"]
    rows = [
        {"image": image(n), "filename": name, "cocoid": n, "caption": f"Number {n} ."} for n, name in enumerate(files)
    ]
    write(tmp_path / "d/train-00000-of-00001.parquet", rows)
    made = Made("coco_captions", tmp_path / "d")
    assert [json.loads(row["captions"]) for row in made.rows.values()] == [["Number 0 .", "Number 1 ."], ["Number 2 ."]]
    assert "ratios" in made.manifest["splits"]
    assert made.manifest["notes"] == [
        "this Hugging Face copy tells no split, so it is by hash: scores compare with no published ones"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sentences_raw", ["One .", "Two ."]),
        ("sentences", [{"raw": "One .", "tokens": ["one"]}, {"raw": "Two .", "tokens": ["two"]}]),
        ("answer", ["One .", "Two ."]),
        ("captions", ["One .", None, "", "Two ."]),
    ],
)
def test_captions_by_any_of_their_names(key, value, tmp_path):
    write(tmp_path / "d/val/0000.parquet", [{"image": image(1, "a/1.jpg"), key: value}])
    made = Made("coco_captions", tmp_path / "d")
    assert json.loads(made.rows["1"]["captions"]) == ["One .", "Two ."]


def test_names_that_all_images_share_are_no_ids(tmp_path):
    rows = [{"image": image(n, "image.jpg"), "caption": f"Number {n} ."} for n in range(3)]
    write(tmp_path / "d/train-00000-of-00001.parquet", rows)
    made = Made("flickr30k", tmp_path / "d")
    assert [json.loads(row["captions"]) for row in made.rows.values()] == [[f"Number {n} ."] for n in range(3)]
    assert [made.bytes_of(name) for name in made.rows] == [encoded(n) for n in range(3)]


def test_chexpert_with_classes(tmp_path):
    meant = ["unlabeled", "uncertain", "absent", "present"]

    def view(n, path, **labels):
        found = {name: labels.get(name.replace(" ", "_"), 0) for name in FINDINGS}
        place = f"CheXpert-v1.0-small/{path}.jpg"
        return {"Path": place, "Sex": 1, "Age": 68, "Frontal/Lateral": 0, "AP/PA": 2, **found, "image": image(n)}

    classes = dict.fromkeys(FINDINGS, meant)
    classes |= {"Sex": ["Male", "Female"], "Frontal/Lateral": ["Frontal", "Lateral"], "AP/PA": ["AP", "PA", ""]}
    study = "train/patient00001/study1"
    views = [view(n, f"{study}/view{n}_frontal", Edema=3, Fracture=1, Pneumonia=2) for n in (1, 2)]
    write(tmp_path / "d/data/train-00000-of-00001.parquet", views, classes)
    write(tmp_path / "d/data/validation-00000-of-00001.parquet", [view(3, "valid/patient64541/study1/view1")], classes)
    made = Made("chexpert", tmp_path / "d")
    row = made.rows[study]
    known = {
        "patient": "patient00001",
        "split": "train",
        "sex": "Female",
        "views": "Frontal;Frontal",
        "projections": ";",
    }
    known |= {"Edema": "1.0", "Fracture": "-1.0", "Pneumonia": "0.0", "No Finding": ""}
    assert {key: row[key] for key in known} == known
    assert row["images"] == f"{study}/view1_frontal.jpg;{study}/view2_frontal.jpg"
    assert (made.out / "images" / f"{study}/view2_frontal.jpg").read_bytes() == encoded(2)
    assert made.table().splits == ["train", "validation"]


@pytest.mark.parametrize(("name", "prefix"), [("roco_v2", "ROCOv2_2023_train_"), ("roco_v1", "ROCO_")])
def test_roco_of_either_version(name, prefix, tmp_path):
    more = {"cui": ["C0040405", "C0817096"]} if name == "roco_v2" else {}
    for split, number in (("train", 1), ("validation", 2)):
        row = {"image": image(number), "image_id": f"{prefix}{number:06d}", "caption": " CT, axial. ", **more}
        write(tmp_path / f"d/data/{split}-00000-of-00001.parquet", [row])
    made = Made(name, tmp_path / "d")
    row = made.rows[f"{prefix}000001"]
    assert (row["caption"], row["concepts"]) == ("CT, axial.", "C0040405;C0817096" if more else "")
    assert row["images"] == f"train/{prefix}000001.jpg"
    assert ("concepts" in made.manifest["tasks"]) == bool(more)
    assert made.table().splits == ["train", "validation"]
    other = "roco_v1" if more else "roco_v2"
    with pytest.raises(
        MmfuseError, match=f"looks like {name}, by the names of its pictures: mmfuse data prepare {name}"
    ):
        prepare(other, tmp_path / "d", tmp_path / "other")


def test_hateful_memes_with_classes(tmp_path):
    classes = {"label": ["not-hateful", "hateful"]}
    for split, numbers in {"train": (1, 2), "validation": (3,), "test": (4,)}.items():
        rows = [{"image": image(n), "text": f"text {n}", "label": n % 2, "id": n} for n in numbers]
        write(tmp_path / f"d/data/{split}-00000-of-00001.parquet", rows, classes)
    made = Made("hateful_memes", tmp_path / "d")
    assert [(key, row["label"], row["split"]) for key, row in made.rows.items()] == [
        ("1", "1", "train"),
        ("2", "0", "train"),
        ("3", "1", "validation"),
        ("4", "0", "test"),
    ]
    assert made.table().labels["hateful"] == ["not hateful", "hateful"]


def test_open_i_and_mimic_cxr(tmp_path):
    text_of = {"MeSH": "Opacity/lung", "Problems": "", "image": "Chest", "indication": "Pain", "comparison": None}
    text_of |= {"findings": "Clear.", "impression": "Normal."}
    rows = [
        {"uid": 1, **text_of, "img_frontal": image(1, kind="PNG"), "img_lateral": image(2, kind="PNG")},
        {"uid": 2, **text_of, "img_frontal": None, "img_lateral": image(3, kind="PNG")},
        {"uid": 3, **text_of, "img_frontal": None, "img_lateral": None},
    ]
    write(tmp_path / "o/data/train-00000-of-00001.parquet", rows, images=("img_frontal", "img_lateral"))
    made = Made("open_i", tmp_path / "o")
    assert [row["images"] for row in made.rows.values()] == [
        "CXR1/img_frontal.png;CXR1/img_lateral.png",
        "CXR2/img_lateral.png",
    ]
    assert made.rows["CXR1"]["report"] == "INDICATION: Pain\nFINDINGS: Clear.\nIMPRESSION: Normal."
    assert made.skipped == [
        {"id": "CXR3", "path": "data/train-00000-of-00001.parquet", "reason": "no image", "line": 3}
    ]
    write(tmp_path / "m/train.parquet", [{"image": image(1), "findings": "Clear.", "impression": "Normal."}])
    done = prepare("mimic_cxr", tmp_path / "m", tmp_path / "mout")
    assert "names no patients" in done.notes[0]
    assert load_table(load_manifest(done.manifest)).targets["impression"][0] == ("Normal.",)


def test_rows_without_a_good_image_are_told_with_their_number(tmp_path):
    good, broken = image(1, "1.jpg"), {"bytes": encoded(2)[:100], "path": "2.jpg"}
    rows = [{"image": found, "caption": "A dog ."} for found in (good, broken, {"bytes": None, "path": "3.jpg"}, None)]
    write(tmp_path / "d/train-00000-of-00001.parquet", rows)
    made = Made("flickr30k", tmp_path / "d")
    assert list(made.rows) == ["1"]
    table = "train-00000-of-00001.parquet"
    assert [(item["path"], item["line"], item["reason"].split(":")[0]) for item in made.skipped] == [
        (table, 2, "image"),
        (table, 3, "no image"),
        (table, 4, "no image"),
    ]


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    text(tmp_path / "d/train.parquet", "PAR1 no parquet")
    with pytest.raises(MmfuseError, match=r"train\.parquet: Parquet"):
        prepare("flickr30k", tmp_path / "d", tmp_path / "out")


def test_killed_half_way_packed_images_go_on_to_the_same_bytes(tmp_path, monkeypatch):
    rows = [{"image": image(n, f"{n}.jpg"), "caption": f"Number {n} ."} for n in range(40)]
    write(tmp_path / "d/train-00000-of-00001.parquet", rows, row_group=7)
    monkeypatch.setattr(engine, "CHUNK", 16)
    prepare("flickr30k", tmp_path / "d", tmp_path / "undisturbed")

    def dies(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("flickr30k", tmp_path / "d", tmp_path / "killed", progress=dies)
    assert not prepare("flickr30k", tmp_path / "d", tmp_path / "killed").already
    names = sorted(p.relative_to(tmp_path / "killed") for p in (tmp_path / "killed").rglob("*") if p.is_file())
    assert len(names) == 40 + 5
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    assert prepare("flickr30k", tmp_path / "d", tmp_path / "killed").already
    rows[3]["caption"] = "Changed ."
    write(tmp_path / "d/train-00000-of-00001.parquet", rows, row_group=7)
    assert not prepare("flickr30k", tmp_path / "d", tmp_path / "killed").already
