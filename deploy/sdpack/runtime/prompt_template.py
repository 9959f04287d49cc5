"""The text that a model expects around each prompt: a chat template, or an instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from sdpack.documents.document import Document
from sdpack.errors import BundleError

TEMPLATE_FILE = "prompt_template.json"


class PromptTemplate(Document):
    """The text around each prompt, in a file beside tokenizer.json.

    Attributes:
        prefix, suffix: the text before and after a prompt.
        first_dropped, stop_dropped: the tokens from the first to before the second are read by the
            text encoder, but not by the denoiser.
        plain_negative: negative prompts get neither prefix nor suffix.
    """

    prefix: str = ""
    suffix: str = ""
    first_dropped: NonNegativeInt = 0
    stop_dropped: NonNegativeInt = 0
    plain_negative: bool = False

    @property
    def dropped(self) -> int:
        """The number of tokens that the denoiser does not read."""
        return self.stop_dropped - self.first_dropped

    def around(self, prompt: str, negative: bool = False) -> str:
        """Put the text around a prompt."""
        if negative and self.plain_negative:
            return prompt
        return f"{self.prefix}{prompt}{self.suffix}"

    def kept(self, length: int, negative: bool = False) -> NDArray[np.int64]:
        """The places of the tokens that the denoiser reads, of `length` that the encoder reads."""
        count = length - self.dropped
        if negative and self.plain_negative:
            return np.arange(count)
        places = np.arange(count)
        return np.where(places < self.first_dropped, places, places + self.dropped)


NO_TEMPLATE = PromptTemplate()


def template_of(folder: Path) -> PromptTemplate:
    """The template in a tokenizer's folder; one that adds nothing if there is none.

    Raises:
        BundleError: the file is damaged.
    """
    path = folder / TEMPLATE_FILE
    if not path.exists():
        return NO_TEMPLATE
    try:
        return PromptTemplate.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise BundleError(f"{path} is damaged ({type(cause).__name__}); restore it") from cause
