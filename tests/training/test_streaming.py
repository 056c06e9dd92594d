"""Training from shards is the one loop on another order: the same losses, the same weights after any kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child_processes import wait_until
from safetensors.numpy import load_file
from test_processes import launch, losses, write_config

import mmfuse
from mmfuse.benchmarking.cells import Workshop
from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.data.batches.stream import Stream
from mmfuse.data.load import load_table
from mmfuse.data.shards.folder import Shards, open_shards
from mmfuse.data.shards.write import write_shards
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import prepare_pairs
from mmfuse.training import loop
from mmfuse.training.build import build_model
from mmfuse.types import MmfuseError

STREAM = ("data.lanes=4", "data.shuffle_buffer=12", "training.batch_size=4")


@pytest.fixture(scope="module")
def sharded(phantom, tmp_path_factory) -> Path:
    """The manifest of the phantom's shards."""
    out = tmp_path_factory.mktemp("shards") / "out"
    write_shards(load_table(load_manifest(phantom)), str(out), size=40_000)
    return out / "manifest.yaml"


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def equal(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def kill_at_a_checkpoint(command: list[str], run: Path) -> None:
    """SIGKILL to the process and all that it has started, as soon as a checkpoint is there."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    quiet, command = subprocess.DEVNULL, [sys.executable, "-m", *command]
    running = subprocess.Popen(command, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)
    wait_until(lambda: bool(list(run.glob("checkpoints/step_*/state.json"))), "a checkpoint")
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert list(run.glob("checkpoints/step_*"))
    assert not (run / "model").exists()


@pytest.fixture
def both_ways(tiny, phantom, sharded, monkeypatch):
    """Train from shards (run `streamed`), and on the table in the very order that was streamed (run `mapped`)."""

    def train(*options: str) -> int:
        taken: list[list[str]] = []
        read = Stream.__getitem__

        def recording(self, positions):
            batch = read(self, positions)
            taken.append(batch["ids"])
            return batch

        monkeypatch.setattr(Stream, "__getitem__", recording)
        mmfuse.train(tiny(*STREAM, *options, f"data.manifest={sharded}", run="streamed"))
        monkeypatch.setattr(Stream, "__getitem__", read)
        row_of = {name: row for row, name in enumerate(load_table(load_manifest(phantom)).rows["id"])}
        plan = [[[row_of[name] for name in ids]] for ids in taken]
        per_epoch = len(plan) // 2
        assert per_epoch * 2 == len(plan)
        own = loop.Trainer.plan
        order = lambda self, epoch: plan[epoch * per_epoch : (epoch + 1) * per_epoch]  # noqa: E731
        monkeypatch.setattr(loop.Trainer, "plan", order)
        mmfuse.train(tiny(*STREAM, *options, run="mapped"))
        monkeypatch.setattr(loop.Trainer, "plan", own)
        return len(plan)

    return train


def test_the_loss_curve_is_that_of_map_style_training_in_the_same_order(both_ways, tmp_path):
    """Bit for bit."""
    micro_batches = both_ways()
    assert len(losses(tmp_path / "streamed")) == micro_batches
    assert losses(tmp_path / "streamed") == losses(tmp_path / "mapped")
    assert equal(tmp_path / "streamed", tmp_path / "mapped")
    reports = [json.loads((tmp_path / run / "test" / "metrics.json").read_text()) for run in ("streamed", "mapped")]
    found = [{k: v["value"] for k, v in r["tasks"]["findings"]["metrics"].items()} for r in reports]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert [r["rows"] for r in reports] == [reports[0]["rows"]] * 2
    assert [r["missing"] for r in reports] == [reports[0]["missing"]] * 2


def test_two_processes_stream_as_one_trains_map_style_on_what_both_take(tiny, sharded, both_ways, tmp_path):
    """What two processes take in a step, one takes in two passes; both evaluate each row once."""
    both_ways("training.accumulation=2")
    assert losses(tmp_path / "streamed") == losses(tmp_path / "mapped")
    options = (*STREAM, f"data.manifest={sharded}")
    printed = launch(2, "train", write_config(tmp_path, tiny(*options, "data.num_workers=2", run="two")))
    assert "num_processes: 2" in printed
    assert "4 lanes" in printed
    assert "num_workers 2" in printed
    first, second = losses(tmp_path / "mapped"), losses(tmp_path / "two")
    assert len(first) == len(second)
    assert np.abs(np.array(first) - np.array(second)).max() < 1e-5
    launch(2, "evaluate", str(tmp_path / "two" / "model"), str(sharded), "--out", str(tmp_path / "scores"))
    rows = [json.loads(line)["id"] for line in (tmp_path / "scores" / "predictions.jsonl").read_text().splitlines()]
    there = load_table(load_manifest(sharded))
    assert rows == [there.rows["id"][row] for row in there.indices("test")]


def test_a_killed_run_ends_with_the_same_weights(tiny, sharded, tmp_path, killed_at):
    """With dropouts, augmentation and accumulation, killed in the middle of a window of the second epoch."""
    options = (
        *STREAM,
        f"data.manifest={sharded}",
        "training.accumulation=3",
        "training.checkpoint_every=2",
        "training.modality_dropout={text: 0.2, image: 0.2}",
        "training.augmentation={image: natural, text: {mask_tokens: 0.2}}",
        "fusion.dropout=0.3",
    )
    whole = mmfuse.train(tiny(*options, run="whole"))
    for steps in (3, whole.steps - 2):
        killed_at(tiny(*options, run=f"killed{steps}"), steps)
        assert losses(tmp_path / "whole") == losses(tmp_path / f"killed{steps}")
        assert equal(tmp_path / "whole", tmp_path / f"killed{steps}")


def test_a_run_killed_from_outside_ends_with_the_same_weights(tiny, sharded, tmp_path):
    options = (*STREAM, f"data.manifest={sharded}", "training.checkpoint_every=2", "data.num_workers=1")
    mmfuse.train(tiny(*options, run="whole"))
    config = tiny(*options, run="killed")
    kill_at_a_checkpoint(["mmfuse.cli", "train", write_config(tmp_path, config)], tmp_path / "killed")
    mmfuse.train(config)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert equal(tmp_path / "whole", tmp_path / "killed")


def test_two_processes_killed_from_outside_end_with_the_same_weights(tiny, sharded, tmp_path):
    options = (*STREAM, f"data.manifest={sharded}", "training.checkpoint_every=2", "data.num_workers=2")
    launch(2, "train", write_config(tmp_path, tiny(*options, run="whole")))
    killed = write_config(tmp_path, tiny(*options, run="killed"))
    together = ["torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "mmfuse.cli"]
    kill_at_a_checkpoint([*together, "train", killed], tmp_path / "killed")
    launch(2, "train", killed)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert equal(tmp_path / "whole", tmp_path / "killed")


def test_a_resumed_run_must_find_the_same_shards(tiny, phantom, tmp_path, kill_at):
    """The same rows in other shards have another order."""
    table = load_table(load_manifest(phantom))
    options = (f"data.manifest={tmp_path / 'shards' / 'manifest.yaml'}", "training.checkpoint_every=2")
    write_shards(table, str(tmp_path / "shards"), size=40_000)
    kill_at(tiny(*STREAM, *options), 3)
    write_shards(table, str(tmp_path / "shards"), size=60_000, overwrite=True)
    with pytest.raises(MmfuseError, match="cannot resume: the shards are not those of its checkpoint"):
        mmfuse.train(tiny(*STREAM, *options))
    with pytest.raises(MmfuseError, match=r"data\.shuffle_buffer was 12, is now 16"):
        mmfuse.train(tiny(*STREAM, "data.shuffle_buffer=16", *options))
    write_shards(table, str(tmp_path / "shards"), size=40_000, overwrite=True)
    mmfuse.train(tiny(*STREAM, *options))


def test_a_truncated_shard_is_named_and_refused_or_left_out(tiny, sharded, tmp_path, capfd):
    folder = tmp_path / "cut"
    folder.mkdir()
    for path in sharded.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    victim = folder / "train-00001.parquet"
    victim.write_bytes(victim.read_bytes()[:-100])
    options = (*STREAM, f"data.manifest={folder / 'manifest.yaml'}", "training.epochs=1")
    with pytest.raises(MmfuseError, match=r"train-00001\.parquet: .*damaged: skip"):
        mmfuse.train(tiny(*options))
    mmfuse.train(tiny(*options, "data.damaged=skip"))
    lost = next(s for s in json.loads((folder / "shards.json").read_text())["shards"] if s["file"] == victim.name)
    there = load_table(load_manifest(sharded)).counts()["train"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["samples"] for line in lines if "loss" in line) == there - lost["rows"]
    assert list(json.loads((tmp_path / "run" / "environment.json").read_text())["shards"]["damaged"]) == [victim.name]
    assert f"left out, damaged: {victim.name} ({lost['rows']} rows)" in capfd.readouterr().err


def test_training_reads_an_object_store(tiny, phantom, sharded, tmp_path, object_store):
    """Manifest and shards at s3://, by two workers: as from the disk."""
    write_shards(load_table(load_manifest(phantom)), f"{object_store}/studies", size=40_000)
    options = (*STREAM, "data.num_workers=2", "training.max_steps=5")
    mmfuse.train(tiny(*options, f"data.manifest={object_store}/studies/manifest.yaml", run="store"))
    mmfuse.train(tiny(*options, f"data.manifest={sharded}", run="disk"))
    assert len(losses(tmp_path / "store")) == 5
    assert losses(tmp_path / "store") == losses(tmp_path / "disk")
    assert equal(tmp_path / "store", tmp_path / "disk")


def test_captions_are_learned_from_the_stream(tiny, phantom, tmp_path, capfd):
    """The vocabularies are of all training rows, as those of the table itself are."""
    captions = write_language(phantom.parent, 0)[0]
    write_shards(load_table(load_manifest(captions)), str(tmp_path / "shards"), size=40_000)
    decoder = "{hidden_dim: 16, num_layers: 1, num_heads: 2, max_length: 12, vocab_size: 200}"
    options = (*STREAM, "training.max_steps=3", f"tasks.report.decoder={decoder}")
    runs = {
        "streamed": mmfuse.train(
            tiny(*options, f"data.manifest={tmp_path / 'shards' / 'manifest.yaml'}", run="streamed")
        ),
        "mapped": mmfuse.train(tiny(*options, f"data.manifest={captions}", run="mapped")),
    }
    vocabularies = [
        [json.loads(path.read_text())["model"]["vocab"] for path in sorted(run.model_dir.rglob("tokenizer.json"))]
        for run in runs.values()
    ]
    assert len(vocabularies[0]) > 0
    assert vocabularies[0] == vocabularies[1]
    assert "baselines" in runs["mapped"].report["tasks"]["report"]
    assert "baselines" not in runs["streamed"].report["tasks"]["report"]
    assert "no caption baselines" in capfd.readouterr().err


def test_balanced_weights_are_those_of_all_training_rows(tiny, sharded, phantom, tmp_path, monkeypatch):
    """The index counts labels, so that no training row is read for them; that of an older version does not."""
    config, reads = tiny("tasks.findings.class_weights=balanced"), []
    old = shutil.copytree(sharded.parent, tmp_path / "old")
    index = json.loads((old / "shards.json").read_text())
    assert all(shard.pop("labels")["findings"] for shard in index["shards"])
    (old / "shards.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    shards = [open_shards(str(folder)) for folder in (old, sharded.parent)]
    assert shards[0].identity == shards[1].identity  # so a run on the old ones goes on with these
    read = Shards.read

    def noted(self, shard, start, stop, columns=None):
        reads.append((shard.split, columns))
        return read(self, shard, start, stop, columns)

    monkeypatch.setattr(Shards, "read", noted)
    found = []
    for manifest in (sharded, old / "manifest.yaml", phantom):
        table = load_table(load_manifest(manifest))
        reads.clear()
        head: Any = build_model(config, table).heads["findings"]
        found.append((head.pos_weight.tolist(), ("train", ["target.findings"]) in reads))
    assert [weights for weights, _ in found] == [found[2][0]] * 3
    assert len(set(found[0][0])) > 1
    assert [is_read for _, is_read in found] == [False, True, False]


def test_what_streams_cannot_do_is_refused(tiny, sharded, tmp_path):
    folder = tmp_path / "train_only"
    folder.mkdir()
    for path in sharded.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    index = json.loads((folder / "shards.json").read_text())
    index["shards"] = [shard for shard in index["shards"] if shard["split"] == "train"]
    index["rows"] = sum(shard["rows"] for shard in index["shards"])
    (folder / "shards.json").write_text(json.dumps(index))
    with pytest.raises(MmfuseError, match="no shard is of split validation or test"):
        mmfuse.train(tiny(f"data.manifest={folder / 'manifest.yaml'}"))
    with pytest.raises(MmfuseError, match=r"rows for 100 lanes and 1 processes: lower data\.lanes"):
        mmfuse.train(tiny("data.lanes=100", f"data.manifest={sharded}"))
    (tmp_path / "benchmark.yaml").write_text(f"name: b\ndata: {{manifest: {sharded}}}\n")
    with pytest.raises(MmfuseError, match="name the table that the shards were made of"):
        Workshop(load_benchmark_config(tmp_path / "benchmark.yaml"), print)
    with pytest.raises(MmfuseError, match="leave the cache out"):
        prepare_pairs(
            build_model(tiny(), load_table(load_manifest(sharded))), load_table(load_manifest(sharded)), cache=True
        )
