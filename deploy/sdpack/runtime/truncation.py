"""Prompts that are longer than what a text encoder reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.documents.conditioning import Conditioning
from sdpack.domain.placement import Role
from sdpack.runtime.text_embeddings import readable
from sdpack.runtime.tokenizer import PromptTokenizer

SHOWN_END = 40  # characters of what was read last


@dataclass(frozen=True)
class Truncation:
    """One text encoder that does not read a prompt to its end.

    Attributes:
        tokens: the most it reads, those that mark a beginning and an end included.
        read: the part of the prompt that it reads.
    """

    role: Role
    tokens: int
    read: str

    def __str__(self) -> str:
        """What to tell whoever wrote the prompt."""
        where = f"after {self.read[-SHOWN_END:]!r}" if self.read else "before its first word"
        return f"truncated: {self.role.value} reads {self.tokens} tokens and stops {where}"


def truncations(
    tokenizers: Mapping[Role, PromptTokenizer], conditioning: Conditioning, prompt: str
) -> list[Truncation]:
    """The text encoders that do not read a prompt to its end, in the order of their roles."""
    (text,) = readable([prompt], conditioning)
    parts = {role: tokenizers[role].read(text) for role in Role if role in tokenizers}
    return [
        Truncation(role, tokenizers[role].length, part)
        for role, part in parts.items()
        if part != text
    ]
