"""The device of the tests marked `gpu`, and runs of seconds on it.

With MMFUSE_GPU_REHEARSAL=1 they run on the CPU, against the CPU: that tries the tests, and nothing of a GPU.
"""

import os
from pathlib import Path

import pytest
import torch
from side_by_side import Side

from mmfuse.config import Config, config_from_dict
from mmfuse.data.synthetic.phantom import write_phantom

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once: of runs that are deterministic
REHEARSAL = os.environ.get("MMFUSE_GPU_REHEARSAL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What drivers and kernels warn of differs between cards: it is shown, and fails no comparison of numbers."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skipped here and not in a fixture, pytest tells why in one line for all."""
    if item.get_closest_marker("gpu") and not REHEARSAL and not torch.cuda.is_available():
        pytest.skip("no CUDA device (MMFUSE_GPU_REHEARSAL=1 tries these tests on the CPU)")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The card, or in a rehearsal the CPU."""
    return torch.device("cpu" if REHEARSAL else "cuda")


@pytest.fixture
def side(device) -> Side:
    """The card, with what differs from the CPU."""
    return Side(device)


@pytest.fixture(scope="session")
def phantom(device, tmp_path_factory) -> Path:
    """The manifest of 90 SYNTHETIC studies."""
    return write_phantom(tmp_path_factory.mktemp("gpu") / "phantom", 90, seed=0)


@pytest.fixture
def tiny(phantom, tmp_path):
    """A config of seconds: BERT and ViT of one layer, no dropout; overrides are key=value."""

    def make(*overrides: str, run: str = "run") -> Config:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
        image = {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit}
        values = {
            "name": "tiny",
            "output_dir": str(tmp_path / run),
            "data": {"manifest": str(phantom), "num_workers": 0},
            "text_encoder": {"name": "bert", "pretrained": False, "options": sizes | dropout, "max_length": 48},
            "image_encoder": image,
            "fusion": {"name": "concat", "out_dim": 16, "dropout": 0.0},
            "training": {"epochs": 3, "batch_size": 8, "learning_rate": 0.003, "trackers": [], "patience": None},
            "evaluation": {"analyses": []},
            "cache": {"dir": str(tmp_path / f"features_{run}")},  # its key does not say which device computed them
        }
        return config_from_dict(values, overrides)

    return make
