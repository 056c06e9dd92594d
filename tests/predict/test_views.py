"""Several images a study: their order is no part of the question."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from mmfuse.fusion import FUSIONS
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor
from mmfuse.types import Prediction, Sample


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Three unlike pictures of unlike sizes."""
    folder, rng = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    paths = [str(folder / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 50, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("name", FUSIONS.names())
def test_the_order_of_views_changes_nothing(model_dir, views, name):
    """Pooled vectors are their mean, tokens a set without positions: the same for every strategy."""
    parts = FusionModel.from_pretrained(model_dir)
    torch.manual_seed(1)
    model = FusionModel(parts.text_encoder, parts.image_encoder, {"name": name}, parts.task_config)
    for parameter in model.parameters():  # gates that open at 0 would hide the images
        parameter.data += 0.1 * torch.randn_like(parameter)
    predictor = Predictor(model.eval(), missing="allow")
    orders = [*itertools.permutations(views), views[:1], views[1:]]
    found = list(predictor([Sample(str(i), tuple(order), "No change.") for i, order in enumerate(orders)]))
    assert all(isinstance(each, Prediction) for each in found)
    said = np.array([[p for task in each.tasks.values() for p in task["probabilities"].values()] for each in found])
    assert abs(said[:6] - said[0]).max() <= 2e-6  # 1e-6, and files round to 6 digits
    if "image" in model.uses:
        assert (abs(said[6:] - said[0]).max(axis=1) > 1e-4).all()  # yet each view counts
