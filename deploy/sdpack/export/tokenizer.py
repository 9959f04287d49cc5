"""Conversion of tokenizers of every version to the one file that the runtime reads."""

from __future__ import annotations

from pathlib import Path

from sdpack.documents.conditioning import Family
from sdpack.errors import SourceError
from sdpack.export.prompt_template import family_template
from sdpack.runtime.prompt_template import TEMPLATE_FILE
from sdpack.runtime.tokenizer import CONFIG_FILE, TOKENIZER_FILE, PromptTokenizer

CHECKED_TEXTS = (
    "a photo of an astronaut riding a horse on mars",
    "",
    "Über-große Bären, 3 of them!",
)


def convert_tokenizer(source: Path, target: Path, family: Family | None = None) -> None:
    """Write tokenizer.json and its config for a vocabulary with merges or a sentencepiece model.

    The result is read back by the runtime's code, which must give the same ids as transformers.

    Args:
        source: folder of the tokenizer.
        target: an empty folder.
        family: the family whose text around prompts is written beside them, if any.

    Raises:
        SourceError: transformers cannot read the tokenizer, has no tokenizer.json for it, or gives
            other ids.
    """
    from transformers import AutoTokenizer

    if not (source / CONFIG_FILE).is_file():
        raise SourceError(
            f"{source} has no {CONFIG_FILE}, which says what kind of tokenizer it is and how many "
            "tokens the text encoder reads; restore it"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.save_pretrained(target)
    except Exception as cause:  # transformers and tokenizers raise their own classes
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(f"{source} holds no readable tokenizer ({reason}); restore it") from cause
    if not (target / TOKENIZER_FILE).is_file():
        raise SourceError(
            f"{source}: transformers implements its tokenizer only in Python, without a "
            f"{TOKENIZER_FILE}; put that file beside it"
        )
    length = min(tokenizer.model_max_length, 512)
    tokenizer.padding_side = "right"  # as in diffusers' pipelines
    read = PromptTokenizer(target, length)
    wanted = tokenizer(
        list(CHECKED_TEXTS), padding="max_length", max_length=length, truncation=True
    ).input_ids
    if read.ids(CHECKED_TEXTS).tolist() != wanted:
        raise SourceError(
            f"{source}: its {TOKENIZER_FILE} gives other ids than transformers; put a correct "
            "one there"
        )
    if family is not None:
        template = family_template(family, source)
        (target / TEMPLATE_FILE).write_text(template.model_dump_json(indent=1) + "\n")
