"""The commonest reasons of errors: counted by kind, in the end's lines, the same however it was predicted."""

import os
import shutil
import stat
from types import SimpleNamespace

import pytest

from mmfuse.predict import Predictor, SampleStudies, open_studies, predict_to_chunks, predict_to_file, watch_folder
from mmfuse.predict.files import _check_captions
from mmfuse.predict.names import Names, alone
from mmfuse.predict.reasons import KINDS, OTHER, add_kind, kind_of, tell_kinds
from mmfuse.types import MmfuseError


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("image: no such file", ["image a.png: no such file", "image b c: d.png: no such file", "image: no such file"]),
        ("image: N x N pixels: more than max_pixels, N", ["image x.tif: 20000 x 1 pixels: more than max_pixels, 10"]),
        ("image: truncated PNG", ["image 2 of 3: truncated PNG", "image a 7.png: truncated PNG"]),
        ("text: binary, not text", ["text: binary, not text"]),
        ("N images of the same name", ["2 images of the same name: a b.png, a b.jpg", "3 images of the same name: x"]),
        ("folder: permission denied", ["folder: permission denied"]),
        ("shard: missing", ["shard train-00000.parquet: missing", "shard test-1.parquet: missing"]),
        ("shard: cannot be read: it is gone", ["shard a.parquet: s3://b/c/a.parquet: cannot be read: it is gone"]),
        ("FILE is not read (.txt .png)", [f"{name} is not read (.txt .png)" for name in ("p3.HEIC", "a/b.PNG")]),
        (
            "a file is of a kind that is not read",
            ["a b.md is of a kind that is not read; x", "a, b are of kinds that are not read"],
        ),
        ("the key '...'", ["the key 'txt'; legal: id", "the key \"it's\"; legal: id"]),
        ("JPEG 2000 has N frames", ["JPEG 2000 has 7 frames", "JPEG 2000 has 9.5 frames"]),
        ("row N: text: a list, and JSON in UTF-16", ["row 7: text: a list, and JSON in UTF-16"]),
    ],
)  # fmt: skip
def test_a_kind_is_a_reason_without_names_and_numbers(kind, reasons):
    assert {kind_of(reason) for reason in reasons} == {kind}


def test_the_commonest_are_told_first_and_there_is_an_end_to_it():
    kinds = {}
    for i in range(KINDS + 9):
        for _ in range(2 if i == 3 else 1):
            add_kind(kinds, f"kind {chr(65 + i)}")
    assert len(kinds) == KINDS + 1
    assert kinds[OTHER] == 9
    assert tell_kinds(kinds) == f"2 x kind D; 1 x kind A; 1 x kind B; 1 x kind C; 1 x kind E; {KINDS + 9 - 5} x others"
    assert tell_kinds({"a": 1}) == "1 x a"


def test_a_run_in_parts_and_one_in_chunks_count_the_same(model_dir, pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "in")
    for i in range(3):
        (tmp_path / "in" / f"x{i}.png").write_bytes(b"no picture")
        (tmp_path / "in" / f"x{i}.txt").write_text("Cough.")
    predictor, studies = Predictor.from_pretrained(model_dir, chunk=8), open_studies(str(tmp_path / "in"))

    def stop(done, errors):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to_file(predictor, studies, tmp_path / "a.jsonl", progress=stop)
    whole = predict_to_file(predictor, studies, tmp_path / "a.jsonl").reasons
    assert predict_to_chunks(predictor, studies, str(tmp_path / "b.jsonl")).reasons == whole
    assert sorted(whole.values()) == [1, 1, 4]
    assert tell_kinds(whole).startswith("4 x image: not an image (JPEG")


def test_the_command_ends_with_them(mmfuse, model_dir, pairs, tmp_path):
    code, out, _ = mmfuse("predict", model_dir, pairs, "--out", tmp_path / "p.jsonl")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("errors: ")]
    assert "; 1 x no text, and the model was trained without missing text (--missing allow); 1 x text: binary" in line
    assert ".png" not in line


def make(kind, path):
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:  # to a file, or to nothing
        path.symlink_to(path.parent / "elsewhere")
        if kind == "a symbolic link":
            (path.parent / "elsewhere").write_text("kept")


@pytest.mark.parametrize("name", [".jsonl", ".errors.jsonl", ".jsonl.partial.jsonl", ".jsonl.progress.tmp"])
@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a socket", "a symbolic link", "a symbolic link, to"])
def test_what_is_no_file_is_not_replaced(tmp_path, name, kind):
    special, out = tmp_path / f"p{name}", tmp_path / "p.jsonl"
    make(kind, special)
    with pytest.raises(MmfuseError, match=f"--out .*p.jsonl: p{name} is {kind}"), alone(Names.of(out)):
        pytest.fail("it was begun")
    assert [path.name for path in tmp_path.iterdir() if path.name != "elsewhere"] == [special.name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_engine_replaces_a_link(model_dir, pairs, tmp_path, overwrite):
    out = tmp_path / "p.jsonl"
    make("a symbolic link", out)
    predictor, studies = Predictor.from_pretrained(model_dir), SampleStudies([])
    for predict in (
        lambda: predict_to_file(predictor, studies, out, overwrite=overwrite),
        lambda: predict_to_chunks(predictor, studies, str(out), overwrite=overwrite),
        lambda: watch_folder(predictor, pairs, out, overwrite=overwrite),
    ):
        with pytest.raises(MmfuseError, match=r"p.jsonl is a symbolic link, to .*elsewhere; name the file itself"):
            predict()
    assert (os.readlink(out), out.read_text()) == (str(tmp_path / "elsewhere"), "kept")


def test_a_device_is_no_file(tmp_path, monkeypatch):
    names = Names.of(tmp_path / "p.jsonl")
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: real("/dev/null" if path == names.out else path))
    with pytest.raises(MmfuseError, match=r"p.jsonl is a device; choose another name"):
        names.refuse_special()


def test_a_folder_of_captions_that_is_none(tmp_path):
    model = SimpleNamespace(captioning=["text"], heads={})
    make("a FIFO", tmp_path / "fifo")
    make("a symbolic link, to", tmp_path / "link")
    for name, what in (("fifo", "no folder"), ("link", "a link to nothing")):
        with pytest.raises(MmfuseError, match=f"--captions-dir .*{name}: is {what}; name a new or empty folder"):
            _check_captions(model, ["a"], tmp_path / name, again=True)  # type: ignore[arg-type]
    (tmp_path / "real").mkdir()
    (tmp_path / "to").symlink_to(tmp_path / "real")
    _check_captions(model, ["a"], tmp_path / "to", again=False)  # type: ignore[arg-type]
