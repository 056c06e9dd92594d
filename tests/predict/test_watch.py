"""A folder that fills: each study is predicted once, of whole files, whatever is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from child_processes import HANG, wait_until

from mmfuse.data.rows.folder import pair_folder, scan_folder
from mmfuse.predict import Predictor, SampleStudies, predict_to_file, watch, watch_folder
from mmfuse.predict.names import Names
from mmfuse.types import MmfuseError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def studies(pairs):
    """Three whole studies, as (image, text) paths."""
    stems = sorted(path.stem for path in pairs.glob("*.png"))[:3]
    return [(pairs / f"{stem}.png", pairs / f"{stem}.txt") for stem in stems]


class Watching:
    """A watch of `inbox/` into `out.jsonl` that is told the time."""

    def __init__(self, predictor, root, layout="stem"):
        self.inbox, self.out, self.said = root / "inbox", root / "out.jsonl", []
        self.inbox.mkdir(exist_ok=True)
        self.journal = watch.Journal(Names.of(self.out), "the same", False)

        def scan():
            return scan_folder(self.inbox, layout)

        self.watch = watch.FolderWatch(predictor, scan, self.journal, 5, self.said.append, lambda: self.now)

    def drop(self, study, name):
        for path in study:
            shutil.copyfile(path, self.inbox / f"{name}{path.suffix}")

    def look(self, now):
        """The ids in both files after a look at this time."""
        self.now = now
        self.watch.look()
        return [[row["id"] for row in lines(path)] for path in (self.out, self.out.with_suffix(".errors.jsonl"))]


@pytest.fixture(scope="module")
def predictor(model_dir):
    return Predictor.from_pretrained(model_dir)


@pytest.fixture
def watching(start):
    return start()


@pytest.fixture
def start(predictor, tmp_path):
    """Begin, or begin again, to watch; journals are closed at the end."""
    journals = []

    def begin(**options):
        for journal in journals:
            journal.__exit__()
        journals.clear()
        watching = Watching(predictor, tmp_path, **options)
        journals.append(watching.journal)
        return watching

    yield begin
    for journal in journals:
        journal.__exit__()


def test_a_study_is_taken_once_when_its_files_have_settled(watching, predictor, studies):
    whole = studies[0][0].read_bytes()
    assert watching.look(0) == [[], []]
    watching.drop(studies[0], "a")
    (watching.inbox / "a.png").write_bytes(whole[:500])
    assert watching.look(1) == watching.look(5.9) == [[], []]
    (watching.inbox / "a.png").write_bytes(whole)
    assert watching.look(6) == watching.look(10.9) == [[], []]
    assert watching.look(11) == watching.look(12) == watching.look(30) == [["a"], []]
    ((entry,), _) = pair_folder(watching.inbox)
    assert lines(watching.out)[0]["tasks"] == next(iter(predictor([entry.sample()]))).tasks


def test_a_half_waits_for_the_other_and_what_is_broken_is_an_error(watching, studies):
    watching.drop(studies[0], "a")
    watching.drop(studies[1][:1], "b")
    watching.drop(studies[2], "c")
    (watching.inbox / "c.png").write_bytes(b"no picture")
    watching.look(0)
    assert watching.look(5) == watching.look(6) == [["a"], ["c"]]
    assert "no text" in watching.watch.left["b"]
    assert sum("'b' waits: no text" in line for line in watching.said) == 1
    watching.drop(studies[1], "b")
    assert watching.look(7) == watching.look(11) == [["a"], ["c"]]
    assert watching.look(12) == [["a", "b"], ["c"]]
    assert watching.watch.left == {}


def test_what_is_not_read_is_an_error_and_what_is_ignored_is_told_once(watching, studies):
    watching.drop(studies[0], "a")
    for name in ("b", "C"):
        watching.drop(studies[1][1:], name)
    watching.drop(studies[1][:1], "c")
    shutil.copyfile(studies[2][0], watching.inbox / "d.jpg_large")
    watching.drop(studies[2][1:], "d")
    for name in ("b.jxl", "e.nii.gz", "labels.csv", "README.md"):
        (watching.inbox / name).write_bytes(b"of another kind")
    watching.look(0)
    (watching.inbox / "e.nii.gz").write_bytes(b"still growing")
    assert watching.look(5) == [["a", "d"], ["C", "b", "c"]]
    (watching.inbox / "more.csv").touch()
    assert watching.look(10) == watching.look(20) == [["a", "d"], ["C", "b", "c", "e"]]
    reasons = {row["id"]: row["reason"] for row in lines(watching.out.with_suffix(".errors.jsonl"))}
    assert reasons["b"].startswith("b.jxl is of a kind that is not read")
    assert reasons["e"].startswith("e.nii.gz is of a kind that is not read")
    assert reasons["c"] == reasons["C"] != reasons["b"]
    assert "one study or several?" in reasons["c"]
    assert [line for line in watching.said if "ignored" in line] == [
        "2 file(s) ignored: README.md, labels.csv",
        "1 file(s) ignored: more.csv",
    ]


def test_what_changes_later_is_told_and_what_is_cleared_away_is_not(watching, studies):
    for name in "abc":
        watching.drop(studies[0], name)
    watching.look(0)
    watching.look(5)
    watching.said.clear()
    (watching.inbox / "a.txt").write_text("Another report.")
    (watching.inbox / "b.jpg").write_bytes(b"a second image")
    (watching.inbox / "c.txt").unlink()
    watching.drop(studies[1], "d")
    watching.look(6)
    (watching.inbox / "d.png").unlink()
    (watching.inbox / "d.txt").unlink()
    for now in (11, 12, 20):
        assert watching.look(now) == [["a", "b", "c"], []]
    assert sorted(watching.said) == [
        "'a' changed after it was predicted; it is not predicted again",
        "'b' changed after it was predicted; it is not predicted again",
        "'d' went away before it was predicted",
    ]


def test_a_file_that_changes_while_it_is_read_is_read_again(watching, studies, monkeypatch):
    watching.drop(studies[0], "a")
    watching.drop(studies[1], "b")
    watching.look(0)
    read = watch.Entry.sample

    def slow(entry):
        if entry.id == "a":
            (watching.inbox / "a.txt").write_text("Written in the meantime.")
        return read(entry)

    monkeypatch.setattr(watch.Entry, "sample", slow)
    assert watching.look(5) == [["b"], []]
    monkeypatch.undo()
    assert watching.look(6) == watching.look(10) == [["b"], []]
    assert watching.look(11) == [["b", "a"], []]


def test_a_folder_that_is_gone_for_a_time(watching, studies):
    watching.drop(studies[0], "a")
    watching.look(0)
    watching.inbox.rename(watching.inbox.with_name("elsewhere"))
    watching.look(5)
    assert watching.look(6) == [[], []]
    watching.inbox.with_name("elsewhere").rename(watching.inbox)
    assert watching.look(7) == [["a"], []]
    assert [line for line in watching.said if "cannot be read" in line] == [
        "the folder cannot be read: no such file or directory; trying again"
    ]


def test_study_folders_and_names_that_are_not_utf8(start, studies):
    watching = start(layout="study")
    for name in (b"s1", b"ward \xff\n2"):
        folder = os.path.join(os.fsencode(watching.inbox), name)
        os.mkdir(folder)
        for path in (*studies[0], *studies[1]):
            shutil.copyfile(os.fsencode(path), os.path.join(folder, b"\xfe" + os.fsencode(path.name)))
    watching.look(0)
    assert watching.look(5) == [["s1", "ward \\xff\n2"], []]
    again = start(layout="study")
    again.look(0)
    assert again.look(5) == [["s1", "ward \\xff\n2"], []]
    assert again.said == []


def test_two_studies_whose_ids_look_alike(watching, studies):
    """A byte that is not UTF-8 is written as a file could be named that has a backslash."""
    for path in studies[0]:
        for name in (b"\xff", b"\\xff"):
            shutil.copyfile(path, os.fsencode(watching.inbox) + b"/" + name + os.fsencode(path.suffix))
    watching.look(0)
    assert watching.look(5) == watching.look(6) == [["\\xff"], []]
    assert watching.watch.left == {"\\xff (again)": "another study has the same id"}


def test_a_slow_look_is_no_settling(watching, studies, monkeypatch):
    """Each look takes 5 seconds, and may see the file at the end of the first and the beginning of the second."""
    watching.drop(studies[0], "a")
    scan = watching.watch.scan

    def slow():
        watching.now += 5
        return scan()

    monkeypatch.setattr(watching.watch, "scan", slow)
    watching.look(0)
    assert watching.look(6) == [[], []]
    monkeypatch.setattr(watching.watch, "scan", scan)
    assert watching.look(9.9) == [[], []]
    assert watching.look(10) == [["a"], []]


def test_cut_anywhere_it_goes_on_with_each_study_once(start, studies, tmp_path):
    """A kill leaves the journal cut at any byte, and uncommitted lines in the two files."""
    first = start()
    for i in range(6):
        first.drop(studies[i % 3], f"{i}")
        if i % 2:
            (first.inbox / f"{i}.png").write_bytes(b"no picture")
        first.look(10 * i)
        first.look(10 * i + 5)
    files = {path: path.read_bytes() for path in tmp_path.glob("out.*")}
    journal = Names.of(first.out).journal
    size = len(files[journal])
    for cut in [*range(files[journal].index(b"\n") + 1, size, size // 17), size - 1]:
        for path, data in files.items():  # new files: the last watch's end must not cut these
            path.unlink()
            path.write_bytes(data + b'{"id": "half' if path != journal else data[:cut])
        again = start()
        again.look(0)
        good, bad = again.look(5)
        assert (sorted(good), sorted(bad)) == (["0", "2", "4"], ["1", "3", "5"])


def test_what_is_not_a_watch_of_this_folder_is_refused(predictor, tmp_path, monkeypatch):
    watching = Watching(predictor, tmp_path)
    inbox, out, names = watching.inbox, watching.out, Names.of(watching.out)
    watching.journal.__exit__()

    def run(**options):
        def end(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(watch.time, "sleep", end)
        return watch_folder(predictor, inbox, **{"out": out, **options})

    with pytest.raises(MmfuseError, match="another folder, by another model or with other options"):
        run()
    assert run(overwrite=True).counts.predictions == 0
    with pytest.raises(MmfuseError, match="another model"):
        run(fingerprint="another")
    with pytest.raises(MmfuseError, match="exists already"):
        predict_to_file(predictor, SampleStudies([]), out)
    names.journal.write_bytes(names.journal.read_bytes() + b'{"id": 1}\n')
    with pytest.raises(MmfuseError, match=r"watch.jsonl: damaged"):
        run()
    run(overwrite=True)
    names.journal.unlink()
    with pytest.raises(MmfuseError, match=r"out.jsonl exists already"):
        run()
    with pytest.raises(MmfuseError, match=r"appends to a .jsonl"):
        run(out=tmp_path / "out.csv")
    with pytest.raises(MmfuseError, match="layout is stem or study"):
        run(layout="auto")
    with pytest.raises(MmfuseError, match="no such file or directory; expected a folder"):
        watch_folder(predictor, tmp_path / "none", out)
    with watch.alone(names), pytest.raises(MmfuseError, match="another process is writing"):
        run(overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inbox", "out.errors.jsonl", "out.jsonl"]


def test_predictions_that_were_taken_away_are_not_counted_as_there(watching, start, studies):
    watching.drop(studies[0], "a")
    watching.look(0)
    watching.look(5)
    watching.out.unlink()
    with pytest.raises(MmfuseError, match="shorter than the watch left it"):
        start()


def test_a_real_process_killed_and_interrupted(model_dir, predictor, studies, tmp_path):
    """Dropped in whole and bit by bit; kill -9; more while nobody looks; Ctrl-C: each once, of its whole files."""
    inbox, out = tmp_path / "inbox", tmp_path / "out.jsonl"
    inbox.mkdir()
    command = [sys.executable, "-m", "mmfuse.cli", "predict", model_dir, inbox, "--out", out, "--watch", "--settle=1.5"]

    def start():
        # Where the tests run in the background, SIGINT is ignored, and would be in the new process.
        heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)

    def drop(name, i):
        for path in studies[i]:
            shutil.copyfile(path, inbox / f"{name}{path.suffix}")

    def wait_for(*ids, meanwhile=lambda: None):
        def there():
            assert running.poll() is None, running.stderr.read()
            meanwhile()
            return set(ids) <= set(committed())

        wait_until(there, f"{ids}")

    def committed():
        journal = Names.of(out).journal
        return [json.loads(row)["id"] for row in journal.read_text().split("\n")[1:-1]] if journal.exists() else []

    running = start()
    try:
        drop("a", 0)
        wait_for("a")
        image, text = studies[1][0].read_bytes(), studies[1][1].read_text()
        (inbox / "slow.txt").write_text(text)
        slow = (inbox / "slow.png").open("wb", buffering=0)
        slow.write(image[:500])
        drop("b", 2)
        at = iter(range(500, len(image) - 500))
        wait_for("b", meanwhile=lambda: slow.write(image[(i := next(at)) : i + 1]))
        assert committed() == ["a", "b"]
        slow.write(image[next(at) :])
        slow.close()
        wait_for("slow")
        running.kill()
        running.communicate()
        drop("c", 0)
        running = start()
        wait_for("c")
        running.send_signal(signal.SIGINT)
        printed, complaint = running.communicate(timeout=HANG)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    assert f"4 studies: 4 predictions in {out}, 0 errors" in printed
    assert "3 done before" in complaint
    assert "Traceback" not in complaint
    assert [row["id"] for row in lines(out)] == ["a", "b", "slow", "c"]
    whole = {entry.id: entry.sample() for entry in pair_folder(inbox)[0]}
    for row in lines(out):
        (prediction,) = predictor([whole[row["id"]]])
        for task, said in prediction.tasks.items():
            assert row["tasks"][task]["probabilities"] == pytest.approx(said["probabilities"], abs=5e-6)
