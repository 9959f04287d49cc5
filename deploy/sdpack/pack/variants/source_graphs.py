"""What every variant starts from: checkpoints, tokenizers, the sampler, and fp32 graphs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sdpack.documents.catalog import Bridge, Catalog
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import Profile, Size
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Role
from sdpack.domain.tiles import Split
from sdpack.engines.onnxruntime import let_go
from sdpack.errors import CatalogError, SourceError
from sdpack.export import graph as graphs
from sdpack.export.bridge import load_bridge
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import family_of, latent_step
from sdpack.export.tokenizer import convert_tokenizer
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.shapes import InputShapes
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import DATA_FILE, MODEL_FILE, read, write_beside
from sdpack.rewrite.slice import slice_attention
from sdpack.rewrite.tiles import write_split
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.runtime.tokenizer import PromptTokenizer, is_complete
from sdpack.store.artifacts import Artifact, Store, digest, file_sha256
from sdpack.store.ledger import Ledger

EXPORTERS = ("torch", "diffusers", "transformers", "onnxscript", "onnx-ir")
FUSED_ATTENTION_FILE = "attending.onnx"
MUCH_BYTES = 2**28
SLICED_FILE = "sliced.onnx"
SLICES = 8  # of attention that a compiler does not fuse
SPLIT_FILE = "split.json"
TABLE_FILE = "sampler.json"
REVISION = 8  # of the ways things are made here; a change makes earlier artifacts strangers
TABLES_REVISION = 2  # of the ways tables of samplers are made, besides


@dataclass
class SourceGraphs:
    """What the variants of a request are made from, each thing read or made once.

    Attributes:
        say: told what is being made.
    """

    request: BuildRequest
    store: Store
    ledger: Ledger
    say: Callable[[str], None] = lambda _: None
    _tokenizers: dict[str, PromptTokenizer] = field(default_factory=dict, init=False)
    _graphs: dict[tuple[Role, str, str | None], Artifact] = field(default_factory=dict, init=False)
    _samplers: dict[str, SamplerTable] = field(default_factory=dict, init=False)

    @property
    def profile(self) -> Profile:
        return self.request.profile

    @property
    def located(self) -> LocatedCatalog:
        return self.request.located

    @property
    def catalog(self) -> Catalog:
        return self.located.catalog

    def checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        """A candidate's checkpoint."""
        return self.request.checkpoint(role, candidate)

    def tokenizer_folder(self, encoder: str) -> Path:
        """Where an encoder's tokenizer.json is: at its source, or made from what lies there, as
        where it is not said what texts are padded with.

        Raises:
            SourceError: there is nothing one can be made from.
        """
        candidate = self.catalog.text_encoders[encoder]
        folder = self.request.folder(candidate.tokenizer)
        if is_complete(folder, candidate.tokens):
            return folder
        inputs = {
            "tokenizer": files_digest(folder),
            "tools": versions(("transformers", "tokenizers")),
            "revision": REVISION,
        }
        return self.store.make("tokenizer", inputs, partial(convert_tokenizer, folder)).folder

    def tokenizer_content(self, encoder: str) -> str:
        """One hash of what makes token ids of a prompt."""
        files = files_digest(self.tokenizer_folder(encoder))
        tokens = self.catalog.text_encoders[encoder].tokens
        expansions = self.tokenizer(encoder).expansions
        more = ({} if tokens is None else {"tokens": tokens}) | (
            {"expansions": dict(expansions)} if expansions else {}
        )
        return digest({"files": files, **more}) if more else files

    def tokenizer(self, encoder: str) -> PromptTokenizer:
        """What an encoder's prompts are cut into tokens with, read once."""
        if encoder not in self._tokenizers:
            tokens = self.catalog.text_encoders[encoder].tokens
            self._tokenizers[encoder] = PromptTokenizer(self.tokenizer_folder(encoder), tokens)
        return self._tokenizers[encoder]

    def sampler(
        self, denoiser: str, latents: Size | None = None, steps: int | None = None
    ) -> SamplerTable:
        """A denoiser's scheduler as a table.

        Args:
            latents: height and width of a picture's; those of a measured picture by default.
            steps: those it is measured with by default.

        Raises:
            SchedulerError: it is not linear, or cannot do so many steps.
        """
        rows = latents or self.request.latent_rows(Role.DENOISER, denoiser)
        sampling = self.request.sampling_of(denoiser)
        asked = steps or sampling.steps
        checkpoint = self.checkpoint(Role.DENOISER, denoiser)
        family = family_of(checkpoint)
        patch = latent_step(family, checkpoint.config)
        folder = self.request.folder(sampling.scheduler)
        inputs = {
            "scheduler": files_digest(folder),
            "steps": asked,
            "family": family,
            "size": rows,
            "patch": patch,
            "tools": versions(("torch", "diffusers")),
            "revision": [REVISION, TABLES_REVISION],
        }
        key = digest(inputs)
        if key not in self._samplers:

            def build(target: Path) -> None:
                from sdpack.export.sampler import scheduler_table

                table = scheduler_table(folder, family, asked, rows, patch)
                (target / TABLE_FILE).write_text(json.dumps(table.to_json()) + "\n")

            self._samplers[key] = read_sampler(
                self.store.make("sampler", inputs, build).path(TABLE_FILE)
            )
        return self._samplers[key]

    @cached_property
    def shapes(self) -> InputShapes:
        """Of the inputs of every variant."""
        return InputShapes(self.request, lambda encoder: self.tokenizer(encoder).length)

    def latents(self, decoder: str) -> LatentSpace:
        """The space a decoder works in, from its config."""
        return self.request.latents(decoder)

    def graph(self, variant: Variant) -> Artifact:
        """The fp32 graph of a variant's candidate, its bridge fused in."""
        key = (variant.role, variant.candidate, variant.partner)
        if key not in self._graphs:
            self._graphs[key] = self._graph(variant)
        return self._graphs[key]

    @property
    def largest_bytes(self) -> int:
        """Of the graphs made so far."""
        return max((graph.bytes for graph in self._graphs.values()), default=1)

    def make_room(self, variant: Variant) -> None:
        """Let go of what earlier work left in memory, if a variant's graph will need much."""
        if self.graph(variant).bytes > MUCH_BYTES:
            let_go()

    def _graph(self, variant: Variant) -> Artifact:
        checkpoint = self.checkpoint(variant.role, variant.candidate)
        bridge = self._bridge_folder(variant)
        inputs = {
            "role": variant.role,
            "checkpoint": checkpoint.content,
            "bridge": None if bridge is None else files_digest(bridge),
            "asked": self._asked(variant),
            "tools": versions(EXPORTERS),
            "revision": REVISION,
        }

        def build(folder: Path) -> None:
            self.say(f"exporting {part_words(variant)}")
            exported = graphs.export_made(lambda: self._part(checkpoint, variant, bridge), folder)
            (folder / "export.json").write_text(json.dumps({"errors": exported.errors}, indent=1))
            write_fused_attention(folder)

        return self.store.make("graph", inputs, build)

    def _bridge_folder(self, variant: Variant) -> Path | None:
        bridge = self.bridge(variant)
        return None if bridge is None else self.request.folder(bridge.source)

    def bridge(self, variant: Variant) -> Bridge | None:
        """What lies between a text encoder and its partner; None where nothing has to."""
        if variant.partner is None:
            return None
        for bridge in self.catalog.bridges:
            leads = bridge.leads_to(variant.partner, variant.role)
            if leads and bridge.text_encoder == variant.candidate:
                return bridge
        raise CatalogError(f"no bridge from {variant.candidate} to {variant.partner}; add one")

    def _asked(self, variant: Variant) -> dict[str, Any]:
        """What a graph depends on besides its checkpoint."""
        if not variant.role.encodes_text:
            return {}
        encoder = self.catalog.text_encoders[variant.candidate]
        tokens = self.tokenizer(variant.candidate).length
        said = asdict(self.request.encoder_outputs(variant))
        return {"voice": said, "clip_skip": encoder.clip_skip, "tokens": tokens}

    def _part(
        self, checkpoint: Checkpoint, variant: Variant, bridge: Path | None
    ) -> graphs.ExportablePart:
        from sdpack.export.decoder import DecoderPart
        from sdpack.export.denoiser import DenoiserPart
        from sdpack.export.text_encoder import TextEncoderPart

        model = checkpoint.load()
        if variant.role.encodes_text:
            encoder = self.catalog.text_encoders[variant.candidate]
            return TextEncoderPart(
                model,
                None if bridge is None else load_bridge(bridge),
                self.request.encoder_outputs(variant),
                self.tokenizer(variant.candidate).length,
                encoder.clip_skip,
            )
        if variant.role is Role.DECODER:
            return DecoderPart(model)
        return DenoiserPart(model, self.request.conditioning(variant.candidate))


def write_fused_attention(folder: Path) -> None:
    """Write beside the graph of a folder the same one as ONNX Runtime runs it best.

    Attention that is written out for compilers is one operator there; the weights are shared.
    """
    model = read(folder / MODEL_FILE)
    if fuse_attention(model):
        write_beside(model, folder / FUSED_ATTENTION_FILE)


def stored_bytes(graph: Artifact) -> int:
    """Bytes of an artifact's graph and its weights, without the other forms of it."""
    return sum(
        graph.path(name).stat().st_size for name in (MODEL_FILE, DATA_FILE) if name in graph.files
    )


def write_sliced(folder: Path) -> None:
    """Write beside the graph of a folder the same one, its attention computed slice by slice.

    TensorRT-RTX fuses attention in 16 bits, and holds the scores of all pairs of tokens in fp32.
    """
    model = read(folder / MODEL_FILE)
    if slice_attention(model, SLICES):
        write_beside(model, folder / SLICED_FILE)


def write_pieces(folder: Path) -> None:
    """Write beside a decoder's graph its head and tail, for decoding in tiles, if it has them."""
    sliced = folder / SLICED_FILE
    split = write_split(sliced if sliced.exists() else folder / MODEL_FILE)
    if split is not None:
        (folder / SPLIT_FILE).write_text(json.dumps(asdict(split), indent=1) + "\n")


def split_of(graph: Artifact) -> Split | None:
    """How the decoder of an artifact is cut; None where it is not."""
    if SPLIT_FILE not in graph.files:
        return None
    return Split(**json.loads(graph.path(SPLIT_FILE).read_text()))


def fused_attention_graph(graph: Artifact) -> Path:
    """The graph of an artifact that ONNX Runtime runs in the least memory and time."""
    return graph.path(FUSED_ATTENTION_FILE if FUSED_ATTENTION_FILE in graph.files else MODEL_FILE)


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
    said = f"{variant.role.words} {variant.candidate}"
    return said + (f" for denoiser {variant.partner}" if variant.partner else "")
