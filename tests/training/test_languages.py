"""Captions in Korean, German and Thai: trained, gone on with, and told of."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import yaml
from languages import SENTENCES
from safetensors.torch import load_file

import mmfuse
from mmfuse.benchmarking.config import BenchmarkConfig
from mmfuse.config import Config, DecoderConfig, TextEncoderConfig
from mmfuse.training.build import caption_vocabulary
from mmfuse.training.claim import as_begun, with_defaults
from mmfuse.types import MmfuseError


@pytest.fixture
def three_languages(tmp_path):
    """Captions in Korean, German and Thai, each told by one word of the text."""
    captions = [SENTENCES[language][4] for language in ("ko", "de", "th")]
    words = ("alpha", "beta", "gamma")
    splits = ["train"] * 24 + ["validation"] * 6 + ["test"] * 6
    rows = ["id\ttext\tsplit\tcaption"]
    rows += [f"{i}\t{5 * f'{words[i % 3]} '}{i}\t{split}\t{captions[i % 3]}" for i, split in enumerate(splits)]
    (tmp_path / "rows.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    manifest = {"name": "three", "rows": "rows.tsv", "id": "id", "text": {"columns": ["text"]}}
    manifest |= {"splits": {"column": "split"}, "tasks": {"report": {"type": "captioning", "column": "caption"}}}
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(manifest))
    return tmp_path / "three.yaml"


@pytest.fixture
def captioner(tiny, three_languages):
    def make(*overrides, run="run"):
        decoder = "tasks.report.decoder={hidden_dim: 32, num_layers: 1, num_heads: 2, max_length: 16}"
        small = ("fusion={name: text_only, out_dim: 16}", "training.learning_rate=0.01", decoder)
        return tiny(f"data.manifest={three_languages}", *small, *overrides, run=run)

    return make


def evaluations(run):
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation" in line]


def test_a_model_of_three_languages_is_kept_at_its_best_epoch(captioner):
    run = mmfuse.train(captioner("training.epochs=12", "training.schedule=constant"))
    found = evaluations(run)
    values = [line["validation"]["report/rouge_l"] for line in found]
    assert values[0] < 0.5
    assert run.best_step == found[values.index(max(values))]["step"] > found[0]["step"]
    assert max(values) == pytest.approx(1.0)
    said = [
        json.loads(line)["tasks"]["report"] for line in (run.dir / "test/predictions.jsonl").read_text().splitlines()
    ]
    right = [row for row in said if row["caption"] == row["target"][0]]
    assert {row["caption"] for row in right} == {SENTENCES[language][4] for language in ("ko", "de", "th")}


def test_a_metric_that_does_not_move_is_told_and_the_loss_decides(captioner, capsys, killed_at):
    """It is killed and gone on with too: to the same weights."""
    slow = ("training.learning_rate=0.0003", "training.epochs=3")
    run = mmfuse.train(captioner(*slow))
    found = evaluations(run)
    (value,) = {line["validation"]["report/rouge_l"] for line in found}
    losses = [line["validation_loss"] for line in found]
    assert losses[2] < losses[1] < losses[0]
    last = found[-1]["step"]
    assert run.best_step == run.steps == last
    told = f"report/rouge_l was {value:.4g} in all 3 evaluations, so the validation loss decided: step {last} is kept"
    assert told in capsys.readouterr().err
    again = killed_at(captioner(*slow, run="killed"), 8)
    assert again.best_step == last
    assert told in capsys.readouterr().err
    one, other = (load_file(r.model_dir / "model.safetensors") for r in (run, again))
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_captions_that_are_cut_are_told(captioner, capsys):
    mmfuse.train(captioner("training.max_steps=1", "tasks.report.decoder.max_length=5"))
    assert (
        "24 of 24 training captions are longer than decoder.max_length 5 and cut; the longest"
        in capsys.readouterr().err
    )


def as_of_mmfuse_0_1(run_dir):
    """Take what came later out of a run's config."""
    path = run_dir / "config.yaml"
    written = yaml.safe_load(path.read_text())
    del written["text_encoder"]["vocabulary"]
    for task in written["tasks"].values():
        del task["decoder"]["vocabulary"]
    path.write_text(yaml.safe_dump(written, sort_keys=False))


@pytest.mark.parametrize("tasks", [["tasks={}"], []])
def test_a_run_of_before_goes_on_with_the_vocabulary_that_it_began_with(captioner, kill_at, tasks):
    """There was no key for it, and both vocabularies were the same kind."""
    options = ("training.checkpoint_every=2", "training.epochs=2", *tasks)
    then = "text_encoder.vocabulary=wordpiece_stripped"
    whole = mmfuse.train(captioner(*options, then, run="whole"))
    kill_at(captioner(*options, then, run="killed"), 4)
    as_of_mmfuse_0_1(captioner(run="killed").run_dir)
    again = mmfuse.train(captioner(*options, run="killed"))
    one, other = (load_file(run.model_dir / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(
        MmfuseError, match=r"holds a run with another config \(text_encoder.vocabulary was 'wordpiece_str"
    ):
        mmfuse.train(captioner(*options, "text_encoder.vocabulary=wordpiece_cased", run="killed"))
    assert "wordpiece_stripped" not in (again.dir / "config.yaml").read_text()  # as it was


@pytest.mark.parametrize("config", [Config(name="a"), BenchmarkConfig(name="a")])
def test_what_was_before_a_key_is_known_to_runs_and_benchmarks(config, tmp_path):
    written = asdict(config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    assert as_begun(config, tmp_path) == config
    del written["text_encoder"]["vocabulary"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    assert as_begun(config, tmp_path).text_encoder.vocabulary == "wordpiece_stripped"
    assert with_defaults(written, type(config))["text_encoder"]["vocabulary"] == "wordpiece_stripped"
    chosen = replace(config, text_encoder=TextEncoderConfig(vocabulary="byte_bpe"))
    assert as_begun(chosen, tmp_path) == chosen


@pytest.mark.parametrize(
    ("text", "captions", "found"),
    [
        ("wordpiece", None, "byte_bpe"),
        ("wordpiece_stripped", None, "wordpiece_stripped"),
        ("wordpiece_stripped", "byte_bpe", "byte_bpe"),
        ("byte_bpe", "wordpiece", "wordpiece"),
    ],
)
def test_what_is_trained_on_captions(text, captions, found):
    config = Config(name="a", text_encoder=TextEncoderConfig(vocabulary=text))
    assert caption_vocabulary(config, DecoderConfig(vocabulary=captions)) == found
