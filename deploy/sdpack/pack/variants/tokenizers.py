"""The tokenizers of a request's text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdpack.export.tokenizer import convert_tokenizer
from sdpack.pack.candidates import Candidates
from sdpack.runtime.tokenizer import PromptTokenizer, is_complete
from sdpack.store.artifacts import REVISION, Store, digest, files_digest
from sdpack.version import versions


@dataclass
class Tokenizers:
    """Finds or converts the tokenizer of each text encoder, and reads it once."""

    candidates: Candidates
    store: Store
    _read: dict[str, PromptTokenizer] = field(default_factory=dict, init=False)

    def of(self, encoder: str) -> PromptTokenizer:
        """The tokenizer of a text encoder's prompts."""
        if encoder not in self._read:
            tokens = self._tokens(encoder)
            self._read[encoder] = PromptTokenizer(self.folder(encoder), tokens)
        return self._read[encoder]

    def length(self, encoder: str) -> int:
        """The number of tokens in a prompt for a text encoder, padding included."""
        return self.of(encoder).length

    def folder(self, encoder: str) -> Path:
        """The folder of an encoder's tokenizer.json.

        It is the folder of its source if that has the file, with settings for padding. Otherwise
        the file is converted from the tokenizer's other files.

        Raises:
            SourceError: the tokenizer cannot be converted.
        """
        folder = self.candidates.folder(self.candidates.text_encoder(encoder).tokenizer)
        if is_complete(folder, self._tokens(encoder)):
            return folder
        inputs = {
            "tokenizer": files_digest(folder),
            "tools": versions(("transformers", "tokenizers")),
            "revision": REVISION,
        }
        return self.store.make("tokenizer", inputs, partial(convert_tokenizer, folder)).folder

    def content(self, encoder: str) -> str:
        """One hash of everything that determines the token ids of a prompt."""
        files, tokens = files_digest(self.folder(encoder)), self._tokens(encoder)
        expansions = self.of(encoder).expansions
        settings: dict[str, Any] = {} if tokens is None else {"tokens": tokens}
        if expansions:
            settings["expansions"] = dict(expansions)
        return digest({"files": files, **settings}) if settings else files

    def _tokens(self, encoder: str) -> int | None:
        return self.candidates.text_encoder(encoder).tokens
