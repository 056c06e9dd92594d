"""Tiny models with one task of each kind, and packed batches of noise in which modalities are missing."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.batches.collate import Item, collate
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.model import FusionModel
from mmfuse.types import Batch

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="mmfuse[onnx] is not installed"
)
needs_openvino = pytest.mark.skipif(
    not all(map(find_spec, ("onnxscript", "openvino", "nncf"))), reason="mmfuse[openvino] is not installed"
)
"""Without importing them: openvino would report that."""

TASKS = {
    "kind": {"type": "classification", "labels": ["a", "b", "c"]},
    "signs": {"type": "multilabel", "labels": ["x", "y"]},
    "size": {"type": "regression", "labels": []},
}


def build(fusion: str, tasks: dict | None = None, text: str = "bert", image: str = "vit", **options) -> FusionModel:
    """An untrained model, tiny, of which no two weights are alike."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    words = [f"word {i} of the text {7 * i}" for i in range(50)]
    reports = build_text_encoder(TextEncoderConfig(name=text, pretrained=False, options=sizes, max_length=24), words)
    towers = {
        "vit": ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 16, "num_heads": 2}),
        "resnet": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}),
    }
    name, of = towers[image]
    picture = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False, size=[32, 32], options=of))
    if tasks is None:  # decisions are combined between labels
        tasks = {name: given for name, given in TASKS.items() if fusion != "late_probability" or name != "size"}
    model = FusionModel(reports, picture, {"name": fusion, **options}, tasks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def draw(model: FusionModel, rows: int, length: int, views: int, seed: int) -> Batch:
    """A packed batch: of a third of the rows the text is missing, of others the images; some have several."""
    rng = np.random.default_rng(seed)
    items = []
    for row in range(rows):
        item = Item(row, str(row))
        if model.text_encoder is not None and rng.random() < 0.7:
            item.input_ids = rng.integers(1, 30, rng.integers(1, length + 1)).tolist()
        many = int(rng.integers(0, views + 1)) if model.image_encoder is not None else 0
        item.pixels = [rng.integers(0, 256, (3, 32, 32), dtype=np.uint8) for _ in range(many)]
        items.append(item)
    return collate(items)


SHAPES = [(1, 1, 1), (1, 24, 3), (5, 9, 1), (4, 7, 4), (2, 2, 0), (9, 24, 2)]
"""Rows, longest text, most images of a row."""
