"""Each loss of a number against its formula, on the task's scale."""

from typing import Any

import numpy as np
import pytest
import torch

from mmfuse.heads import build_head
from mmfuse.types import Features, MmfuseError

DIM = 5
TARGET = np.array([1.0, 20.0, np.nan, 3.0], dtype=np.float32)
FORMULAS = {
    "mse": lambda error: error**2,
    "mae": abs,
    "huber": lambda error: np.where(abs(error) < 1, error**2 / 2, abs(error) - 0.5),
}


def head_of(loss="mse", transform="log"):
    torch.manual_seed(0)
    head = build_head("regression", DIM, [], {"loss": loss}, {"transform": transform})
    head.task.fit(lambda: TARGET)
    return head


def features(rows=4):
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(rows, DIM, generator=generator, requires_grad=True)
    return Features(pooled.unsqueeze(1), torch.ones(rows, 1, dtype=torch.bool), pooled, torch.ones(rows).bool())


@pytest.mark.parametrize("loss", FORMULAS)
@pytest.mark.parametrize("transform", ["standardize", "log", "none"])
def test_the_loss_is_a_sum_of_its_formula_on_the_scale(loss, transform):
    head, said = head_of(loss, transform), torch.tensor([[0.5], [-2.0], [9.0], [1.0]])
    known = ~np.isnan(TARGET)
    errors = said[:, 0].numpy()[known] - head.task.on_scale(TARGET[known])
    target = torch.from_numpy(TARGET)
    assert float(head.loss(said, target)) == pytest.approx(FORMULAS[loss](errors).sum(), rel=1e-5)
    assert head.count(target) == 3
    parts = head.loss(said[:2], target[:2]) + head.loss(said[2:], target[2:])
    torch.testing.assert_close(head.loss(said, target), parts)
    changed = said.clone()
    changed[2] += 100
    assert head.loss(changed, target) == head.loss(said, target)


def test_a_batch_without_any_target_has_loss_0_and_a_gradient_of_0():
    head: Any = head_of()
    given = features()
    loss = head.loss(head(given), torch.full((4,), torch.nan))
    loss.backward()
    assert loss == 0
    assert not given.pooled.grad.any()
    assert not head.linear.weight.grad.isnan().any()


def test_a_missing_target_makes_no_gradient_nan():
    head = head_of()
    head.loss(head(features()), torch.from_numpy(TARGET)).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


def test_the_loss_is_computed_in_single_precision():
    said = head_of()(features()).bfloat16()
    assert head_of().loss(said, torch.from_numpy(TARGET)).dtype == torch.float32


def test_what_is_not_legal_is_refused():
    with pytest.raises(MmfuseError, match=r"loss: 'hubr' is not legal; .*huber"):
        head_of("hubr")
    with pytest.raises(MmfuseError, match="class_weights: balanced is for labels"):
        head_of().weigh(TARGET)
