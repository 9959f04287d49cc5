"""Augmentation of the second judge's images, and damage that it learns to score lower."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data import moves


def augmented(ink: Tensor, g: torch.Generator) -> Tensor:
    """Move and scale images; blur or noise some slightly, as generated images are less exact.

    Args:
        ink: float (N, 3, H, W), where 0 is white.
    """
    moved = moves.move(ink, (0.85, 1.15), 0.04, g)
    soft = torch.rand(len(ink), 1, 1, 1, generator=g) < 0.3
    share = 0.7 * torch.rand(len(ink), 1, 1, 1, generator=g)
    moved = torch.where(soft, moved + share * (_smoothed(moved) - moved), moved)
    level = 0.03 * torch.rand(len(ink), 1, 1, 1, generator=g)
    return moved + level * torch.randn(ink.shape, generator=g)


def damaged(ink: Tensor, g: torch.Generator) -> Tensor:
    """Damage images, a fifth of them each by noise, blur, tint, other saturation and blocks.

    Args:
        ink: float (N, 3, H, W), where 0 is white.
    """
    fifths = [part.clone() for part in ink.tensor_split(5)]
    strength = [torch.rand(len(part), 1, 1, 1, generator=g) for part in fifths]
    noisy, soft, tinted, grey, blocky = fifths
    noisy += (0.02 + 0.1 * strength[0]) * torch.randn(noisy.shape, generator=g)
    soft += (0.3 + 0.7 * strength[1]) * (_smoothed(soft) - soft)
    tinted += (0.02 + 0.06 * strength[2]) * torch.randn(len(tinted), 3, 1, 1, generator=g).sign()
    mean = grey.mean(1, keepdim=True)
    factor = torch.where(strength[3] < 0.5, 0.4 + 0.6 * strength[3], 1.2 + 0.6 * strength[3])
    grey = mean + factor * (grey - mean)
    small = F.avg_pool2d(blocky, 2)
    blocky = F.interpolate(small, scale_factor=2.0, mode="nearest")
    return torch.cat([noisy, soft, tinted, grey, blocky])


def _smoothed(images: Tensor) -> Tensor:
    """Return images blurred over three pixels."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel[None, :] / 16).expand(3, 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel, groups=3)
