from pathlib import Path

import pytest
import torch

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.data.synthetic.phantom_study import LABELS, make_study, write_report
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.model import FusionModel


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    """An untrained two-task model folder, tiny; it was never trained with a missing modality."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    reports = [write_report(make_study(0, i)) for i in range(50)]
    text = build_text_encoder(TextEncoderConfig(name="bert", pretrained=False, options=sizes, max_length=48), reports)
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    image = build_image_encoder(
        ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=vit)
    )
    tasks = {
        "findings": {"type": "multilabel", "labels": list(LABELS)},
        "sex": {"type": "classification", "labels": ["F", "M"]},
    }
    model = FusionModel(text, image, {"name": "concat", "out_dim": 16}, tasks).eval()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A folder of 60 SYNTHETIC pairs, three of them broken."""
    folder = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs", 60, seed=3)
    stems = sorted(path.stem for path in folder.glob("*.png"))
    (folder / f"{stems[5]}.png").write_bytes(b"no picture")
    (folder / f"{stems[20]}.txt").unlink()
    (folder / f"{stems[41]}.txt").write_bytes(bytes(range(256)))
    return folder
