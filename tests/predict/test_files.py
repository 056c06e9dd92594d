import csv
import io
import json
import shutil
import sys
from types import SimpleNamespace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from child_processes import run_child

from mmfuse.predict import Predictor, TableOptions, files, open_studies, predict_to_chunks, predict_to_file
from mmfuse.tasks import build_task
from mmfuse.types import MmfuseError, Stopped


@pytest.fixture
def run(model_dir, pairs, tmp_path):
    """Predict the 60 pairs in chunks of 8 into a file of this name."""
    predictor = Predictor.from_pretrained(model_dir, chunk=8)
    studies = open_studies(str(pairs))

    def predict(name, **options):
        return predict_to_file(predictor, studies, tmp_path / name, **options)

    return predict


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_input_is_in_exactly_one_file(run, pairs, tmp_path):
    counts = run("out.jsonl")
    good, bad = lines(tmp_path / "out.jsonl"), lines(tmp_path / "out.errors.jsonl")
    assert (counts.predictions, counts.errors) == (len(good), len(bad)) == (57, 3)
    found = [row["id"] for row in good] + [row["id"] for row in bad]
    assert sorted(found) == sorted(path.stem for path in pairs.glob("*.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.errors.jsonl", "out.jsonl"]


class Killed(BaseException):
    """Nothing in the library may catch it."""


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_killed_anywhere_it_ends_with_the_same_bytes(run, tmp_path, monkeypatch, name):
    """Before, within and after a commit, and between the renames at the end; again and again in one run."""
    run(f"whole/{name}")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    write_json, replace = files._write_json, files.Path.replace
    commits = 0
    for after in (2, 3, 5):

        def dying(path, values, after=after):
            nonlocal commits
            commits += 1
            if commits == after:
                raise Killed
            write_json(path, values)

        commits = 0
        monkeypatch.setattr(files, "_write_json", dying)
        with pytest.raises(Killed):
            run(f"killed/{name}")
    monkeypatch.setattr(files, "_write_json", write_json)
    for renames in (0, 1, 2):
        left = renames

        def failing(self, target):
            nonlocal left
            if not str(target).endswith(".progress"):
                if left == 0:
                    raise Killed
                left -= 1
            return replace(self, target)

        monkeypatch.setattr(files.Path, "replace", failing)
        try:
            run(f"killed/{name}")
        except Killed:
            pass
        else:
            break
    monkeypatch.setattr(files.Path, "replace", replace)
    if not (tmp_path / "killed" / name).exists() or list((tmp_path / "killed").glob("*.progress")):
        run(f"killed/{name}")
    killed = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    assert killed == whole


def test_stopped_it_says_how_many_are_kept(run):
    def stop(done, errors):
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"^stopped; 16 of 60 studies are kept; the same command resumes$"):
        run("out.jsonl", progress=stop)
    assert run("out.jsonl").predictions == 57


def test_csv_and_parquet_hold_what_jsonl_holds(run, tmp_path):
    for suffix in ("jsonl", "csv", "parquet"):
        run(f"{suffix}/out.{suffix}")
    rows = lines(tmp_path / "jsonl" / "out.jsonl")
    with (tmp_path / "csv" / "out.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    frame = pd.read_parquet(tmp_path / "parquet" / "out.parquet")
    assert len(rows) == len(table) == len(frame)
    for row, flat, parquet in zip(rows, table, frame.to_dict("records"), strict=True):
        for label, p in row["tasks"]["findings"]["probabilities"].items():
            assert float(flat[f"findings.p.{label}"]) == p == parquet[f"findings.p.{label}"]
        assert flat["sex.label"] == row["tasks"]["sex"]["label"] == parquet["sex.label"]
        assert flat["id"] == row["id"] == parquet["id"]


def test_no_cell_of_a_csv_is_a_formula_and_jsonl_and_parquet_are_exact():
    names = ["=1+1", "@a;=b", "-1", "fine"]
    task = "+t"
    head = SimpleNamespace(task=build_task("multilabel", names))
    predictor = SimpleNamespace(model=SimpleNamespace(heads={task: head}), abstentions={})
    said = {"labels": names, "probabilities": dict.fromkeys(names, -1.5)}
    row = {"id": "=cmd|' /C calc'!A0", "tasks": {task: said}, "present": ["text"], "notices": ["\t=1"]}
    written = {}
    for suffix in (".csv", ".jsonl", ".parquet"):
        written[suffix] = io.BytesIO()
        files.write_rows(written[suffix], [files.line(row)], suffix, predictor)
    header, cells = csv.reader(written[".csv"].getvalue().decode().splitlines())
    assert header == ["id", "'+t.labels", *[f"'+t.p.{name}" for name in ("=1+1", "@a;'=b", "-1", "fine")], *TAIL]
    assert cells == ["'=cmd|' /C calc'!A0", "'=1+1;'@a;'=b;-1;fine", *["-1.5"] * 4, "text", "'\t'=1"]
    assert json.loads(written[".jsonl"].getvalue()) == row
    (exact,) = pq.read_table(written[".parquet"]).to_pylist()
    assert (exact["id"], exact["+t.labels"], exact["notices"]) == (row["id"], ";".join(names), "\t=1")
    assert exact["+t.p.=1+1"] == -1.5


TAIL = ["present", "notices"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_id_of_a_table_that_is_no_unicode(model_dir, tmp_path, suffix):
    """JSON can say half a surrogate pair; it is written escaped, and ends no run."""
    (tmp_path / "in.jsonl").write_text(r'{"id": "\ud800", "text": "Cough."}')
    out = tmp_path / f"out.{suffix}"
    studies = open_studies(str(tmp_path / "in.jsonl"))
    predict_to_file(Predictor.from_pretrained(model_dir, missing="allow"), studies, out)
    assert b"\\ud800" in out.read_bytes()


def test_what_is_there_is_not_overwritten(run, tmp_path):
    run("out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(MmfuseError, match=r"exists already.*--overwrite"):
        run("out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == before
    with pytest.raises(MmfuseError, match=r"out.errors.jsonl exists already"):
        run("out.csv")  # its errors would have the same name
    run("out.jsonl", overwrite=True)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_another_runs_progress_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_publish", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run("out.jsonl", fingerprint="one model")
    monkeypatch.undo()
    with pytest.raises(MmfuseError, match="another model"):
        run("out.jsonl", fingerprint="another model")


def interrupt(predictor, studies, out, monkeypatch, **options):
    """Run until three chunks are committed."""
    write_json, commits = files._write_json, []

    def dying(path, values):
        write_json(path, values)
        commits.append(values)
        if len(commits) == 4:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write_json", dying)
        with pytest.raises(Killed):
            predict_to_file(predictor, studies, out, **options)


def test_an_interrupted_run_keeps_its_errors_from_one_to_another_suffix(run, model_dir, pairs, tmp_path, monkeypatch):
    predictor, studies = Predictor.from_pretrained(model_dir, chunk=8), open_studies(str(pairs))
    interrupt(predictor, studies, tmp_path / "out.csv", monkeypatch)
    with pytest.raises(MmfuseError, match=r"a run to out.csv was interrupted here, whose errors get the same name"):
        run("out.jsonl")
    (tmp_path / "out.errors.jsonl").write_text("of somebody else\n")
    with pytest.raises(MmfuseError, match=r"out.errors.jsonl exists already"):
        run("out.csv")
    (tmp_path / "out.errors.jsonl").unlink()
    assert run("out.csv").errors == len(lines(tmp_path / "out.errors.jsonl")) == 3
    interrupt(predictor, studies, tmp_path / "other.csv", monkeypatch)
    committed = tmp_path / "other.csv.partial.jsonl"
    committed.write_bytes(committed.read_bytes()[:100])
    with pytest.raises(MmfuseError, match=r"other.csv.partial.jsonl: shorter than the run left it"):
        run("other.csv")
    run("other.csv", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stem}.{rest}" for stem in ("out", "other") for rest in ("csv", "errors.jsonl")
    }


def test_a_run_over_the_same_ids_with_other_texts_is_another_run(model_dir, pairs, tmp_path, monkeypatch):
    (image,) = next(open_studies(str(pairs)).read(0, 1)).images
    rows = [{"id": f"{i:02}", "image": image, "text": "Clear.", "note": f"Note {i}."} for i in range(60)]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    predictor, table = Predictor.from_pretrained(model_dir, chunk=8), str(tmp_path / "rows.csv")
    interrupt(predictor, open_studies(table), tmp_path / "out.jsonl", monkeypatch)
    with pytest.raises(MmfuseError, match="a run over other inputs"):
        predict_to_file(
            predictor, open_studies(table, options=TableOptions(text_column="note")), tmp_path / "out.jsonl"
        )
    with pytest.raises(MmfuseError, match=r"--image-column: the rows have no column 'flim'"):
        open_studies(table, options=TableOptions(image_column="flim"))
    monkeypatch.chdir(tmp_path)
    assert predict_to_file(predictor, open_studies("rows.csv"), tmp_path / "out.jsonl").predictions == 60


@pytest.mark.parametrize("engine", [predict_to_file, predict_to_chunks])
def test_what_is_written_into_the_folder_that_is_read_is_no_study(model_dir, pairs, tmp_path, engine):
    shutil.copytree(pairs, tmp_path / "in")
    predictor, folder = Predictor.from_pretrained(model_dir, chunk=8), str(tmp_path / "in")
    out = tmp_path / "in" / "out.csv"

    def die(done, errors):
        if done > 20:
            raise Killed

    with pytest.raises(Killed):
        engine(predictor, open_studies(folder), out if engine is predict_to_file else str(out), progress=die)
    studies = open_studies(folder)
    assert len(studies) == 60
    assert engine(predictor, studies, out if engine is predict_to_file else str(out)).predictions == 57


def test_the_suffix_must_be_known(run):
    with pytest.raises(MmfuseError, match=r"legal: .jsonl, .csv, .parquet"):
        run("out.xlsx")


def test_bad_inputs(model_dir, test_data, tmp_path):
    """Each of the real-life bad inputs ends as its `kind` says, within 1.5 GiB beyond the loaded model."""
    assert run_child([sys.executable, test_data / "bad_inputs" / "make.py", tmp_path / "bad"]).returncode == 0
    code = (
        "import resource, sys, pathlib, torch\n"
        "torch.set_num_threads(1)\n"
        "from mmfuse.predict import Predictor, open_studies, predict_to_file\n"
        f"predictor = Predictor.from_pretrained({str(model_dir)!r})\n"
        "loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"studies = open_studies({str(tmp_path / 'bad' / 'pairs')!r})\n"
        f"predict_to_file(predictor, studies, pathlib.Path({str(tmp_path / 'out.jsonl')!r}))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / 2**20)\n"
    )
    done = run_child([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.5, f"{done.stdout} GiB"
    with (tmp_path / "bad" / "expected.csv").open(newline="") as handle:
        expected = {row["stem"]: row["kind"] for row in csv.DictReader(handle)}
    good = {row["id"] for row in lines(tmp_path / "out.jsonl")}
    bad = {row["id"]: row["reason"] for row in lines(tmp_path / "out.errors.jsonl")}
    assert good == {stem for stem, kind in expected.items() if kind != "broken"}
    assert set(bad) == {stem for stem, kind in expected.items() if kind == "broken"}
    assert all(reason for reason in bad.values())
