from pathlib import Path

import pytest

from mmfuse.config import Config, config_from_dict
from mmfuse.data.phantom import write_phantom


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
