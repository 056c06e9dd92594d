import sys

import fsspec
import pytest
import ray
from PIL import Image
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.predict import FolderStudies, Predictor, fingerprint, predict_to_chunks, predict_to_file
from mmfuse.predict.chunks import commit_chunks
from mmfuse.predict.ray import Actors, Plan, Work, plan_actors, run_on_ray
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # Ray warns of its own defaults
SIZE = 64

DIES_TWICE = """
import os, signal
from pathlib import Path
from mmfuse.predict.chunks import Chunks

commit = Chunks.commit

def die(name):
    try:
        (Path(__file__).parent / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def dying(self, number, results):
    if number > 2:
        die("before")
    counts = commit(self, number, results)
    if number > 2:
        die("after")
    return counts

Chunks.commit = dying
"""


DEADLY = """
import os, signal
from pathlib import Path
from mmfuse.predict.studies import FolderStudies

read = FolderStudies.read

def deadly(self, start, stop):
    for sample in read(self, start, stop):
        if sample.id == "phantom-5-000710":
            with (Path(__file__).parent / "deaths").open("a") as deaths:
                deaths.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        yield sample

FolderStudies.read = deadly
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """1,500 SYNTHETIC pairs, some of them broken and one of two pages."""
    folder = write_pairs(tmp_path_factory.mktemp("ray") / "pairs", 1500, seed=5)
    for path in sorted(folder.glob("*.png"))[::100]:
        path.write_bytes(b"no picture")
    moving = sorted(folder.glob("*.png"))[1]
    Image.new("L", (9, 9)).save(moving, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9), 99)])
    return FolderStudies(str(folder))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_actor_killed_before_and_one_after_a_commit_change_no_byte(ray_cluster, model_dir, studies, tmp_path):
    plugin = tmp_path / "dies_twice.py"
    plugin.write_text(DIES_TWICE)
    predictor = Predictor.from_pretrained(model_dir, chunk=SIZE)
    identity = fingerprint(predictor.model, "error")
    predict_to_file(predictor, studies, tmp_path / "local" / "out.jsonl", fingerprint=identity)
    told = []
    counts = predict_to_chunks(
        predictor,
        studies,
        str(tmp_path / "ray" / "out.jsonl"),
        fingerprint=identity,
        run=run_on_ray(Work(str(model_dir), studies, identity, plugins=(str(plugin),)), Actors(2)),
        progress=lambda done, errors: told.append((done, errors)),
    )
    assert (tmp_path / "before").exists()
    assert (tmp_path / "after").exists()
    assert (counts.predictions, counts.errors) == (1485, 15)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert (tmp_path / "ray" / "out.jsonl").read_text().count(".png: first of 2 frames") == 1
    assert told[-1] == (1500, 15)


def test_a_study_that_kills_its_actors_is_named_once_all_others_are_committed(
    ray_cluster, model_dir, studies, tmp_path, monkeypatch
):
    plugin = tmp_path / "deadly.py"
    plugin.write_text(DEADLY)
    predictor = Predictor.from_pretrained(model_dir, chunk=SIZE)
    identity, out = fingerprint(predictor.model, "error"), tmp_path / "out.jsonl"
    run = run_on_ray(Work(str(model_dir), studies, identity, plugins=(str(plugin),)), Actors(1))
    with pytest.raises(
        MmfuseError, match=r"3 actors died of the studies 'phantom-5-000704' to 'phantom-5-000767' \(64 "
    ):
        predict_to_chunks(predictor, studies, str(out), fingerprint=identity, run=run)
    assert 3 <= len((tmp_path / "deaths").read_text()) <= 5
    left = []

    def rest(found, numbers):
        left.extend(numbers)
        return commit_chunks(predictor, studies, found, numbers)

    counts = predict_to_chunks(predictor, studies, str(out), fingerprint=identity, run=rest)
    assert left == [11]
    assert (counts.predictions, counts.errors) == (1485, 15)


def test_the_command_line_from_a_relative_folder_to_a_url(
    ray_cluster, model_dir, pairs, tmp_path, monkeypatch, object_store
):
    monkeypatch.chdir(pairs.parent)
    command = ["predict", str(model_dir), pairs.name, "--out", f"{object_store}/out.csv", "--engine", "ray"]
    done = CliRunner().invoke(app, [*command, "--actors", "1", "--cpus-per-actor", "1"])
    assert done.exit_code == 0, done.output
    assert "1 actor(s) of 1 CPUs and 0 GPUs; the cluster has 2 CPUs" in done.output
    assert f"60 studies: 57 predictions in {object_store}/out.csv, 3 errors in {object_store}/out.err" in done.output
    predict_to_file(Predictor.from_pretrained(model_dir), FolderStudies(str(pairs)), tmp_path / "out.csv")
    system, root = fsspec.core.url_to_fs(object_store)
    assert {name.rpartition("/")[2]: system.cat_file(name) for name in system.find(root)} == contents(tmp_path)


def test_a_machine_with_another_model_is_told_in_one_line(ray_cluster, model_dir, pairs, tmp_path):
    predictor, studies = Predictor.from_pretrained(model_dir), FolderStudies(str(pairs))
    run = run_on_ray(Work(str(model_dir), studies, "another"), Actors(1))
    with pytest.raises(MmfuseError, match="not the model with which the run was started"):
        predict_to_chunks(predictor, studies, str(tmp_path / "out.jsonl"), run=run)


@pytest.mark.parametrize(
    ("wanted", "cpus", "gpus", "device", "plan"),
    [
        (Actors(), 2, 0, None, Plan(1, 2, 0)),
        (Actors(), 64, 0, None, Plan(16, 4, 0)),
        (Actors(), 64, 8, None, Plan(8, 4, 1)),
        (Actors(), 64, 8, "cpu", Plan(16, 4, 0)),
        (Actors(gpus=0.25), 64, 8, None, Plan(32, 2, 0.25)),
        (Actors(4), 2, 0, None, Plan(4, 0.5, 0)),
        (Actors(4, cpus=2), 2, 0, None, Plan(4, 2, 0)),
    ],
)
def test_what_actors_get(wanted, cpus, gpus, device, plan):
    assert plan_actors(wanted, cpus, gpus, device) == plan


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "--engine 'spark' is not legal; legal: local, ray"),
        (["--actors", "2"], "--actors requires --engine ray"),
        (["--engine", "ray", "--watch"], "--watch cannot be combined with --engine ray"),
        (["--out", "s3://bucket/out.csv", "--captions-dir", "x"], "--captions-dir cannot be combined with --out s3://"),
        (["--captions-dir", "folder/x"], "--captions-dir folder/x: is in folder, where captions would be taken for"),
    ],
)
def test_what_does_not_go_together(options, said):
    found = CliRunner().invoke(app, ["predict", "model", "folder", *options]).exception
    assert isinstance(found, MmfuseError)
    assert said in str(found)


def test_a_dry_run_says_of_what_it_is(model_dir, pairs):
    command = ["predict", str(model_dir), str(pairs), "--dry-run", "--engine", "ray", "--actors", "64"]
    told = CliRunner().invoke(app, command).output
    assert "one process on cpu, without its start" in told
    assert "N actors like this process take an Nth of the time; the cluster was not asked" in told


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mmfuse.predict.ray")
    found = CliRunner().invoke(app, ["predict", "model", "folder", "--engine", "ray"]).exception
    assert isinstance(found, MmfuseError)
    assert str(found) == '--engine ray: Ray is not installed: pip install "mmfuse[ray]"'


def test_a_cluster_that_does_not_answer_is_named(monkeypatch, model_dir, pairs, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    predictor, studies = Predictor.from_pretrained(model_dir), FolderStudies(str(pairs))
    with pytest.raises(MmfuseError, match=r"RAY_ADDRESS 127.0.0.1:1: no cluster: .*refused"):
        predict_to_chunks(predictor, studies, str(tmp_path / "out.jsonl"), run=run_on_ray(Work("", studies, "")))


def test_a_cluster_that_wants_a_token_is_told_with_the_variables(monkeypatch):
    """As Ray tells a wrong one, and as it tells that there is none."""
    from mmfuse.predict import ray as ours

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ours, "_reach", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    wrong = ray.exceptions.AuthenticationError("WrongClusterToken: another\ntoken")
    for error in (wrong, RuntimeError("Token authentication is enabled but no token was found")):
        monkeypatch.setattr(ray, "init", lambda error=error, **_: (_ for _ in ()).throw(error))
        said = r"^RAY_ADDRESS 127.0.0.1:1: no cluster: it wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or"
        with pytest.raises(MmfuseError, match=said), ours._cluster():
            pass
