"""No tensor that is far larger than a model's weights is made while it is built, and none that it needs is refused."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mmfuse.encoders.bounds import no_larger_than
from mmfuse.types import MmfuseError

N = 10**6


@pytest.fixture
def weights(tmp_path):
    save_file({"a": torch.zeros(1000)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


class Buffers(nn.Module):
    """Many that are each small enough."""

    def __init__(self):
        super().__init__()
        for i in range(5):
            self.register_buffer(str(i), torch.empty(20 * N))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(N, N),
        lambda: torch.ones((N, N), dtype=torch.bool),
        lambda: torch.full([N, N], 1.0),
        lambda: torch.arange(10**12),
        lambda: torch.arange(0, 1, 1e-12),
        lambda: torch.zeros(N, 1) - torch.zeros(1, N),
        lambda: torch.outer(torch.zeros(N), torch.zeros(N)),
        lambda: torch.zeros(N, 1) @ torch.zeros(1, N),
        lambda: torch.einsum("i,j->ij", torch.zeros(N), torch.zeros(N)),
        lambda: torch.zeros(1, 1).expand(N, N).contiguous(),
        lambda: torch.zeros(N).repeat(N),
        lambda: torch.zeros(N).new_zeros((N, N)),
        lambda: torch.zeros(1, 1).expand(N, N).double(),
        lambda: nn.Linear(N, N),
        lambda: nn.Embedding(10**9, 10**3),
        Buffers,
    ],
)
def test_what_is_far_larger_than_the_weights_is_not_made(weights, make):
    with pytest.raises(MmfuseError, match="describes a larger model than"), no_larger_than(weights):
        make()


def test_an_image_of_the_largest_size_and_ordinary_models_are(weights):
    with no_larger_than(weights):
        torch.nn.functional.interpolate(torch.zeros(1, 3, 4096, 4096), scale_factor=0.1)
        timm.create_model("swin_s3_tiny_224", num_classes=0)
