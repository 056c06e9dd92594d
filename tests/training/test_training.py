import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import mmfuse
from mmfuse.training.optimization import learning_rate_factor
from mmfuse.training.orders import by_length
from mmfuse.types import MmfuseError


def steps(run_dir: Path) -> list[dict]:
    return [line for line in map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model" / "model.safetensors")


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_all_that_a_reader_needs(tiny):
    run = mmfuse.train(tiny())
    names = {p.name for p in run.dir.iterdir()}
    assert names >= {"config.yaml", "manifest.yaml", "splits.csv", "environment.json", "metrics.jsonl"}
    assert names >= {"learning_curve.png", "model", "test", "checkpoints"}
    assert {p.name for p in run.model_dir.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer",
        "metrics.json",
        "README.md",
    }
    card = (run.model_dir / "README.md").read_text()
    assert "SYNTHETIC" in card
    assert "auroc_macro" in card
    assert run.report["tasks"]["findings"]["n"] == len(
        (run.dir / "test" / "predictions.jsonl").read_text().splitlines()
    )
    environment = json.loads((run.dir / "environment.json").read_text())
    assert environment["manifest"]["sha256"]
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__


def test_the_loss_falls_and_the_model_learns(tiny):
    run = mmfuse.train(tiny("training.epochs=40", "training.learning_rate=0.01"))
    losses = [line["loss"] for line in steps(run.dir)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5]), losses[-5:]


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tiny):
    a, b = (mmfuse.train(tiny("fusion.dropout=0.3", run=name)) for name in "ab")
    c = mmfuse.train(tiny("fusion.dropout=0.3", "seed=1", run="c"))
    assert equal(weights(a.dir), weights(b.dir))
    assert not equal(weights(a.dir), weights(c.dir))


@pytest.mark.parametrize("at", [1, 4, 8, 11])
def test_a_killed_run_goes_on_to_the_same_bits(tiny, killed_at, at):
    options = ("fusion.dropout=0.3", "training.checkpoint_every=3", "training.modality_dropout.text=0.3")
    whole = mmfuse.train(tiny(*options, run="whole"))
    again = killed_at(tiny(*options, run="killed"), at)
    assert equal(weights(whole.dir), weights(again.dir))
    assert [line["step"] for line in steps(again.dir)] == list(range(1, whole.steps + 1))
    assert [line["loss"] for line in steps(again.dir)] == [line["loss"] for line in steps(whole.dir)]


def test_bits_do_not_depend_on_who_reads_ahead(tiny, kill_at):
    """One queue of batches over all epochs and evaluations, begun anew in the middle of one, ended in another."""
    options = ("training.epochs=3", "training.max_steps=11", "training.accumulation=2", "training.batch_size=4")
    changed = (*options, "training.augmentation.image=radiograph", "training.modality_dropout.text=0.3")
    alone = mmfuse.train(tiny(*changed, run="alone"))
    ahead = tiny(*changed, "data.num_workers=2", "training.checkpoint_every=1", run="ahead")
    kill_at(ahead, 6)
    again = mmfuse.train(ahead)
    assert equal(weights(alone.dir), weights(again.dir))
    assert [line["loss"] for line in steps(again.dir)] == [line["loss"] for line in steps(alone.dir)]


def test_a_resumed_run_must_find_the_same_rows(tiny, phantom, tmp_path, kill_at):
    """Not in another order, nor with another target or text; back in their place, the run goes on."""
    copy = tmp_path / "copy"
    shutil.copytree(phantom.parent, copy)
    with (copy / "data.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))

    def write(changed: list[dict[str, str]]) -> None:
        with (copy / "data.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(changed)

    def replaced(name: str, value: str) -> list[dict[str, str]]:
        at = next(i for i, row in enumerate(rows) if row["split"] == "train" and row[name] != value)
        return [*rows[:at], {**rows[at], name: value}, *rows[at + 1 :]]

    config = tiny(f"data.manifest={copy / phantom.name}", "training.checkpoint_every=2")
    kill_at(config, 3)
    others = [rows[1:] + rows[:1], replaced("findings", "opacity"), replaced("text", "A word.")]
    for changed in others:
        write(changed)
        with pytest.raises(MmfuseError, match=r"cannot resume: the rows .* are not those of its checkpoint"):
            mmfuse.train(config)
        assert steps(tmp_path / "run")[-1]["step"] == 2
    write(rows)
    mmfuse.train(config)


def test_accumulation_gives_the_losses_of_the_larger_batch(tiny, monkeypatch):
    """The parts of a batch are unequal, so a mean of their means would differ."""
    rng = np.random.default_rng(0)
    a = mmfuse.train(tiny("training.batch_size=8", run="a"))
    plan = by_length.epoch_batches

    def halves(rows, lengths, batch_size, world, seed, epoch):
        whole = plan(rows, lengths, 8, world, seed, epoch)
        cut = [int(rng.integers(1, 4)) for _ in whole]
        return [[part] for (ranks,), k in zip(whole, cut, strict=True) for part in (ranks[:k], ranks[k:]) if part]

    monkeypatch.setattr(by_length, "epoch_batches", halves)
    b = mmfuse.train(tiny("training.batch_size=4", "training.accumulation=2", run="b"))
    first, second = ([line["loss"] for line in steps(run.dir)] for run in (a, b))
    assert np.allclose(first, second, rtol=1e-4)


def test_a_missing_target_adds_nothing_to_the_loss(tiny, phantom, tmp_path):
    """The same rows, one half of them without a target: the loss of a step is that of the labelled rows alone."""
    table = (phantom.parent / "data.csv").read_text().splitlines()
    header = table[0].split(",")
    manifest = yaml.safe_load(phantom.read_text())
    manifest["tasks"]["findings"] |= {"empty": "missing", "missing": ["not asked"]}
    manifest["rows"] = str(tmp_path / "rows.csv")
    manifest["image"]["root"] = str(phantom.parent)
    rows = list(csv.DictReader(table))
    for i, row in enumerate(rows):
        row["findings"] = "not asked" if i % 2 else (row["findings"] or "opacity")
    with (tmp_path / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, header)
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    run = mmfuse.train(tiny(f"data.manifest={tmp_path / 'manifest.yaml'}"))
    assert 0.3 < steps(run.dir)[0]["loss"] < 1.2  # a mean over labelled entries: near log 2, whatever their number
    labelled = run.report["tasks"]["findings"]["n"]
    assert labelled < run.report["rows"]


def test_a_frozen_tower_does_not_move_until_its_epoch(tiny, kill_at):
    for_good = mmfuse.train(tiny("text_encoder.frozen=true", run="frozen"))
    start = mmfuse.train(tiny("text_encoder.frozen=true", "training.max_steps=1", run="start"))
    options = ("text_encoder.frozen=true", "text_encoder.unfreeze_epoch=1", "training.checkpoint_every=2")
    kill_at(tiny(*options, run="released"), 11)  # the best weights may be from before the release
    (late,) = (start.dir.parent / "released" / "checkpoints").glob("step_*/weights.safetensors")
    then = load_file(late)
    released = mmfuse.train(tiny(*options, run="released"))
    name = next(n for n in weights(start.dir) if n.startswith("text_encoder.") and n.endswith("query.weight"))
    assert torch.equal(weights(for_good.dir)[name], weights(start.dir)[name])
    assert not torch.equal(then[name], weights(start.dir)[name])
    for run, said in ((for_good, "frozen, "), (released, "frozen until epoch 1 (the first is 0), ")):
        assert f"- text: `bert`, {said}" in (run.model_dir / "README.md").read_text()


def test_early_stopping_keeps_the_best_weights(tiny):
    run = mmfuse.train(tiny("training.epochs=30", "training.learning_rate=0.03", "training.patience=2"))
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "validation" in line]
    values = [line["validation"]["findings/auroc_macro"] for line in evaluations]
    best = evaluations[int(np.argmax(values))]["step"]
    assert run.best_step == best
    assert all(line["peak_mib"] > 1 for line in evaluations)
    assert len(evaluations) - 1 - int(np.argmax(values)) == 2
    assert run.steps < 30 * 8


def test_modality_dropout_makes_a_modality_optional(tiny):
    plain = mmfuse.train(tiny(run="plain"))
    dropped = mmfuse.train(tiny("training.modality_dropout.image=0.3", run="dropped"))
    accepts = [json.loads((r.model_dir / "config.json").read_text())["accepts_missing"] for r in (plain, dropped)]
    assert accepts == [[], ["image"]]


def test_the_cache_changes_nothing_but_the_time(tiny):
    frozen = (
        "text_encoder.frozen=true",
        "image_encoder.frozen=true",
        "fusion.name=cross_attention",
        "fusion.out_dim=16",
    )
    live = mmfuse.train(tiny(*frozen, "cache.enabled=false", run="live"))
    cached = mmfuse.train(tiny(*frozen, run="cached"))
    losses = [[line["loss"] for line in steps(run.dir)] for run in (live, cached)]
    assert np.allclose(*losses, rtol=1e-4)


def test_a_second_run_in_the_same_folder(tiny, monkeypatch):
    first = mmfuse.train(tiny())
    with monkeypatch.context() as patched:
        patched.delattr("mmfuse.training.loop.Feed")  # no row is read ahead for steps that are done
        again = mmfuse.train(tiny())
    assert again.report == first.report
    with pytest.raises(MmfuseError, match=r"training.epochs was 2, is now 3.*--restart"):
        mmfuse.train(tiny("training.epochs=3"))
    assert mmfuse.train(tiny("training.epochs=1"), restart=True).steps < first.steps


@pytest.mark.parametrize("mistake", ["data.manifest=nope.yaml", "fusion.name=gatd", "data.tasks=[nope]"])
def test_a_mended_config_gets_the_folder_of_one_that_began_nothing(tiny, mistake):
    with pytest.raises(MmfuseError):
        mmfuse.train(tiny(mistake))
    run = mmfuse.train(tiny("training.max_steps=1"))
    assert run.steps == 1
    with pytest.raises(MmfuseError, match="holds a run with another config"):
        mmfuse.train(tiny(mistake))
    assert (run.dir / "config.yaml").is_file()


def test_a_folder_that_is_no_run_is_left_alone(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.docx").write_text("mine")
    with pytest.raises(MmfuseError, match="not empty, and not a run"):
        mmfuse.train(tiny(), restart=True)
    assert (tmp_path / "run" / "thesis.docx").read_text() == "mine"


def test_a_damaged_image_stops_training_and_is_named(tiny, phantom, tmp_path):
    manifest = yaml.safe_load(phantom.read_text())
    broken = tmp_path / "broken"
    (broken / "images").mkdir(parents=True)
    for path in (phantom.parent / "images").iterdir():
        (broken / "images" / path.name).write_bytes(path.read_bytes())
    victim = sorted((broken / "images").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:200])
    manifest |= {"rows": str(phantom.parent / "data.csv"), "image": {"column": "image", "root": str(broken)}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(MmfuseError, match=victim.stem):
        mmfuse.train(tiny(f"data.manifest={tmp_path / 'manifest.yaml'}"))


def test_every_strategy_trains(tiny):
    for name in mmfuse.FUSIONS.names():
        run = mmfuse.train(tiny(f"fusion={{name: {name}, out_dim: 16}}", "training.max_steps=2", run=name))
        assert run.steps == 2


def test_a_tracker_that_is_not_there_is_refused(tiny):
    with pytest.raises(MmfuseError, match=r"training.trackers: 'tensorbord' .*did you mean 'tensorboard'"):
        mmfuse.train(tiny("training.trackers=[tensorbord]"))


def test_tensorboard_gets_the_numbers(tiny):
    run = mmfuse.train(tiny("training.trackers=[tensorboard]", "training.epochs=1"))
    assert list(run.dir.glob("**/events.out.tfevents.*"))


def test_learning_rate_rises_then_falls():
    course = [learning_rate_factor(step, 100, 0.1, "cosine") for step in range(100)]
    assert course[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert course[10] == 1.0
    assert course[55] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(course[10:]))
    assert [learning_rate_factor(s, 10, 0.0, "constant") for s in (0, 9)] == [1.0, 1.0]
    assert learning_rate_factor(5, 10, 0.0, "linear") == pytest.approx(0.5)
