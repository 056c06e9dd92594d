"""A folder that is not the download of a source is named by what it looks like, in one line."""

import shutil

import pytest
from public_sets import WRITERS, picture, text
from test_parquet_copies import image, write

from mmfuse.data.public.downloads import locate
from mmfuse.data.public.prepare import prepare
from mmfuse.data.public.sources import SOURCES
from mmfuse.types import MmfuseError


def told(name, root):
    with pytest.raises(MmfuseError) as error:
        locate(name, SOURCES.get(name)(), root)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{root}: not the download of {name}: no ")
    return message.partition(" in parquet files")[2] or message


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_another_sets_download_is_named(name, tmp_path):
    WRITERS[name](tmp_path)
    asked = "flickr30k" if name != "flickr30k" else "mm_imdb"
    assert f"mmfuse data prepare {name}" in told(asked, tmp_path)
    assert locate(name, SOURCES.get(name)(), tmp_path) == tmp_path


FILES = [
    (["indiana_reports.csv"], "open_i", "This looks like Kaggle's copy of Open-I, but has no indiana_projections.csv"),
    (["dataset_flickr8k.json"], "flickr8k", "This looks like Karpathy's dataset_flickr8k.json, but has no Images or "),
    (["data/test/radiology/captions.txt"], "roco_v2", "This looks like roco_v1 ("),
    (
        ["annotation.json", "images/CXR1/0.png"],
        "roco_v2",
        "or open_i (R2Gen's copy of Open-I (iu_xray)): mmfuse data prepare mimic_cxr, or open_i",
    ),
    (["multimodal_imdb.hdf5", "metadata.npy"], "mm_imdb", "This looks like MM-IMDb as hdf5"),
    (["df_chexpert_plus_240401.csv"], "chexpert", "This looks like CheXpert Plus; that is not read"),
    (["food-101/meta/classes.txt"], "food101", "This looks like the ETHZ Food-101"),
    (["annotations/instances_val2017.json"], "coco_captions", "COCO's boxes and masks, without captions"),
    (["train/metadata.csv", "train/1.jpg"], "flickr8k", "an image folder of Hugging Face"),
    (["train/data-00000-of-00001.arrow", "dataset_dict.json"], "flickr8k", "saved by datasets.save_to_disk"),
    (["train2017.zip"], "coco_captions", "train2017.zip is not unpacked"),
    (["NLMCXR_png.tgz"], "open_i", "NLMCXR_png.tgz is not unpacked"),
    (["a.txt"], "open_i", "expected are ecgen-radiology/*.xml, NLMCXR_png/*.png, or Kaggle's copy of Open-I"),
]


@pytest.mark.parametrize(("files", "name", "words"), FILES)
def test_what_is_known_by_its_files(files, name, words, tmp_path):
    for file in files:
        text(tmp_path / file, "x")
    assert words in f"{told(name, tmp_path)} | {locate_error(name, tmp_path)}"


def locate_error(name, root):
    with pytest.raises(MmfuseError) as error:
        prepare(name, root, root.parent / "never")
    return str(error.value)


def test_one_folder_deeper(tmp_path):
    WRITERS["hateful_memes"](tmp_path / "data")
    assert told("hateful_memes", tmp_path).endswith(f". It is one folder deeper: --from '{tmp_path / 'data'}'")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    assert "folder deeper" not in told("hateful_memes", tmp_path)


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        ({"label": 3}, "food101", "the columns image, label; it looks like the ETHZ Food-101"),
        ({"label": 3}, "flickr8k", "the columns image, label; it looks like the ETHZ Food-101"),
        (
            {"event_name": "x", "tweet_id": "1", "label": 1},
            "crisismmd",
            "CrisisMMD with one label for text and picture",
        ),
        ({"messages": "x"}, "mm_imdb", "a set made into conversations"),
        ({"caption": "x"}, "mm_imdb", "they may be of coco_captions or flickr30k or flickr8k"),
        ({"what": "x"}, "mm_imdb", "the columns image, what; they are not known"),
    ],
)
def test_parquet_files_of_something_else(row, name, words, tmp_path):
    write(tmp_path / "data/train-00000-of-00001.parquet", [{"image": image(1), **row}])
    assert words in told(name, tmp_path)


def test_parquet_files_without_images(tmp_path):
    write(tmp_path / "train.parquet", [{"image": "train/1.jpg", "caption": "x"}], images=())
    assert "the columns image, caption, and no images inside" in told("flickr8k", tmp_path)


def test_a_folder_of_pictures_is_no_set(tmp_path):
    picture(tmp_path / "images/1.png")
    picture(tmp_path / "Images/1.jpg")
    assert "looks like" not in told("mm_imdb", tmp_path)
