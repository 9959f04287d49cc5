"""The probability with which a vision-language model says that an image shows its caption.

VQAScore (Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation", 2024)
asks whether the figure shows the caption, and takes the probability of "yes" as the score. Here it
is divided by that of "yes" or "no", so that models that begin with other words can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdpack.domain.arrays import Float64Array
from sdpack.errors import SourceError
from sdpack.export.finite import check_finite
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest, files_digest

YES_PROBABILITY = "probability of yes"  # kind of the rows with these scores
QUESTION = 'Does this image show "{}"? Answer yes or no.'
YES, NO = ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No")
CLASS_SUFFIX = "ForConditionalGeneration"


def answers_questions(folder: Path) -> bool:
    """Return whether a folder holds a model that continues a text about an image."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    names = config.get("architectures") or ()
    return any(str(name).endswith(CLASS_SUFFIX) for name in names)


class QuestionAnswering:
    """Scores images by what a vision-language model of transformers answers about them.

    Args:
        folder: holds the model and its processor.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def content(self) -> str:
        """One hash of the model, the question, the answers, and the package that runs the model."""
        import transformers

        words = {"question": QUESTION, "yes": YES, "no": NO}
        model = files_digest(self._folder)
        return digest({"model": model, "by": transformers.__version__, **words})

    def scores(self, pictures: Pictures, captions: Sequence[str]) -> Float64Array:
        """Return the probability of "yes" for each image, uint8 (N, H, W, 3), and its caption.

        Raises:
            SourceError: the model or its processor cannot be used.
        """
        pairs = zip(pictures, captions, strict=True)
        return np.array([self._probability(picture, caption) for picture, caption in pairs])

    @torch.no_grad()
    def _probability(self, picture: Any, caption: str) -> float:
        processor, model = self._loaded
        content = [{"type": "image"}, {"type": "text", "text": QUESTION.format(caption)}]
        asked = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(images=[Image.fromarray(picture)], text=[asked], return_tensors="pt")
        logits: Tensor = model(**inputs).logits[0, -1].double()
        yes, no = (torch.logsumexp(logits[ids], 0) for ids in self._answers)
        return float(torch.sigmoid(yes - no))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
            model = AutoModelForImageTextToText.from_pretrained(
                self._folder, local_files_only=True, dtype=torch.float32
            )
            check_finite(model, str(self._folder))
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError, ImportError) as cause:
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            raise SourceError(
                f"{self._folder} holds no vision-language model with its processor: {reason}; "
                "restore its files, or choose another judge"
            ) from cause
        model.eval()
        return processor, model

    @cached_property
    def _answers(self) -> tuple[list[int], list[int]]:
        """The first tokens of "yes" and "no" in all their forms.

        Raises:
            SourceError: the tokenizer does not tell them apart.
        """
        tokenizer = self._loaded[0].tokenizer
        yes, no = (
            {int(tokenizer(word, add_special_tokens=False)["input_ids"][0]) for word in words}
            for words in (YES, NO)
        )
        yes, no = yes - no, no - yes
        if not yes or not no:
            raise SourceError(
                f'{self._folder}: the tokenizer does not tell "yes" from "no"; choose another judge'
            )
        return sorted(yes), sorted(no)
