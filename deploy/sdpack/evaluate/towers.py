"""What judges with an image and a text tower share."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F


def scaled_pixels(images: Tensor, side: int) -> Tensor:
    """Return float32 (B, 3, side, side) in [0, 1] of uint8 (B, H, W, 3) images."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    size = (side, side)
    pixels = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
    return pixels.clamp(0, 1)


def pooled(output: Any) -> Tensor:
    """Return the projected vectors, whether transformers gives them alone or among others."""
    return cast(Tensor, output if isinstance(output, Tensor) else output.pooler_output)
