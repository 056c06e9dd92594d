import csv
from collections import Counter

import pytest
import torch

from mmfuse.benchmarking import built_in
from mmfuse.benchmarking.built_in import prepare_interactions
from mmfuse.benchmarking.config import BenchmarkConfig, BuiltInConfig, is_built_in
from mmfuse.config import DataConfig, ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.synthetic.interaction_examples import SEVERAL, SYMBOL_CLASSES, TASKS
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.training.run import train


def config_in(folder, **sizes):
    return BenchmarkConfig(
        name="tiny",
        output_dir=str(folder),
        data=DataConfig(manifest="interactions", num_workers=0),
        text_encoder=TextEncoderConfig(
            name="bert",
            pretrained=False,
            options={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
            max_length=24,
            vocab_size=200,
        ),
        image_encoder=ImageEncoderConfig(
            name="vit_tiny_patch16_224",
            pretrained=False,
            size=[64, 64],
            pooling="mean",
            options={"embed_dim": 8, "depth": 1, "num_heads": 1},
        ),
        built_in=BuiltInConfig(**{"train": 10, "validation": 5, "test": 5, "symbols": 20, "encoder_epochs": 1} | sizes),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a benchmark, its config once all is made, what was said, and the configs of the runs."""
    folder, said, runs = tmp_path_factory.mktemp("benchmark"), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built_in, "train", lambda config: runs.append(config) or train(config))
        prepared = prepare_interactions(config_in(folder), said.append)
    return folder, prepared, said, runs


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_it_makes_the_data_and_two_frozen_encoders(made):
    folder, prepared, said, _ = made
    assert len(said) == 4
    assert not is_built_in(prepared)
    manifest = load_manifest(prepared.data.manifest)
    assert (manifest.name, tuple(manifest.tasks)) == ("interactions", TASKS)
    with open(manifest.rows, encoding="utf-8", newline="") as file:
        assert Counter(row["split"] for row in csv.DictReader(file)) == {"train": 10, "validation": 5, "test": 5}
    for tower in (prepared.text_encoder, prepared.image_encoder):
        assert tower.name.startswith(f"{SAVED_TOWER}{folder}")
        assert tower.frozen
    assert not list(folder.rglob("checkpoints"))
    text, image = build_text_encoder(prepared.text_encoder, []), build_image_encoder(prepared.image_encoder)
    assert text.frozen
    assert text.dim == 8
    assert image.frozen
    assert image(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).tokens.shape == (2, 17, 8)


def test_each_encoder_learns_from_its_own_modality_to_read_symbols_and_nothing_else(made):
    *_, runs = made
    tasks = [task for config in runs for task in config.data.tasks]
    assert sorted(tasks) == sorted(SYMBOL_CLASSES)
    for modality, config in zip(("text", "image"), runs, strict=True):
        assert load_manifest(config.data.manifest).name == "symbols"
        assert config.fusion["name"] == f"{modality}_only"
        assert {task.split("_")[0] for task in config.data.tasks} == {modality}
        assert set(config.tasks) == SEVERAL & set(config.data.tasks)


def test_a_second_call_makes_and_trains_nothing(made, monkeypatch):
    folder, prepared, _, _ = made
    before, said = times(folder), []
    monkeypatch.setattr(built_in, "train", lambda config: pytest.fail("it was trained before"))
    assert prepare_interactions(config_in(folder), said.append) == prepared
    assert said == []
    assert times(folder) == before


def test_other_sizes_touch_nothing_that_is_there(made):
    folder, prepared, _, _ = made
    before, said = times(folder), []
    other = prepare_interactions(config_in(folder, test=6, encoder_epochs=2), said.append)
    assert len(said) == 3  # the symbols are the same
    assert other.data.manifest != prepared.data.manifest
    assert other.text_encoder != prepared.text_encoder
    assert before.items() <= times(folder).items()
