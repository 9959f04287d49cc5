"""Training images of the judge: each one unchanged, and moved, scaled and blurred.

Generated images are softer and less exact than the originals. A judge trained only on clean vector
art would measure this difference instead of the content.
"""

from __future__ import annotations

import torch
from sdpack.evaluate.judge import ImageTower, prepare
from torch import Tensor
from torch.nn import functional as F

from zoo.data import moves


@torch.no_grad()
def features(tower: ImageTower, images: Tensor, view: int, batch_size: int = 64) -> Tensor:
    """Return pooled features of uint8 (N, 64, 64, 3) images in one view: float32 (N, 1280).

    View 0 is the unchanged images; each other view changes them in a fixed way.
    """
    device = next(tower.parameters()).device
    g = torch.Generator().manual_seed(2000 + view)
    seen = []
    for part in images.split(batch_size):
        shown = disturb(part, g) if view else part
        seen.append(tower(prepare(shown.to(device))))
    return torch.cat(seen)


def disturb(images: Tensor, g: torch.Generator) -> Tensor:
    """Move by up to 2.5 %, scale by 0.85 to 1.1 and blur, differently for each image."""
    count = len(images)
    x = 1 - images.permute(0, 3, 1, 2).float() / 255  # white is 0, what padding fills in
    x = moves.move(x, (0.85, 1.1), 0.025, g)
    x = _blur(x, 1.2 * torch.rand(count, generator=g) + 0.05)
    x = x + 0.03 * torch.randn(x.shape, generator=g)
    return moves.to_bytes(x)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur (N, 3, H, W) with a Gaussian; each image has its own sigma, in pixels."""
    offsets = torch.arange(-3, 4).float()
    kernel = torch.exp(-offsets.square() / (2 * sigma[:, None].square()))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, dim=0)
    count, _, height, width = images.shape
    x = images.reshape(1, count * 3, height, width)
    x = F.conv2d(x, kernel[:, None, :, None], padding=(3, 0), groups=count * 3)
    x = F.conv2d(x, kernel[:, None, None, :], padding=(0, 3), groups=count * 3)
    return x.reshape(images.shape)
