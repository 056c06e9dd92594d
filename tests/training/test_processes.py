"""Two processes must do what one does: `torchrun` with CPU forced, asserting that there are two."""

import csv
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from child_processes import free_port, run_child

from mmfuse.config import ImageEncoderConfig, config_to_dict, load_config
from mmfuse.data.load import load_table
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.manifest import load_manifest

EACH = """
import os, sys
import mmfuse
os.chdir(f"node{os.environ['RANK']}")
for config in sys.argv[1:]:
    try:
        mmfuse.train(config)
    except mmfuse.MmfuseError as error:
        print(f"process {os.environ['RANK']}: {error}\\n", end="", flush=True)
"""
"""Trains one config after the other in a folder of each process, and goes on after what is refused."""
WATCH = """
import os
from mmfuse.training import loop
score_batches = loop.score_batches
def watched(model, *args, **options):
    total = sum(buffer.double().sum().item() for buffer in model.buffers())
    print(f"{os.environ['RANK']}: {total}\\n", end="", flush=True)
    return score_batches(model, *args, **options)
loop.score_batches = watched
"""
"""A plug-in that prints the sum of a process's buffers before it evaluates."""


LONE = """
import os
from mmfuse.training import loop
def failing(self, batches):
    if os.environ["RANK"] == "1":
        raise loop.MmfuseError("row 'x': image y.png: cannot be read")
    return self.accelerator.reduce(loop.torch.zeros(1))
loop.Trainer.step = failing
"""
"""A plug-in that lets one process fail, and the other wait for it."""


def launch(
    processes: int,
    *args: str,
    script: tuple[str, ...] = ("-m", "mmfuse.cli"),
    code: int = 0,
    forced: bool = True,
) -> str:
    """What `torchrun` prints, which must end with this exit code; `forced`: told to use CPUs."""
    where = ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment |= {"ACCELERATE_USE_CPU": "true"} if forced else {"CUDA_VISIBLE_DEVICES": ""}
    done = run_child([*command, *script, *args], env=environment)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def write_config(tmp_path: Path, config) -> str:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    return str(tmp_path / "config.yaml")


def losses(run_dir: Path) -> list[float]:
    return [
        line["loss"] for line in map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines()) if "loss" in line
    ]


def test_two_processes_train_and_evaluate_as_one(tiny, uneven, tmp_path):
    """With batches of two rows a process, some have no image at all, and some no labelled target."""
    one = write_config(tmp_path, tiny(f"data.manifest={uneven}", "training.batch_size=4", run="one"))
    launch(1, "train", one)
    two = write_config(tmp_path, tiny(f"data.manifest={uneven}", "training.batch_size=2", run="two"))
    printed = launch(2, "train", two)
    assert "num_processes: 2" in printed
    first, second = losses(tmp_path / "one")[:20], losses(tmp_path / "two")[:20]
    assert len(first) == 20
    assert np.allclose(first, second, rtol=1e-5, atol=0)

    model = str(tmp_path / "one" / "model")
    for processes in (1, 2):
        launch(processes, "evaluate", model, str(uneven), "--out", str(tmp_path / f"scores{processes}"))
    read = [
        [json.loads(line) for line in (tmp_path / f"scores{n}" / "predictions.jsonl").read_text().splitlines()]
        for n in (1, 2)
    ]
    assert [row["id"] for row in read[0]] == [row["id"] for row in read[1]]
    assert len({row["id"] for row in read[1]}) == len(read[1])
    values = [[list(row["tasks"]["findings"]["probabilities"].values()) for row in rows] for rows in read]
    assert np.abs(np.array(values[0]) - np.array(values[1])).max() < 1.5e-6  # written with six decimals
    scores = [json.loads((tmp_path / f"scores{n}" / "metrics.json").read_text())["tasks"]["findings"] for n in (1, 2)]
    for name, score in scores[0]["metrics"].items():
        assert scores[1]["metrics"][name]["value"] == pytest.approx(score["value"], abs=1e-6)


def test_what_two_processes_cannot_go_on_with_is_refused_by_both(tiny, phantom, tmp_path, kill_at, monkeypatch):
    """A step's rows are those of all its processes: with another number, some would be trained twice and some never.

    Nor do they go on, or begin, where the second has other rows, or does not see what the first has written.
    """
    write_shards(load_table(load_manifest(phantom)), str(tmp_path / "out"), size=40_000)
    options = ("training.checkpoint_every=2", "data.lanes=2")
    for run, manifest in (("table", phantom), ("shards", tmp_path / "out" / "manifest.yaml")):
        kill_at(tiny(f"data.manifest={manifest}", *options, run=run), 3)
    nodes = [tmp_path / f"node{rank}" for rank in (0, 1)]
    for node in nodes:
        shutil.copytree(phantom.parent, node / "data")
    first, *rest = (nodes[1] / "data" / "data.csv").read_text().splitlines(keepends=True)
    (nodes[1] / "data" / "data.csv").write_text("".join([first, *reversed(rest)]))
    own = {"begun": "output_dir=begun", "new": "output_dir=new", "rows": "data.manifest=data/manifest.yaml"}
    for run, option in own.items():
        (tmp_path / run).write_text(yaml.safe_dump(config_to_dict(tiny(*options, option, run="other"))))
    monkeypatch.chdir(nodes[0])
    kill_at(load_config(tmp_path / "begun"), 3)
    sync = tiny("output_dir=sync", "image_encoder.batch_norm=sync", run="other")
    (tmp_path / "sync.yaml").write_text(yaml.safe_dump(config_to_dict(sync)))
    (nodes[1] / "begun").mkdir()
    shutil.copy(nodes[0] / "begun" / "config.yaml", nodes[1] / "begun")

    (tmp_path / "each.py").write_text(EACH)
    configs = [str(tmp_path / "table" / "config.yaml"), str(tmp_path / "shards" / "config.yaml")]
    configs += [*(str(tmp_path / run) for run in own), str(tmp_path / "sync.yaml")]
    monkeypatch.chdir(tmp_path)
    printed = launch(2, *configs, script=(str(tmp_path / "each.py"),))
    refusals = (
        f"{tmp_path / 'table'}: cannot resume: num_processes was 1, is now 2; start 1, or --restart",
        f"{tmp_path / 'shards'}: cannot resume: num_processes was 1, is now 2; start 1, or --restart",
        "output_dir: in begun process 0 finds step 2, process 1 no checkpoint: it must be on a disk",
        "output_dir: in new process 0 finds no checkpoint, process 1 no run: it must be on a disk",
        "data/manifest.yaml: the processes do not read the same rows; all machines must have the same data",
        "image_encoder.batch_norm: sync is for GPUs, and these 2 processes have none; frozen or train is expected",
    )
    for refusal in refusals:
        assert [f"process {rank}: {refusal}" in printed for rank in (0, 1)] == [True, True], printed
    assert not any((nodes[0] / run).exists() for run in ("new", "other", "sync"))  # nothing was begun there
    assert len(losses(tmp_path / "table")) == len(losses(tmp_path / "shards")) == len(losses(nodes[0] / "begun")) == 2


def test_fewer_validation_rows_than_processes(tiny, phantom, tmp_path):
    """With batch norm, whose running statistics are each process's own: all evaluate with those of the first.

    And without ACCELERATE_USE_CPU, where Accelerate alone would see one process and each train into the same folder.
    """
    with (phantom.parent / "data.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    there = [row["split"] for row in rows].index("validation")
    (tmp_path / "images").symlink_to(phantom.parent / "images")
    with (tmp_path / "data.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for i, row in enumerate(rows) if i == there or row["split"] != "validation")
    (tmp_path / "manifest.yaml").write_text(phantom.read_text())
    (tmp_path / "watch.py").write_text(WATCH)
    batch_norm = ImageEncoderConfig(name="test_resnet", pretrained=False, size=[32, 32])
    settings = (f"data.manifest={tmp_path / 'manifest.yaml'}", f"plugins=[{tmp_path / 'watch.py'}]")
    config = dataclasses.replace(tiny(*settings, "training.max_steps=5"), image_encoder=batch_norm)
    printed = launch(2, "train", write_config(tmp_path, config), forced=False)
    assert "num_processes: 2" in printed
    assert "1 validation" in printed
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [4, 5]
    statistics = [[line for line in printed.splitlines() if line.startswith(f"{rank}: ")] for rank in (0, 1)]
    assert len(statistics[0]) == 2
    assert [line[3:] for line in statistics[0]] == [line[3:] for line in statistics[1]]


def test_a_failure_of_one_process_is_one_line_and_frees_the_folder(tiny, tmp_path):
    (tmp_path / "lone.py").write_text(LONE)
    printed = launch(2, "train", write_config(tmp_path, tiny(f"plugins=[{tmp_path / 'lone.py'}]")), code=1)
    assert printed.count("error: row 'x': image y.png: cannot be read\n") == printed.count("error: ") == 1
    assert "[rank" not in printed  # whose traceback it would be; torchrun's own has no rank
    assert "stopped" not in printed
    assert not (tmp_path / "run").exists()


def test_a_launcher_does_not_predict(mmfuse, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in enumerate(("error: predict: a launcher has started several processes, which", "")):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        code, _, err = mmfuse("predict", "model", "folder")
        assert code == 2
        assert err.startswith(said)
        assert err.count("\n") == bool(said)
