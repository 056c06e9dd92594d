"""The same studies from a folder, a table and shards; what is damaged is told, and nothing is short."""

import json
import pickle
import shutil
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from child_processes import run_child

from mmfuse.data.load import load_table
from mmfuse.data.shards.folder import ROW_GROUP, index_bytes
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import Predictor, ShardStudies, TableOptions, TableStudies, open_studies, predict_to_file
from mmfuse.types import MmfuseError


def everything(studies):
    return list(studies.read(0, len(studies)))


def shard(rows, folder, size):
    """Rows with an id, an image and a text, as shards of `size` bytes."""
    pd.DataFrame(rows).assign(sex=["FM"[i % 2] for i in range(len(rows))]).to_csv(folder / "all.csv", index=False)
    manifest = {
        "name": "pairs",
        "rows": "all.csv",
        "id": "id",
        "image": {"column": "image", "root": "."},
        "text": {"columns": ["text"]},
        "tasks": {"sex": {"column": "sex"}},
        "splits": {"ratios": {"train": 0.6, "test": 0.4}},
    }
    (folder / "all.yaml").write_text(yaml.safe_dump(manifest))
    return write_shards(load_table(load_manifest(folder / "all.yaml")), str(folder / "shards"), size=size)


@pytest.fixture
def sources(pairs, tmp_path):
    """The 57 sound studies of the folder, in three forms: a folder, a table in another order, and small shards."""
    good = [s for s in everything(open_studies(str(pairs))) if s.problem is None and s.text and "000005" not in s.id]
    (tmp_path / "folder").mkdir()
    for sample in good:
        for suffix in (".png", ".txt"):
            shutil.copyfile(pairs / (sample.id + suffix), tmp_path / "folder" / (sample.id + suffix))
    rows = [{"id": s.id, "image": str(tmp_path / "folder" / f"{s.id}.png"), "text": s.text} for s in good]
    pd.DataFrame(rows[::-1]).to_csv(tmp_path / "rows.csv", index=False)
    shard(rows, tmp_path, 20_000)
    return {name: str(tmp_path / name) for name in ("folder", "rows.csv", "shards")}


def predictions(source, model_dir, out, **options):
    counts = predict_to_file(Predictor.from_pretrained(model_dir, chunk=8), open_studies(source, **options), out)
    good, bad = (
        {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
        for path in (out, out.with_suffix(".errors.jsonl"))
    )
    assert (counts.predictions, counts.errors) == (len(good), len(bad))
    return good, bad


def test_a_folder_a_table_and_shards_say_the_same(sources, model_dir, tmp_path):
    said = {n: predictions(source, model_dir, tmp_path / f"{n}.jsonl")[0] for n, source in sources.items()}
    assert (tmp_path / "folder.jsonl").read_bytes() == (tmp_path / "rows.csv.jsonl").read_bytes()
    assert len(said["folder"]) == 57
    assert said["folder"].keys() == said["shards"].keys()
    for id, row in said["folder"].items():  # batches are others
        for task, values in row["tasks"].items():
            assert said["shards"][id]["tasks"][task]["probabilities"] == pytest.approx(
                values["probabilities"], abs=1e-5
            )


def test_any_part_can_be_read_also_by_another_process(sources):
    identities = set()
    for source in sources.values():
        studies = open_studies(source)
        whole = everything(studies)
        assert [sample.id for sample in whole] == list(studies.ids())
        copied = pickle.loads(pickle.dumps(studies))  # as a worker gets it
        for start, stop in ((0, 1), (7, 31), (30, 57), (56, 57)):
            assert list(copied.read(start, stop)) == whole[start:stop]
        identities.add(studies.identity)
    assert len(identities) == 3


def test_rows_of_a_damaged_shard_are_refused_or_errors(sources, model_dir, tmp_path):
    folder = tmp_path / "shards"
    names = sorted(path.name for path in folder.glob("*.parquet"))
    assert len(names) > 3
    ids = {name: pd.read_parquet(folder / name)["id"].tolist() for name in names}
    cut, gone = names[0], names[2]
    (folder / cut).write_bytes((folder / cut).read_bytes()[:-100])
    (folder / gone).unlink()
    with pytest.raises(MmfuseError, match=f"{cut}: .* bytes, but"):
        open_studies(sources["shards"])
    good, bad = predictions(sources["shards"], model_dir, tmp_path / "out.jsonl", damaged="skip")
    lost = {f"{name}#{row}" for name in (cut, gone) for row in range(len(ids[name]))}
    assert set(bad) == lost
    assert set(good) == {id for name in names if name not in (cut, gone) for id in ids[name]}
    assert len(good) + len(bad) == 57
    assert bad[f"{gone}#0"]["reason"] == f"shard {gone}: missing"


def test_a_shard_that_rots_costs_its_row_group_only(pairs, model_dir, tmp_path):
    (sample,) = open_studies(str(pairs)).read(0, 1)
    rows = [{"id": f"{i:03}", "image": sample.images[0], "text": f"Film {i}."} for i in range(3 * ROW_GROUP)]
    shard(rows, tmp_path, 10**9)
    name = sorted(path.name for path in (tmp_path / "shards").glob("*.parquet"))[0]
    data = bytearray((tmp_path / "shards" / name).read_bytes())
    data[200] ^= 1  # in the first row group, whose pages carry checksums
    (tmp_path / "shards" / name).write_bytes(data)
    with pytest.raises(MmfuseError, match=name):
        predictions(str(tmp_path / "shards"), model_dir, tmp_path / "refused.jsonl")
    good, bad = predictions(str(tmp_path / "shards"), model_dir, tmp_path / "out.jsonl", damaged="skip")
    assert set(bad) == {f"{name}#{row}" for row in range(ROW_GROUP)}
    assert len(good) + len(bad) == 3 * ROW_GROUP
    assert all(f"shard {name}: " in row["reason"] for row in bad.values())


def test_a_remote_folder_of_loose_images_is_told_what_to_do():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/loose/a.png", b"")
    with pytest.raises(MmfuseError, match=r"memory://loose: no shards.json there; .*shard it first"):
        open_studies("memory://loose")
    with pytest.raises(MmfuseError, match=r"foo://x: cannot be read: Protocol not known"):
        open_studies("foo://x")


def test_a_remote_table_and_remote_shards(sources, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "rows.csv", *(tmp_path / "shards").iterdir()):
        memory.pipe_file(f"/data/{path.relative_to(tmp_path)}", path.read_bytes())
    there = everything(open_studies("memory://data/rows.csv"))
    assert {sample.urls for sample in there} == {("memory://data",)}  # what lies beside the table may be read
    assert [replace(sample, urls=()) for sample in there] == everything(open_studies(sources["rows.csv"]))
    for url in ("memory://data/shards", "memory://data/shards/shards.json"):
        assert everything(open_studies(url)) == everything(open_studies(sources["shards"]))
    assert everything(open_studies(f"file://{sources['folder']}")) == everything(open_studies(sources["folder"]))


def test_shards_in_an_object_store(sources, object_store, model_dir, tmp_path):
    """From s3:// by the command line, as from the disk: the same bytes; a lost shard is so many errors."""
    import s3fs

    s3fs.S3FileSystem().put(sources["shards"], f"{object_store}/shards", recursive=True)
    for name, source in (("here", sources["shards"]), ("there", f"{object_store}/shards")):
        command = [sys.executable, "-m", "mmfuse.cli", "predict", str(model_dir), source]
        assert run_child([*command, "--out", str(tmp_path / f"{name}.jsonl")]).returncode == 0
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "there.jsonl").read_bytes()
    assert len((tmp_path / "there.jsonl").read_text().splitlines()) == 57
    s3fs.S3FileSystem().rm(f"{object_store}/shards/train-00000.parquet")
    lost = len(pd.read_parquet(tmp_path / "shards" / "train-00000.parquet"))
    good, bad = predictions(f"{object_store}/shards", model_dir, tmp_path / "skipped.jsonl", damaged="skip")
    assert (len(good), len(bad)) == (57 - lost, lost)


def test_rows_of_a_table_are_sorted_and_images_stand_beside_it(tmp_path):
    rows = [{"id": "b", "image": "x.png", "text": " hello "}, {"id": "a", "image": "", "text": ""}]
    pd.DataFrame(rows).to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    samples = everything(TableStudies(str(tmp_path / "in.jsonl")))
    assert [(s.id, s.images, s.text) for s in samples] == [("a", (), None), ("b", (str(tmp_path / "x.png"),), "hello")]


def test_rows_of_a_table_need_an_id_and_one_modality(tmp_path):
    path = str(tmp_path / "in.csv")
    pd.DataFrame([{"id": "a", "txt": "x"}, {"id": "a", "txt": "y"}]).to_csv(path, index=False)
    for columns, message in (
        (("ID", None, "txt"), "--id-column: the rows have no column 'ID'"),
        ((None, None, None), "--image-column: the rows have no column 'image'"),
        ((None, "image", "txt"), "--image-column: the rows have no column 'image'"),
        ((None, None, "txt"), "--id-column id: 'a' names more than one row"),
    ):
        with pytest.raises(MmfuseError, match=message):
            open_studies(path, options=TableOptions(*columns))
    (tmp_path / "in.csv").write_text("id,text\na,x\n ,y\n")
    with pytest.raises(MmfuseError, match="--id-column id: row 2 has no id"):
        TableStudies(path)


def test_a_table_of_several_blocks_and_late_columns(tmp_path, monkeypatch):
    """Blocks of 3 rows: the image column comes with the last of them."""
    monkeypatch.setattr("mmfuse.data.rows.blocks.BLOCK", 3)
    lines = [json.dumps({"id": f"{i}", "text": f"t{i}"}) for i in range(7)] + ['{"id": "x", "image": "x.png"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    samples = everything(TableStudies(str(tmp_path / "in.jsonl")))
    assert [s.text for s in samples] == [*(f"t{i}" for i in range(7)), None]
    assert samples[-1].images == (str(tmp_path / "x.png"),)
    pd.DataFrame([json.loads(line) for line in lines]).to_parquet(tmp_path / "in.parquet", row_group_size=2)
    pd.DataFrame([json.loads(line) for line in lines]).to_csv(tmp_path / "in.csv", index=False)
    assert everything(TableStudies(str(tmp_path / "in.parquet"))) == samples
    assert everything(TableStudies(str(tmp_path / "in.csv"))) == samples


def test_shards_of_no_rows(tmp_path):
    (tmp_path / "shards.json").write_bytes(index_bytes([], {}, {}, "", 0))
    studies = ShardStudies(str(tmp_path))
    assert (len(studies), everything(studies)) == (0, [])
