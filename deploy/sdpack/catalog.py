"""Catalogs: the candidate parts, which of them fit together, and how to judge their pictures.

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

Paths count from the catalog's own folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from sdpack.document import Document, read_document
from sdpack.errors import CatalogError
from sdpack.placement import Role
from sdpack.profile import LATENT_PIXEL

CATALOG_FILE = "catalog.yaml"
ZOO_HINT = (
    "the default catalog is the zoo of sdpack's source tree; work in a clone of it, "
    "or give --catalog FILE"
)


def _name(text: str) -> str:
    allowed = text.replace("-", "").replace("_", "").replace(".", "")
    if not (allowed.isascii() and allowed.isalnum()) or text.startswith((".", "-")):
        raise ValueError(f"{text!r} is no name; use letters, digits, '-', '_' and '.'")
    return text


Name = Annotated[str, AfterValidator(_name)]


class Source(Document):
    """Where a checkpoint lies: a folder, or a pinned revision of a hub repository."""

    path: Path | None = None
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    subfolder: str = ""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path or hub")
        if self.hub is not None and self.revision is None:
            raise ValueError(f"revision is missing; pin {self.hub} to a 40-digit commit")
        if self.path is not None and (self.revision or self.subfolder):
            raise ValueError("revision and subfolder belong to hub, not to path")
        return self

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"{self.hub}@{str(self.revision)[:12]}" + (self.subfolder and f"/{self.subfolder}")


class Candidate(Document):
    """One checkpoint for one role."""

    source: Source
    licence: str = Field(min_length=1)


class TextEncoder(Candidate):
    """`states` names what it says to a denoiser that needs no bridge."""

    tokenizer: Source
    states: str | None = None


class Denoiser(Candidate):
    """`latents` names the space it works in."""

    latents: str
    states: str | None = None


class Decoder(Candidate):
    """`latents` names the space it decodes."""

    latents: str


class Bridge(Document):
    """A trained projection from one encoder's states to what one denoiser attends to."""

    text_encoder: str
    denoiser: str
    source: Source
    licence: str = Field(min_length=1)


class Sampling(Document):
    """The scheduler and how it is run."""

    scheduler: Source
    steps: PositiveInt
    guidance_scale: NonNegativeFloat
    negative_prompt: str = ""


class Quality(Document):
    """What a mix's pictures are measured with.

    Prompt files are JSON lines with a "text" each; `real_images` is a sheet of tiles, in the
    order of the prompts, `real_columns` a row.
    """

    judge: Source
    tokenizer: Source
    prompts: Path
    calibration: Path
    samples: Path
    real_images: Path
    real_columns: PositiveInt = 24


@dataclass(frozen=True)
class Mixable:
    """Three candidates that work together, by name, and the bridge they need, if any."""

    text_encoder: str
    denoiser: str
    decoder: str
    bridge: Source | None


class Catalog(Document):
    """Candidates by role, what fits together, sampling and judging."""

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
        if self.image_size % LATENT_PIXEL:
            raise ValueError(f"image_size: {self.image_size} is not a multiple of {LATENT_PIXEL}")
        for bridge in self.bridges:
            if bridge.text_encoder not in self.text_encoders:
                raise ValueError(f"bridges: there is no text encoder {bridge.text_encoder!r}")
            if bridge.denoiser not in self.denoisers:
                raise ValueError(f"bridges: there is no denoiser {bridge.denoiser!r}")
        pairs = [(b.text_encoder, b.denoiser) for b in self.bridges]
        twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
        if twice:
            raise ValueError(f"bridges: {' and '.join(twice[0])} have more than one")
        if not any(self.mixable()):
            raise ValueError(
                "no three candidates work together; a text encoder and a denoiser need a bridge "
                "or the same states, a denoiser and a decoder the same latents"
            )
        return self

    def candidates(self, role: Role) -> Mapping[str, Candidate]:
        """The candidates of a role, by name."""
        by_role: dict[Role, Mapping[str, Candidate]] = {
            Role.TEXT_ENCODER: self.text_encoders,
            Role.DENOISER: self.denoisers,
            Role.DECODER: self.decoders,
        }
        return by_role[role]

    def mixable(self) -> Iterator[Mixable]:
        """Every three candidates that work together, in the catalog's order."""
        bridges = {(b.text_encoder, b.denoiser): b.source for b in self.bridges}
        for encoder, said in self.text_encoders.items():
            for denoiser, heard in self.denoisers.items():
                bridge = bridges.get((encoder, denoiser))
                native = said.states is not None and said.states == heard.states
                if bridge is None and not native:
                    continue
                for decoder, seen in self.decoders.items():
                    if seen.latents == heard.latents:
                        yield Mixable(encoder, denoiser, decoder, bridge)

    def unused(self) -> Iterator[tuple[Role, str]]:
        """Candidates that no mix can use."""
        mixes = list(self.mixable())
        for role in Role:
            used = {getattr(mix, role.value) for mix in mixes}
            for name in self.candidates(role):
                if name not in used:
                    yield role, name


@dataclass(frozen=True)
class LocatedCatalog:
    """A catalog and the folder its paths count from."""

    catalog: Catalog
    folder: Path

    def path(self, relative: Path) -> Path:
        return self.folder / relative

    def local_files(self) -> Iterator[tuple[str, Path]]:
        """Every path the catalog names, with the key that names it."""
        catalog = self.catalog
        for role in Role:
            for name, candidate in catalog.candidates(role).items():
                yield from self._local(f"{role}s.{name}", candidate.source)
                if isinstance(candidate, TextEncoder):
                    yield from self._local(f"{role}s.{name}.tokenizer", candidate.tokenizer)
        for number, bridge in enumerate(catalog.bridges):
            yield from self._local(f"bridges.{number}", bridge.source)
        yield from self._local("sampling.scheduler", catalog.sampling.scheduler)
        quality = catalog.quality
        yield from self._local("quality.judge", quality.judge)
        yield from self._local("quality.tokenizer", quality.tokenizer)
        for key in ("prompts", "calibration", "samples", "real_images"):
            yield f"quality.{key}", self.path(getattr(quality, key))

    def _local(self, key: str, source: Source) -> Iterable[tuple[str, Path]]:
        if source.path is not None:
            yield key, self.path(source.path)

    def missing(self) -> list[tuple[str, Path]]:
        """The named paths that do not exist."""
        return [(key, path) for key, path in self.local_files() if not path.exists()]

    def prompts(self, path: Path) -> list[str]:
        """The prompts of one of the catalog's lists.

        Raises:
            CatalogError: the file is missing, or a line is no JSON object with a "text".
        """
        return read_prompts(self.path(path))


def read_prompts(path: Path) -> list[str]:
    """The "text" of every line of a JSON lines file.

    Raises:
        CatalogError: the file is missing or empty, or a line has no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise CatalogError(f"{path} cannot be read ({cause}); give a file of prompts") from cause
    texts = [_prompt(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise CatalogError(f"{path} holds no prompts; write one JSON object with a text a line")
    return texts


def _prompt(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as cause:
        raise CatalogError(f'{where}: not JSON; write {{"text": "a prompt"}}') from cause
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise CatalogError(f'{where}: no "text"; write {{"text": "a prompt"}}')
    return text


def read_catalog(path: Path) -> LocatedCatalog:
    """The catalog in a YAML file, or in the catalog.yaml of a folder.

    Raises:
        CatalogError: the file is missing, no YAML, or breaks a rule; names line, key and value.
    """
    file = path / CATALOG_FILE if path.is_dir() else path
    return LocatedCatalog(read_document(file, Catalog, CatalogError), file.parent)


def default_catalog() -> LocatedCatalog:
    """The zoo of the source tree this package runs from.

    Raises:
        CatalogError: the package was installed without its source tree.
    """
    path = Path(__file__).parents[2] / "zoo" / CATALOG_FILE
    if not path.is_file():
        raise CatalogError(f"no catalog was given; {ZOO_HINT}")
    return read_catalog(path)
