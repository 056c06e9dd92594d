"""The runs of these tests."""

from pathlib import Path
from typing import Any

import pandas as pd

SMALL: dict[str, Any] = {
    "text_encoder": {
        "name": "bert",
        "pretrained": False,
        "options": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "max_length": 48,
    },
    "image_encoder": {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "size": [32, 32],
        "options": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    },
    "fusion": {"name": "concat", "out_dim": 16},
    "training": {"epochs": 1, "batch_size": 16},
    "data.num_workers": 0,
}
"""Random towers of one layer: a run of a second."""
COLUMNS: dict[str, Any] = {"target": "sex", "image": "image", "text": "text", "id": "id"}


def rows_of(phantom: Path) -> pd.DataFrame:
    """The studies as one holds them: absolute paths."""
    frame = pd.read_csv(phantom / "data.csv", dtype=str, keep_default_na=False)
    return frame.assign(image=[str(phantom / path) for path in frame["image"]]).reindex(
        columns=["id", "image", "text", "sex"]
    )
