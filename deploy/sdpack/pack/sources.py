"""What every variant starts from: checkpoints, tokenizers, the sampler, and fp32 graphs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sdpack.artifacts import Artifact, Ledger, Store, digest, file_sha256
from sdpack.bundle import SAMPLER
from sdpack.catalog import Bridge, LocatedCatalog
from sdpack.errors import CatalogError, SourceError
from sdpack.export import graph as graphs
from sdpack.export.bridge import load_bridge
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.mix import Variant
from sdpack.pack.order import Order
from sdpack.pack.shapes import InputShapes
from sdpack.placement import Role
from sdpack.profile import LATENT_PIXEL, Profile
from sdpack.runtime.pipeline import Latents
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.runtime.tokenizer import PromptTokenizer

EXPORTERS = ("torch", "diffusers", "transformers", "onnxscript", "onnx-ir")
REVISION = 5  # of the ways things are made here; a change makes earlier artifacts strangers
# What diffusers takes where a config says nothing.
SCALING_FACTORS = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}


@dataclass
class Sources:
    """What the variants of one order are made from, each thing read or made once.

    Attributes:
        say: told what is being made.
    """

    order: Order
    store: Store
    ledger: Ledger
    say: Callable[[str], None] = lambda _: None
    _checkpoints: dict[tuple[Role, str], Checkpoint] = field(default_factory=dict, init=False)
    _tokenizers: dict[Path, PromptTokenizer] = field(default_factory=dict, init=False)
    _graphs: dict[tuple[Role, str, str | None], Artifact] = field(default_factory=dict, init=False)

    @property
    def profile(self) -> Profile:
        return self.order.profile

    @property
    def located(self) -> LocatedCatalog:
        return self.order.located

    def checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        """A candidate's checkpoint, read once."""
        key = (role, candidate)
        if key not in self._checkpoints:
            self._checkpoints[key] = self.order.checkpoint(role, candidate)
        return self._checkpoints[key]

    def tokenizer_folder(self, encoder: str) -> Path:
        return self.order.folder(self.located.catalog.text_encoders[encoder].tokenizer)

    def tokenizer_content(self, encoder: str) -> str:
        """One hash of what makes token ids of a prompt."""
        return files_digest(self.tokenizer_folder(encoder))

    def tokenizer(self, encoder: str) -> PromptTokenizer:
        """What an encoder's prompts are cut into tokens with, read once."""
        folder = self.tokenizer_folder(encoder)
        if folder not in self._tokenizers:
            self._tokenizers[folder] = PromptTokenizer(folder)
        return self._tokenizers[folder]

    @cached_property
    def sampler(self) -> SamplerTable:
        """The catalog's scheduler as a table."""
        sampling = self.located.catalog.sampling
        folder = self.order.folder(sampling.scheduler)
        inputs = {
            "scheduler": files_digest(folder),
            "steps": sampling.steps,
            "tools": versions(("torch", "diffusers")),
            "revision": REVISION,
        }

        def build(target: Path) -> None:
            from sdpack.export.sampler import load_scheduler, sampler_table

            table = sampler_table(load_scheduler(folder), sampling.steps)
            (target / SAMPLER).write_text(json.dumps(table.to_json()) + "\n")

        return read_sampler(self.store.make("sampler", inputs, build).path(SAMPLER))

    @cached_property
    def shapes(self) -> InputShapes:
        """Of the inputs of every variant."""
        return InputShapes(self.order, lambda encoder: self.tokenizer(encoder).length)

    def latents(self, decoder: str) -> Latents:
        """The space a decoder works in, from its config."""
        checkpoint = self.checkpoint(Role.DECODER, decoder)
        config, decoder_class = checkpoint.config, checkpoint.class_name
        return Latents(
            int(config["latent_channels"]),
            float(config.get("scaling_factor") or SCALING_FACTORS[decoder_class]),
            float(config.get("shift_factor") or 0.0),
            LATENT_PIXEL,
        )

    def graph(self, variant: Variant) -> Artifact:
        """The fp32 graph of a variant's candidate, its bridge fused in."""
        key = (variant.role, variant.candidate, variant.partner)
        if key not in self._graphs:
            self._graphs[key] = self._graph(variant)
        return self._graphs[key]

    def _graph(self, variant: Variant) -> Artifact:
        checkpoint = self.checkpoint(variant.role, variant.candidate)
        bridge = self._bridge_folder(variant)
        inputs = {
            "role": variant.role,
            "checkpoint": checkpoint.content,
            "bridge": None if bridge is None else files_digest(bridge),
            "tools": versions(EXPORTERS),
            "revision": REVISION,
        }

        def build(folder: Path) -> None:
            self.say(f"exporting {words(variant)}")
            exported = graphs.export(self._part(checkpoint, variant.role, bridge), folder)
            (folder / "export.json").write_text(json.dumps({"errors": exported.errors}, indent=1))

        return self.store.make("graph", inputs, build)

    def _bridge_folder(self, variant: Variant) -> Path | None:
        bridge = self.bridge(variant)
        return None if bridge is None else self.order.folder(bridge.source)

    def bridge(self, variant: Variant) -> Bridge | None:
        """What lies between a text encoder and its partner; None where nothing has to."""
        if variant.partner is None:
            return None
        for bridge in self.located.catalog.bridges:
            if (bridge.text_encoder, bridge.denoiser) == (variant.candidate, variant.partner):
                return bridge
        raise CatalogError(f"no bridge from {variant.candidate} to {variant.partner}; add one")

    def _part(self, checkpoint: Checkpoint, role: Role, bridge: Path | None) -> graphs.Part:
        from sdpack.export.decoder import DecoderPart
        from sdpack.export.denoiser import UNetPart
        from sdpack.export.text_encoder import TextEncoderPart

        model = checkpoint.load()
        if role is Role.TEXT_ENCODER:
            return TextEncoderPart(model, None if bridge is None else load_bridge(bridge))
        return UNetPart(model) if role is Role.DENOISER else DecoderPart(model)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions; a package that is not installed is "-"."""
    return {package: _version(package) for package in packages}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def files_digest(folder: Path) -> str:
    """One hash of a folder's files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        raise SourceError(f"{folder} holds no files; restore them")
    return digest({path.name: file_sha256(path) for path in files})


def words(variant: Variant) -> str:
    """ "text encoder s for denoiser m in w8"."""
    return f"{part_words(variant)} in {variant.label}"


def part_words(variant: Variant) -> str:
    """ "text encoder s for denoiser m"."""
    said = f"{variant.role.replace('_', ' ')} {variant.candidate}"
    return said + (f" for denoiser {variant.partner}" if variant.partner else "")
