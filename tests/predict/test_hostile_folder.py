"""A folder with all that a careless or hostile one has: each study is a prediction or an error, nothing waits."""

import json
import os
import shutil

import pytest

from mmfuse.predict import Predictor, open_studies, predict_to_file


@pytest.fixture
def outcome(model_dir, tmp_path):
    """Predict a folder, after something was done to it between listing and reading: (good ids, reasons by id)."""

    def run(folder, meanwhile=lambda: None):
        studies, out = open_studies(str(folder)), tmp_path / "out.jsonl"
        meanwhile()
        predict_to_file(Predictor.from_pretrained(model_dir), studies, out)
        # As strict a reader as there is: UTF-8, a JSON object a line, and nothing but "\n" ends a line.
        read = [path.read_bytes().decode("utf-8") for path in (out, out.with_suffix(".errors.jsonl"))]
        good, bad = ([json.loads(line) for line in text.split("\n")[:-1]] for text in read)
        assert sorted(row["id"] for row in good + bad) == list(studies.ids())
        return [row["id"] for row in good], {row["id"]: row["reason"] for row in bad}

    return run


def test_no_file_is_lost_and_none_is_waited_for(outcome, pairs, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    image, text = (sorted(pairs.glob(f"*{suffix}"))[0] for suffix in (".png", ".txt"))

    def put(name, picture=image):
        for path in (picture, text):
            shutil.copyfile(os.fsencode(path), os.fsencode(root) + b"/" + name + os.fsencode(path.suffix))

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for name in (b"good", b"line\nbreak", b"not utf-8 \xff", b"-rf", b"gone", b"half gone"):
        put(name)
    put(b"bad \xfe\n", broken)
    (root / "fifo.txt").write_text("Cough.")
    os.mkfifo(root / "fifo.png")
    (root / "loop.txt").write_text("Cough.")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "around").symlink_to(root)
    (root / "folder.png").mkdir()
    shutil.copyfile(image, root / "folder.png" / "inner.png")
    shutil.copyfile(text, root / "folder.png" / "inner.txt")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "device.txt").write_text("Cough.")

    def meanwhile():
        (root / "gone.png").unlink()
        (root / "gone.txt").unlink()
        (root / "half gone.png").unlink()

    good, bad = outcome(root, meanwhile)
    assert good == ["-rf", "folder.png/inner", "good", "line\nbreak", "not utf-8 \\xff"]
    assert bad["gone"] == "text: no such file"
    assert bad["half gone"] == "image half gone.png: no such file"
    assert "not a regular file" in bad["fifo"]
    assert "not a regular file" in bad["device"]
    assert "loop" in bad
    assert bad["bad \\xfe\n"].startswith("image bad \\udcfe\\n.png: not an image")
    assert len(bad) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error(outcome, pairs, tmp_path):
    root = tmp_path / "in"
    (root / "locked").mkdir(parents=True)
    for path in (*sorted(pairs.glob("*.png"))[:1], *sorted(pairs.glob("*.txt"))[:1]):
        shutil.copyfile(path, root / f"a{path.suffix}")
    (root / "a.txt").chmod(0)
    (root / "locked").chmod(0)
    try:
        assert outcome(root) == ([], {"a": "text: permission denied", "locked/": "folder: permission denied"})
    finally:
        (root / "locked").chmod(0o700)
