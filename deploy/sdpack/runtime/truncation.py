"""Prompts that exceed the limit of a text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.documents.conditioning import Conditioning
from sdpack.domain.placement import Role
from sdpack.runtime.text_embeddings import readable
from sdpack.runtime.tokenizer import PromptTokenizer

SHOWN_END = 40  # characters shown of the text before the cut


@dataclass(frozen=True)
class Truncation:
    """A text encoder that truncates a prompt.

    Attributes:
        role: the text encoder's role.
        tokens: its limit, including start and end tokens.
        read: the part of the prompt within the limit.
    """

    role: Role
    tokens: int
    read: str

    def __str__(self) -> str:
        """Return a sentence for the author of the prompt."""
        where = f"after {self.read[-SHOWN_END:]!r}" if self.read else "before its first word"
        return f"truncated: {self.role.value} reads {self.tokens} tokens and stops {where}"


def truncations(
    tokenizers: Mapping[Role, PromptTokenizer],
    conditioning: Conditioning,
    prompt: str,
    negative: bool = False,
) -> list[Truncation]:
    """Return the text encoders that truncate a prompt, in the order of their roles.

    Args:
        negative: whether it is a negative prompt.
    """
    (text,) = readable([prompt], conditioning)
    parts = {role: tokenizers[role].read(text, negative) for role in Role if role in tokenizers}
    return [
        Truncation(role, tokenizers[role].length - tokenizers[role].template.dropped, part)
        for role, part in parts.items()
        if part != text
    ]
