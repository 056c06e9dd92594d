import pickle
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mmfuse
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import prepare_pairs
from mmfuse.training.build import build_model
from mmfuse.types import MmfuseError


def weights(run):
    return load_file(run.model_dir / "model.safetensors")


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def everything(tmp_path):
    (tmp_path / "synonyms.yaml").write_text(yaml.safe_dump([["pleural effusion", "pleural fluid"], ["hazy", "patchy"]]))
    return [
        f"training.augmentation.{option}"
        for option in (
            "image=radiograph",
            "flip=swap",
            "text.mask_tokens=0.1",
            "text.shuffle_clauses=0.5",
            f"text.synonyms={tmp_path / 'synonyms.yaml'}",
        )
    ]


def test_an_augmented_run_goes_on_to_the_same_bits_with_any_number_of_workers(tiny, killed_at, everything, capfd):
    options = [*everything, "training.checkpoint_every=3", "training.modality_dropout.text=0.3"]
    whole = mmfuse.train(tiny(*options, run="whole"))
    assert "flip: swap: 63 of 63 training rows can be flipped" in capfd.readouterr().err
    again = killed_at(tiny(*options, "data.num_workers=2", run="killed"), 4)
    assert equal(weights(whole), weights(again))
    assert not equal(weights(whole), weights(mmfuse.train(tiny(*options[5:], run="plain"))))
    assert yaml.safe_load((whole.dir / "config.yaml").read_text())["training"]["augmentation"]["flip"] == "swap"
    assert (whole.dir / "synonyms.yaml").read_text() == (whole.dir.parent / "synonyms.yaml").read_text()


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_tower_whose_features_are_kept_is_not_augmented(tiny, everything, tower):
    with pytest.raises(MmfuseError, match=rf"features of the frozen {tower} encoder are computed once"):
        mmfuse.train(tiny(*everything, f"{tower}_encoder.frozen=true"))
    live = ("cache.enabled=false", "training.max_steps=1")
    assert mmfuse.train(tiny(*everything, f"{tower}_encoder.frozen=true", *live)).steps == 1


def test_a_worker_process_gets_the_tokenizer_without_the_weights(tiny):
    config = tiny("training.augmentation.flip=swap", "text_encoder.options.hidden_size=512")
    table = load_table(load_manifest(config.data.manifest))
    model: Any = build_model(config, table)
    pairs = prepare_pairs(model, table, augmentation=config.training.augmentation)
    assert pairs.augmentation is not None
    sent = pickle.dumps(pairs.augmentation)
    assert len(sent) < 200_000 < model.text_encoder.model.get_memory_footprint()
    assert pickle.loads(sent).reader.tokenize(["No effusion."]) == model.text_encoder.tokenize(["No effusion."])
    assert len(list(model.text_encoder.parameters())) > 5
