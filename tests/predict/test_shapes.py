"""The same pairs in every shape in which people bring them: the same ids, the same predictions to the byte."""

import json
import shutil
from pathlib import Path

import datasets
import pandas as pd
import pytest
import yaml
from PIL import Image

from mmfuse.data.load import load_table
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.rows.hugging_face import find_dataset
from mmfuse.data.rows.read import RowFiles, read_rows
from mmfuse.data.tables.blocks import open_blocks
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor, open_studies, predict_to_file
from mmfuse.types import MmfuseError

SEXES = ["F", "M"]


def manifest(folder: Path, name: str, rows: str, **keys) -> Path:
    values = {
        "name": "pairs",
        "rows": rows,
        "id": "id",
        "image": {"column": "image"},
        "text": {"columns": ["text"]},
        "tasks": {"sex": {"column": "sex"}},
        "splits": {"ratios": {"train": 0.5, "validation": 0.25, "test": 0.25}},
        **keys,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def shapes(pairs, tmp_path_factory) -> dict[str, Path]:
    """A dozen pairs as csv, parquet, DataFrame, folders, columns of files, and datasets: their manifests."""
    root = tmp_path_factory.mktemp("shapes")
    found = [e for e in open_studies(str(pairs)).read(6, 20) if e.problem is None and e.text and e.images]
    rows = []
    for number, study in enumerate(found[:12]):
        sex = SEXES[number % 2]
        for place, stem in ((root / "folder", study.id), (root / "classes" / sex, study.id)):
            place.mkdir(parents=True, exist_ok=True)
            for suffix in (".png", ".txt"):
                shutil.copyfile(pairs / f"{study.id}{suffix}", place / f"{stem}{suffix}")
        rows.append({"id": study.id, "image": f"folder/{study.id}.png", "text": study.text, "sex": sex})
    frame = pd.DataFrame(rows)
    data = {name: (root / name).read_bytes() for name in frame["image"]}
    frame.to_csv(root / "rows.csv", index=False)
    frame.assign(image=[data[name] for name in frame["image"]]).to_parquet(root / "bytes.parquet")
    frame[["id", "sex"]].to_csv(root / "folder" / "labels.csv", index=False)
    frame[["id", "sex"]].to_csv(root / "labels.csv", index=False)
    frame.assign(report=[f"{i}.txt" for i in frame["id"]]).drop(columns=["text", "image"]).to_csv(
        root / "files.csv", index=False
    )
    pictures = [Image.open(root / name) for name in frame["image"]]
    write_frame(frame.assign(image=pictures), root / "frame.parquet")
    for picture in pictures:
        picture.close()
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "sex": datasets.ClassLabel(names=SEXES),
        }
    )
    structs = [{"bytes": data[name], "path": None} for name in frame["image"]]
    columns = {**frame.to_dict("list"), "image": structs}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    dataset.save_to_disk(root / "saved")
    datasets.DatasetDict({"train": dataset.select(range(6)), "test": dataset.select(range(6, 12))}).save_to_disk(
        root / "both"
    )
    (root / "data").mkdir()
    dataset.select(range(6)).to_parquet(root / "data" / "train-00000-of-00002.parquet")
    dataset.select(range(6, 12)).to_parquet(root / "data" / "train-00001-of-00002.parquet")
    of_folder = {"image": {"column": "image_file"}, "text": {"files": "text_file"}}
    by_class = {**of_folder, "tasks": {"sex": {"column": "folder"}}}
    of_files = {"image": {"template": "{id}.png", "root": "folder"}, "text": {"files": "report", "root": "folder"}}
    templates = {**of_files, "text": {"files": "{id}.txt", "root": "folder"}}
    return {
        "csv": manifest(root, "csv", "rows.csv"),
        "parquet": manifest(root, "parquet", "bytes.parquet"),
        "frame": manifest(root, "frame", "frame.parquet"),
        "folder": manifest(root, "folder", "folder", **of_folder),
        "classes": manifest(root, "classes", "classes", **by_class),
        "files": manifest(root, "files", "files.csv", **of_files),
        "templates": manifest(root, "templates", "labels.csv", **templates),
        "saved": manifest(root, "saved", "hf:saved"),
        "both": manifest(root, "both", "hf:both@train+test"),
        "data": manifest(root, "data", "hf:data@train"),
    }


def predicted(model, source, out: Path) -> bytes:
    predict_to_file(Predictor(model), open_studies(str(source), model=model), out)
    return out.read_bytes()


def bare(line: dict) -> dict:
    return {**line, "id": line["id"].rsplit("/", 1)[-1]}


def test_every_shape_is_predicted_alike(shapes, model_dir, tmp_path):
    model = FusionModel.from_pretrained(model_dir)
    said = {name: predicted(model, path, tmp_path / f"{name}.jsonl") for name, path in shapes.items()}
    by_class = [bare(line) for line in map(json.loads, said.pop("classes").splitlines())]
    assert set(said.values()) == {said["csv"]}
    assert len(said["csv"].splitlines()) == 12
    same = [json.loads(line) for line in said["csv"].splitlines()]
    scores = {line["id"]: line["tasks"]["sex"]["probabilities"]["F"] for line in same}  # other ids, other batches
    assert {line["id"]: line["tasks"]["sex"]["probabilities"]["F"] for line in by_class} == pytest.approx(
        scores, abs=1e-5
    )
    assert predicted(model, shapes["csv"].parent / "folder", tmp_path / "as_folder.jsonl") == said["csv"]


def test_every_shape_is_trained_on_alike(shapes):
    tables = {name: load_table(load_manifest(path), allow_leaks=True) for name, path in shapes.items()}
    expected = tables["csv"]
    for name, table in tables.items():
        order = sorted(range(12), key=lambda row, ids=table.rows["id"]: ids[row].rsplit("/", 1)[-1])
        rows = [table.sample(row) for row in order]
        assert [table.rows["id"][row].rsplit("/", 1)[-1] for row in order] == sorted(expected.rows["id"]), name
        texts = dict(zip(expected.rows["id"], expected.rows["text"], strict=True))
        assert [sample.text for sample in rows] == [texts[sample.id.rsplit("/", 1)[-1]] for sample in rows], name
        assert all(len(sample.images) == 1 for sample in rows)
        assert [table.labels["sex"][table.targets["sex"][row]] for row in order] == [
            expected.labels["sex"][t] for _, t in sorted(zip(expected.rows["id"], expected.targets["sex"], strict=True))
        ], name
        blocks = open_blocks(load_manifest(path := shapes[name]))
        assert sorted(id for block in blocks.blocks() for id in block["id"]) == sorted(table.rows["id"]), path


@pytest.mark.parametrize("name", ["csv", "files", "templates", "folder", "both"])
def test_the_model_folder_remembers_the_recipe(shapes, model_dir, tmp_path, name):
    model = FusionModel.from_pretrained(model_dir)
    told = load_manifest(shapes[name])
    model.inputs = TableInputs.of(told, model.uses)
    model.save_pretrained(tmp_path / "model")
    model = FusionModel.from_pretrained(tmp_path / "model")
    assert model.inputs == TableInputs.of(told, model.uses)
    data = {"folder": told.rows, "both": told.rows}.get(name, told.rows)
    assert predicted(model, data, tmp_path / "again.jsonl") == predicted(
        FusionModel.from_pretrained(model_dir), shapes["csv"], tmp_path / "first.jsonl"
    )


def test_what_older_versions_wrote_of_inputs_is_written_and_read_alike(shapes):
    kept = TableInputs.of(load_manifest(shapes["csv"]), ("text", "image")).to_dict()
    assert set(kept["text"]) == {"columns", "template", "missing", "section"}
    assert set(kept["image"]) == {"column", "columns", "separator", "root", "urls"}
    assert TableInputs.from_dict(kept, ("text", "image")).to_dict() == kept


@pytest.mark.parametrize("place", ["/etc/{id}", "../{id}.png", "https://evil/{id}"])
@pytest.mark.parametrize("slot", ["image", "text"])
def test_a_model_folder_names_no_file_outside_of_the_tables_own(shapes, slot, place):
    kept = TableInputs.of(load_manifest(shapes["templates"]), ("text", "image")).to_dict()
    kept[slot]["template" if slot == "image" else "files"] = place
    with pytest.raises(MmfuseError, match=rf"inputs\.{slot}\.(template|files)"):
        TableInputs.from_dict(kept, ("text", "image"))


def test_a_text_file_that_is_missing_is_an_error_of_its_row(shapes, model_dir, tmp_path):
    root = shapes["files"].parent
    rows = pd.read_csv(root / "files.csv", dtype=str).iloc[:4]
    rows.loc[1, "report"] = "nowhere.txt"
    rows.loc[2, "report"] = ""
    rows.to_csv(root / "gaps.csv", index=False)
    of_files = {"image": {"template": "{id}.png", "root": "folder"}, "text": {"files": "report", "root": "folder"}}
    path = manifest(root, "gaps", "gaps.csv", **of_files)
    model = FusionModel.from_pretrained(model_dir)
    samples = {sample.id: sample for sample in open_studies(str(path), model=model).read(0, 4)}
    assert samples[rows["id"][1]].problem == "text.files: report: 'nowhere.txt': no such file"
    assert samples[rows["id"][2]].problem is samples[rows["id"][2]].text is None
    with pytest.raises(MmfuseError, match=r"text\.files: report, row 2: 'nowhere.txt': no such file"):
        load_table(load_manifest(path))


def test_a_dataset_says_the_split_of_its_rows_where_none_is_named(shapes):
    root = shapes["both"].parent
    frame = read_rows(f"hf:{root / 'both'}", "m")
    assert list(frame["split"]) == ["train"] * 6 + ["test"] * 6
    assert set(frame["sex"]) == set(SEXES)
    assert "split" not in read_rows(f"hf:{root / 'both'}@test", "m")
    assert RowFiles(f"hf:{root / 'both'}", "m").columns == ["id", "image", "text", "sex", "split"]
    with pytest.raises(MmfuseError, match=r"no split 'tset'; legal: train, test \(did you mean 'test'\?\)"):
        find_dataset(f"hf:{root / 'both'}@tset", "m")
    with pytest.raises(MmfuseError, match="neither saved by save_to_disk nor"):
        find_dataset(f"hf:{root / 'folder'}", "m")


def test_labels_of_a_folder(shapes, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(shapes["folder"].parent / "folder", folder)
    ids = sorted(path.stem for path in folder.glob("*.png"))
    (folder / "labels.csv").unlink()
    (folder / "metadata.csv").write_text(f"file_name,age\n{ids[0]}.png,7\n")
    ages = read_rows(str(folder), "m", ["id", "age"])
    assert list(ages["age"]) == ["7", *[""] * 11]
    for text, reason in (
        ("id,age\nnobody,7\n", "row 1: 'nobody': no such study"),
        (f"id,age\n{ids[0]},7\n{ids[0]}.png,8\n", "is there twice"),
        (f"id,folder\n{ids[0]},7\n", "the column 'folder' is what the folder says"),
        ("name,age\nx,7\n", "no column 'id' or 'file_name'"),
    ):
        (folder / "metadata.csv").write_text(text)
        with pytest.raises(MmfuseError, match=reason):
            read_rows(str(folder), "m")


def test_the_folders_of_an_id_are_columns(shapes):
    frame = read_rows(str(shapes["classes"].parent / "classes"), "m")
    assert set(frame["folder"]) == set(SEXES)
    assert set(frame["parent"]) == {""}
