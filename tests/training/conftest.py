import csv
from pathlib import Path

import pytest
import yaml

import mmfuse
from mmfuse.config import Config, config_from_dict
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.training import loop


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """The manifest of 90 SYNTHETIC studies."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", 90, seed=0)


@pytest.fixture
def tiny(phantom, tmp_path):
    """A config of seconds: BERT and ViT of one layer, no batch norm, no dropout; overrides are key=value."""

    def make(*overrides: str, run: str = "run") -> Config:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        values = {
            "name": "tiny",
            "output_dir": str(tmp_path / run),
            "data": {"manifest": str(phantom), "num_workers": 0},
            "text_encoder": {"name": "bert", "pretrained": False, "options": sizes | dropout, "max_length": 48},
            "image_encoder": {
                "name": "vit_tiny_patch16_224",
                "pretrained": False,
                "size": [32, 32],
                "options": {"depth": 1, "embed_dim": 16, "num_heads": 2},
            },
            "fusion": {"name": "concat", "out_dim": 16, "dropout": 0.0},
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.003, "trackers": [], "patience": None},
        }
        return config_from_dict(values, overrides)

    return make


@pytest.fixture
def uneven(phantom, tmp_path) -> Path:
    """The phantom with unequal numbers of labelled targets, and half of the rows without an image."""
    manifest = yaml.safe_load(phantom.read_text())
    rows = list(csv.DictReader((phantom.parent / "data.csv").read_text().splitlines()))
    for i, row in enumerate(rows):
        row["image"] = "" if i % 2 else str(phantom.parent / row["image"])
        row["findings"] = "not asked" if i % 3 == 0 else (row["findings"] or "opacity")
    with (tmp_path / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest["rows"] = str(tmp_path / "rows.csv")
    manifest["tasks"]["findings"] |= {"empty": "missing", "missing": ["not asked"]}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return tmp_path / "manifest.yaml"


class Killed(BaseException):
    """Nothing in the library may catch it."""


@pytest.fixture
def kill_at(monkeypatch):
    """Train a config, and kill it after a number of steps: `kill_at(config, steps)`."""

    def kill(config: Config, at: int) -> None:
        step, taken = loop.Trainer.step, 0

        def stopping(self, batches):
            nonlocal taken
            taken += 1
            if taken == at + 1:
                raise Killed
            return step(self, batches)

        with monkeypatch.context() as patched:
            patched.setattr(loop.Trainer, "step", stopping)
            with pytest.raises(Killed):
                mmfuse.train(config)

    return kill


@pytest.fixture
def killed_at(kill_at):
    """Train a config, kill it after a number of steps, and go on: `killed_at(config, steps)` is the finished run."""

    def train(config: Config, at: int):
        kill_at(config, at)
        return mmfuse.train(config)

    return train
