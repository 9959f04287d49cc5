"""A CLIP model as the judge, for catalogs of general text-to-image models.

Its image and text towers were trained to agree (Radford et al. 2021); CLIPScore (Hessel et al.
2021) is the cosine of their embeddings. The judge should not be a candidate's text encoder, nor of
its family: candidates would then be trained towards their own judge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sdpack.errors import SourceError
from sdpack.evaluate import siglip
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.towers import pooled, scaled_pixels
from sdpack.export.finite import check_finite

MODEL_TYPE = "clip"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipJudge:
    """A transformers CLIPModel with the methods of `Judge`."""

    def __init__(self, model: Any) -> None:
        self._model = model.float().eval()
        vision = model.config.vision_config
        self._side = int(vision.image_size)

    def features(self, images: Tensor) -> Tensor:
        """The image tower's float32 (B, D) of uint8 (B, H, W, 3) pictures."""
        return pooled(self._model.get_image_features(pixel_values=self._prepared(images)))

    def _prepared(self, images: Tensor) -> Tensor:
        mean, spread = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
        return (scaled_pixels(images, self._side) - mean) / spread

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit vectors (B, D)."""
        return F.normalize(features, dim=-1)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, D) of token ids and their attention mask, both int64 (B, T)."""
        said = self._model.get_text_features(input_ids=ids, attention_mask=mask)
        return F.normalize(pooled(said), dim=-1)


def panel_of(judge: Path, tokenizer: Path) -> Panel:
    """The judge in a folder, a CLIP, a SigLIP or one of the zoo's, with its tokenizer.

    Raises:
        SourceError: a file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    import transformers

    transformers.logging.disable_progress_bar()
    try:
        kind = json.loads((judge / "config.json").read_text()).get("model_type")
        if kind in (MODEL_TYPE, siglip.MODEL_TYPE):
            model = transformers.AutoModel.from_pretrained(judge, local_files_only=True)
            reads = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
            check_finite(model, str(judge))
            if kind == MODEL_TYPE:
                return Panel(ClipJudge(model), reads)
            length = model.config.text_config.max_position_embeddings
            return Panel(siglip.SiglipJudge(model), siglip.SiglipTexts(reads, length))
        from sdpack.evaluate.judge import Judge
        from sdpack.evaluate.resnet_judge import MODEL_TYPE as RESNET
        from sdpack.evaluate.resnet_judge import ResnetJudge

        own = (ResnetJudge if kind == RESNET else Judge).from_pretrained(judge)
        own.float().eval()
        check_finite(own, str(judge))
        return Panel(own, transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer))
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(
            f"{judge} holds no supported judge, a CLIP, a SigLIP or the zoo's: {reason}; give one "
            "of these"
        ) from cause
