"""What `training.augmentation.image` does to the pixels of an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


@cache
def preset(name: str, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """What `training.augmentation.image` does to a `(3, H, W)` uint8 image; it draws from torch's global generator.

    Args:
        name: "natural" or "radiograph".
        height: H.
        width: W.
    """
    from torchvision.transforms import v2  # takes a second, and most runs do without

    bilinear = v2.InterpolationMode.BILINEAR
    if name == "radiograph":
        return v2.Compose(
            [
                v2.RandomAffine(degrees=(-5, 5), translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=bilinear),
                v2.ColorJitter(brightness=0.1, contrast=0.2),
                v2.Lambda(_gamma, Tensor),
                v2.Lambda(_noise, Tensor),
            ]
        )
    margin = [math.ceil(width / 8), math.ceil(height / 8)]  # no empty corners after the rotation
    aspect = width / height
    return v2.Compose(
        [
            v2.Pad(margin, padding_mode="edge"),
            v2.RandomAffine(degrees=(-10, 10), shear=5, interpolation=bilinear),
            v2.CenterCrop((height, width)),
            v2.RandomResizedCrop((height, width), scale=(0.7, 1.0), ratio=(0.9 * aspect, 1.1 * aspect)),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )


def _gamma(pixels: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    return F.adjust_gamma(pixels, math.exp(float(torch.empty(()).uniform_(-0.2, 0.2))))


def _noise(pixels: Tensor) -> Tensor:
    """Gaussian noise of at most 2 % of the range, the same in the three channels: grey stays grey."""
    deviation = 255 * 0.02 * torch.rand(())
    noise = deviation * torch.randn(1, *pixels.shape[1:])
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)
