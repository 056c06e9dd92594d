"""What docs/scale.md tells one to do, done at small size: shards, two processes, an object store, Ray."""

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from child_processes import free_port, run_child
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.data.synthetic.phantom import write_pairs, write_phantom

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
ENDS = {"mmfuse data verify damaged": 4}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LAUNCHERS = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}

# Ray warns of its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the page begins with: 40 phantoms as studies.yaml, a small model's train.yaml, and 6 studies to predict."""
    write_phantom(tmp_path, 40, 0)
    (tmp_path / "manifest.yaml").rename(tmp_path / "studies.yaml")
    write_pairs(tmp_path / "incoming", 6, 1)
    config = {
        "name": "studies",
        "data": {"manifest": "studies.yaml", "lanes": 2, "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "vocab_size": 200, "max_length": 32, "options": TINY},
        "image_encoder": {"name": "resnet10t", "pretrained": False, "size": [64, 64]},
        "fusion": {"name": "concat"},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.001},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> str:
    """What a command prints; launchers start processes, the others run here, as starting Python takes seconds."""
    program, *words = shlex.split(command)
    if program in LAUNCHERS:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        port = free_port()
        where = ["--master_addr=127.0.0.1", f"--master_port={port}"]
        if program == "accelerate":
            where = [words.pop(0), f"--main_process_port={port}"]
        done = run_child([sys.executable, "-m", LAUNCHERS[program], *where, *words], env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
    assert program == "mmfuse"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == ENDS.get(command, 0), (command, done.output, done.exception)
    return done.output


@pytest.mark.timeout(3600)  # it starts processes many times
def test_the_page_from_a_laptop_to_a_cluster(folder, object_store, ray_cluster):
    said: dict[str, str] = {}
    bucket = object_store.removeprefix("s3://")
    for command in (line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()):
        if command == "mmfuse data verify damaged":
            shutil.copytree("shards", "damaged")
            (shard,) = Path("damaged").glob("test-*.parquet")
            os.truncate(shard, shard.stat().st_size // 2)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        said[command] = run(command.replace("BUCKET", bucket))
        if "--dry-run" in command:
            assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    dry_run = said["mmfuse train train.yaml --dry-run"]
    assert "rows:" in dry_run
    assert "nothing was written" in dry_run
    assert "studies:  6" in said["mmfuse predict runs/studies/model incoming --dry-run"]
    for command in ("mmfuse train train.yaml name=remote", "mmfuse predict runs/studies/model s3"):
        assert " at the peak of this process" in next(text for line, text in said.items() if line.startswith(command))
    assert "num_processes: 2" in next(text for command, text in said.items() if command.startswith("torchrun"))
    for name in ("studies", "remote", "two", "sharded", "rest"):
        assert Path("runs", name, "model", "config.json").is_file()
    local, by_ray = (read(f"s3://{bucket}/{name}.jsonl") for name in ("predictions", "by_ray"))
    assert len(local.splitlines()) == 40
    assert by_ray == local == Path("by_ray.jsonl").read_text()
    rest = Path("rest.jsonl").read_text().splitlines()
    lost = [json.loads(line) for line in Path("rest.errors.jsonl").read_text().splitlines()]
    assert len(rest) + len(lost) == 40
    assert lost
    assert all("shard test-" in line["reason"] for line in lost)


def read(url: str) -> str:
    """A file at a URL."""
    import fsspec

    with fsspec.open(url, "r") as handle:
        return handle.read()
