"""Sizes of a request's candidates, and which of them must be downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpack.documents.profile import Size
from sdpack.documents.source import Source
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError
from sdpack.export.families import family_of, latent_step
from sdpack.export.source import remote_bytes
from sdpack.pack.candidates import Candidates
from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.forecast.macs import (
    decoder_macs,
    denoiser_macs,
    encoder_macs,
    macs_of_parameters,
)

STORED_BYTES = 4  # per parameter, if a repository's files are unknown; most are fp32
USUAL_TOKENS = 77
USUAL_PIXELS = 8  # image pixels per latent pixel and side, if the config is not here


@dataclass(frozen=True)
class CandidateSize:
    """The size of one candidate.

    Attributes:
        parameters: number of parameters, from its checkpoint if that is here, else its catalog.
        is_here: whether all its files are on this machine.
        fetch_bytes: size of its download; 0 if another candidate downloads the same files.
        is_exact: whether `fetch_bytes` is 0 or from the hub's metadata, rather than estimated.
        macs: multiply-accumulate operations of one run on one row.
        unread: number of parameters of layers that are not read, beside `parameters`; 0 if the
            checkpoint is not here.
    """

    role: Role
    name: str
    parameters: int
    is_here: bool
    fetch_bytes: int
    is_exact: bool
    macs: Interval
    unread: int = 0


@dataclass
class CandidateSizes:
    """Finds the sizes of candidates without downloading anything."""

    candidates: Candidates

    def every(self) -> Iterator[CandidateSize]:
        """Yield the size of each candidate that some mix uses, the text encoders first.

        Raises:
            CatalogError: a candidate is not here, and the catalog does not give its parameters.
        """
        catalog = self.candidates.catalog
        seen: set[tuple[str, str]] = set()
        fetched: set[Source] = set()
        for parts in catalog.mixable():
            for role, name in parts.names.items():
                if (role.group, name) not in seen:
                    seen.add((role.group, name))
                    source = self.candidates.entry(role, name).source
                    yield self._of(role, name, is_shared=source in fetched)
                    fetched.add(source)

    def known_parameters(self) -> dict[tuple[str, str], int] | None:
        """Return the number of parameters of each candidate, by group of roles and name.

        Returns None if a candidate is not here and the catalog does not give its parameters.
        """
        catalog = self.candidates.catalog
        try:
            return {
                (role.group, name): self._parameters(role, name)
                for parts in catalog.mixable()
                for role, name in parts.names.items()
            }
        except CatalogError:
            return None

    def _is_here(self, role: Role, name: str) -> bool:
        return self.candidates.is_here(self.candidates.entry(role, name).source)

    def _parameters(self, role: Role, name: str) -> int:
        if self._is_here(role, name):
            return self.candidates.parameters(role, name)
        parameters = self.candidates.entry(role, name).parameters
        if parameters is None:
            raise CatalogError(
                f"{role.group}.{name}: its checkpoint is not on this machine and the catalog does "
                "not give its number of parameters; add `parameters`, or download the checkpoint"
            )
        return parameters

    def _of(self, role: Role, name: str, is_shared: bool) -> CandidateSize:
        entry = self.candidates.entry(role, name)
        here, parameters = self._is_here(role, name), self._parameters(role, name)
        fetched, is_exact = (0, True) if here or is_shared else _fetched(entry.source, parameters)
        macs = self._macs(role, name) if here else None
        latents, tokens = self._latents(role, name, here), self._tokens(role, name)
        if macs is None:
            macs = macs_of_parameters(role, parameters, latents, tokens)
        unread = self.candidates.checkpoint(role, name).unread_parameters if here else 0
        return CandidateSize(role, name, parameters, here, fetched, is_exact, macs, unread)

    def _macs(self, role: Role, name: str) -> Interval | None:
        checkpoint = self.candidates.checkpoint(role, name)
        shapes, config = checkpoint.read_shapes(), checkpoint.config
        if role.encodes_text:
            return encoder_macs(shapes, self._tokens(role, name))
        latents = self._latents(role, name, True)
        if role is Role.DECODER:
            return decoder_macs(shapes, config, latents)
        step = latent_step(family_of(checkpoint), config)
        return denoiser_macs(shapes, config, latents, USUAL_TOKENS, step)

    def _latents(self, role: Role, name: str, here: bool) -> Size:
        """Return height and width of an image's latents, as far as the local files tell."""
        request = self.candidates.request
        height, width = request.sizes[0]
        pixels = self._pixels(role, name) if here else USUAL_PIXELS
        return height // pixels, width // pixels

    def _pixels(self, role: Role, name: str) -> int:
        """Return image pixels per latent pixel and side; the usual number without a config."""
        catalog, is_here = self.candidates.catalog, self.candidates.is_here
        decoders = {
            parts.decoder
            for parts in catalog.mixable()
            if parts.names.get(role) == name and is_here(catalog.decoders[parts.decoder].source)
        }
        denoisers = {parts.denoiser for parts in catalog.mixable() if parts.decoder in decoders}
        if not decoders or not all(is_here(catalog.denoisers[n].source) for n in denoisers):
            return USUAL_PIXELS
        return self.candidates.latents(min(decoders)).pixels

    def _tokens(self, role: Role, name: str) -> int:
        if not role.encodes_text:
            return USUAL_TOKENS
        return self.candidates.text_encoder(name).tokens or USUAL_TOKENS


def _fetched(source: Source, parameters: int) -> tuple[int, bool]:
    """Return the size of a download, and whether it is from the hub's metadata."""
    known = remote_bytes(source)
    return (STORED_BYTES * parameters, False) if known is None else (known, True)
