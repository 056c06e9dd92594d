"""Public datasets in their own layout, a few rows each, written here: every row arrives, or is told with the reason."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from child_processes import run_child
from public_sets import WRITERS, chexpert, flickr30k, jsonl, mimic_cxr, picture, roco_v2, table, text

from mmfuse.data.load import load_table
from mmfuse.data.public import prepare as engine
from mmfuse.data.public.cards import card_text, manifest_text, source_lines
from mmfuse.data.public.prepare import prepare
from mmfuse.data.public.sources import READY, SOURCES, Card, Row
from mmfuse.data.public.sources.chexpert import FINDINGS
from mmfuse.data.rows.read import read_rows
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

ROOT = Path(__file__).parents[3]
NAMES = [name for name in SOURCES.names() if SOURCES.origin(name) == ""]


class Made:
    """A download and what became of it."""

    def __init__(self, root, name):
        self.source, self.out = root / "download", root / "out"
        WRITERS[name](self.source)
        self.done = prepare(name, self.source, self.out)
        frame = pd.read_parquet(self.out / "rows.parquet")
        self.rows = {row["id"]: row for row in frame.to_dict("records")}
        self.skipped = {
            item["id"]: (item["path"], item["reason"])
            for item in map(json.loads, (self.out / "skipped.jsonl").read_text().splitlines())
        }
        self.manifest = yaml.safe_load((self.out / "manifest.yaml").read_text())

    def table(self):
        manifest = load_manifest(self.out / "manifest.yaml")
        for task in manifest.tasks.values():
            task.min_count = 1
        return load_table(manifest)


@pytest.fixture
def make(tmp_path):
    return lambda name: Made(tmp_path, name)


# --- each of them, by hand -----------------------------------------------------------------------------------------


def test_open_i(make):
    made = make("open_i")
    assert made.done.rows == 3
    assert made.rows["CXR1"] == {
        "id": "CXR1",
        "comparison": "None.",
        "indication": "Cough & fever, 5 °C",
        "findings": "Heart is large.",
        "impression": "Cardiomegaly.",
        "report": "COMPARISON: None.\nINDICATION: Cough & fever, 5 °C\nFINDINGS: Heart is large.\n"
        "IMPRESSION: Cardiomegaly.",
        "mesh": "Cardiomegaly;Opacity",
        "mesh_major": "Cardiomegaly/mild;Cardiomegaly/borderline;Opacity/lung/base/left",
        "mesh_automatic": "Lung",
        "images": "NLMCXR_png/CXR1_1_IM-0001-3001.png;NLMCXR_png/CXR1_1_IM-0001-4001.png",
    }
    assert made.skipped == {
        "CXR3": ("NLMCXR_png/CXR3_IM-1384-2001.png", "image: no such file"),
        "CXR4": ("ecgen-radiology/4.xml", "the report names no image"),
        "5": ("ecgen-radiology/5.xml", "the report is not XML"),
    }
    table = made.table()
    assert [len(images) for images in table.rows["images"]] == [2, 1, 1]
    assert table.rows["text"][:] == ["Cough & fever, 5 °C", "Pain", None]
    assert list(table.targets["findings"]) == [("Heart is large.",), ("Fine.",), ()]
    assert table.labels["mesh"] == ["Cardiomegaly", "Opacity", "normal"]


def test_mimic_cxr(make):
    made = make("mimic_cxr")
    assert list(made.rows) == ["50414267", "53189527", "50000014", "50000028"]
    row = made.rows["50414267"]
    assert {key: row[key] for key in ("subject_id", "split", "views")} == {
        "subject_id": "10000032",
        "split": "train",
        "views": "PA;LATERAL",
    }
    assert row["report"] == "FINAL REPORT\n INDICATION:  Fièvre.\n\n FINDINGS: Study 50414267.\n\n IMPRESSION: Edema."
    assert row["images"] == ";".join(f"files/p10/p10000032/s50414267/{name}.jpg" for name in ("aa", "bb"))
    assert [row[name] for name in ("Edema", "Fracture", "Pneumonia", "Edema (NegBio)")] == ["1.0", "-1.0", "", "1.0"]
    assert {made.rows["50000028"][name] for name in FINDINGS} == {"not labelled"}
    assert made.skipped == {
        "50000035": ("mimic-cxr-reports/files/p11/p11000011/s50000035.txt", "report: no such file"),
        "50000042": ("mimic-cxr-2.0.0-split.csv.gz", "its images are of two patients or splits"),
    }
    assert made.manifest["group"] == "subject_id"
    assert made.manifest["text"] == {"columns": ["report"], "section": ["indication"]}
    findings = {"type": "captioning", "column": "report", "section": "findings", "label_origin": "human"}
    assert made.manifest["tasks"]["findings"] == findings
    assert made.manifest["splits"] == {"column": "split", "names": {"validate": "validation"}}


def test_mimic_cxr_reads_one_section_and_writes_another(make):
    table = make("mimic_cxr").table()
    assert table.rows["text"][:] == ["Fièvre."] * 4
    assert table.targets["findings"][0] == ("Study 50414267.",)


def test_mimic_cxr_labels_by_the_declared_policy(make):
    made = make("mimic_cxr")
    chexpert = made.manifest["tasks"]["chexpert"]
    assert {key: chexpert[key] for key in ("uncertain", "empty", "missing", "label_origin")} == {
        "uncertain": "mask",
        "empty": "negative",
        "missing": ["not labelled"],
        "label_origin": "mined_from_text",
    }
    del made.manifest["text"]
    made.manifest["tasks"] = {"chexpert": chexpert}
    text(made.out / "labels.yaml", yaml.safe_dump(made.manifest))
    table = load_table(load_manifest(made.out / "labels.yaml"))
    assert table.splits == ["train", "train", "validation", "test"]
    assert table.rows["group"][:2] == ["10000032"] * 2
    edema, fracture = (table.labels["chexpert"].index(name) for name in ("Edema", "Fracture"))
    assert list(table.targets["chexpert"][:3, edema]) == [1, 0, 1]
    assert np.isnan(table.targets["chexpert"][0, fracture])
    assert list(table.targets["chexpert"][1:3, fracture]) == [0, 1]  # the first is blank: negative
    assert np.isnan(table.targets["chexpert"][3]).all()


def test_chexpert(make):
    made = make("chexpert")
    assert list(made.rows) == ["train/patient00001/study1", "train/patient00002/study1", "valid/patient64541/study1"]
    row = made.rows["train/patient00002/study1"]
    known = {
        "patient": "patient00002",
        "split": "train",
        "sex": "Female",
        "age": "68",
        "Edema": "1.0",
        "Lung Lesion": "",
    }
    known |= {"views": "Frontal;Lateral", "projections": "AP;"}
    assert {key: row[key] for key in known} == known
    place = "CheXpert-v1.0-small/train/patient00002"
    assert row["images"] == f"{place}/study1/view1_frontal.jpg;{place}/study1/view2_lateral.jpg"
    path, reason = made.skipped["train/patient00002/study2"]
    assert path == f"{place}/study2/view1_frontal.jpg"
    assert reason.startswith("image: JPEG cannot be decoded")
    assert made.skipped["train/patient00003/study1"][1] == "its views have different labels"
    table = made.table()
    assert table.splits == ["train", "train", "validation"]
    names = ("No Finding", "Support Devices", "Fracture", "Pneumonia", "Edema")
    *known, edema = (table.labels["findings"].index(name) for name in names)
    targets = table.targets["findings"][0]
    assert list(targets[known]) == [1, 1, 0, 0]  # the last is blank: negative
    assert np.isnan(targets[edema])  # -1: masked


def test_chexpert_unpacked_without_its_folder(tmp_path):
    chexpert(tmp_path / "parent")
    done = prepare("chexpert", tmp_path / "parent/CheXpert-v1.0-small", tmp_path / "out")
    assert done.rows == 3
    images = list(read_rows(str(tmp_path / "out/rows.parquet"), "test")["images"])
    assert images[0] == "train/patient00001/study1/view1_frontal.jpg"


def test_roco_v2(make):
    made = make("roco_v2")
    assert made.rows["ROCOv2_2023_train_000001"] == {
        "id": "ROCOv2_2023_train_000001",
        "split": "train",
        "caption": 'CT, axial: "ground\nglass", μ of ROCOv2_2023_train_000001',
        "concepts": "C0040405;C0817096",
        "images": "train_images/train/ROCOv2_2023_train_000001.jpg",
    }
    missing = "train_images/train/ROCOv2_2023_train_000002.jpg"
    assert made.skipped == {"ROCOv2_2023_train_000002": (missing, "image: no such file")}
    table = made.table()
    assert table.splits == ["train", "train", "validation", "test"]
    assert table.labels["concepts"] == ["C0040405", "C0817096"]
    assert np.isnan(table.targets["concepts"][1]).all()  # its line is not among the concepts: no target


def test_flickr8k(make):
    made = make("flickr8k")
    assert list(made.rows) == ["1000268201_693b08cb0e", "1001773457_577c3a7d70", "55"]
    row = made.rows["1000268201_693b08cb0e"]
    first, *others = json.loads(row["captions"])
    assert (first, len(others), row["split"]) == ("A dog in 1000268201_693b08cb0e.jpg .", 4, "train")
    folder = "Flickr8k_Dataset/Flicker8k_Dataset"
    assert row["images"] == f"{folder}/1000268201_693b08cb0e.jpg"
    assert made.skipped == {
        "2258277193_586949ec62.jpg": (f"{folder}/2258277193_586949ec62.jpg.1", "in none of the split's files"),
        "44": (f"{folder}/44.jpg", "in none of the split's files"),
    }
    table = made.table()
    assert table.splits == ["train", "validation", "test"]
    assert table.targets["caption"][1][1] == "Ein Hund , naïve in 1001773457_577c3a7d70.jpg ."


def test_flickr8k_of_kaggle_has_no_split_and_none_is_invented(tmp_path):
    lines = [["a.jpg", 'A dog , "Rex" .'], ["a.jpg", "Second ."], ["b.jpg", "A cat ."]]
    table(tmp_path / "d/captions.txt", ["image", "caption"], *lines)
    picture(tmp_path / "d/Images/a.jpg")
    picture(tmp_path / "d/Images/b.jpg")
    done = prepare("flickr8k", tmp_path / "d", tmp_path / "out")
    manifest = load_manifest(done.manifest)
    assert (done.rows, manifest.splits.column) == (2, None)
    assert manifest.splits.ratios == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert list(load_table(manifest).targets["caption"]) == [('A dog , "Rex" .', "Second ."), ("A cat .",)]


def test_real_photographs_through_kaggles_layout(test_data, tmp_path):
    root = test_data / "data" / "flickr8k_1000"
    items = [json.loads(line) for line in (root / "captions.jsonl").read_text().splitlines()[:60]]
    (tmp_path / "d/Images").mkdir(parents=True)
    for item in items:
        shutil.copy(root / item["image"], tmp_path / "d/Images")
    lines = [[Path(item["image"]).name, caption] for item in items for caption in item["captions"]]
    table(tmp_path / "d/captions.txt", ["image", "caption"], *lines)
    done = prepare("flickr8k", tmp_path / "d", tmp_path / "out")
    assert (done.rows, done.skipped) == (60, {})
    prepared = load_table(load_manifest(done.manifest))
    expected = [tuple(dict.fromkeys(" ".join(c.split()) for c in item["captions"])) for item in items]
    assert list(prepared.targets["caption"]) == expected
    for item, images in zip(items, prepared.rows["images"], strict=True):
        assert Path(images[0]).read_bytes() == (root / item["image"]).read_bytes()


def test_flickr30k(make):
    made = make("flickr30k")
    assert json.loads(made.rows["1000092795"]["captions"]) == ['Two young guys , "outside" .', "Zwei Männer ."]
    assert json.loads(made.rows["2199200615"]["captions"]) == ["A dog .", "A dog runs across the grass ."]
    assert made.skipped["results.csv:6"] == ("flickr30k_images/results.csv", "not a line of image | number | caption")
    assert made.skipped["3"] == ("flickr30k_images/flickr30k_images/3.jpg", "image: no such file")
    assert len(made.table()) == 2


def karpathy(*items):
    """dataset_*.json: items are (folder, file, split, captions)."""
    return json.dumps(
        {
            "dataset": "x",
            "images": [
                {
                    "filename": file,
                    "split": split,
                    "imgid": i,
                    "sentences": [{"raw": c, "tokens": []} for c in captions],
                }
                | ({"filepath": folder, "cocoid": i} if folder else {})
                for i, (folder, file, split, captions) in enumerate(items)
            ],
        }
    )


def test_flickr30k_with_karpathys_split(tmp_path):
    content = karpathy(
        (None, "1.jpg", "train", ["One ."]), (None, "2.jpg", "val", ["Two ."]), (None, "3.jpg", "test", [])
    )
    text(tmp_path / "d/dataset_flickr30k.json", content)
    for number in (1, 2, 3):
        picture(tmp_path / f"d/flickr30k-images/{number}.jpg")
    done = prepare("flickr30k", tmp_path / "d", tmp_path / "out")
    assert done.skipped == {"no caption": 1}
    assert load_table(load_manifest(done.manifest)).splits == ["train", "validation"]


def test_coco_captions(make):
    made = make("coco_captions")
    assert made.rows["000000000009"] == {
        "id": "000000000009",
        "split": "train",
        "captions": '["A café number 9, 0.", "A café number 9, 1."]',
        "images": "train2017/000000000009.jpg",
    }
    assert made.skipped == {
        "000000000025": ("train2017/000000000025.jpg", "image: no such file"),
        "000000001009": ("train2017/000000001009.jpg", "no caption"),
        "000000001139": ("val2017/000000001139.jpg", "no caption"),
        "train 72": ("annotations/captions_train2017.json", "captions of an image that is not listed"),
        "val 71": ("annotations/captions_val2017.json", "captions of an image that is not listed"),
    }
    assert made.table().splits == ["train", "validation"]


def test_coco_with_karpathys_split(tmp_path):
    names = ["train2014/COCO_train2014_1.jpg", "val2014/COCO_val2014_2.jpg", "val2014/COCO_val2014_3.jpg"]
    parts = zip(names, ("train", "restval", "test"), strict=True)
    items = [(*name.split("/"), split, [f"Caption of {name}"]) for name, split in parts]
    text(tmp_path / "d/dataset_coco.json", karpathy(*items))
    for name in names:
        picture(tmp_path / "d" / name)
    done = prepare("coco_captions", tmp_path / "d", tmp_path / "out")
    assert load_table(load_manifest(done.manifest)).splits == ["train", "train", "test"]


def test_mm_imdb(make):
    made = make("mm_imdb")
    assert made.rows["0000005"] == {
        "id": "0000005",
        "split": "train",
        "title": "Blacksmith",
        "plot": "The longer plot, with “quotes”.",
        "genres": "Short",
        "images": "mmimdb/dataset/0000005.jpeg",
    }
    assert made.skipped == {
        "0000012": ("mmimdb/dataset/0000012.jpeg", "image: no such file"),
        "9999999": ("mmimdb/dataset/9999999.json", "no such file or directory"),
        "0000014": ("mmimdb/dataset/0000014.json", "in none of the lists of split.json"),
    }
    table = made.table()
    assert table.splits == ["train", "train", "validation", "test"]
    assert len(made.manifest["tasks"]["genres"]["values"]) == 23
    hot = [[n for n, on in zip(table.labels["genres"], row, strict=True) if on] for row in table.targets["genres"]]
    assert hot == [["Short"], ["Drama"], ["Sci-Fi", "Film-Noir"], ["Drama"]]  # News is no label
    assert table.rows["text"][2:] == [None, "One plot."]


def test_hateful_memes(make):
    made = make("hateful_memes")
    assert made.rows["42953"] == {
        "id": "42953",
        "split": "train",
        "part": "train",
        **dict.fromkeys(("dev_seen", "dev_unseen", "test_seen", "test_unseen"), "no"),
        "text": "its their character\nnot \u2028 their colour",
        "label": "0",
        "images": "img/42953.png",
    }
    assert made.skipped == {
        "1": ("img/00001.png", "image: no such file"),
        "dev_unseen.jsonl:1": ("dev_unseen.jsonl", "repeats an earlier line, whose row has this part too"),
    }
    assert [made.rows["8291"][key] for key in ("part", "dev_seen", "dev_unseen")] == [
        "dev_seen;dev_unseen",
        "yes",
        "yes",
    ]
    assert made.manifest["subgroups"] == ["dev_seen", "dev_unseen", "test_seen"]
    table = made.table()
    assert table.splits == ["train", "train", "validation", "validation", "test"]
    assert table.labels["hateful"] == ["not hateful", "hateful"]
    assert list(table.targets["hateful"]) == [0, 1, 1, 0, -100]


def test_roco_v1(make):
    made = make("roco_v1")
    assert list(made.rows) == ["ROCO_00002", "ROCO_00004", "ROCO_00001", "ROCO_00007"]
    assert made.rows["ROCO_00002"] == {
        "id": "ROCO_00002",
        "split": "train",
        "kind": "radiology",
        "caption": "Axial MRI of ROCO_00002, 5 µm.",
        "concepts": "C0040395;C0011334",
        "images": "data/train/radiology/images/PMC002_fig-ROCO_00002.jpg",
    }
    assert made.rows["ROCO_00007"]["kind"] == "non-radiology"
    assert made.skipped["captions.txt:3"] == ("data/test/radiology/captions.txt", "not a line of ID, TAB, caption")
    assert made.skipped["ROCO_000029"][1] == "image: no such file"
    assert "version 1" in made.manifest["about"]
    assert made.manifest["notes"] == [
        "no captions or no pictures are there of train/non-radiology, validation/non-radiology"
    ]
    assert made.table().splits == ["train", "validation", "test", "test"]


def test_food101(make):
    made = make("food101")
    assert made.rows["train/apple_pie_0"] == {
        "id": "train/apple_pie_0",
        "split": "train",
        "title": 'Grandma\'s "best" Apple Pie, easy\nRecipe',
        "dish": "apple_pie",
        "images": "images/train/apple_pie/apple_pie_0.jpg",
    }
    assert made.skipped == {
        "test/waffles_9": ("images/test/waffles/waffles_9.jpg", "image: no such file"),
        "train/apple_pie_1": ("images/train/apple_pie/apple_pie_1.jpg", "a picture without a title"),
    }
    table = made.table()
    assert table.splits == ["train", "train", "test"]
    assert (table.labels["dish"], table.rows["text"][1]) == (["apple_pie", "waffles"], None)


def test_crisismmd(make):
    made = make("crisismmd")
    assert made.rows["9051_0"] == {
        "id": "9051_0",
        "tweet_id": "9051",
        "split": "train",
        "event": "hurricane_irma",
        "text": 'RT @a: "Irma 🌀 is near, https://t.co/x',
        "informative_text": "informative",
        "informative_image": "informative",
        "humanitarian_text": "affected_individuals",
        "humanitarian_image": "vehicle_damage",
        "damage": "",
        "split_informative": "train",
        "split_humanitarian": "train",
        "split_damage": "",
        "images": "CrisisMMD_v2.0/data_image/hurricane_irma/10_9_2017/9051_0.jpg",
    }
    assert made.rows["9060_0"]["split_humanitarian"] == "test"  # elsewhere than in informative
    assert made.rows["9080_0"]["damage"] == "mild_damage"
    place = "CrisisMMD_v2.0/data_image/hurricane_irma/10_9_2017/9052_0.jpg"
    bad, twice = "task_damage_text_img_dev.tsv", "task_informative_text_img_dev.tsv"
    assert made.skipped == {
        "9052_0": (place, "image: no such file"),
        f"{bad}:2": (f"crisismmd_datasplit_all/{bad}", "another number of fields"),
        f"{twice}:3": (f"crisismmd_datasplit_all/{twice}", "a second line on one picture"),
    }
    manifest = load_manifest(made.out / "manifest.yaml")
    table = load_table(manifest, tasks=["informative_text"])
    assert table.splits == ["train", "train", "validation", "test", "test"]
    assert table.rows["group"][:2] == ["9051", "9051"]
    assert list(table.targets["informative_text"]) == [0, 1, 0, 1, -100]


def test_n24news(make):
    made = make("n24news")
    assert made.rows["img1"] == {
        "id": "img1",
        "article_id": "a1",
        "split": "train",
        "section": "Science",
        "headline": "Headline 1",
        "abstract": "Résumé.",
        "caption": "A picture.",
        "body": "Body.",
        "images": "imgs/img1.jpg",
    }
    assert made.skipped == {
        "img3": ("imgs/img3.jpg", "image: no such file"),
        "nytimes_dev.json:1": ("news/nytimes_dev.json", "no image_id"),
    }
    table = made.table()
    assert table.rows["text"][:] == ["Headline 1\nRésumé.", "Résumé.", "Headline 5\nRésumé."]
    assert (table.splits, table.rows["group"][0]) == (["train", "train", "test"], "a1")


# --- what holds for all --------------------------------------------------------------------------------------------


def test_every_source_has_a_download_here():
    assert set(WRITERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_are_rows_out_and_skipped(name, tmp_path):
    made = Made(tmp_path, name)
    rows = [item for item in SOURCES.get(name)().rows(made.source) if isinstance(item, Row)]
    assert made.done.rows == len(made.rows)
    assert sum(made.done.skipped.values()) == len((made.out / "skipped.jsonl").read_text().splitlines())
    assert len(rows) == made.done.rows + sum(made.done.skipped.values())
    assert 0 < made.done.rows < len(rows)
    for row in made.rows.values():
        for image in row["images"].split(";"):
            assert (made.out / "images" / image).read_bytes() == (made.source / image).read_bytes()
    assert {path.name for path in made.out.iterdir()} - {"prepare.lock"} == {
        *("rows.parquet", "skipped.jsonl", "manifest.yaml", "prepared.json", "images"),
    }
    again = prepare(name, made.source, made.out, progress=lambda *_: pytest.fail("nothing is to be read"))
    assert again == engine.Prepared(made.done.manifest, made.done.rows, made.done.skipped, True, made.done.notes)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_one_must_know(name):
    card: Card = SOURCES.get(name).card
    for key in ("about", "homepage", "licence", "citation", "obtain", "split"):
        assert len(getattr(card, key)) > 10, key
    assert card.homepage.startswith("https://")
    assert card.traps
    assert card.files
    manifest = yaml.safe_load(manifest_text(name))
    assert "&id" not in manifest_text(name)  # an anchor, where a list stands twice
    for task in manifest["tasks"].values():
        assert task["label_origin"] in ("human", "mined_from_text", "metadata")
    for key in ("licence", "citation", "homepage", "obtain"):
        assert manifest[key] == getattr(card, key)
    shown = " ".join(card_text(name).split())
    for words in (card.licence, card.citation, card.obtain, card.split, *card.traps):
        assert words in shown
    assert any(line.startswith(f"{name}: ") for line in source_lines())


def test_every_set_is_on_the_page_of_datasets_and_in_the_list():
    page = (ROOT / "docs" / "datasets.md").read_text()
    assert [name for name in NAMES if f"`mmfuse data prepare {name} " not in page] == []
    shipped = {path.stem for path in (ROOT / "data_manifests").glob("*.yaml")}
    assert shipped == set(READY)
    assert [name for name in READY if f"`{name}`" not in page] == []


# --- interrupted, repeated, refused --------------------------------------------------------------------------------


def memes(root, number):
    """A download of the hateful memes with this many rows of train; every tenth image is damaged."""
    items = [{"id": i, "img": f"img/{i:05d}.png", "label": i % 2, "text": f"text {i}"} for i in range(number)]
    jsonl(root / "train.jsonl", *items)
    jsonl(root / "dev_seen.jsonl", {"id": 99999, "img": "img/99999.png", "label": 1, "text": "dev"})
    picture(root / "img/99999.png")
    for i in range(number):
        picture(root / f"img/{i:05d}.png", i)
        if i % 10 == 3:
            (root / f"img/{i:05d}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return root


def contents(out):
    """Name -> bytes of all that a call leaves behind."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "prepare.lock"
    }


KILLED = """
import os, signal, sys
from mmfuse.data.public import prepare as engine
engine.CHUNK = 16
engine.prepare("hateful_memes", sys.argv[1], sys.argv[2],
    progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == int(sys.argv[3]) else None)
"""


def test_killed_half_way_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    source = memes(tmp_path / "d", 60)
    monkeypatch.setattr(engine, "CHUNK", 16)
    prepare("hateful_memes", source, tmp_path / "undisturbed")
    out = tmp_path / "killed"
    for row in (20, 50):
        command = [sys.executable, "-c", KILLED, str(source), str(out), str(row)]
        assert run_child(command).returncode == -signal.SIGKILL
        assert not (out / "rows.parquet").exists()
    assert sorted(path.name for path in (out / "checked").iterdir()) == [f"{n:09d}.json" for n in (0, 16, 32)]
    read = []
    whole = engine._unreadable
    monkeypatch.setattr(engine, "_unreadable", lambda row, folder: read.append(row.id) or whole(row, folder))
    done = prepare("hateful_memes", source, out)
    assert len(read) == 61 - 48
    assert (done.rows, sum(done.skipped.values())) == (55, 6)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", ["prepared.json", "000000016.json", "rows.parquet", "skipped.jsonl", "manifest.yaml"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_of_its_writes(name, when, tmp_path, monkeypatch):
    source, out = memes(tmp_path / "d", 20), tmp_path / "out"
    monkeypatch.setattr(engine, "CHUNK", 16)
    prepare("hateful_memes", source, tmp_path / "undisturbed")
    write = engine._write

    def dies(path, data):
        if path.name == name and when == "before":
            path.with_name(f"{path.name}.part").write_bytes(data[:5])  # what a kill in the middle of writing leaves
            raise KeyboardInterrupt
        write(path, data)
        if path.name == name:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare("hateful_memes", source, out)
    monkeypatch.setattr(engine, "_write", write)
    assert not prepare("hateful_memes", source, out).already
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_completed_download_is_taken_in(tmp_path):
    source, out = memes(tmp_path / "d", 10), tmp_path / "out"
    assert prepare("hateful_memes", source, out).rows == 10
    picture(source / "img/00003.png")
    done = prepare("hateful_memes", source, out)
    assert (done.rows, done.skipped, done.already) == (11, {}, False)
    prepare("hateful_memes", source, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_what_was_read_of_another_download_is_forgotten(tmp_path, monkeypatch):
    source, out = memes(tmp_path / "d", 10), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_parquet", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare("hateful_memes", source, out)
    assert list((out / "checked").iterdir())
    picture(source / "img/00003.png")
    lines = (source / "train.jsonl").read_text().splitlines(keepends=True)
    text(source / "train.jsonl", "".join(lines[:-1]))
    prepare("hateful_memes", source, out)
    prepare("hateful_memes", source, tmp_path / "fresh")
    gone = {"images/img/00009.png"}  # no row names it any more, but nothing that was placed is deleted
    assert contents(out).keys() - contents(tmp_path / "fresh").keys() == gone
    assert {k: v for k, v in contents(out).items() if k not in gone} == contents(tmp_path / "fresh")


def interrupt(*_):
    raise KeyboardInterrupt


def test_images_are_links_where_that_works_and_copies_elsewhere(tmp_path, monkeypatch):
    source = memes(tmp_path / "d", 3)
    prepare("hateful_memes", source, tmp_path / "links")
    assert (tmp_path / "links/images/img/00001.png").samefile(source / "img/00001.png")

    def another_file_system(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", another_file_system)
    prepare("hateful_memes", source, tmp_path / "copies")
    assert not (tmp_path / "copies/images/img/00001.png").samefile(source / "img/00001.png")
    assert contents(tmp_path / "copies") == contents(tmp_path / "links")


def test_a_linked_image_is_linked_to_what_it_is(tmp_path):
    source = memes(tmp_path / "d", 2)
    picture(tmp_path / "elsewhere.png")
    (source / "img/00001.png").unlink()
    (source / "img/00001.png").symlink_to(tmp_path / "elsewhere.png")
    prepare("hateful_memes", source, tmp_path / "out")
    placed = tmp_path / "out/images/img/00001.png"
    assert not placed.is_symlink()
    assert placed.read_bytes() == (tmp_path / "elsewhere.png").read_bytes()


def test_an_output_that_is_not_ours_is_refused_and_left_alone(tmp_path):
    source = memes(tmp_path / "d", 3)
    foreign = text(tmp_path / "foreign/thesis.txt", "mine")
    text(tmp_path / "file", "mine")
    with pytest.raises(MmfuseError, match=r"foreign: not empty, and not written by mmfuse data prepare"):
        prepare("hateful_memes", source, foreign.parent)
    with pytest.raises(MmfuseError, match="file: "):
        prepare("hateful_memes", source, tmp_path / "file")
    with pytest.raises(MmfuseError, match="inside of the download"):
        prepare("hateful_memes", source, source / "out")
    prepare("hateful_memes", source, tmp_path / "out")
    flickr30k(tmp_path / "f")
    with pytest.raises(MmfuseError, match="already holds 'hateful_memes', not 'flickr30k'"):
        prepare("flickr30k", tmp_path / "f", tmp_path / "out")
    text(tmp_path / "out/prepared.json", "[]")
    with pytest.raises(MmfuseError, match=r"prepared\.json cannot be read"):
        prepare("hateful_memes", source, tmp_path / "out")
    assert (foreign.read_text(), (tmp_path / "file").read_text()) == ("mine", "mine")
    assert list(foreign.parent.iterdir()) == [foreign]
    assert not (source / "out").exists()


def test_a_manifest_changed_by_hand_is_not_overwritten(tmp_path):
    source, out = memes(tmp_path / "d", 4), tmp_path / "out"
    manifest = prepare("hateful_memes", source, out).manifest
    manifest.write_text(manifest.read_text() + "# mine\n")
    assert prepare("hateful_memes", source, out).already
    picture(source / "img/00003.png")
    with pytest.raises(MmfuseError, match="was changed by hand"):
        prepare("hateful_memes", source, out)
    assert manifest.read_text().endswith("# mine\n")


@pytest.mark.parametrize("name", NAMES)
def test_another_folder_is_told_what_is_missing(name, tmp_path):
    wanted = SOURCES.get(name).card.files[0][0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MmfuseError) as told:
        prepare(name, tmp_path / "empty", tmp_path / "out")
    assert f"not the download of {name}: no {wanted}" in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(MmfuseError, match="no such folder"):
        prepare(name, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_one_line(tmp_path):
    mimic_cxr(tmp_path / "m")
    split = tmp_path / "m/mimic-cxr-2.0.0-split.csv.gz"
    split.write_bytes(split.read_bytes()[:40])
    with pytest.raises(MmfuseError, match=r"split\.csv\.gz: damaged$"):
        prepare("mimic_cxr", tmp_path / "m", tmp_path / "out2")
    roco_v2(tmp_path / "r")
    table(tmp_path / "r/test_captions.csv", ["ID", "Text"], ["a", "b"])
    with pytest.raises(MmfuseError, match=r"test_captions\.csv: no column 'Caption'; it has ID, Text$"):
        prepare("roco_v2", tmp_path / "r", tmp_path / "out3")


def test_a_damaged_line_costs_one_row(tmp_path):
    source = memes(tmp_path / "d", 2)
    with (source / "train.jsonl").open("a") as handle:
        handle.write('{"id": 7, "img": \n[]\n{"id": 8}\n\xff\n')
    done = prepare("hateful_memes", source, tmp_path / "out")
    assert (done.rows, done.skipped) == (3, {"not JSON": 2, "not an object": 1, "no img": 1})
    told = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(item["path"], item["line"]) for item in told] == [("train.jsonl", line) for line in (3, 4, 5, 6)]


def test_paths_and_texts_that_no_release_has(tmp_path):
    items = [{"id": i, "img": img, "label": 0, "text": t} for i, (img, t) in enumerate(ODD)]
    source = memes(tmp_path / "d", 2)
    jsonl(source / "train.jsonl", *items)
    picture(tmp_path / "secret.png")
    picture(source / "img/a;b.png")
    done = prepare("hateful_memes", source, tmp_path / "out")
    assert done.rows == 2  # the last of these, and the one of dev_seen
    outside = "its path leads out of the download, or has a ';'"
    assert done.skipped == {outside: 3, "a text is not legal Unicode": 1}
    assert not list((tmp_path / "out").rglob("secret.png"))


ODD = [
    *(("../secret.png", "x"), ("/etc/passwd", "x"), ("img/a;b.png", "x")),
    *(("img/00000.png", "lone \ud800"), ("img/00001.png", "fine")),
]


def test_the_first_usable_row_has_the_id(tmp_path):
    """A row that cannot be used takes no id; of two that can, the second is told with its line."""
    items = [(1, "none"), (1, "00000"), (2, "00001"), (2, "00002"), (3, "00003"), (3, "00003x")]
    source = memes(tmp_path / "d", 4)  # 00003.png is damaged
    jsonl(source / "train.jsonl", *({"id": i, "img": f"img/{n}.png", "label": 0, "text": n} for i, n in items))
    out = tmp_path / "out"
    assert prepare("hateful_memes", source, out).rows == 3
    frame = pd.read_parquet(out / "rows.parquet")
    assert list(zip(frame["id"], frame["text"], strict=True)) == [("1", "00000"), ("2", "00001"), ("99999", "dev")]
    told = {json.loads(line)["line"]: json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()}
    assert told[4] == {"id": "2", "path": "train.jsonl", "reason": "another row has the same id", "line": 4}
    assert not (out / "images/img/00002.png").exists()


def test_the_first_usable_row_has_the_id_across_chunks_and_kills(tmp_path, monkeypatch):
    source = memes(tmp_path / "d", 30)
    lines = [json.loads(line) for line in (source / "train.jsonl").read_text().splitlines()]
    jsonl(source / "train.jsonl", *lines, *(item | {"img": "img/00000.png"} for item in lines))
    monkeypatch.setattr(engine, "CHUNK", 16)
    prepare("hateful_memes", source, tmp_path / "undisturbed")
    frame = pd.read_parquet(tmp_path / "undisturbed/rows.parquet")
    assert len(frame) == 31
    again = [image for name, image in zip(frame["id"], frame["images"], strict=True) if name in ("3", "13", "23")]
    assert again == ["img/00000.png"] * 3  # their first lines name damaged pictures

    def dies(done, total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("hateful_memes", source, tmp_path / "killed", progress=dies)
    prepare("hateful_memes", source, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_a_source_of_a_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(SOURCES, "_classes", dict(SOURCES._classes))

    @SOURCES.register("mine")
    class Mine:
        card = Card("Mine.", "https://x.org", "none", "me", "from me", "none", (), (("*.png",),))

        def rows(self, folder):
            return (Row(path.stem, {"name": path.stem}, (path,)) for path in sorted(folder.glob("*.png")))

        def manifest(self, folder):
            return {"tasks": {"name": {"type": "classification", "column": "name", "label_origin": "metadata"}}}

    picture(tmp_path / "d/a.png")
    picture(tmp_path / "d/b.png")
    done = prepare("mine", tmp_path / "d", tmp_path / "out")
    assert load_table(load_manifest(done.manifest)).labels == {"name": ["a", "b"]}


# --- the command line ----------------------------------------------------------------------------------------------


def test_commands(mmfuse, tmp_path):
    source, out = memes(tmp_path / "d", 12), tmp_path / "out"
    code, said, _ = mmfuse("data", "prepare", "hateful_memes", "--from", source, "--out", out)
    assert code == 0
    assert f"13 rows in {source} = 12 in {out}/rows.parquet + 1 skipped" in said
    assert "1 skipped: image: truncated PNG" in said
    code, said, _ = mmfuse("data", "prepare", "hateful_memes", "--from", source, "--out", out)
    assert (code, "nothing to do" in said) == (0, True)
    code, said, _ = mmfuse("data", "check", out / "manifest.yaml")
    assert (code, "hateful_memes: 12 rows, 12 groups; train 11, validation 1, test 0" in said) == (0, True)
    code, said, _ = mmfuse("data", "sources")
    assert (code, len(said.splitlines())) == (0, len(NAMES) + len(READY))
    code, said, _ = mmfuse("data", "sources", "hateful_memes")
    assert (code, "trap: " in said) == (0, True)
    assert "Nothing to prepare" in mmfuse("data", "sources", "covid_cxr")[1]
    code, _, told = mmfuse("data", "prepare", "hatefull_memes", "--from", source, "--out", out)
    assert (code, "did you mean 'hateful_memes'?" in told) == (2, True)
