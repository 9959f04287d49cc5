"""Tokenizers of every age as the one file the runtime reads."""

from __future__ import annotations

from pathlib import Path

from sdpack.errors import SourceError
from sdpack.runtime.tokenizer import TOKENIZER_FILE, PromptTokenizer

CHECKED_TEXTS = (
    "a photo of an astronaut riding a horse on mars",
    "",
    "Über-große Bären, 3 of them!",
)


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json and its config for what lies in `source`: a vocabulary and merges, or a
    sentencepiece model.

    What is written is read as the runtime does, and has to give the ids that transformers gives.

    Raises:
        SourceError: transformers makes no tokenizer of it, or another one than the runtime's.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.save_pretrained(target)
    except Exception as cause:  # transformers and tokenizers raise classes of their own
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(f"{source} holds no readable tokenizer ({reason}); restore it") from cause
    if not (target / TOKENIZER_FILE).is_file():
        raise SourceError(
            f"{source}: transformers implements its tokenizer only in Python, without a "
            f"{TOKENIZER_FILE}; put that file beside it"
        )
    length = min(tokenizer.model_max_length, 512)
    read = PromptTokenizer(target, length)
    wanted = tokenizer(
        list(CHECKED_TEXTS), padding="max_length", max_length=length, truncation=True
    ).input_ids
    if read.ids(CHECKED_TEXTS).tolist() != wanted:
        raise SourceError(
            f"{source}: its {TOKENIZER_FILE} gives other ids than transformers; put a correct "
            "one there"
        )
