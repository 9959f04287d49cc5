"""The candidates of a request: their files on this machine, and what their configs state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdpack.documents.catalog import Bridge, Candidate, Catalog, Denoiser, Mixable, TextEncoder
from sdpack.documents.conditioning import Conditioning, EncoderOutputs, Family, encoder_outputs
from sdpack.documents.profile import Size
from sdpack.documents.source import Source
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Placement, Role
from sdpack.errors import CatalogError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import conditioning_of, family_of
from sdpack.export.latents import latents_of
from sdpack.export.layers_read import layers_read
from sdpack.export.source import is_here, local_folder
from sdpack.pack.planning.mix import Variant, placements
from sdpack.pack.request import BuildRequest


@dataclass
class Candidates:
    """Finds the files of a request's candidates, fetches each once, and reads their configs."""

    request: BuildRequest
    _folders: dict[Source, Path] = field(default_factory=dict, init=False)
    _checkpoints: dict[tuple[str, str], Checkpoint] = field(default_factory=dict, init=False)

    @property
    def catalog(self) -> Catalog:
        """The catalog of the request."""
        return self.request.catalog

    def entry(self, role: Role, candidate: str) -> Candidate:
        """The catalog's entry of a candidate."""
        return self.catalog.candidates(role)[candidate]

    def text_encoder(self, candidate: str) -> TextEncoder:
        """The catalog's entry of a text encoder."""
        return self.catalog.text_encoders[candidate]

    def sets_with(self, variant: Variant) -> list[Mixable]:
        """The sets of candidates that work together and that a variant can be part of."""
        return [
            parts
            for parts in self.catalog.mixable()
            if parts.names.get(variant.role) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        ]

    def is_here(self, source: Source) -> bool:
        """Whether a source's files are on this machine already."""
        located = self.request.located
        return is_here(source, located.folder)

    def folder(self, source: Source) -> Path:
        """The folder of a source's files on this machine; fetches them if necessary.

        Raises:
            SourceError: the files are not available.
        """
        if source not in self._folders:
            located = self.request.located
            self._folders[source] = local_folder(source, located.folder)
        return self._folders[source]

    def checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        """A candidate's checkpoint, with its low-rank weights merged; read once.

        A text encoder whose denoisers were not fetched yet counts with all its layers until then.
        """
        key = (role.group, candidate)
        if key not in self._checkpoints:
            found = self._checkpoint(role, candidate)
            if role.encodes_text and not self._are_denoisers_here(candidate):
                return found
            self._checkpoints[key] = found
        return self._checkpoints[key]

    def _checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        entry = self.entry(role, candidate)
        loras = entry.loras if isinstance(entry, TextEncoder | Denoiser) else ()
        merged = tuple((self.folder(lora.source), lora.scale) for lora in loras)
        checkpoint = Checkpoint(self.folder(entry.source), merged)
        if not isinstance(entry, TextEncoder):
            return checkpoint
        return replace(checkpoint, layers=self._layers_read(candidate, checkpoint.config))

    def _layers_read(self, candidate: str, config: Mapping[str, Any]) -> int | None:
        """How many layers of a text encoder its denoisers need, in all its roles.

        Returns None for all, and if a denoiser was not fetched yet.
        """
        skip = self.text_encoder(candidate).clip_skip
        if not self._are_denoisers_here(candidate):
            return None
        roles = {
            (family, used)
            for parts in self._sets_of_encoder(candidate)
            for used, name in parts.names.items()
            if used.encodes_text and name == candidate
            for family in self._families_of([parts])
        }
        counts = [
            layers_read(encoder_outputs(family, used), skip, config) for family, used in roles
        ]
        known = [count for count in counts if count is not None]
        return max(known) if known and len(known) == len(counts) else None

    def parameters(self, role: Role, candidate: str) -> int:
        """How many parameters a candidate has."""
        return self.checkpoint(role, candidate).parameters

    def parameters_of(self, parts: Mixable) -> int:
        """Number of parameters of a set of parts, without bridges."""
        return sum(self.parameters(*part) for part in parts.names.items())

    def bridge(self, variant: Variant) -> Bridge | None:
        """The bridge from a text encoder to its partner; None where none is needed.

        Raises:
            CatalogError: the catalog has no bridge where one is needed.
        """
        if variant.partner is None:
            return None
        for bridge in self.catalog.bridges:
            leads = bridge.leads_to(variant.partner, variant.role)
            if leads and bridge.text_encoder == variant.candidate:
                return bridge
        raise CatalogError(f"no bridge from {variant.candidate} to {variant.partner}; add one")

    def conditioning(self, denoiser: str) -> Conditioning:
        """The inputs of a denoiser other than latents and timestep."""
        checkpoint = self.checkpoint(Role.DENOISER, denoiser)
        return conditioning_of(checkpoint, self.request.sampling_of(denoiser))

    def encoder_outputs(self, variant: Variant) -> EncoderOutputs:
        """The outputs of a text encoder that the denoisers it works with need.

        Raises:
            CatalogError: two of them need different outputs.
        """
        families = self._families_of(self.sets_with(variant))
        outputs = {encoder_outputs(family, variant.role) for family in families}
        if len(outputs) != 1:
            raise CatalogError(
                f"text_encoders.{variant.candidate}: denoisers of the families "
                f"{', '.join(sorted(families)) or 'of none'} need different outputs from it; list "
                "it once per family, under another name and with other states"
            )
        return outputs.pop()

    def families(self, encoder: str) -> frozenset[Family]:
        """The families of the denoisers that a text encoder works with."""
        return self._families_of(self._sets_of_encoder(encoder))

    def _sets_of_encoder(self, encoder: str) -> list[Mixable]:
        return [
            parts
            for parts in self.catalog.mixable()
            if any(role.encodes_text and name == encoder for role, name in parts.names.items())
        ]

    def _are_denoisers_here(self, encoder: str) -> bool:
        """Whether the denoisers of a text encoder are on this machine."""
        denoisers = {parts.denoiser for parts in self._sets_of_encoder(encoder)}
        return all(self.is_here(self.catalog.denoisers[name].source) for name in denoisers)

    def _families_of(self, sets: Sequence[Mixable]) -> frozenset[Family]:
        denoisers = sorted({parts.denoiser for parts in sets})
        return frozenset(family_of(self.checkpoint(Role.DENOISER, name)) for name in denoisers)

    def latents(self, decoder: str) -> LatentSpace:
        """The latent space of a decoder.

        Raises:
            SourceError: its config is not valid.
            CatalogError: denoisers of different families run it in different ways.
        """
        checkpoint = self.checkpoint(Role.DECODER, decoder)
        denoisers = {m.denoiser for m in self.catalog.mixable() if m.decoder == decoder}
        families = {family_of(self.checkpoint(Role.DENOISER, name)) for name in sorted(denoisers)}
        spaces = {latents_of(checkpoint, family) for family in families}
        if len(spaces) != 1:
            raise CatalogError(
                f"decoders.{decoder}: denoisers of the families "
                f"{', '.join(sorted(families)) or 'of none'} shift its latents differently; list "
                "it once per family, under another name and with other latents"
            )
        return spaces.pop()

    def pixels(self, role: Role, candidate: str) -> int:
        """Image pixels a side of a latent pixel, of a denoiser or a decoder.

        Raises:
            SourceError: a decoder's config is not valid.
            CatalogError: a denoiser's decoders upscale differently.
        """
        if role is Role.DECODER:
            return self.latents(candidate).pixels
        decoders = {m.decoder for m in self.catalog.mixable() if m.denoiser == candidate}
        by_pixels = {self.latents(name).pixels: name for name in sorted(decoders)}
        if len(by_pixels) != 1:
            words = ", ".join(f"{name} {times} times" for times, name in sorted(by_pixels.items()))
            raise CatalogError(
                f"denoisers.{candidate}: its decoders upscale latents differently ({words}), so "
                "their images cannot be compared; give each decoder its own catalog"
            )
        return next(iter(by_pixels))

    def latent_sizes(self, role: Role, candidate: str) -> tuple[Size, ...]:
        """Height and width of the latents for each size, of a denoiser or a decoder."""
        pixels = self.pixels(role, candidate)
        return tuple((height // pixels, width // pixels) for height, width in self.request.sizes)

    def latent_rows(self, role: Role, candidate: str) -> Size:
        """Height and width of a measured image's latents."""
        return self.latent_sizes(role, candidate)[0]

    @property
    def placements(self) -> list[Placement]:
        """The placements that the profile allows, fastest first."""
        decoders = {parts.decoder for parts in self.catalog.mixable()}
        sides = [
            side
            for name in sorted(decoders)
            for rows in self.latent_sizes(Role.DECODER, name)
            for side in rows
        ]
        return placements(self.request.profile, max(sides))
