"""From prompts to token ids, with only the tokenizers library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sdpack.errors import BundleError, PromptError
from sdpack.runtime.prompt_template import template_of

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
LONGEST_TEXT = 100_000


class PromptTokenizer:
    """A tokenizer.json with the length and padding of its tokenizer_config.json.

    A textual inversion with several vectors (Gal et al. 2022) is expanded as in diffusers'
    pipelines: if tokenizer.json adds `style`, `style_1` and `style_2`, "style" in a prompt becomes
    "style style_1 style_2".

    Attributes:
        length: number of tokens that texts are padded or truncated to.
        template: the text around prompts, part of which the denoiser may not read.
        expansions: replacements of such tokens.

    Args:
        folder: folder with both files, and perhaps a template.
        length: number of tokens that the denoiser reads; replaces the one in the configuration.

    Raises:
        BundleError: a file is missing or damaged, or length or padding token are missing.
    """

    def __init__(self, folder: Path, length: int | None = None) -> None:
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            self.template = template_of(folder)
            self.length = (length or int(config["model_max_length"])) + self.template.dropped
            padding = _content(config.get("pad_token") or config["eos_token"])
        except BundleError:
            raise
        except Exception as cause:  # tokenizers raises bare Exception
            raise BundleError(
                f"{folder} holds no usable tokenizer ({cause!r}); check {TOKENIZER_FILE} and "
                f"{CONFIG_FILE}"
            ) from cause
        if not 0 < self.length <= LONGEST_TEXT:
            raise BundleError(
                f"{folder / CONFIG_FILE}: model_max_length is {self.length:.3g}; "
                f"give the number of tokens the text encoder reads (1 to {LONGEST_TEXT})"
            )
        self.expansions = _expansions(self._tokenizer)
        # Not truncated: expansions also apply to tokens beyond the limit.
        self._whole = Tokenizer.from_str(self._tokenizer.to_str()) if self.expansions else None
        if self._whole is not None:
            self._whole.no_truncation()
            self._whole.no_padding()
        number = self._tokenizer.token_to_id(padding)
        if number is None:
            raise BundleError(
                f"{folder / TOKENIZER_FILE} has no padding token {padding!r}; add it, or correct "
                f"pad_token in {CONFIG_FILE}"
            )
        # Disable the cache of words, which grows to some megabytes.
        for tokenizer in (self._tokenizer, self._whole):
            resize = None if tokenizer is None else getattr(tokenizer.model, "_resize_cache", None)
            if resize is not None:
                resize(0)
        self._tokenizer.enable_truncation(self.length)
        self._tokenizer.enable_padding(pad_id=number, pad_token=padding, length=self.length)

    def ids(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """Return token ids, int64 (N, length), padded or truncated to the tokenizer's length."""
        return self.tokens(prompts)[0]

    def tokens(
        self, prompts: Sequence[str], negatives: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return token ids as `ids` does, and a mask of the same shape: 1 for tokens, else 0.

        Args:
            negatives: how many texts at the start are negative prompts.

        Raises:
            PromptError: a prompt is not valid UTF-8.
        """
        for prompt in prompts:
            if not prompt.isprintable() and any("\ud800" <= c <= "\udfff" for c in prompt):
                raise PromptError(f"{prompt!r} is not valid UTF-8; write it in UTF-8")
        texts = [
            self.template.around(prompt, negative=place < negatives)
            for place, prompt in enumerate(self._expanded(prompts))
        ]
        encoded = self._tokenizer.encode_batch(texts)
        shape = (len(prompts), self.length)
        ids = np.array([e.ids for e in encoded], np.int64).reshape(shape)
        return ids, np.array([e.attention_mask for e in encoded], np.int64).reshape(shape)

    def kept(self, count: int, negatives: int = 0) -> NDArray[np.int64] | None:
        """Return the places of the tokens that the denoiser reads; None for all.

        Args:
            count: the number of texts, N.
            negatives: how many texts at the start are negative prompts.

        Returns:
            int64 (N, tokens), for texts tokenized by `tokens`.
        """
        if not self.template.dropped:
            return None
        rows = [self.template.kept(self.length, place < negatives) for place in range(count)]
        return np.array(rows, np.int64).reshape(count, self.length - self.template.dropped)

    def read(self, prompt: str, negative: bool = False) -> str:
        """Return the part of a prompt within the limit: the whole prompt, or a truncated one.

        In a truncated prompt, textual inversions are expanded. A negative prompt may have no
        template around it.
        """
        (expanded,) = self._expanded([prompt])
        whole = self.template.around(expanded, negative)
        (encoded,) = self._tokenizer.encode_batch([whole])
        if not encoded.overflowing:
            return prompt
        places = zip(encoded.offsets, encoded.special_tokens_mask, strict=True)
        read = max((end for (_, end), special in places if not special), default=0)
        start = 0 if whole == expanded else len(self.template.prefix)
        return expanded[: max(0, read - start)]

    def _expanded(self, prompts: Sequence[str]) -> list[str]:
        """Expand textual inversions in prompts.

        As in diffusers: if a token occurs among those of the prompt, every occurrence of its text
        is replaced.
        """
        if self._whole is None:
            return list(prompts)
        found = []
        for prompt in prompts:
            read = self._whole.encode(prompt, add_special_tokens=False).tokens
            for token in dict.fromkeys(read):
                prompt = prompt.replace(token, self.expansions.get(token, token))
            found.append(prompt)
        return found


def _expansions(tokenizer: Tokenizer) -> Mapping[str, str]:
    """Return the expansions of added tokens with several vectors, by token."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}

    def vectors(token: str) -> list[str]:
        more = (f"{token}_{number}" for number in count(1))
        return [token, *takewhile(added.__contains__, more)]

    every = {token: vectors(token) for token in added}
    return {token: " ".join(names) for token, names in every.items() if len(names) > 1}


def is_complete(folder: Path, length: int | None = None) -> bool:
    """Whether a folder has a tokenizer.json, and a configuration with padding token and length.

    Args:
        folder: the folder.
        length: as in `PromptTokenizer`.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        longest = length or int(config["model_max_length"])
        padded = config.get("pad_token") or config.get("eos_token")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
        return False
    return bool(padded) and 0 < longest <= LONGEST_TEXT and (folder / TOKENIZER_FILE).is_file()


def _content(token: str | dict[str, str]) -> str:
    return token["content"] if isinstance(token, dict) else token
