"""The text that the pipeline of each family puts around prompts, as diffusers has it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from sdpack.documents.conditioning import Family
from sdpack.errors import SourceError
from sdpack.runtime.prompt_template import NO_TEMPLATE, PromptTemplate

MARK = "PROMPT"
# Families with a chat template, and whether it lets the model think before it answers.
CHAT = {Family.Z_IMAGE: True, Family.FLUX2: False, Family.OVIS_IMAGE: False}
# Of a pipeline that is made for its texts alone.
NO_PARTS = dict.fromkeys(("transformer", "scheduler", "vae", "text_encoder", "tokenizer"))
TEMPLATED = frozenset({*CHAT, Family.SANA, Family.LUMINA2, Family.QWEN_IMAGE})


def family_template(family: Family, tokenizer: Path) -> PromptTemplate:
    """Return the template of a family.

    Args:
        tokenizer: folder of the tokenizer, which has the chat template.

    Raises:
        SourceError: the tokenizer cannot be read, or has no chat template.
    """
    if family not in TEMPLATED:
        return NO_TEMPLATE
    if family is Family.LUMINA2:
        return _system_prompt()
    if family is Family.QWEN_IMAGE:
        return _description()
    from transformers import AutoTokenizer

    try:
        read = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        if family is Family.SANA:
            return _instruction(read)
        return _request(read) if family is Family.OVIS_IMAGE else _chat(read, CHAT[family])
    except Exception as cause:  # transformers and jinja raise their own classes
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(
            f"{tokenizer}: the text around prompts cannot be read ({reason}); restore its "
            "chat_template and other files"
        ) from cause


def _chat(tokenizer: Any, thinks: bool) -> PromptTemplate:
    """Return what the tokenizer's chat template puts around the message of a user."""
    whole: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": MARK}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinks,
    )
    prefix, mark, suffix = whole.partition(MARK)
    if not mark:
        raise ValueError("its chat template leaves out the prompt")
    return PromptTemplate(prefix=prefix, suffix=suffix)


def _request(tokenizer: Any) -> PromptTemplate:
    """Return the chat template with Ovis-Image's request for a description before the prompt."""
    from diffusers import OvisImagePipeline

    pipeline: Any = OvisImagePipeline(**NO_PARTS)
    chat = _chat(tokenizer, CHAT[Family.OVIS_IMAGE])
    return PromptTemplate(
        prefix=f"{chat.prefix}{pipeline.system_prompt}",
        suffix=chat.suffix,
        stop_dropped=pipeline.user_prompt_begin_id,
    )


def _system_prompt() -> PromptTemplate:
    """Return Lumina's system prompt; negative prompts have none."""
    from diffusers import Lumina2Pipeline

    pipeline: Any = Lumina2Pipeline(**NO_PARTS)
    return PromptTemplate(prefix=f"{pipeline.system_prompt} <Prompt Start> ", plain_negative=True)


def _description() -> PromptTemplate:
    """Return Qwen-Image's request for a description, whose tokens the denoiser does not read."""
    from diffusers import QwenImagePipeline

    pipeline: Any = QwenImagePipeline(**NO_PARTS)
    prefix, _, suffix = pipeline.prompt_template_encode.partition("{}")
    dropped = pipeline.prompt_template_encode_start_idx
    return PromptTemplate(prefix=prefix, suffix=suffix, stop_dropped=dropped)


def _instruction(tokenizer: Any) -> PromptTemplate:
    """Return SANA's instruction, of which the denoiser reads only the last token.

    That is because diffusers keeps the first token, and as many at the end as a prompt may have.
    """
    from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    prefix = "\n".join(lines)
    return PromptTemplate(
        prefix=prefix,
        first_dropped=1,
        stop_dropped=len(tokenizer.encode(prefix)) - 1,
        plain_negative=True,
    )
