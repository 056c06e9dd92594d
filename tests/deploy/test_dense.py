import numpy as np
import pytest
import torch
from tiny_models import SHAPES, build, draw

from mmfuse.data.batches.collate import Item, collate
from mmfuse.deploy.dense import DenseModel, dense_batches, run_dense
from mmfuse.encoders.towers import build_feature_tower
from mmfuse.fusion import FUSIONS
from mmfuse.model import FusionModel
from mmfuse.types import MmfuseError


def in_torch(dense: DenseModel, batch):
    def run(arrays):
        with torch.inference_mode():
            return [z.numpy() for z in dense(*(torch.from_numpy(arrays[each.name]) for each in dense.inputs))]

    return run_dense(dense, batch, run)


def largest_difference(model, batch, found) -> float:
    with torch.inference_mode():
        wanted = model(batch)
    assert list(found) == list(wanted)
    return max(float(np.abs(found[task] - wanted[task].numpy()).max()) for task in wanted)


@pytest.mark.parametrize("fusion", FUSIONS.names())
def test_dense_rows_say_what_packed_ones_do(fusion):
    model = build(fusion)
    dense = DenseModel(model)
    for seed, shape in enumerate(SHAPES):
        batch = draw(model, *shape, seed)
        assert largest_difference(model, batch, in_torch(dense, batch)) < 2e-6, shape


def test_rows_with_as_many_images_stand_together():
    model = build("concat")
    items = [Item(row, str(row), [1, 2]) for row in range(4)]
    for item, many in zip(items, (2, 0, 1, 2), strict=True):
        item.pixels = [np.full((3, 32, 32), 10 * item.row + view, dtype=np.uint8) for view in range(many)]
    found = list(dense_batches(DenseModel(model).inputs, collate(items)))
    assert [rows.tolist() for rows, _ in found] == [[1, 2], [0, 3]]
    assert [arrays["pixels"].shape[:2] for _, arrays in found] == [(2, 1), (2, 2)]
    assert found[0][1]["image_mask"].tolist() == [[False], [True]]
    assert found[1][1]["pixels"][:, :, 0, 0, 0].tolist() == [[0, 1], [30, 31]]


def test_features_stand_in_for_either():
    text, image = (build_feature_tower("features", width, {}) for width in (6, 4))
    torch.manual_seed(0)
    model = FusionModel(
        text, image, {"name": "merged_attention"}, {"size": {"type": "regression", "labels": []}}
    ).eval()
    rng = np.random.default_rng(0)
    items = []
    for row in range(5):
        words = None if row == 1 else rng.standard_normal((1 + row, 6)).astype(np.float32)
        patches = None if row == 2 else rng.standard_normal((3, 4)).astype(np.float32)
        items.append(Item(row, str(row), values={"text": words, "image": patches}))
    for batch in (collate(items), collate(items[1:2]), collate(items[2:3])):
        assert largest_difference(model, batch, in_torch(DenseModel(model), batch)) < 2e-6


def test_captions_are_refused_in_one_line():
    model = build("concat")
    model.captioning = ["report"]
    with pytest.raises(MmfuseError, match=r"^captions are not exported yet: task 'report' "):
        DenseModel(model)
