"""Shards on disk and in an object store: what was written is what is read, and damage never goes unseen."""

import dataclasses
import json
import os
import random
import signal
import threading
import tracemalloc
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import yaml
from child_processes import HANG
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.files import stores
from mmfuse.data.files.stores import FetchError
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.rows import blocks as rows
from mmfuse.data.shards import folder as shards_module
from mmfuse.data.shards import write as sharding
from mmfuse.data.shards.folder import ROW_GROUP, DamagedShardError, open_shards, verify_shards
from mmfuse.data.shards.table import ShardRows
from mmfuse.data.shards.write import parse_size, write_shards
from mmfuse.data.tables import blocks, leaks
from mmfuse.data.tables.blocks import FileBlocks, TableBlocks, open_blocks
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.splits import SPLITS
from mmfuse.predict import ShardStudies
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

ROWS, SIZE = 300, 40_000
MANIFEST = {
    "name": "small",
    "rows": "${data_root}/rows.csv",
    "id": "id",
    "group": "patient",
    "image": {"column": "image", "separator": ";", "root": "${data_root}/images"},
    "text": {"columns": ["text"]},
    "tasks": {
        "kind": {"type": "classification", "column": "kind"},
        "signs": {"type": "multilabel", "columns": ["wet", "hot"]},
        "words": {
            "type": "captioning",
            "column": "words",
            "separator": "|",
            "report_metrics": ["chexbert:${data_root}/chexbert"],
        },
    },
    "splits": {"ratios": {"train": 0.7, "validation": 0.1, "test": 0.2}},
    "subgroups": ["sex"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Rows with no image, one or two, with no text, with missing targets; images of noise, which do not shrink."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,patient,image,text,kind,wet,hot,words,sex"]
    for i in range(ROWS):
        views = [f"{i}_{view}.png" for view in range((1, 1, 2, 0)[i % 4])]
        for name in views:
            Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(root / "images" / name)
        text = "" if i % 5 == 0 and views else f"Bericht {i} über Lunge"
        lines.append(f"r{i},p{i // 2},{';'.join(views)},{text},{'ab'[i % 2] if i % 7 else ''},{i % 2},,one {i}|two,F")
    (root / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    (root / "manifest.yaml").write_text(yaml.safe_dump(MANIFEST))
    return root


@pytest.fixture(scope="module")
def table(pairs):
    return load_table(load_manifest(pairs / "manifest.yaml", str(pairs)))


def elsewhere(url):
    """The file system as another process has it: what is done there, this one's caches do not know."""
    return fsspec.core.url_to_fs(str(url), skip_instance_cache=True)


def files(url) -> dict[str, bytes]:
    system, root = elsewhere(url)
    return {name.rsplit("/", 1)[-1]: system.cat_file(name) for name in system.ls(root, detail=False)}


def change(url, name: str, data: bytes) -> None:
    system, root = elsewhere(url)
    system.pipe_file(f"{root}/{name}", data)


@pytest.mark.parametrize("place", ["s3", "path", "relative", "file", "memory"])
def test_what_was_written_is_what_is_read(place, table, pairs, tmp_path, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = {
        "s3": lambda: f"{request.getfixturevalue('object_store')}/a/b/",
        "path": lambda: f"{tmp_path}/out/",
        "relative": lambda: "out/../out",
        "file": lambda: f"file://{tmp_path}/out",
        "memory": lambda: f"memory://{tmp_path.name}/out/",
    }[place]()
    shards = write_shards(table, out, size=SIZE)
    monkeypatch.chdir("/")  # what is open stays so
    assert len(shards.of("train")) > 1
    assert max(shard.rows for shard in shards.shards) > ROW_GROUP
    by_id = {row["id"]: i for i, row in enumerate(table.rows)}
    seen = []
    for shard in shards.shards:
        assert shard.bytes < 1.3 * SIZE
        found = shards.read(shard, 0, shard.rows).to_pylist()
        assert shard.without_text == sum(row["text"] is None for row in found)
        assert shard.without_image == sum(not row["images"] for row in found)
        for row in found:
            index = by_id[row["id"]]
            sample = table.sample(index)
            assert row["images"] == [Path(path).read_bytes() for path in sample.images]
            assert (row["text"], row["group"], row["subgroup.sex"]) == (sample.text, sample.group, "F")
            assert table.splits[index] == shard.split
            assert row["target.kind"] == table.targets["kind"][index]
            np.testing.assert_array_equal(np.float32(row["target.signs"]), table.targets["signs"][index])
            assert tuple(row["target.words"]) == table.targets["words"][index]
            seen.append(row["id"])
    assert sorted(seen) == sorted(by_id)
    assert shards.labels == table.labels
    assert verify_shards(shards.url).damaged == {}


def test_an_index_that_counts_no_labels_has_the_identity_of_one_from_before(table, tmp_path):
    """Where all tasks are captions or numbers; a run on the old shards goes on with these."""
    write_shards(table, str(tmp_path), size=10**6)
    index, found = json.loads((tmp_path / "shards.json").read_text()), []
    for shard in index["shards"]:
        shard["labels"] = {}
    for _ in range(2):
        (tmp_path / "shards.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")
        found.append(open_shards(str(tmp_path)).identity)
        for shard in index["shards"]:
            shard.pop("labels", None)
    assert found[0] == found[1]


def test_a_block_of_images_is_held_by_those_who_evaluate(table, tmp_path, monkeypatch):
    """And no longer: a worker would hold it while the next epoch is trained."""
    write_shards(table, str(tmp_path), size=10**6)
    monkeypatch.setenv("MMFUSE_DATA_ROOT", str(tmp_path))
    found = load_table(load_manifest(tmp_path / "manifest.yaml"))
    pairs = PairDataset(found, token_ids=None, image_options=ImageOptions((8, 8)))
    read, blocks = ShardRows.read, []
    monkeypatch.setattr(ShardRows, "read", lambda self, *given: (blocks.append(given), read(self, *given))[1])
    for times in (1, 2):
        plain = pairs.plain()
        assert [plain.images[row] for row in (0, 1)] == [found.encoded[row] for row in (0, 1)]
        assert len(blocks) == times + 1


def test_some_rows_and_columns(table, tmp_path):
    shards = write_shards(table, str(tmp_path), size=10**6)
    (shard,) = shards.of("train")
    ids = shards.read(shard, 0, shard.rows, ["id"])["id"].to_pylist()
    for start, stop in [(0, 1), (63, 65), (64, 128), (100, 10**9), (shard.rows - 1, shard.rows), (7, 7)]:
        found = shards.read(shard, start, stop, ["text", "id"])
        assert set(found.column_names) == {"id", "text"}
        assert found["id"].to_pylist() == ids[start:stop]
    assert ids != sorted(ids, key=lambda name: int(name[1:]))  # neighbours have nothing in common


class Texts(Dataset):
    def __init__(self, shards):
        self.shards = shards

    def __len__(self):
        return len(self.shards.shards)

    def __getitem__(self, index):
        shard = self.shards.shards[index]
        return os.getpid(), self.shards.read(shard, 0, shard.rows, ["id"])["id"].to_pylist()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: this process has threads
def test_forked_workers_read_from_an_object_store(table, object_store):
    shards = write_shards(table, object_store, size=SIZE)
    data = Texts(shards)
    here = [data[i][1] for i in range(len(data))]  # this process has connections and a loop, which a fork must not use
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=HANG)
    for _ in range(2):
        there = list(loader)
        assert [ids for _, ids in there] == here
        assert len({process for process, _ in there} - {os.getpid()}) == 2


@pytest.mark.parametrize("place", ["s3", "disk"])
def test_a_damaged_shard_is_named_and_refused_or_skipped(place, table, tmp_path, request):
    out = request.getfixturevalue("object_store") if place == "s3" else str(tmp_path)
    whole = write_shards(table, out, size=SIZE)
    cut, gone = whole.of("train")[:2]
    change(out, cut.file, files(out)[cut.file][:-100])
    system, root = elsewhere(out)
    system.rm_file(f"{root}/{gone.file}")
    with pytest.raises(MmfuseError, match=f"{cut.file}: .* bytes, but .* were written; .*{cut.rows} rows"):
        open_shards(out)
    found = open_shards(f"{out}/shards.json", damaged="skip")
    assert set(found.damaged) == {cut.file, gone.file}
    assert found.damaged[gone.file] == (gone, "missing")
    assert found.shards == [shard for shard in whole.shards if shard not in (cut, gone)]
    assert found.identity == whole.identity
    assert sum(len(found.read(shard, 0, shard.rows)) for shard in found.shards) == ROWS - cut.rows - gone.rows
    with pytest.raises(MmfuseError, match=f"{cut.file}: cannot be read"):  # cut while it was open
        whole.read(cut, 0, cut.rows)


def test_a_flipped_bit_is_an_error_or_changes_nothing(table, object_store):
    shards = write_shards(table, object_store, size=SIZE)
    shard = shards.of("train")[0]
    good, data = shards.read(shard, 0, shard.rows), files(object_store)[shard.file]
    draw, errors = random.Random(0), 0
    for _ in range(30):
        bad = bytearray(data)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        change(object_store, shard.file, bytes(bad))
        shards_module._footer.cache_clear()
        try:
            assert shards.read(shard, 0, shard.rows) == good
        except MmfuseError as error:
            errors += str(error).startswith(f"{object_store}/{shard.file}: cannot be read: ")
        assert list(verify_shards(object_store).damaged) == [shard.file]
    assert errors > 20


def test_every_bit_of_a_footer_counts(table, tmp_path):
    shards = write_shards(table, str(tmp_path), size=SIZE)
    shard = shards.of("test")[0]
    path, where = tmp_path / shard.file, f"{tmp_path}/{shard.file}: cannot be read: its footer"
    data = path.read_bytes()
    assert data.endswith(b"PAR1")
    for place in range(len(data) - shard.footer_bytes, len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        shards_module._footer.cache_clear()
        with pytest.raises(DamagedShardError, match=f"^{where}"):
            shards.read(shard, 0, shard.rows)
    studies = ShardStudies(str(tmp_path), "skip")
    assert sum(sample.problem is not None for sample in studies.read(0, len(studies))) == shard.rows

    path.write_bytes(data)
    index = json.loads((tmp_path / "shards.json").read_text())
    for found in index["shards"]:
        del found["footer_bytes"], found["footer_sha256"]
    (tmp_path / "shards.json").write_text(json.dumps(index))  # as it was before these were kept
    before = open_shards(tmp_path)
    assert before.read(before.of("test")[0], 0, shard.rows) == shards.read(shard, 0, shard.rows)


def test_verify_says_what_is_whole(table, object_store, mmfuse):
    shards = write_shards(table, object_store, size=SIZE)
    code, out, _ = mmfuse("data", "verify", object_store)
    assert (code, out) == (0, f"{len(shards.shards)} shards, {ROWS} rows: all whole\n")
    first, second = shards.shards[:2]
    change(object_store, first.file, files(object_store)[second.file])
    index = json.loads(files(object_store)["shards.json"])  # the right file, but another number of rows
    index["shards"][1]["rows"] += 1
    index["rows"] += 1
    change(object_store, "shards.json", json.dumps(index).encode())
    code, out, _ = mmfuse("data", "verify", f"{object_store}/")
    assert code == 4
    assert f"{object_store}/{first.file} ({first.rows} rows): " in out
    assert (
        f"{second.file} ({second.rows + 1} rows): holds {second.rows} rows, but the index says {second.rows + 1}" in out
    )
    opened = open_shards(object_store, damaged="skip")
    wrong, _ = opened.damaged[second.file]
    with pytest.raises(MmfuseError, match=f"{second.file}: holds"):
        opened.read(wrong, 0, 5)


def test_what_verify_finds_is_noted_until_it_is_whole(table, tmp_path, mmfuse):
    shards, calls = write_shards(table, str(tmp_path), size=SIZE), []
    rotten, gone = shards.of("train")[:2]
    path, note = tmp_path / rotten.file, tmp_path / "shards.damaged.json"
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    moved = (tmp_path / gone.file).rename(tmp_path / "elsewhere")
    assert len(open_shards(tmp_path, "skip").damaged) == 1  # nothing tells of the bit
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "replace", lambda *names: os.mkdir(tmp_path))  # any OSError
        code, out, err = mmfuse("data", "verify", tmp_path)
        assert code == 4
        assert f"{rotten.file} ({rotten.rows} rows): its bytes are not those" in out
        assert err.startswith(f"{note}: cannot be written: File exists: what was found is not noted")
    code, out, err = mmfuse("data", "verify", tmp_path)
    assert (code, err) == (4, f"noted in {note}; with damaged: skip they are left out\n")
    moved.rename(tmp_path / gone.file)  # the listing tells of it, and no note
    found = open_shards(tmp_path, "skip")
    assert list(found.damaged) == [rotten.file]
    assert found.damaged[rotten.file][1].startswith("its bytes are not those that were written (sha256) (found by")
    assert rotten not in found.shards
    with pytest.raises(MmfuseError, match=rf"{rotten.file}: its bytes .*{rotten.rows} rows out \(damaged: skip\)"):
        ShardStudies(str(tmp_path))
    studies = ShardStudies(str(tmp_path), "skip")  # what is whole in it is predicted still
    assert sum(sample.problem is not None for sample in studies.read(0, len(studies))) == ROW_GROUP
    noted = note.read_text()
    for text in (noted[:-9], "[]"):
        note.write_text(text)
        with pytest.raises(MmfuseError, match=r"^\S*/shards.damaged.json: not as `mmfuse data verify` writes it"):
            open_shards(tmp_path)
    note.write_text(noted.replace(found.identity, "0" * 64))  # of shards that were here before
    assert open_shards(tmp_path).damaged == {}
    path.write_bytes(data)
    assert verify_shards(tmp_path, lambda *done: calls.append(done)).damaged == {}
    assert calls == [(number, len(shards.shards)) for number in range(1, len(shards.shards) + 1)]
    assert not note.exists()


@pytest.mark.parametrize(
    "edit",
    [
        {"version": 2},
        {"rows": 7},
        {"shards": [{"file": "../train-00000.parquet"}]},
        {"shards": [{"file": "train-00000.parquet", "split": "test", "rows": 1, "bytes": 1, "sha256": ""}], "rows": 1},
        {"labels": None},
        [],
        None,
    ],
)
def test_an_index_that_is_none_is_one_clear_line(edit, table, tmp_path):
    write_shards(table, str(tmp_path))
    index = tmp_path / "shards.json"
    edited = {**json.loads(index.read_bytes()), **edit} if isinstance(edit, dict) else edit
    index.write_text("{" if edit is None else json.dumps(edited))
    with pytest.raises(MmfuseError, match=r"^\S*/shards.json: (not an index|version 2)"):
        open_shards(tmp_path)


def test_no_index_there(tmp_path, object_store):
    for place in (tmp_path / "none", object_store, f"{object_store}-none"):
        with pytest.raises(MmfuseError, match=r"shards.json: no such file; `mmfuse data shard` writes one"):
            open_shards(place)
    with pytest.raises(MmfuseError, match="nosuch"):
        open_shards("nosuch://x/y")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: this process has threads
def test_killed_at_every_file_it_goes_on_to_the_same_bytes(table, pairs, tmp_path, monkeypatch):
    write_shards(table, str(tmp_path / "undisturbed"), size=SIZE)
    out, replace, runs = tmp_path / "killed", os.replace, 0
    while not (out / "shards.json").exists():
        child = os.fork()
        if child == 0:
            left = [None, None]

            def dying(*names, left=left):
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left.pop()
                replace(*names)

            monkeypatch.setattr(os, "replace", dying)  # a file is written, but not yet in place
            write_shards(table, str(out), size=SIZE)
            os._exit(0)
        os.waitpid(child, 0)
        runs += 1
        assert runs < 100
    told = []
    write_shards(table, str(out), size=SIZE, tell=told.append)  # the last one may have left its records
    assert runs > 5
    assert "nothing to do" in told[0]
    assert files(out) == files(tmp_path / "undisturbed")


def test_a_broken_off_upload_goes_on(table, object_store, tmp_path, monkeypatch):
    write_shards(table, str(tmp_path), size=SIZE)
    system, put, names = fsspec.filesystem("s3"), fsspec.filesystem("s3").pipe_file, []

    def breaking(path, data):
        if len(names) == 6:
            raise OSError("the line is cut")
        names.append(path)
        put(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(system, "pipe_file", breaking)
        with pytest.raises(MmfuseError, match=r"\.json: cannot be written: the line is cut"):
            write_shards(table, object_store, size=SIZE)
        before = files(object_store)
        assert "shards.json" not in before
        with pytest.raises(MmfuseError, match="unfinished shards of other data, or of another size"):
            write_shards(table, object_store, size=SIZE + 1)
        patched.setattr(system, "pipe_file", lambda path, data: (names.append(path), put(path, data)))
        told = []
        write_shards(table, object_store, size=SIZE, tell=told.append)
    assert told == [f"{object_store}: went on after 2 shards that an earlier run wrote"]
    assert not any(path.endswith(("train-00000.parquet", "train-00001.parquet")) for path in names[6:])
    assert files(object_store) == files(tmp_path)


def test_a_folder_is_written_once(table, tmp_path):
    shards, told = write_shards(table, str(tmp_path), size=SIZE), []
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert write_shards(table, str(tmp_path), size=SIZE, tell=told.append) == shards
    assert told == [f"{tmp_path}: finished before, and the data has not changed: nothing to do"]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(MmfuseError, match=r"shards of other data, or of another size; .*--overwrite"):
        write_shards(table, str(tmp_path), size=SIZE // 2)
    (tmp_path / "notes.txt").write_text("mine")
    smaller = write_shards(table, str(tmp_path), size=SIZE // 2, overwrite=True)
    assert len(smaller.shards) > len(shards.shards)
    assert {shard.file for shard in smaller.shards} == {path.name for path in tmp_path.glob("*.parquet")}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "shards.json").unlink()
    with pytest.raises(MmfuseError, match=r"not empty \('manifest.yaml'\), and no index of shards"):
        write_shards(table, str(tmp_path), size=SIZE)


def test_overwrite_deletes_what_is_ours_and_nothing_else(table, pairs, tmp_path, mmfuse, monkeypatch):
    for name in ("manifest.yaml", "errors.jsonl", "train-00000.parquet", "train-00000.parquet.written.json"):
        mine = tmp_path / name / name
        mine.parent.mkdir()
        mine.write_text("precious")
        for overwrite in (False, True):
            with pytest.raises(MmfuseError, match=r"not empty \(.*\), and no index of shards; give another folder$"):
                write_shards(table, str(mine.parent), overwrite=overwrite)
        assert files(mine.parent) == {name: b"precious"}
    before = files(tmp_path / "manifest.yaml")
    monkeypatch.chdir(pairs)
    for out in (".", f"file://{pairs}"):
        code, _, err = mmfuse(
            *("data", "shard", pairs / "manifest.yaml", "--data-root", pairs, "--out", out, "--overwrite")
        )
        assert (code, err.count("\n")) == (2, 1)
        assert "its manifest.yaml is what is to be sharded" in err
    assert (pairs / "manifest.yaml").read_text() == yaml.safe_dump(MANIFEST)
    assert files(tmp_path / "manifest.yaml") == before

    out, left = tmp_path / "out", f".train-00000.parquet.{'a' * 32}.tmp"
    mine = {"thesis.tmp", "thesis.written.json", f".thesis.{'a' * 32}.tmp", ".train-00000.parquet.tmp"}
    write_shards(table, str(out), size=SIZE)
    (out / "work.tmp").mkdir()
    for name in (*mine, left):
        (out / name).write_text("precious")
    for overwrite in (False, True):
        write_shards(table, str(out), size=SIZE // (1 + overwrite), overwrite=overwrite)
        assert {path.name for path in out.iterdir() if "tmp" in path.name or "thesis" in path.name} == {
            *mine,
            "work.tmp",
        }


def test_killed_while_it_overwrites_it_still_knows_its_own(table, tmp_path, monkeypatch):
    write_shards(table, str(tmp_path / "undisturbed"), size=SIZE // 2)
    out, remove, removed = str(tmp_path / "out"), LocalFileSystem.rm_file, []

    def dying(self, path):
        removed.append(path)
        if len(removed) in (2, 5):
            raise KeyboardInterrupt
        remove(self, path)

    write_shards(table, out, size=SIZE)
    monkeypatch.setattr(LocalFileSystem, "rm_file", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_shards(table, out, size=SIZE // 2, overwrite=True)
        with pytest.raises(MmfuseError, match=r"holds unfinished shards of other data, .*or --overwrite"):
            write_shards(table, out, size=SIZE // 2)
    write_shards(table, out, size=SIZE // 2, overwrite=True)
    assert files(out) == files(tmp_path / "undisturbed")


def test_an_image_that_changed_is_other_data(pairs, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "rows.csv").write_text("id,image\na,a.png\n")
    (tmp_path / "m.yaml").write_text("{name: n, rows: rows.csv, id: id, image: {column: image}}")
    rows = load_table(load_manifest(tmp_path / "m.yaml"))
    write_shards(rows, str(tmp_path / "out"))
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    with pytest.raises(MmfuseError, match="shards of other data"):
        write_shards(rows, str(tmp_path / "out"))


def test_a_row_whose_image_cannot_be_read_is_an_error_not_a_loss(tmp_path, mmfuse, monkeypatch):
    secret = tmp_path / "Mustermann_Erika"
    secret.mkdir()
    lines = ["id,image,text"]
    for i in range(40):
        Image.new("L", (8, 8), i).save(secret / f"{i}.png")
        lines.append(f"r{i},{i}.png;{(i + 1) % 40}.png,secret words {i}")
    (secret / "3.png").unlink()
    (secret / "9.png").write_bytes((secret / "9.png").read_bytes()[:40])
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    image = {"column": "image", "separator": ";", "root": str(secret)}
    text = {"columns": ["text"]}
    (tmp_path / "m.yaml").write_text(
        yaml.safe_dump({"name": "n", "rows": "rows.csv", "id": "id", "image": image, "text": text})
    )
    decoded, read_image = [], sharding.read_image
    monkeypatch.setattr(sharding, "read_image", lambda data: (decoded.append(data), read_image(data)))
    code, out, _ = mmfuse("data", "shard", tmp_path / "m.yaml", "--out", tmp_path / "out", "--size", "2KB")
    shards = open_shards(tmp_path / "out")
    assert code == 0
    assert out.startswith(f"40 rows = 36 in {len(shards.shards)} shards + 4 errors\n")
    assert len(decoded) == 36 * 2 + 1 + 1 + 2  # 2 rows fail at a missing file, 2 at a damaged one, first or second
    assert (shards.errors, sum(shard.rows for shard in shards.shards)) == (4, 36)
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert {(error["id"], error["reason"]) for error in errors} == {
        ("r2", "image 3.png: no such file"),
        ("r3", "image 3.png: no such file"),
        ("r8", "image 9.png: truncated PNG"),
        ("r9", "image 9.png: truncated PNG"),
    }
    for error in errors:
        assert set(error) == {"id", "split", "reason"}
    for content in files(tmp_path / "out").values():
        assert b"Mustermann" not in content


@pytest.fixture
def web(tmp_path, monkeypatch):
    """(A URL of `tmp_path`, how many times each path fails yet): a server that knows no ranges and tells no sizes."""
    fails: Counter[str] = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(tmp_path))

        def do_GET(self):
            name = self.path.rsplit("/", 1)[-1]
            fails[name] -= self.command == "GET"
            if fails[name] >= 0:
                self.send_error(503)
            elif self.command == "HEAD":
                super().do_HEAD()
            else:
                super().do_GET()

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *given):
            pass

    monkeypatch.setattr(stores, "PAUSES", (0, 0, 0))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", fails
        server.shutdown()


def test_a_network_that_fails_makes_no_row_an_error(tmp_path, web):
    url, fails = web
    lines = ["id,image"]
    for i in range(40):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
        lines.append(f"r{i},{url}/{i}.png")
    (tmp_path / "3.png").unlink()
    (tmp_path / "9.png").write_bytes((tmp_path / "9.png").read_bytes()[:40])
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "m.yaml").write_text(
        "{name: n, rows: rows.csv, id: id, image: {column: image, urls: [URL]}}".replace("URL", url)
    )
    rows, out = load_table(load_manifest(tmp_path / "m.yaml")), str(tmp_path / "out")
    fails.update({"7.png": 3, "39.png": 99})
    with pytest.raises(MmfuseError, match=rf"^{url}/39.png: cannot be read \(ClientResponseError 503\); .* resumes$"):
        write_shards(rows, out, size=1000)
    assert "shards.json" not in files(out)
    fails.clear()
    told: list[str] = []
    assert write_shards(rows, out, size=1000, tell=told.append).errors == 2
    assert "went on after" in told[0]
    errors = [json.loads(line) for line in files(out)["errors.jsonl"].splitlines()]
    assert sorted((error["id"], error["reason"]) for error in errors) == [
        ("r3", "image 3.png: no such file"),
        ("r9", "image 9.png: truncated PNG"),
    ]


@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_lists_no_sizes(told, table, tmp_path, web, monkeypatch):
    url, cut = f"{web[0]}/out", write_shards(table, str(tmp_path / "out"), size=SIZE).of("train")[1]
    if not told:
        monkeypatch.setattr(stores, "_asked_size", lambda system, name: None)
    shards = open_shards(url)
    shard = shards.of("train")[0]
    ids = shards.read(shard, 3, 70, ["id"])["id"].to_pylist()
    assert ids == open_shards(tmp_path / "out").read(shard, 3, 70, ["id"])["id"].to_pylist()
    assert verify_shards(url).damaged == {}
    os.truncate(tmp_path / "out" / cut.file, cut.bytes - 1)
    (tmp_path / "out" / shard.file).unlink()
    assert list(open_shards(url, "skip").damaged) == ([shard.file, cut.file] if told else [shard.file])
    assert list(verify_shards(url).damaged) == [shard.file, cut.file]
    web[1]["shards.json"] = 1
    assert open_shards(url, "skip").identity == shards.identity
    web[1]["shards.json"] = 99
    with pytest.raises(FetchError, match=r"/shards.json: cannot be read \(ClientResponseError 503\)$"):
        open_shards(url, "skip")


def test_a_network_that_fails_makes_no_shard_damaged(table, tmp_path, monkeypatch):
    shards = write_shards(table, str(tmp_path), size=SIZE)
    cat, faults = LocalFileSystem.cat_file, []

    def failing(self, path, **given):
        if faults:
            raise faults.pop()
        return cat(self, path, **given)

    def problems():
        shards_module._footer.cache_clear()
        studies = ShardStudies(str(tmp_path), "skip")
        return Counter(sample.problem for sample in studies.read(0, len(studies)))

    monkeypatch.setattr(LocalFileSystem, "cat_file", failing)
    monkeypatch.setattr(stores, "PAUSES", (0, 0, 0))
    for count in range(3):
        faults += [TimeoutError("the line is slow"), PermissionError("not now"), RuntimeError("503")][:count]
        assert problems() == {None: ROWS}
    faults += [TimeoutError("the line is slow")] * 4
    with pytest.raises(FetchError, match=rf"^{tmp_path}/train-00000.parquet: cannot be fetched: the line is slow; "):
        problems()
    faults += [TimeoutError("the line is slow")] * 99
    with pytest.raises(FetchError):
        verify_shards(tmp_path)
    faults.clear()
    faults += [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        problems()
    faults += [FileNotFoundError("x")]
    name = shards.shards[0].file
    assert problems() == {
        f"shard {name}: {tmp_path}/{name}: cannot be read: it is gone": ROW_GROUP,
        None: ROWS - ROW_GROUP,
    }


def test_no_row_is_left(tmp_path, mmfuse):
    (tmp_path / "rows.csv").write_text("id,image\na,a.png\nb,b.png\n")
    (tmp_path / "m.yaml").write_text("{name: n, rows: rows.csv, id: id, image: {column: image}}")
    code, out, _ = mmfuse("data", "shard", tmp_path / "m.yaml", "--out", tmp_path / "out")
    assert code == 3
    assert out.startswith("2 rows = 0 in 0 shards + 2 errors")


def test_the_shards_manifest_names_no_place_of_this_machine(table, pairs, object_store, mmfuse):
    code, out, _ = mmfuse("data", "shard", pairs / "manifest.yaml", "--out", object_store, "--data-root", pairs)
    assert code == 0, out
    for name, content in files(object_store).items():
        assert str(pairs).encode() not in content, name
    manifest = load_manifest(f"{object_store}/manifest.yaml", "/elsewhere")
    assert manifest.rows == f"{object_store}/shards.json"
    assert manifest.image is not None
    assert manifest.image.root == object_store
    assert manifest.tasks["words"].report_metrics == ["chexbert:/elsewhere/chexbert"]
    original = load_manifest(pairs / "manifest.yaml", "/elsewhere")
    assert (manifest.tasks, manifest.text, manifest.splits) == (original.tasks, original.text, original.splits)
    code, _, err = mmfuse("data", "shard", f"{object_store}/manifest.yaml", "--out", "x", "--data-root", "y")
    assert (code, err) == (2, f"error: {object_store}/manifest.yaml: its rows are shards already\n")
    code, _, err = mmfuse("data", "check", f"{object_store}/manifest.yaml", "--data-root", "y")
    assert (code, err.count("\n")) == (2, 1)
    assert "its rows are shards: check the manifest they were made of" in err


def test_a_manifest_at_a_url_has_its_rows_and_images_beside_it(pairs, object_store, mmfuse, tmp_path):
    rows = (pairs / "rows.csv").read_bytes().splitlines(keepends=True)[:9]
    change(object_store, "data/rows.csv", b"".join(rows))
    (pairs / "few.csv").write_bytes(b"".join(rows))
    for path in pairs.glob("images/[0-8]_?.png"):
        change(object_store, f"data/images/{path.name}", path.read_bytes())
    here, there = {**MANIFEST, "rows": "few.csv"}, {**MANIFEST, "rows": "../data/rows.csv"}
    there["image"] = {**MANIFEST["image"], "root": "./images"}
    there["tasks"] = {
        name: {k: v for k, v in task.items() if k != "report_metrics"} for name, task in MANIFEST["tasks"].items()
    }
    (pairs / "few.yaml").write_text(yaml.safe_dump(here))
    change(object_store, "data/m.yaml", yaml.safe_dump(there).encode())
    local, remote = load_manifest(pairs / "few.yaml", str(pairs)), load_manifest(f"{object_store}/data/m.yaml", "/none")
    assert remote.sha256 != local.sha256
    assert load_table(remote).rows["images"][1] == [f"{object_store}/data/images/1_0.png"]
    assert write_shards(load_table(remote), str(tmp_path / "a")).shards == (
        write_shards(load_table(local), str(tmp_path / "b")).shards
    )
    _, out, _ = mmfuse("data", "check", f"{object_store}/data/m.yaml", "--data-root", "/none")
    assert "8 rows" in out
    with pytest.raises(MmfuseError, match=rf"^{object_store}/data/none.yaml: no such file$"):
        load_manifest(f"{object_store}/data/none.yaml")


def test_sizes():
    legal = {"128MB": 128_000_000, "64 MiB": 2**26, "1kb": 1000, "1.5KiB": 1536, "1GiB": 2**30, "70000B": 70_000}
    assert {text: parse_size(text) for text in legal} == legal
    for nonsense in ("", "big", "64", "64M", "-1MB", "1e3MB", "64MB2", "nanMB", "9" * 400 + "MB"):
        with pytest.raises(MmfuseError, match="a number with KB, MB, GB, KiB, MiB or GiB is expected, such as 128MB"):
            parse_size(nonsense)
    for extreme in ("10B", "0MB", "2GB"):
        with pytest.raises(MmfuseError, match="it must be at least 1KB and at most 1GiB"):
            parse_size(extreme)


def test_no_more_than_a_shard_is_in_memory(tmp_path, monkeypatch):
    rng, lines = np.random.default_rng(0), ["id,image"]
    for i in range(200):
        Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8)).save(tmp_path / f"{i}.bmp")
        lines.append(f"{i},{i}.bmp")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "m.yaml").write_text("{name: n, rows: rows.csv, id: id, image: {column: image}}")
    rows = load_table(load_manifest(tmp_path / "m.yaml"))
    monkeypatch.setattr(sharding, "_THREADS", 2)
    monkeypatch.setattr(sharding, "_AHEAD", 4)
    tracemalloc.start()
    write_shards(rows, str(tmp_path / "out"), size=10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 10**6  # of 18


def test_the_footers_that_are_held_are_few_and_small(table, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "SHARD_ROWS", 2 * ROW_GROUP)
    shards = write_shards(table, str(tmp_path))
    counts = table.counts()
    sizes = [-(-counts[split] // (2 * ROW_GROUP)) for split in SPLITS]
    assert sum(sizes) == len(shards.shards) > 3
    assert max(shard.rows for shard in shards.shards) == 2 * ROW_GROUP
    assert verify_shards(tmp_path).damaged == {}
    for number in range(40):
        shards_module._footer(shards.url, dataclasses.replace(shards.shards[0], without_text=number))
    assert shards_module._footer.cache_info().currsize <= 16


RATIOS = {"ratios": {"train": 0.6, "validation": 0.2, "test": 0.2}}


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Of rows, what `load_table` makes of them, and what comes of them in blocks of 8 and parts of 3."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(blocks, "PART", 3)
    monkeypatch.setattr(rows, "BLOCK", 5)

    def describe(lines, **manifest):
        with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        given = {"name": "n", "rows": "rows.jsonl", "id": "id", "text": {"columns": ["text"]}, **manifest}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(given))
        return load_manifest(tmp_path / "m.yaml")

    return describe


def test_blocks_of_the_files_are_those_of_the_table(pairs, tmp_path, monkeypatch):
    """Byte for byte, in blocks of 64 rows of which a part is encoded at once."""
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(blocks, "PART", 10)
    monkeypatch.setattr(rows, "BLOCK", 50)
    manifest = load_manifest(pairs / "manifest.yaml", str(pairs))
    whole, told = load_table(manifest), []
    streamed = open_blocks(manifest, tell=told.append)
    assert isinstance(streamed, FileBlocks)
    assert told == []
    shards = write_shards(whole, str(tmp_path / "table"), size=SIZE)
    assert write_shards(streamed, str(tmp_path / "files"), size=SIZE).shards == shards.shards
    assert files(tmp_path / "files") == files(tmp_path / "table")
    ids = [i for split in SPLITS for part in streamed.ordered(split, 0) for i in part["id"]]
    assert sorted(ids) == sorted(whole.rows["id"])
    rest = [i for part in streamed.ordered("train", 100) for i in part["id"]]
    assert rest == ids[100 : whole.counts()["train"]]  # of a run that goes on


def test_labels_and_columns_that_come_late(described):
    lines = [{"id": f"{i}", "text": f"t{i}", "kind": "ab"[i % 2], "all": "x"} for i in range(30)]
    lines += [{"id": "30", "text": "", "kind": "z", "all": "x;y", "late": "1"}, {"id": "31", "text": "u", "kind": "z"}]
    lines += [{"id": "32", "text": "v", "kind": "rare", "all": "y"}]
    tasks = {
        "kind": {"type": "classification", "column": "kind", "min_count": 2},
        "all": {"type": "multilabel", "column": "all", "separator": ";"},
        "late": {"type": "multilabel", "columns": ["late"]},
    }
    manifest = described(lines, tasks=tasks, splits=RATIOS)
    whole, streamed = load_table(manifest), FileBlocks(manifest)
    assert streamed.labels == whole.labels == {"kind": ["a", "b", "z"], "all": ["x", "y"], "late": ["late"]}
    parts = list(streamed.blocks())
    assert max(len(part["id"]) for part in parts) == 3
    assert [split for part in parts for split in part["splits"]] == whole.splits
    assert [text for part in parts for text in part["text"]] == whole.rows["text"][:]
    for task, targets in whole.targets.items():
        np.testing.assert_array_equal([t for part in parts for t in part[f"target.{task}"]], targets)


def distinct(count=30, **columns):
    return [{"id": f"{i}", "text": f"t{i}", "g": f"g{i}", "s": "train", **columns} for i in range(count)]


FAULTS = {
    "an id again": ({3: {"id": "29"}}, {}),
    "no id": ({20: {"id": " "}}, {}),
    "a group in two splits": ({2: {"g": "p"}, 27: {"g": "p", "s": "test"}}, {"group": "g"}),
    "a duplicate across splits": ({2: {"text": "same"}, 26: {"text": "same"}, 27: {"text": "same", "s": "test"}}, {}),
    "a captioned image in two splits": (
        {2: {"image": "a.png", "caption": "one two"}, 27: {"image": "b.png;a.png", "caption": "three", "s": "test"}},
        {
            "image": {"column": "image", "separator": ";"},
            "tasks": {"c": {"type": "captioning", "column": "caption"}},
        },
    ),
    "a copied caption": (
        {7: {"text": "a b c d e", "caption": "b c d e"}, 25: {"text": "So: A b, c d", "caption": "a b c d"}},
        {"tasks": {"c": {"type": "captioning", "column": "caption"}}},
    ),
    "no caption": ({5: {"caption": ""}}, {"tasks": {"c": {"type": "captioning", "column": "caption"}}}),
    "a class that is not legal": (
        {28: {"kind": "c"}},
        {"tasks": {"k": {"type": "classification", "column": "kind", "values": ["a", "b"]}}},
    ),
    "one label": ({28: {"kind": "c"}}, {"tasks": {"k": {"type": "classification", "column": "kind"}}}),
    "a value that is not legal": ({28: {"k": "2"}}, {"tasks": {"k": {"type": "multilabel", "columns": ["k"]}}}),
    "another split": ({28: {"s": "dev"}}, {}),
    "a missing column": ({}, {"group": "patient"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_table_refuses_blocks_refuse_in_the_same_words(described, fault):
    changes, given = FAULTS[fault]
    lines = distinct()
    for row, change_of in changes.items():
        lines[row] |= change_of
    manifest = described(lines, splits={"column": "s"}, **given)
    with pytest.raises(MmfuseError) as whole:
        load_table(manifest)
    with pytest.raises(MmfuseError) as streamed:
        open_blocks(manifest)
    assert str(streamed.value) == str(whole.value)


def test_where_hashes_are_equal_the_rows_themselves_tell(described, monkeypatch):
    monkeypatch.setattr(leaks, "_hashes", lambda values: np.full(len(list(values)), hash("")))
    lines = distinct()
    lines[9]["s"] = "test"
    assert len(list(open_blocks(described(lines, group="g", splits={"column": "s"})).blocks())) == 10
    lines[9]["id"] = lines[20]["id"] = "5"
    with pytest.raises(MmfuseError, match="name each row once, but '5' stands in 3 rows"):
        open_blocks(described(lines))


@pytest.mark.parametrize("splits", [{"stratify": "k", **RATIOS}, {"exact": True, **RATIOS}])
def test_splits_that_need_all_rows_are_told(described, splits):
    tasks, told = {"k": {"type": "classification", "column": "s"}}, []
    lines = distinct()
    lines[9]["s"] = "b"
    assert isinstance(open_blocks(described(lines, splits=splits, tasks=tasks), tell=told.append), TableBlocks)
    assert f"splits.{next(iter(splits))} needs all rows in memory" in told[0]


def test_folds_by_hash_need_no_table(described):
    manifest = described(distinct(), splits={"folds": 3})
    streamed = open_blocks(manifest, fold=1)
    assert isinstance(streamed, FileBlocks)
    assert [s for part in streamed.blocks() for s in part["splits"]] == load_table(manifest, fold=1).splits
    with pytest.raises(MmfuseError, match="choose one with data"):
        open_blocks(manifest)


def test_rows_that_change_meanwhile_are_refused(described, tmp_path):
    streamed = open_blocks(described(distinct(), splits={"column": "s"}))
    before, source = (tmp_path / "rows.jsonl").read_text(), sharding._source
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            sharding, "_source", lambda *given: (source(*given), (tmp_path / "rows.jsonl").write_text(before[:300]))[0]
        )
        with pytest.raises(MmfuseError, match=r"m\.yaml: the rows changed|rows\.jsonl: line"):
            write_shards(streamed, str(tmp_path / "out"))


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 512)
    monkeypatch.setattr(blocks, "PART", 256)
    monkeypatch.setattr(rows, "BLOCK", 256)
    peaks = []
    for count in (2000, 8000):
        lines = [f"{i},{i} {'word ' * 200}" for i in range(count)]
        (tmp_path / "rows.csv").write_text("\n".join(["id,text", *lines]))
        (tmp_path / "m.yaml").write_text("{name: n, rows: rows.csv, id: id, text: {columns: [text]}}")
        manifest = load_manifest(tmp_path / "m.yaml")
        tracemalloc.start()
        streamed = open_blocks(manifest)
        assert sum(len(part["id"]) for split in SPLITS for part in streamed.ordered(split, 0)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 80 * 6000  # the rows are 1,000 bytes each
