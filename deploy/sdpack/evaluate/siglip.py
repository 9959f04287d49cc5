"""A SigLIP or SigLIP 2 model of fixed resolution as the judge.

Its towers were trained to decide for each pair alone whether image and text match (Zhai
et al. 2023; Tschannen et al. 2025). The score is the cosine of their embeddings, as with a CLIP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, ones_like
from torch.nn import functional as F

from sdpack.evaluate.towers import pooled, scaled_pixels

MODEL_TYPE = "siglip"
MEAN = SPREAD = 0.5


class SiglipJudge:
    """A transformers SiglipModel with the methods of `Judging`."""

    def __init__(self, model: Any) -> None:
        self._model = model.float().eval()
        vision = model.config.vision_config
        self._side = int(vision.image_size)

    def features(self, images: Tensor) -> Tensor:
        """The image tower's float32 (B, D) of uint8 (B, H, W, 3) pictures."""
        given = (scaled_pixels(images, self._side) - MEAN) / SPREAD
        return pooled(self._model.get_image_features(pixel_values=given))

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit vectors (B, D)."""
        return F.normalize(features, dim=-1)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, D) of token ids int64 (B, T); padding is read as in training."""
        return F.normalize(pooled(self._model.get_text_features(input_ids=ids)), dim=-1)


class SiglipTexts:
    """Tokenizes texts as in the model's training: in lower case, padded to the model's length.

    Args:
        tokenizer: the tokenizer of transformers.
        length: the number of tokens.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length

    def __call__(self, texts: Sequence[str], **_: object) -> Mapping[str, Tensor]:
        encoded = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )
        ids = encoded["input_ids"]
        return {"input_ids": ids, "attention_mask": ones_like(ids)}
