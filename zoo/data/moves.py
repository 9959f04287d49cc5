"""Shifting and scaling images on their white background, for data augmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def move(images: Tensor, scale: tuple[float, float], shift: float, g: torch.Generator) -> Tensor:
    """Scale and shift each image by its own random amounts.

    Args:
        images: float (N, C, H, W) in which the background is 0; new area is filled with it.
        scale: smallest and largest factor.
        shift: largest shift to either side, as a share of the image.
        g: generator of the factors and shifts.
    """
    count = len(images)
    factors = scale[0] + (scale[1] - scale[0]) * torch.rand(count, generator=g)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 / factors
    affine[:, :, 2] = 4 * shift * (torch.rand(count, 2, generator=g) - 0.5)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def moved(images: Tensor, g: torch.Generator) -> Tensor:
    """Return uint8 (N, H, W, 3) images scaled by 0.9 to 1.1 and shifted by up to 5 % of a side."""
    ink = 1 - images.permute(0, 3, 1, 2).float() / 255
    return to_bytes(move(ink, (0.9, 1.1), 0.05, g))


def to_bytes(ink: Tensor) -> Tensor:
    """Convert float (N, 3, H, W), where 0 is white, to uint8 (N, H, W, 3)."""
    return ((1 - ink).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
