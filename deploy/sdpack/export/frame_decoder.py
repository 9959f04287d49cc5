"""The decoder of Qwen-Image's autoencoder for videos, for one frame.

A convolution in time pads with zeros before the first frame. Of its kernel, only the last slice
reads the frame. An image therefore needs two-dimensional convolutions with that slice, and none of
the convolutions that only join frames.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, scaled_dot_product_attention

VIDEO_KERNEL = 5  # axes of the weight of a convolution in time and space
JOINING = "time_conv."  # in the names of layers that only join frames


def read_numbers(name: str, shape: tuple[int, ...]) -> int:
    """Return how many numbers of a weight the decoder of one frame reads.

    Args:
        name: name of the tensor.
        shape: its shape.
    """
    if JOINING in name:
        return 0
    frames = shape[2] if len(shape) == VIDEO_KERNEL else 1
    return math.prod(shape) // frames


class FrameDecoder(nn.Module):
    """latents float32 (N, C, h, w), normalized, to an image (N, 3, H, W) in [-1, 1].

    Args:
        model: an AutoencoderKLQwenImage, which it modifies.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        parts = cast(Any, model)
        self.decoder = parts.decoder
        self.first = _frame_layer(parts.post_quant_conv)
        _replace(self.decoder)
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(parts.config, f"latents_{name}"), dtype=torch.float32)
            self.register_buffer(name, numbers.view(1, -1, 1, 1), persistent=False)

    def forward(self, latent_sample: Tensor) -> Tensor:
        decoder = cast(Any, self.decoder)
        spread, centre = cast(Tensor, self.std), cast(Tensor, self.mean)
        pixels = decoder.conv_in(self.first(latent_sample * spread + centre))
        middle = decoder.mid_block
        pixels = _residual(middle.resnets[0], pixels)
        for attention, block in zip(middle.attentions, middle.resnets[1:], strict=True):
            pixels = _residual(block, pixels if attention is None else _attended(attention, pixels))
        for level in decoder.up_blocks:
            for block in level.resnets:
                pixels = _residual(block, pixels)
            if level.upsamplers is not None:
                doubled = interpolate(pixels, scale_factor=2.0, mode="nearest")
                pixels = level.upsamplers[0].resample[1](doubled)
        pixels = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(pixels)))
        return cast(Tensor, pixels.clamp(-1.0, 1.0))


class _ChannelNorm(nn.Module):
    """Scales the channels of each pixel, (N, C, H, W), to a length of the root of their number."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        parts = cast(Any, norm)
        self.gamma = nn.Parameter(parts.gamma.detach().reshape(-1, 1, 1) * parts.scale)

    def forward(self, pixels: Tensor) -> Tensor:
        return normalize(pixels, dim=1) * self.gamma


def _replace(module: nn.Module) -> None:
    """Replace the layers for videos in a module by those for one frame."""
    for name, child in module.named_children():
        frame = _frame_layer(child)
        if frame is child:
            _replace(child)
        else:
            setattr(module, name, frame)


def _frame_layer(layer: nn.Module) -> nn.Module:
    """Return the layer for one frame that corresponds to a layer for videos, or the layer."""
    match type(layer).__name__:
        case "QwenImageRMS_norm":
            return _ChannelNorm(layer)
        case "QwenImageCausalConv3d":
            return _frame_convolution(cast(nn.Conv3d, layer))
        case _:
            return layer


def _frame_convolution(layer: nn.Conv3d) -> nn.Conv2d:
    weight = layer.weight.detach()[:, :, -1].contiguous()
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        padding=cast(Any, layer)._padding[2:3] + cast(Any, layer)._padding[:1],
        device="meta",
    )
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = layer.bias
    return made


def _residual(block: Any, pixels: Tensor) -> Tensor:
    hidden = block.conv1(block.nonlinearity(block.norm1(pixels)))
    hidden = block.conv2(block.nonlinearity(block.norm2(hidden)))
    return cast(Tensor, hidden + block.conv_shortcut(pixels))


def _attended(block: Any, pixels: Tensor) -> Tensor:
    """Attention of each pixel to all others, with one head."""
    batch, channels, height, width = pixels.shape
    joined = block.to_qkv(block.norm(pixels)).flatten(2).transpose(1, 2).unsqueeze(1)
    query, key, value = joined.chunk(3, dim=-1)
    heads = scaled_dot_product_attention(query, key, value).squeeze(1)
    attended = heads.transpose(1, 2).reshape(batch, channels, height, width)
    return cast(Tensor, block.proj(attended) + pixels)
