"""Public sets as people really have them: copies, halves, both years at once; what is read, and what is said of it."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from public_sets import WRITERS, chexpert, coco_captions, jsonl, mimic_cxr, open_i, picture, table, text

from mmfuse.data.manifest import load_manifest
from mmfuse.data.prepare import prepare
from mmfuse.data.sources import SOURCES, Note, Row
from mmfuse.data.sources.chexpert import FINDINGS
from mmfuse.data.table import load_table
from mmfuse.types import MmfuseError

A, B, C = "1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "2513260012_03d33305cf.jpg"


class Read:
    """What an adapter says of a download, without its images being read."""

    def __init__(self, name, root):
        items = list(SOURCES.get(name)().rows(root))
        found = [item for item in items if isinstance(item, Row)]
        self.notes = [item.text for item in items if isinstance(item, Note)]
        self.rows = {row.id: row for row in found if row.problem is None}
        self.skipped = {(row.path.name, row.line): row.problem for row in found if row.problem}
        self.keys = SOURCES.get(name)().manifest(root)

    def column(self, name):
        return {key: row.columns[name] for key, row in self.rows.items()}

    def captions(self):
        return {key: json.loads(row.columns["captions"]) for key, row in self.rows.items()}


def prepared(name, root):
    """(rows by id, skipped by id, manifest) of a download that is prepared and can be loaded."""
    out = root.parent / "out"
    done = prepare(name, root, out)
    assert "split_is" not in done.manifest.read_text()
    manifest = load_manifest(done.manifest)
    for task in manifest.tasks.values():
        task.min_count = 1
    load_table(manifest, allow_leaks=True)
    rows = {row["id"]: row for row in pd.read_parquet(out / "rows.parquet").to_dict("records")}
    for row in rows.values():
        assert all((out / "images" / image).is_file() for image in row["images"].split(";"))
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert all(item["path"] and item["reason"] for item in skipped)
    return rows, skipped, yaml.safe_load((out / "manifest.yaml").read_text())


def karpathy(path, *items, **more):
    """dataset_*.json: items are (file, split, captions)."""
    images = [
        {"filename": file.split("/")[-1], "split": split, "sentences": [{"raw": text} for text in texts]}
        | ({"filepath": file.split("/")[0]} if "/" in file else {})
        for file, split, texts in items
    ]
    text(path, json.dumps({"images": images} | more))


# --- Flickr8k and Flickr30k ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        (f"{A}#0\tA girl .", "A girl ."),
        (f"{A}#0 A girl .", "A girl ."),
        (f"{A}#0   A girl .", "A girl ."),
        (f"{A}#0 \tA girl .", "A girl ."),
        (f"{A}#0\t A girl\tand a dog .", "A girl\tand a dog ."),
        (f"{A}#3\u3000A girl .", "A girl ."),
        (f"{A}\tA girl .", "A girl ."),
    ],
)
def test_a_token_line_is_read_where_it_is_clear(line, caption, tmp_path):
    text(tmp_path / "Flickr8k.token.txt", f"{line}\n")
    picture(tmp_path / "Images" / A)
    assert list(Read("flickr8k", tmp_path).captions().values()) == [[caption]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{A}#0\t", "no caption"),
        (f"{A}#0", "no caption"),
        (f"{A}#0  ", "no caption"),
        (f"{A}#0A girl .", "not a line of image#number, TAB, caption"),
        (f"{A} A girl .", "not a line of image#number, TAB, caption"),
        ("\tA girl .", "not a line of image#number, TAB, caption"),
    ],
)
def test_a_token_line_that_is_not_clear_is_told(line, reason, tmp_path):
    text(tmp_path / "Flickr8k.token.txt", f"{A}#0\tOne .\n\n{line}\n{A}#2\tTwo .\n")
    picture(tmp_path / "Images" / A)
    read = Read("flickr8k", tmp_path)
    assert read.skipped == {("Flickr8k.token.txt", 3): reason}
    assert list(read.captions().values()) == [["One .", "Two ."]]


def tokens(root, *names):
    text(root / "Flickr8k.token.txt", "".join(f"{name}#{i}\tCaption {i} .\n" for name in names for i in range(2)))
    for name in names:
        picture(root / "Flicker8k_Dataset" / name)


@pytest.mark.parametrize(
    ("lists", "splits", "said"),
    [
        ({"train": A, "dev": B, "test": C}, ["train", "dev", "test"], None),
        (
            {"train": A, "test": C},
            ["train", None, "test"],
            "devImages.txt not there; 1 photographs are in no list and skipped; there is",
        ),
        ({"train": A, "dev": B}, ["train", "dev", None], "there is no test part"),
        (
            {"test": C},
            ["train", "train", "test"],
            "2 photographs are in no list and taken for training; there is no",
        ),
        ({"dev": B, "test": C}, ["train", "dev", "test"], "trainImages.txt not there; 1 photographs are in no list"),
        ({"train": A, "dev": f"{B}\r\n{C}", "test": C}, ["train", "dev", None], None),
        ({"train": A[:-4], "dev": f"Flicker8k_Dataset/{B}", "test": f"{C} "}, ["train", "dev", "test"], None),
        ({"train": A.upper(), "dev": B[:-4].upper(), "test": C}, ["train", "dev", "test"], None),
        ({}, ["", "", ""], "no official split is here"),
    ],
)
def test_the_official_lists_that_are_there_are_used(lists, splits, said, tmp_path):
    tokens(tmp_path, A, B, C)
    for split, names in lists.items():
        text(tmp_path / f"Flickr_8k.{split}Images.txt", f"{names}\n")
    read = Read("flickr8k", tmp_path)
    assert [read.column("split").get(name[:-4]) for name in (A, B, C)] == splits
    assert len(read.notes) == (said is not None)
    assert said is None or said in read.notes[0]
    assert ("column" in read.keys["splits"]) == bool(lists)
    assert len(read.skipped) == splits.count(None)


def test_flickr8k_in_the_folders_of_another_copy(tmp_path):
    names = ["Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt"]
    tokens(tmp_path / "text", A, B, C)
    for name, listed in zip(names, (A, B, C), strict=True):
        text(tmp_path / "d/Flickr_Data/Flickr_TextData" / name, f"{listed}\n")
    shutil.move(tmp_path / "text/Flickr8k.token.txt", tmp_path / "d/Flickr_Data/Flickr_TextData")
    shutil.move(tmp_path / "text/Flicker8k_Dataset", tmp_path / "d/Flickr_Data/Images")
    rows, _, _ = prepared("flickr8k", tmp_path / "d")
    assert [row["split"] for row in rows.values()] == ["train", "dev", "test"]


def test_names_of_files_are_found_in_any_case_but_as_they_are_first(tmp_path):
    tokens(tmp_path, A, B, C)
    for name, listed in (
        ("FLICKR_8K.TRAINIMAGES.TXT", A),
        ("flickr_8k.devimages.txt", B),
        ("Flickr_8k.testImages.TXT", C),
    ):
        text(tmp_path / name, f"{listed}\n")
    assert Read("flickr8k", tmp_path).column("split") == {A[:-4]: "train", B[:-4]: "dev", C[:-4]: "test"}
    text(tmp_path / "Flickr_8k.testImages.txt", f"{B}\n")
    text(tmp_path / "flickr_8k.devimages.txt", f"{C}\n")
    assert Read("flickr8k", tmp_path).column("split") == {A[:-4]: "train", B[:-4]: "test", C[:-4]: "dev"}


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "hateful_memes",
            {"TRAIN.jsonl": '{"id": 1, "img": "img/1.png", "text": "t", "label": 1}\n', "DEV_seen.jsonl": "{}\n"},
            "1",
        ),
        (
            "roco_v2",
            {
                f"{s}_{kind}.CSV": f"ID,{kind[:-1].title() if kind == 'captions' else 'CUIs'}\nROCOv2_{s},C1\n"
                for s in ("train", "valid", "test")
                for kind in ("captions", "concepts")
            }
            | {f"{s}/x": "" for s in ("train", "valid", "test")},
            "ROCOv2_train",
        ),
        (
            "food101",
            {f"Texts/{s}_titles.csv": "a.jpg,A title,pie\n" for s in ("train", "test")}
            | {f"Images/{s}/x": "" for s in ("train", "test")},
            "train/a",
        ),
    ],
)
def test_tables_are_found_in_any_case(tmp_path, name, files, expected):
    for file, content in files.items():
        text(tmp_path / file, content)
    assert next(iter(Read(name, tmp_path).rows)) == expected


@pytest.mark.parametrize("name", ["Images", "IMAGES"])
def test_photographs_are_found_in_a_folder_of_any_case(tmp_path, name):
    table(tmp_path / "captions.txt", ["image", "caption"], [A, "A dog , here ."])
    picture(tmp_path / name / A)
    assert Read("flickr8k", tmp_path).rows[A[:-4]].images == (tmp_path / name / A,)


def test_official_lists_beside_kaggles_captions(tmp_path):
    table(tmp_path / "captions.txt", ["image", "caption"], *([name, "A dog , here ."] for name in (A, B, C)))
    for split, name in (("train", A), ("dev", B), ("test", C)):
        text(tmp_path / f"Flickr8k_text/Flickr_8k.{split}Images.txt", f"{name}\n")
        picture(tmp_path / "Images" / name)
    read = Read("flickr8k", tmp_path)
    assert list(read.column("split").values()) == ["train", "dev", "test"]
    assert read.keys["splits"]["column"] == "split"


def test_of_several_sources_the_one_with_the_split_is_used_and_told(tmp_path):
    tokens(tmp_path, A, B)
    table(tmp_path / "captions.txt", ["image", "caption"], [A, "Kaggle ."], [B, "Kaggle ."])
    karpathy(tmp_path / "dataset_flickr8k.json", (A, "test", ["Karpathy ."]), (B, "val", ["Karpathy ."]))
    read = Read("flickr8k", tmp_path)
    assert list(read.column("split").values()) == ["test", "val"]
    assert list(read.captions().values()) == [["Karpathy ."]] * 2
    unread = "Flickr8k.token.txt, captions.txt beside it is not read"
    assert read.notes == [f"captions are read from dataset_flickr8k.json, and the split; {unread}"]
    for split, names in (("train", B), ("dev", ""), ("test", A)):
        text(tmp_path / f"Flickr_8k.{split}Images.txt", f"{names}\n")
    read = Read("flickr8k", tmp_path)  # the authors' own split, whole
    assert list(read.column("split").values()) == ["test", "train"]
    assert list(read.captions().values()) == [["Caption 0 .", "Caption 1 ."]] * 2
    assert "captions.txt, dataset_flickr8k.json beside it is not read" in read.notes[0]


def test_karpathys_json_is_read_for_flickr8k(tmp_path):
    karpathy(
        tmp_path / "d/dataset_flickr8k.json", (A, "train", ["One .", ""]), (B, "val", ["Two ."]), (C, "test", [""])
    )
    for name in (A, B, C):
        picture(tmp_path / "d/Images" / name)
    rows, skipped, manifest = prepared("flickr8k", tmp_path / "d")
    assert {key: (row["split"], row["captions"]) for key, row in rows.items()} == {
        A[:-4]: ("train", '["One ."]'),
        B[:-4]: ("val", '["Two ."]'),
    }
    assert [item["reason"] for item in skipped] == ["no caption"]
    assert manifest["splits"]["names"]["val"] == "validation"


@pytest.mark.parametrize(
    ("name", "content", "captions", "line"),
    [
        ("captions.txt", "image,caption\n1000092795.jpg,One .\n1000092795.jpg,a , b\n", ["One ."], 3),
        (
            "captions.txt",
            'image_name,comment_number,comment\n1000092795.jpg,0,"One , two ."\n1000092795.jpg,1,a , b\n',
            ["One , two ."],
            3,
        ),
        (
            "results.csv",
            "image_name| comment_number| comment\n1000092795.jpg| 0| One , two .\n\n1000092795.jpg| 1| \n",
            ["One , two ."],
            4,
        ),
        ("results_20130124.token", "1000092795.jpg#0\tOne .\n1000092795.jpg#1 Two .\nnone\n", ["One .", "Two ."], 3),
        ("flickr_annotations_30k.csv", None, ["One .", "Two ."], 3),
    ],
)
def test_flickr30k_in_all_its_forms(name, content, captions, line, tmp_path):
    if content is None:
        raw = json.dumps(["One .", "Two ."])
        lines = [[raw, "[0, 1]", "test", "1000092795.jpg", "0"], ["not json", "[]", "train", "2.jpg", "1"]]
        table(tmp_path / name, ["raw", "sentids", "split", "filename", "img_id"], *lines)
    else:
        text(tmp_path / name, content)
    picture(tmp_path / "flickr30k-images/1000092795.jpg")
    read = Read("flickr30k", tmp_path)
    assert list(read.captions().values()) == [captions]
    assert list(read.skipped) == [(name, line)]
    official = name == "flickr_annotations_30k.csv"
    assert ("column" in read.keys["splits"]) == official
    assert official != ("no official split is here" in "".join(read.notes))


@pytest.mark.parametrize(
    ("name", "other", "file"),
    [("flickr8k", "flickr30k", "10082347.jpg"), ("flickr30k", "flickr8k", A)],
)
def test_the_other_flickr_is_known_by_the_names_of_its_pictures(name, other, file, tmp_path):
    table(tmp_path / "captions.txt", ["image", "caption"], [file, "One ."], [file, "Two ."])
    picture(tmp_path / "Images" / file)
    with pytest.raises(
        MmfuseError, match=f"looks like {other}, by the names of its pictures: mmfuse data prepare {other}$"
    ):
        Read(name, tmp_path)
    Read(other, tmp_path)


def test_karpathys_json_of_another_set(tmp_path):
    karpathy(tmp_path / "dataset_flickr8k.json", ("1.jpg", "train", ["One ."]), dataset="flickr30k")
    with pytest.raises(MmfuseError, match="it says that it is of flickr30k: mmfuse data prepare flickr30k"):
        Read("flickr8k", tmp_path)


@pytest.mark.parametrize("line", ["x.jpg| A dog | and more .", "x.jpg|A dog | and more ."])
def test_a_piped_table_of_two_columns(line, tmp_path):
    text(tmp_path / "captions.txt", f"image| caption\n{line}\nno pipe\n")
    picture(tmp_path / "Images/x.jpg")
    read = Read("flickr30k", tmp_path)
    assert read.captions() == {"x": ["A dog | and more ."]}
    assert read.skipped == {("captions.txt", 3): "not a line of image | number | caption"}


@pytest.mark.parametrize("quote", ['"A man , smiling .', 'A "man" , smiling .', '"A man" , smiling .'])
def test_a_lone_quotation_mark_costs_its_own_line(quote, tmp_path):
    lines = [f"{A},One .", f"{A},{quote}", f'{B},"Two , three ."', f"{B},Four ."]
    text(tmp_path / "captions.txt", "image,caption\n" + "\n".join(lines) + "\n")
    picture(tmp_path / "Images" / A)
    read = Read("flickr8k", tmp_path)
    assert list(read.skipped) == [("captions.txt", 3)]
    assert list(read.captions().values()) == [["One ."], ["Two , three .", "Four ."]]


# --- COCO ------------------------------------------------------------------------------------------------------------


def test_coco_with_its_pictures_in_images(tmp_path):
    coco_captions(tmp_path / "d")
    (tmp_path / "d/images").mkdir()
    for part in ("train2017", "val2017"):
        shutil.move(tmp_path / "d" / part, tmp_path / "d/images" / part)
    rows, _, manifest = prepared("coco_captions", tmp_path / "d")
    assert rows["000000000009"]["images"] == "images/train2017/000000000009.jpg"
    assert [row["split"] for row in rows.values()] == ["train", "val"]
    assert "notes" not in manifest


def annotations(root, split, year, name):
    images, notes = [{"id": 9, "file_name": name}], [{"image_id": 9, "id": 1, "caption": f"{split} {year}"}]
    text(root / f"annotations/captions_{split}{year}.json", json.dumps({"images": images, "annotations": notes}))


@pytest.mark.parametrize(
    ("there", "pictures", "rows", "said"),
    [
        (["val2017"], ["val2017"], ["val 2017"], ["there is no training part: train is not here"]),
        (
            ["train2017", "val2017"],
            ["images/val2017"],
            ["val 2017"],
            ["not captions_train2017.json", "no training part"],
        ),
        (
            ["train2017", "val2017", "train2014", "val2014"],
            ["train2014", "val2014"],
            ["train 2014", "val 2014"],
            ["2017"],
        ),
        (
            ["train2017", "val2017", "train2014", "val2014"],
            ["train2017", "val2017"],
            ["train 2017", "val 2017"],
            ["2014"],
        ),
        (["train2017"], ["train2017"], ["train 2017"], ["there is no validation part: val is not here"]),
        (["train2017", "val2017", ".."], ["train2017", "val2017"], ["train 2017", "val 2017"], []),
        (["train2014", "val2014"], ["images/train2014", "val2014"], ["train 2014", "val 2014"], []),
        (
            ["train2017", "train2014", "val2014"],
            ["train2014", "val2014", "val2017"],
            ["train 2014", "val 2014"],
            ["2017"],
        ),
    ],
)
def test_coco_annotations_are_read_where_their_pictures_are(there, pictures, rows, said, tmp_path):
    for part in set(there) - {".."}:
        annotations(tmp_path, part[:-4], part[-4:], f"{part}.jpg")
    if ".." in there:  # as the archive of that name unpacks into its own folder
        (tmp_path / "annotations").rename(tmp_path / "moved")
        shutil.move(tmp_path / "moved", tmp_path / "annotations_trainval2017/annotations")
    for part in pictures:
        picture(tmp_path / part / f"{part.split('/')[-1]}.jpg")
    read = Read("coco_captions", tmp_path)
    assert [caption for (caption,) in read.captions().values()] == rows
    assert [words in note for words, note in zip(said, read.notes, strict=True)] == [True] * len(said)


def test_coco_with_the_pictures_of_the_other_year(tmp_path):
    annotations(tmp_path, "train", 2014, "COCO_train2014_000000000009.jpg")
    picture(tmp_path / "train2017/000000000009.jpg")
    with pytest.raises(
        MmfuseError, match=r"no annotations have their own .* it has annotations/captions_train2014.json, tr"
    ):
        Read("coco_captions", tmp_path)


def test_karpathys_split_over_the_pictures_of_2017(tmp_path):
    items = [
        (f"val2014/COCO_val2014_{n:012d}.jpg", part, [f"Number {n} ."]) for n, part in ((9, "test"), (25, "restval"))
    ]
    karpathy(tmp_path / "d/dataset_coco.json", *items, dataset="coco")
    picture(tmp_path / "d/images/train2017/000000000009.jpg")
    picture(tmp_path / "d/images/val2017/000000000025.jpg")
    rows, skipped, _ = prepared("coco_captions", tmp_path / "d")
    assert [row["images"] for row in rows.values()] == [
        "images/train2017/000000000009.jpg",
        "images/val2017/000000000025.jpg",
    ]
    assert skipped == []


def test_a_record_of_coco_that_lacks_a_key(tmp_path):
    annotations(tmp_path, "val", 2017, "a.jpg")
    path = tmp_path / "annotations/captions_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"] += [{"image_id": 9}, None, {"image_id": 9, "caption": " second "}]
    data["images"] += [{"id": 10}]
    path.write_text(json.dumps(data))
    picture(tmp_path / "val2017/a.jpg")
    read = Read("coco_captions", tmp_path)
    assert list(read.captions().values()) == [["val 2017", "second"]]
    assert read.skipped == {(path.name, 2): "no file_name", (path.name, 3): "not an object"}


# --- chest X-rays ----------------------------------------------------------------------------------------------------


def batches(root):
    """CheXpert at full size: four folders beside each other."""
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    chexpert(root / "small")
    for path in (root / "small/CheXpert-v1.0-small").iterdir():
        if path.suffix == ".csv":
            text(first / path.name, path.read_text().replace("CheXpert-v1.0-small", "CheXpert-v1.0"))
    shutil.move(root / "small/CheXpert-v1.0-small/valid", first / "valid")
    for number, patient in ((2, "patient00001"), (3, "patient00002"), (4, "patient00003")):
        place = root / f"CheXpert-v1.0 batch {number} (train {number - 1})"
        place.mkdir()
        shutil.move(root / "small/CheXpert-v1.0-small/train" / patient, place / patient)
    shutil.rmtree(root / "small")
    return first


@pytest.mark.parametrize("start", ["the parent", "batch 1", "batch 3"])
def test_chexpert_at_full_size(start, tmp_path):
    first = batches(tmp_path / "d")
    starts = {"batch 1": first, "batch 3": tmp_path / "d/CheXpert-v1.0 batch 3 (train 2)"}
    prepare("chexpert", starts.get(start, tmp_path / "d"), tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out/rows.parquet").set_index("id")
    assert list(frame.index) == ["train/patient00001/study1", "train/patient00002/study1", "valid/patient64541/study1"]
    place = "CheXpert-v1.0 batch 3 (train 2)/patient00002/study1"
    assert frame["images"].iloc[1] == f"{place}/view1_frontal.jpg;{place}/view2_lateral.jpg"
    assert frame["images"].iloc[2].startswith("CheXpert-v1.0 batch 1 (validate & csv)/valid/patient64541/study1/")
    assert list(frame["split"]) == ["train", "train", "valid"]
    assert list(frame["Edema"]) == ["-1.0", "1.0", "0.0"]


def test_chexpert_at_full_size_without_some_batches(tmp_path):
    first = batches(tmp_path / "d")
    shutil.rmtree(tmp_path / "d/CheXpert-v1.0 batch 3 (train 2)")
    read = Read("chexpert", tmp_path / "d")
    assert read.notes == ["1 patients of train.csv are in none of the folders: a batch of the download is absent"]
    for number in (2, 4):
        shutil.rmtree(next((tmp_path / "d").glob(f"*batch {number}*")))
    with pytest.raises(MmfuseError, match=r"CheXpert at full size, and none of its train pictures is here: unpack"):
        prepare("chexpert", first, tmp_path / "out")


def kaggles_open_i(root, pictures="images/images_normalized", **names):
    reports = [
        ["1", "normal", "normal", "Xray Chest PA and Lateral", "Cough, fever", "None.", "Heart\nis large.", "Normal."],
        ["2", "Cardiomegaly/borderline;Opacity/lung", "Cardiomegaly;Opacity", "Chest", "", "", "", "Large heart."],
        ["3", "normal", "normal", "Chest", "", "", "Clear.", ""],
    ]
    header = ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]
    table(root / "indiana_reports.csv", header, *reports)
    files = ["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png", "2_IM-0652-1001.dcm.png", "9_IM-0001-1001.dcm.png"]
    views = [[name.split("_")[0], name, "Frontal"] for name in files]
    table(root / "indiana_projections.csv", ["uid", "filename", "projection"], *views)
    for name in files:
        picture(root / pictures / names.get(name, name))


def test_kaggles_copy_of_open_i(tmp_path):
    kaggles_open_i(tmp_path / "d")
    with (tmp_path / "d/indiana_reports.csv").open("a") as handle:
        handle.write("4,normal,normal,Chest,one,two,three,four,five\n5,normal,normal,Chest,one,two,three,\n")
    rows, skipped, manifest = prepared("open_i", tmp_path / "d")
    place = "images/images_normalized"
    assert rows["CXR1"] == {
        "id": "CXR1",
        "comparison": "None.",
        "indication": "Cough, fever",
        "findings": "Heart is large.",
        "impression": "Normal.",
        "report": "COMPARISON: None.\nINDICATION: Cough, fever\nFINDINGS: Heart is large.\nIMPRESSION: Normal.",
        "mesh": "normal",
        "mesh_major": "normal",
        "problems": "normal",
        "examination": "Xray Chest PA and Lateral",
        "projections": "Frontal;Frontal",
        "images": f"{place}/1_IM-0001-4001.dcm.png;{place}/1_IM-0001-3001.dcm.png",
    }
    assert [rows["CXR2"][key] for key in ("mesh", "report")] == ["Cardiomegaly;Opacity", "IMPRESSION: Large heart."]
    assert [(item["path"], item["line"], item["reason"]) for item in skipped] == [
        ("indiana_reports.csv", 5, "the report names no image"),
        ("indiana_reports.csv", 6, "9 fields, not 8"),
        ("indiana_reports.csv", 7, "the report names no image"),
        ("indiana_projections.csv", 5, "a picture of a report that is not there"),
    ]
    assert manifest["splits"] == {"ratios": {"train": 0.7, "validation": 0.1, "test": 0.2}}


def test_open_i_with_the_other_copys_picture_names(tmp_path):
    names = {"1_IM-0001-4001.dcm.png": "CXR1_1_IM-0001-4001.png", "2_IM-0652-1001.dcm.png": "CXR2_IM-0652-1001.png"}
    kaggles_open_i(tmp_path / "kaggle", "NLMCXR_png", **names)
    read = Read("open_i", tmp_path / "kaggle")
    assert [image.name for row in read.rows.values() for image in row.images] == [
        "CXR1_1_IM-0001-4001.png",
        "1_IM-0001-3001.dcm.png",
        "CXR2_IM-0652-1001.png",
    ]
    open_i(tmp_path / "d")
    for path in (tmp_path / "d/NLMCXR_png").iterdir():
        number, _, rest = path.stem.removeprefix("CXR").partition("_")
        path.rename(path.with_name(f"{number}_{rest.removeprefix('1_')}.dcm.png"))
    rows, skipped, _ = prepared("open_i", tmp_path / "d")
    assert rows["CXR1"]["images"] == "NLMCXR_png/1_IM-0001-3001.dcm.png;NLMCXR_png/1_IM-0001-4001.dcm.png"
    assert list(rows) == ["CXR1", "CXR10", "CXR2"]
    assert len(skipped) == 3


def r2gen(root, split="train", name="CXR2384_IM-0942", **more):
    item = {"id": name, "report": " The heart is large. ", "image_path": [f"{name}/0.png", f"{name}/1.png"]} | more
    lists = {key: [] for key in ("train", "val", "test")} | {split: [item | {"split": split}, {"id": "x"}]}
    text(root / "annotation.json", json.dumps(lists))
    for image in item["image_path"]:
        picture(root / "images" / image)


def test_r2gens_copy_of_open_i(tmp_path):
    r2gen(tmp_path / "d", "val")
    rows, skipped, manifest = prepared("open_i", tmp_path / "d")
    place = "images/CXR2384_IM-0942"
    assert list(rows.values()) == [
        {
            "id": "CXR2384_IM-0942",
            "split": "val",
            "report": "The heart is large.",
            "images": f"{place}/0.png;{place}/1.png",
        }
    ]
    assert [(item["path"], item["line"], item["reason"]) for item in skipped] == [("annotation.json", 2, "no report")]
    assert manifest["splits"] == {"column": "split", "names": {"val": "validation"}}
    assert manifest["tasks"]["report"]["column"] == "report"
    assert "no official one" in manifest["notes"][0]
    assert "# Split: R2Gen's, which is no official one." in (tmp_path / "out/manifest.yaml").read_text()


def test_r2gens_copy_of_mimic_cxr(tmp_path):
    more = {"subject_id": 10000032, "study_id": 50414267, "image_path": ["p10/p10000032/s50414267/02aa.jpg"]}
    r2gen(tmp_path / "d", "test", "02aa", **more)
    rows, _, manifest = prepared("mimic_cxr", tmp_path / "d")
    row = {"subject_id": "10000032", "study_id": "50414267", "split": "test", "report": "The heart is large."}
    assert rows["02aa"] == {"id": "02aa", **row, "images": "images/p10/p10000032/s50414267/02aa.jpg"}
    assert manifest["group"] == "subject_id"
    with pytest.raises(MmfuseError, match="looks like R2Gen's copy of MIMIC-CXR: mmfuse data prepare mimic_cxr"):
        Read("open_i", tmp_path / "d")
    r2gen(tmp_path / "i")
    with pytest.raises(MmfuseError, match="looks like R2Gen's copy of Open-I: mmfuse data prepare open_i"):
        Read("mimic_cxr", tmp_path / "i")


@pytest.mark.parametrize(("annotation", "images"), [("", "mimic_cxr/images"), ("", "Images"), ("mimic_cxr", "files")])
def test_r2gens_pictures_may_lie_elsewhere(tmp_path, annotation, images):
    more = {"subject_id": 1, "study_id": 2, "image_path": ["p10/a.jpg"]}
    text(tmp_path / annotation / "annotation.json", json.dumps({"train": [{"id": "a", "report": "Clear."} | more]}))
    picture(tmp_path / images / "p10/a.jpg")
    assert Read("mimic_cxr", tmp_path).rows["a"].images == (tmp_path / images / "p10/a.jpg",)


def test_copies_of_open_i_beside_the_reports(tmp_path):
    open_i(tmp_path)
    kaggles_open_i(tmp_path)
    read = Read("open_i", tmp_path)
    assert read.notes == ["read are the XML reports; indiana_reports.csv beside them is not"]
    assert "mesh_automatic" in read.rows["CXR1"].columns


@pytest.mark.parametrize("absent", [("negbio",), ("chexpert",), ("chexpert", "negbio")])
def test_mimic_cxr_with_the_labels_that_are_there(absent, tmp_path):
    mimic_cxr(tmp_path / "d")
    for name in absent:
        (tmp_path / f"d/mimic-cxr-2.0.0-{name}.csv.gz").unlink()
    rows, _, manifest = prepared("mimic_cxr", tmp_path / "d")
    there = [name for name in ("chexpert", "negbio") if name not in absent]
    assert list(manifest["tasks"]) == [*there, "findings"]
    assert manifest["notes"] == [
        f"mimic-cxr-2.*-{' and '.join(absent)}.csv.gz is not here, so there is no task {' and '.join(absent)}"
    ]
    columns = rows["50414267"]
    assert [name in columns for name in (FINDINGS[0], f"{FINDINGS[0]} (NegBio)")] == [
        "chexpert" in there,
        "negbio" in there,
    ]


def test_mimic_cxr_without_reports_and_metadata(tmp_path):
    mimic_cxr(tmp_path / "d")
    shutil.rmtree(tmp_path / "d/mimic-cxr-reports")
    (tmp_path / "d/mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    rows, _, manifest = prepared("mimic_cxr", tmp_path / "d")
    assert [rows["50414267"][key] for key in ("views", "report", "Edema")] == [";", "", "1.0"]
    assert (list(manifest["tasks"]), "text" in manifest, len(manifest["notes"])) == (["chexpert", "negbio"], False, 2)


def test_a_bad_line_of_any_table_of_mimic_is_one_row(tmp_path):
    mimic_cxr(tmp_path / "d")
    header = ["dicom_id", "study_id", "subject_id", "split"]
    table(tmp_path / "d/mimic-cxr-2.0.0-split.csv", header, ["aa", "50414267", "10000032", "train"], ["bb", "50414267"])
    (tmp_path / "d/mimic-cxr-2.0.0-split.csv.gz").unlink()
    read = Read("mimic_cxr", tmp_path / "d")
    assert (list(read.rows), read.skipped) == (["50414267"], {("mimic-cxr-2.0.0-split.csv", 3): "2 fields, not 4"})


# --- MM-IMDb, N24News, ROCO, memes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plot", "kept"),
    [
        (["Short.", "A longer plot.::A. Nonymous <someone@example.org>"], "A longer plot."),
        (["A plot.::<someone@example.org>", "Longest of them."], "Longest of them."),
        ("One plot.::Anonymous", "One plot."),
        (["A plot. :: Name, of the Studio (some.one@example.org) "], "A plot."),
        (["A plot::with a mark in it.::Jwelch"], "A plot"),
        (["::Only an author"], ""),
        (["No mark: none is cut."], "No mark: none is cut."),
        ([f"Said::{'a long text that is no author, ' * 5}"], f"Said::{'a long text that is no author, ' * 5}".strip()),
        ([], ""),
    ],
)
def test_who_wrote_a_plot_is_no_text(plot, kept, tmp_path):
    text(tmp_path / "split.json", json.dumps({"train": ["1"]}))
    text(tmp_path / "dataset/1.json", json.dumps({"title": "T", "plot": plot, "genres": ["Drama"]}))
    assert Read("mm_imdb", tmp_path).column("plot") == {"1": kept}


def test_mm_imdb_as_images_and_labels(tmp_path):
    for number in ("00000005", "00000008"):
        text(
            tmp_path / f"d/labels/{number}.json", json.dumps({"plot": [f"Plot {number}."], "genres": ["Drama", "News"]})
        )
        picture(tmp_path / f"d/images/{number}.jpeg")
    text(tmp_path / "d/labels/00000012.json", '{"plot": ["no genres"]}')
    text(tmp_path / "d/split.json", json.dumps({"train": ["0000005"], "dev": ["00000008"], "test": ["0000012"]}))
    rows, skipped, manifest = prepared("mm_imdb", tmp_path / "d")
    assert [(key, row["split"], row["images"]) for key, row in rows.items()] == [
        ("0000005", "train", "images/00000005.jpeg"),
        ("00000008", "dev", "images/00000008.jpeg"),
    ]
    assert [(item["path"], item["reason"]) for item in skipped] == [("labels/00000012.json", "no genres")]
    assert "column" in manifest["splits"]
    (tmp_path / "d/split.json").unlink()
    read = Read("mm_imdb", tmp_path / "d")
    assert (len(read.rows), "split.json is not here" in read.notes[0], "ratios" in read.keys["splits"]) == (
        2,
        True,
        True,
    )


def test_n24news_as_its_repository_has_it(tmp_path):
    def article(image, address, **more):
        item = {"section": "Health", "headline": "H", "abstract": "A", "caption": "C", "image_url": "https://x/y.jpg"}
        return item | {"article_url": address, "image_id": image} | more

    items = [
        article("i1", "https://n/1"),
        article("i2", "https://n/1"),
        article("i3", "https://n/2", section="Dance"),
        {"headline": "H"},
    ]
    text(tmp_path / "d/nytimes_dataset.json", json.dumps(items))
    text(tmp_path / "d/nytimes_dataset_full.json", json.dumps([item | {"body": "B"} for item in items]))
    for number in (1, 2, 3):
        picture(tmp_path / f"d/images/i{number}.jpg")
    rows, skipped, manifest = prepared("n24news", tmp_path / "d")
    assert rows["i1"]["body"] == "B"
    groups = [row["article_id"] for row in rows.values()]
    assert (groups[0] == groups[1], groups[0] == groups[2], "n/1" in groups[0]) == (True, False, False)
    assert [(item["line"], item["reason"]) for item in skipped] == [(4, "no section")]
    assert manifest["splits"] == {"ratios": {"train": 0.8, "validation": 0.1, "test": 0.1}}
    assert [note.split(" ")[:2] for note in manifest["notes"]] == [["no", "official"], ["read", "is"]]


@pytest.mark.parametrize(
    ("there", "splits", "said"),
    [
        (["train", "test"], ["train", "test"], "nytimes_dev.json not there"),
        (["train", "test", "dataset"], ["train", "test"], "nytimes_dev.json not there"),
        (
            ["test", "dataset"],
            ["train", "test", "train"],
            "in neither of the files that are there is taken for training",
        ),
    ],
)
def test_the_parts_of_n24news_that_are_there_are_used(there, splits, said, tmp_path):
    item = {"section": "Health", "article_id": "a"}
    for name, number in (("train", 1), ("test", 2)):
        if name in there:
            text(tmp_path / f"news/nytimes_{name}.json", json.dumps([item | {"image_id": f"i{number}"}]))
    if "dataset" in there:
        text(tmp_path / "news/nytimes_dataset.json", json.dumps([item | {"image_id": f"i{n}"} for n in (1, 2, 3)]))
    picture(tmp_path / "imgs/i1.jpg")
    read = Read("n24news", tmp_path)
    assert list(read.column("split").values()) == splits
    assert (len(read.notes), said in read.notes[0], "column" in read.keys["splits"]) == (1, True, True)


def test_a_repeated_photograph_is_told_with_its_record(tmp_path):
    karpathy(tmp_path / "d/dataset_flickr8k.json", (A, "train", ["One ."]), (A, "test", ["Two ."]), (B, "val", ["B ."]))
    for name in (A, B):
        picture(tmp_path / "d/Images" / name)
    _, skipped, _ = prepared("flickr8k", tmp_path / "d")
    told = {"id": A[:-4], "path": "dataset_flickr8k.json", "reason": "another row has the same id", "line": 2}
    assert skipped == [told]


def test_kaggles_copy_of_roco_v1(tmp_path):
    for split, short in (("train", "train"), ("validation", "val"), ("test", "test")):
        place = tmp_path / "d/all_data" / split / "radiology"
        text(place / "captions.txt", f"ROCO_{len(split):05d}\t Axial, {split}.\n")
        table(
            place / f"{short}data.csv", ["id", "name", "caption"], [f"ROCO_{len(split):05d}", f"PMC1_{split}.jpg", "x"]
        )
        picture(place / "images" / f"PMC1_{split}.jpg")
    rows, _, manifest = prepared("roco_v1", tmp_path / "d")
    assert [row["caption"] for row in rows.values()] == ["Axial, train.", "Axial, validation.", "Axial, test."]
    assert list(manifest["tasks"]) == ["caption"]
    assert manifest["notes"][-1] == "no cuis.txt is here, so there is no task concepts"


def test_a_repeated_meme_has_all_its_parts_and_another_with_its_id_has_none(tmp_path):
    def meme(number, label, words="words"):
        return {"id": number, "img": f"img/{number}.png", "label": label, "text": words}

    root = tmp_path / "d"
    jsonl(root / "train.jsonl", meme(1, 0))
    jsonl(root / "dev_seen.jsonl", meme(2, 0), meme(3, 1), meme(4, 1))
    jsonl(root / "dev_unseen.jsonl", meme(2, 0), meme(3, 0), meme(5, 1), meme(4, 1, "other words"))
    jsonl(root / "test_unseen.jsonl", meme(1, 0))
    for number in range(1, 6):
        picture(root / f"img/{number}.png")
    rows, skipped, manifest = prepared("hateful_memes", root)
    assert {key: row["part"] for key, row in rows.items()} == {
        "1": "train",
        "2": "dev_seen;dev_unseen",
        "3": "dev_seen",
        "4": "dev_seen",
        "5": "dev_unseen",
    }
    assert [key for key, row in rows.items() if row["dev_unseen"] == "yes"] == ["2", "5"]
    repeat, same = "repeats an earlier line, whose row has this part too", "another row has the same id"
    told = {(item["path"], item["line"]): item["reason"] for item in skipped}
    assert told == {
        ("dev_unseen.jsonl", 1): repeat,
        ("dev_unseen.jsonl", 2): same,
        ("dev_unseen.jsonl", 4): same,
        ("test_unseen.jsonl", 1): same,
    }
    assert manifest["subgroups"] == ["dev_seen", "dev_unseen", "test_unseen"]


# --- what is said of a download --------------------------------------------------------------------------------------


def test_what_must_be_said_is_a_line_a_note_and_a_finding(mmfuse, tmp_path):
    root, out = tmp_path / "d", tmp_path / "out"
    WRITERS["flickr30k"](root)
    code, said, _ = mmfuse("data", "prepare", "flickr30k", "--from", root, "--out", out)
    told = "no official split is here: 94 / 3 / 3 by hash of the photograph"
    assert (code, f"note:  {told}" in said) == (0, True)
    assert yaml.safe_load((out / "manifest.yaml").read_text())["notes"][0].startswith(told)
    _, said, _ = mmfuse("data", "check", out / "manifest.yaml")
    assert f"INFO    manifest.note: {told}" in said
    code, said, _ = mmfuse("data", "prepare", "flickr30k", "--from", root, "--out", out)
    assert ("nothing to do" in said, f"note:  {told}" in said) == (True, True)


# --- the inputs that once failed, as they were found -----------------------------------------------------------------

EXPECTED = {  # folder -> (source, rows, skipped, splits)
    "chexpert_full_size_batches": ("chexpert", 6, 0, ["train", "train", "train", "train", "valid", "valid"]),
    "flickr30k_kaggle_captions": ("flickr30k", 1, 0, [""]),
    "flickr8k_captions_comma": ("flickr8k", 1, 1, [""]),
    "flickr8k_kaggle_beside_karpathy": ("flickr8k", 2, 0, ["train", "test"]),
    "flickr8k_karpathy": ("flickr8k", 2, 0, ["train", "train"]),
    "flickr8k_token_without_tab": ("flickr8k", 1, 0, [""]),
    "flickr8k_two_lists": ("flickr8k", 11, 0, ["train"] * 3 + ["test"] * 8),
    "hateful_memes_repeated": ("hateful_memes", 5, 1, ["train", "train", "validation", "validation", "validation"]),
    "mimic_without_negbio": ("mimic_cxr", 3, 0, ["train", "validate", "test"]),
    "mm_imdb_plot_author": ("mm_imdb", 4, 0, ["train", "train", "dev", "test"]),
    "n24news_repository_layout": ("n24news", 9, 0, [""] * 9),
    "open_i_kaggle_csv": ("open_i", 3, 0, None),
    "open_i_xml_with_kaggle_images": ("open_i", 2, 0, None),
}


@pytest.fixture
def found(test_data):
    root = test_data / "real_use" / "adapters"
    if not root.is_dir():
        pytest.skip("no real_use/adapters in MMFUSE_TEST_DATA")
    return root


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_downloads_that_once_failed(name, found, tmp_path):
    source, rows, skipped, splits = EXPECTED[name]
    done = prepare(source, found / name, tmp_path / "out")
    assert (done.rows, sum(done.skipped.values())) == (rows, skipped)
    frame = pd.read_parquet(tmp_path / "out/rows.parquet")
    assert (list(frame["split"]) if "split" in frame else None) == splits
    load_manifest(done.manifest)
    originals = {
        path.relative_to(found / name).as_posix(): path for path in (found / name).rglob("*") if path.is_file()
    }
    whole = {path: originals[path].read_bytes() for path in originals}
    for row in frame.head(5).to_dict("records"):  # their pictures and texts, against the release's own bytes
        for image in row["images"].split(";"):
            assert (tmp_path / "out/images" / image).read_bytes() == whole[image]
        texts = [
            text for key in ("captions", "text", "plot", "findings", "headline") for text in texts_in(row.get(key))
        ]
        release = b"\n".join(data for path, data in whole.items() if not path.endswith((".jpg", ".jpeg", ".png")))
        assert [
            text for text in texts if text.encode() not in release and json.dumps(text).encode() not in release
        ] == []


def texts_in(value):
    found = json.loads(value) if value and value.startswith("[") else [value]
    return [text for text in found if text]


def test_what_those_downloads_say(found, tmp_path):
    def rows(name):
        prepare(EXPECTED[name][0], found / name, tmp_path / name)
        return pd.read_parquet(tmp_path / name / "rows.parquet").set_index("id")

    captions = json.loads(rows("flickr8k_token_without_tab")["captions"].iloc[0])
    assert captions[0] == "A child in a pink dress is climbing up a set of stairs in an entry way ."
    assert len(captions) == 5
    assert not rows("mm_imdb_plot_author")["plot"].str.contains("::|@").any()
    assert rows("hateful_memes_repeated").loc["00003", "part"] == "dev_seen;dev_unseen"
    kaggle, xml = rows("open_i_kaggle_csv"), rows("open_i_xml_with_kaggle_images")
    shared = ["comparison", "indication", "findings", "impression", "report", "mesh", "mesh_major"]
    assert kaggle.loc[xml.index, shared].equals(xml[shared])
    skipped = json.loads((found and tmp_path / "hateful_memes_repeated/skipped.jsonl").read_text())
    assert (skipped["path"], skipped["line"]) == ("dev_unseen.jsonl", 1)
    with pytest.raises(MmfuseError, match=r"This looks like roco_v1 \(.*mmfuse data prepare roco_v1"):
        prepare("roco_v2", found / "roco_v1", tmp_path / "roco")
    with pytest.raises(MmfuseError, match=r"not the download of roco_v1: no \*/\*/radiology/images/\*"):
        prepare("roco_v1", found / "roco_v1", tmp_path / "roco")
