"""Catalogs: the candidate parts, which of them fit together, and how their images are scored.

    schema: 1
    name: zoo
    image_size: 64
    text_encoders:
      s: {source: {path: parts/text_encoder/s}, tokenizer: {path: parts/tokenizer}, licence: MIT}
    denoisers:
      s: {source: {path: parts/denoiser/s}, latents: zoo, licence: MIT}
    decoders:
      kl: {source: {path: parts/decoder/kl}, latents: zoo, licence: MIT}
    bridges:
      - {text_encoder: s, denoiser: s, source: {path: parts/bridge/s-s}, licence: MIT}
    sampling: {scheduler: {path: parts/scheduler}, steps: 16, guidance_scale: 3.0}
    quality: {judge: {path: parts/judge}, prompts: prompts.jsonl, ...}

Paths are relative to the catalog's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from os import PathLike
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from sdpack.documents.document import Document, Name
from sdpack.documents.quality import Quality
from sdpack.documents.sampling import Sampling
from sdpack.documents.source import Source
from sdpack.domain.placement import TEXT_ENCODERS, Role

_WANTING = {
    "text_encoders": "no denoiser takes its states, and no bridge starts from it",
    "denoisers": "it needs text encoders with its states or a bridge, and a decoder of its latents",
    "decoders": "no usable denoiser works in its latents",
}


class Candidate(Document):
    """One checkpoint for one role; `parameters` is an optional count for listings."""

    source: Source
    licence: str = Field(min_length=1)
    parameters: PositiveInt | None = None


class Lora(Document):
    """Low-rank weights (Hu et al. 2021) that are merged into a checkpoint before it is exported.

    Attributes:
        scale: factor of the weight update; with DoRA, applied before the magnitudes are restored.
        partial: ignore the file's weights for other models.
    """

    source: Source
    scale: float = 1.0
    partial: bool = False
    licence: str = Field(min_length=1)


class TextEncoder(Candidate):
    """A text encoder's checkpoint.

    Attributes:
        states: name of its hidden states; denoisers that list it need no bridge.
        tokens: maximum number of tokens; by default the tokenizer's.
        clip_skip: number of last layers to leave out.
        loras: LoRAs merged into it.
    """

    tokenizer: Source
    states: str | None = None
    tokens: PositiveInt | None = None
    clip_skip: NonNegativeInt = 0
    loras: tuple[Lora, ...] = ()


class Denoiser(Candidate):
    """A denoiser's checkpoint.

    Attributes:
        latents: name of its latent space.
        states: names of the hidden states it attends to, one for each of its text encoders; empty
            if it needs a bridge.
        droppable: those of `states` that it can do without.
        sampling: its own sampling settings, if they differ from the catalog's.
        loras: LoRAs merged into it.
    """

    latents: str
    states: tuple[str, ...] = ()
    droppable: tuple[str, ...] = ()
    sampling: Sampling | None = None
    loras: tuple[Lora, ...] = ()

    @field_validator("states", "droppable", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_role_for_each(self) -> Denoiser:
        if len(self.states) > len(TEXT_ENCODERS):
            raise ValueError(f"states: at most {len(TEXT_ENCODERS)} text encoders are supported")
        unknown = [name for name in self.droppable if name not in self.states]
        if unknown:
            raise ValueError(f"droppable: {unknown[0]!r} is not one of its states")
        if self.states and set(self.states) == set(self.droppable):
            raise ValueError("droppable: at least one text encoder must stay")
        return self

    @property
    def encoder_states(self) -> Mapping[Role, str | None]:
        """Names of the hidden states it accepts without a bridge, by text encoder role."""
        return dict(zip(TEXT_ENCODERS, self.states or (None,), strict=False))


class Decoder(Candidate):
    """A decoder's checkpoint; `latents` names its latent space."""

    latents: str


class Bridge(Document):
    """A trained projection from a text encoder's hidden states to a denoiser's cross-attention.

    Attributes:
        role: role of the text encoder that it replaces.
    """

    text_encoder: str
    denoiser: str
    role: Role = Role.TEXT_ENCODER
    source: Source
    licence: str = Field(min_length=1)

    def leads_to(self, denoiser: str, role: Role) -> bool:
        return (self.denoiser, self.role) == (denoiser, role)

    @field_validator("role")
    @classmethod
    def _reads_text(cls, role: Role) -> Role:
        if not role.encodes_text:
            raise ValueError(f"a bridge starts at a text encoder, not at the {role.words}")
        return role


@dataclass(frozen=True)
class Mixable:
    """Candidates that work together: one per role, and the bridges they need."""

    names: Mapping[Role, str]
    bridges: Mapping[Role, Source]

    @property
    def denoiser(self) -> str:
        return self.names[Role.DENOISER]

    @property
    def decoder(self) -> str:
        return self.names[Role.DECODER]

    def partner(self, role: Role) -> str | None:
        """Return the denoiser that a bridge connects this role's candidate to, or None."""
        return self.denoiser if role in self.bridges else None


class Catalog(Document):
    """Candidates by role, the bridges between them, and the settings for sampling and scoring."""

    version: Literal[1] = Field(alias="schema")
    name: Name
    description: str = ""
    image_size: PositiveInt
    text_encoders: Mapping[Name, TextEncoder] = Field(min_length=1)
    denoisers: Mapping[Name, Denoiser] = Field(min_length=1)
    decoders: Mapping[Name, Decoder] = Field(min_length=1)
    bridges: tuple[Bridge, ...] = ()
    sampling: Sampling
    quality: Quality

    @model_validator(mode="after")
    def _holds_together(self) -> Catalog:
        for bridge in self.bridges:
            if bridge.text_encoder not in self.text_encoders:
                raise ValueError(f"bridges: unknown text encoder {bridge.text_encoder!r}")
            if bridge.denoiser not in self.denoisers:
                raise ValueError(f"bridges: unknown denoiser {bridge.denoiser!r}")
        pairs = [(b.text_encoder, b.denoiser, b.role) for b in self.bridges]
        twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
        if twice:
            raise ValueError(f"bridges: {' and '.join(twice[0][:2])} have more than one bridge")
        if not any(self.mixable()):
            raise ValueError(
                "no candidates work together; a text encoder and a denoiser need a bridge "
                "or the same states, a denoiser and a decoder the same latents"
            )
        self._check_fidelity()
        return self

    @classmethod
    def load(cls, name_or_path: str | PathLike[str]) -> Catalog:
        """Load a built-in catalog by name, such as "sdxl", or one from a YAML file or its folder.

        Raises:
            CatalogError: no such catalog or file, or it is invalid.
        """
        from sdpack.documents.catalog_files import find_catalog  # a cycle at module level

        return find_catalog(os.fspath(name_or_path)).catalog

    def _check_fidelity(self) -> None:
        if self.quality.judge is not None:
            return
        for role, names in self._candidates_by_role().items():
            if len(names) > 1:
                raise ValueError(
                    "quality: without a judge only precisions of the same parts can be compared, "
                    f"and the {role.words} has {len(names)} candidates "
                    f"({', '.join(sorted(names))}); give a judge, or one candidate per role"
                )
        for name, denoiser in self.denoisers.items():
            steps = self.sampling_of(name).steps
            if len(steps) > 1:
                raise ValueError(
                    f"quality: without a judge {name} in {steps[0]} and in {steps[-1]} steps "
                    "cannot be compared; give a judge, or one number of steps"
                )
            if denoiser.droppable:
                raise ValueError(
                    f"quality: without a judge {name} with and without "
                    f"{denoiser.droppable[0]!r} cannot be compared; give a judge, or leave it out"
                )

    def _candidates_by_role(self) -> dict[Role, set[str]]:
        by_role: dict[Role, set[str]] = {}
        for parts in self.mixable():
            for role, name in parts.names.items():
                by_role.setdefault(role, set()).add(name)
        return by_role

    def candidates(self, role: Role) -> Mapping[str, Candidate]:
        """Return the candidates for a role, by name; all text encoder roles share one list."""
        if role is Role.DENOISER:
            return self.denoisers
        return self.decoders if role is Role.DECODER else self.text_encoders

    def sampling_of(self, denoiser: str) -> Sampling:
        """Return a denoiser's sampling settings: its own, or else the catalog's."""
        return self.denoisers[denoiser].sampling or self.sampling

    def mixable(self) -> Iterator[Mixable]:
        """Yield every set of candidates that work together, in the catalog's order."""
        for name, denoiser in self.denoisers.items():
            roles = denoiser.encoder_states
            choices = [self._compatible_encoders(name, role) for role in roles]
            for chosen in product(*choices):
                by_role = dict(zip(roles, chosen, strict=True))
                encoders = {role: e for role, (e, _) in by_role.items() if e is not None}
                bridges = {role: b for role, (_, b) in by_role.items() if b is not None}
                if not encoders:
                    continue
                for decoder_name, decoder in self.decoders.items():
                    if decoder.latents == denoiser.latents:
                        names = {**encoders, Role.DENOISER: name, Role.DECODER: decoder_name}
                        yield Mixable(names, bridges)

    def _compatible_encoders(
        self, denoiser: str, role: Role
    ) -> list[tuple[str | None, Source | None]]:
        """Return the candidates for one of a denoiser's text encoder roles, each with its bridge.

        The pair (None, None) means that the encoder is left out.
        """
        states = self.denoisers[denoiser].encoder_states[role]
        bridges = {b.text_encoder: b.source for b in self.bridges if b.leads_to(denoiser, role)}
        compatible: list[tuple[str | None, Source | None]] = []
        for name, encoder in self.text_encoders.items():
            if name in bridges:
                compatible.append((name, bridges[name]))
            elif states is not None and encoder.states == states:
                compatible.append((name, None))
        if states in self.denoisers[denoiser].droppable:
            compatible.append((None, None))
        return compatible

    def unused(self) -> Iterator[tuple[str, str, str]]:
        """Yield candidates that no mix can use, as (catalog key, name, reason)."""
        used: dict[str, set[str]] = {}
        for parts in self.mixable():
            for role, name in parts.names.items():
                used.setdefault(role.group, set()).add(name)
        for group in dict.fromkeys(role.group for role in Role):
            for name in getattr(self, group):
                if name not in used.get(group, ()):
                    yield group, name, _WANTING[group]
