import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

ray = pytest.importorskip("ray", reason="extra ray is not installed")

import mmfuse
from mmfuse.cli import app
from mmfuse.data.phantom import write_pairs
from mmfuse.predict import FolderStudies, Predictor, fingerprint, predict_to_chunks, predict_to_file
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
    if number > 4:
        die("before")
    counts = commit(self, number, results)
    if number > 8:
        die("after")
    return counts

Chunks.commit = dying
"""


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs for actors, which import this mmfuse and compute on one thread."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(mmfuse.__file__).parents[1])}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """1,500 SYNTHETIC pairs, some of them broken."""
    folder = write_pairs(tmp_path_factory.mktemp("ray") / "pairs", 1500, seed=5)
    for path in sorted(folder.glob("*.png"))[::100]:
        path.write_bytes(b"no picture")
    return FolderStudies(str(folder))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_actor_killed_before_and_one_after_a_commit_change_no_byte(cluster, model_dir, studies, tmp_path):
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
    assert told[-1] == (1500, 15)


def test_the_command_line_and_what_an_actor_lacks(cluster, model_dir, pairs, tmp_path, monkeypatch):
    ...
