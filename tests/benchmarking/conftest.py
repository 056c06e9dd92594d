"""A benchmark of seconds: drawn symbols, and tiny encoders that are frozen as they were initialised."""

import pytest

from mmfuse.data.synthetic.interactions import write_interactions

ENCODERS = {
    "text_encoder": {
        "name": "bert",
        "pretrained": False,
        "frozen": True,
        "max_length": 24,
        "options": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        },
    },
    "image_encoder": {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "frozen": True,
        "size": [64, 64],
        "options": {"embed_dim": 16, "depth": 1, "num_heads": 2},
    },
}


@pytest.fixture(scope="session")
def symbols(tmp_path_factory):
    """The manifest of 120 drawn examples."""
    return write_interactions(tmp_path_factory.mktemp("symbols") / "set", train=64, validation=24, test=32)


@pytest.fixture(scope="session")
def tiny(symbols):
    """Makes a benchmark's config, below a folder."""
    return lambda root: {
        "name": "tiny",
        "output_dir": str(root / "benchmark"),
        "data": {"manifest": str(symbols), "tasks": ["match", "unique_text"], "num_workers": 0},
        **ENCODERS,
        "training": {"epochs": 2, "batch_size": 16, "modality_dropout": {"text": 0.2, "image": 0.2}},
        "cache": {"dir": str(root / "cache")},
        "strategies": {"late": None, "concat": None, "cross_attention": None},
        "metric": "accuracy",
        "width": 16,
        "seeds": 2,
        "resamples": 200,
        "emap_rows": 8,
        "diagnostic_rows": 24,
    }


@pytest.fixture
def values(tiny, tmp_path):
    """One, to be changed and run."""
    return tiny(tmp_path)
