"""The tokenizers of a request's text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdpack.documents.conditioning import Family
from sdpack.errors import CatalogError
from sdpack.export.prompt_template import TEMPLATED
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
        """The number of tokens that a text encoder reads, padding included."""
        return self.of(encoder).length

    def kept_length(self, encoder: str) -> int:
        """The number of tokens of a text encoder that the denoiser reads, padding included."""
        tokenizer = self.of(encoder)
        return tokenizer.length - tokenizer.template.dropped

    def folder(self, encoder: str) -> Path:
        """The folder of an encoder's tokenizer.json.

        It is the folder of its source if that has the file, with settings for padding, and if the
        family puts no text around prompts. Otherwise the files are made from the source's.

        Raises:
            SourceError: the tokenizer cannot be converted.
            CatalogError: its denoisers need different texts around prompts.
        """
        folder = self.candidates.folder(self.candidates.text_encoder(encoder).tokenizer)
        family = self._templating(encoder)
        if family is None and is_complete(folder, self._tokens(encoder)):
            return folder
        inputs = {
            "tokenizer": files_digest(folder),
            "tools": versions(("transformers", "tokenizers")),
            "revision": REVISION,
        }
        if family is not None:
            inputs |= {"family": family, "diffusers": versions(("diffusers",))}
        return self.store.make(
            "tokenizer", inputs, partial(convert_tokenizer, folder, family=family)
        ).folder

    def _templating(self, encoder: str) -> Family | None:
        """The family that puts text around the prompts of an encoder, if any.

        Raises:
            CatalogError: its denoisers are of several families, and one of them does.
        """
        families = self.candidates.families(encoder)
        templating = families & TEMPLATED
        if templating and len(families) > 1:
            raise CatalogError(
                f"text_encoders.{encoder}: denoisers of the families {', '.join(sorted(families))} "
                "put different texts around prompts; list it once per family, under another name "
                "and with other states"
            )
        return next(iter(templating), None)

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
