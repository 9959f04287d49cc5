"""The zoo's second judge: shares neither architecture, weights nor pretraining with the first.

A residual network (He et al. 2016), trained from scratch, encodes the image; a bidirectional GRU
(Cho et al. 2014) encodes the text. Both are projected to one space and trained contrastively
(Radford et al. 2021), also to prefer an image to a damaged copy of it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

MODEL_TYPE = "sdpack-zoo-resnet-judge"
IMAGE_SIDE = 64
WIDTHS = (24, 48, 96, 192)
EMBEDDING = 128


def _normalized(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, added to the input or to its 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _normalized(inputs, outputs, 3, stride)
        self.second = _normalized(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else _normalized(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(F.relu(self.first(x)))
        return F.relu(inner + self.skip(x))


class ResnetConfig(PreTrainedConfig):
    """Sizes of the text tower."""

    model_type = MODEL_TYPE

    def __init__(self, vocab_size: int = 3072, text_width: int = 128, **others: object) -> None:
        self.vocab_size = vocab_size
        self.text_width = text_width
        super().__init__(**others)


class ResnetJudge(PreTrainedModel):
    """Both towers, with the methods of `Judging`; `from_pretrained` loads the shipped folder."""

    config_class = ResnetConfig
    base_model_prefix = "resnet_judge"

    def __init__(self, config: ResnetConfig) -> None:
        super().__init__(config)
        blocks: list[nn.Module] = [_normalized(3, WIDTHS[0], 5, 2), nn.ReLU()]
        for inputs, outputs in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
            stride = 1 if outputs == WIDTHS[0] else 2
            blocks += [ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1)]
        self.image = nn.Sequential(*blocks)
        self.image_projection = nn.Linear(2 * WIDTHS[-1], EMBEDDING)
        width = config.text_width
        self.words = nn.Embedding(config.vocab_size, width)
        self.text = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.text_projection = nn.Linear(2 * width, EMBEDDING)
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        self.post_init()

    def features(self, images: Tensor) -> Tensor:
        """Pooled features float32 (B, 384) of uint8 (B, H, W, 3) images."""
        return self.pixel_features(prepared(images))

    def pixel_features(self, pixels: Tensor) -> Tensor:
        """Pooled features (B, 384) of `prepared` pixels: the mean over the image, and the most."""
        seen = cast(Tensor, self.image(pixels))
        return torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=-1)

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit vectors (B, 128) of such features."""
        return F.normalize(self.image_projection(features), dim=-1)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, 128) of token ids and their attention mask, both int64 (B, T)."""
        lengths = mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(ids), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.text(packed)[0], batch_first=True)
        means = states.sum(1) / lengths[:, None].to(states)
        return F.normalize(self.text_projection(means), dim=-1)


def prepared(images: Tensor) -> Tensor:
    """Return float32 (B, 3, 64, 64), where 0 is white, of uint8 (B, H, W, 3) images."""
    ink = 1 - images.permute(0, 3, 1, 2).float() / 255
    size = (IMAGE_SIDE, IMAGE_SIDE)
    if ink.shape[-2:] == size:
        return ink
    return F.interpolate(ink, size, mode="bicubic", align_corners=False, antialias=True)
