"""From candidates to engines: each step an artifact, made once.

    checkpoint -> graph -> (ranges) -> variant -> plan

A layer that the target's compiler refuses in a precision is kept in the type the variant computes
in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.artifacts import Artifact, Ledger, Store, digest, file_sha256
from sdpack.bundle import SAMPLER
from sdpack.catalog import Bridge, LocatedCatalog
from sdpack.engines import onnxruntime, tensorrt_builder
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES, Plan
from sdpack.errors import CatalogError, RefusedError, SourceError
from sdpack.export import graph as graphs
from sdpack.export.bridge import load_bridge
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.mix import Variant
from sdpack.pack.order import Order
from sdpack.pack.refusals import Hints, refused_layers
from sdpack.pack.shapes import InputShapes
from sdpack.placement import Placement, Role
from sdpack.precision import Precision, Runtime, computed_in
from sdpack.profile import LATENT_PIXEL, Profile
from sdpack.quantize.ranges import Extent, measure_extent, measure_ranges
from sdpack.quantize.variant import make_variant
from sdpack.quantize.weights import weighted_nodes
from sdpack.runtime.pipeline import Latents, Pipeline, Request
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.runtime.tokenizer import PromptTokenizer

EXPORTERS = ("torch", "diffusers", "transformers", "onnxscript", "onnx-ir")
QUANTIZERS = ("onnx-ir", "onnxruntime", "numpy")
REVISION = 3  # of this module's recipes; a change of theirs makes earlier artifacts strangers
CALIBRATION_PROMPTS = 16
CALIBRATION_STEPS = 6
LARGEST_HALF = 65504.0
# What diffusers takes where a config says nothing.
SCALING_FACTORS = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """A variant as it ships.

    Attributes:
        refused: layers the target's compiler would not take in the precision.
    """

    artifact: Artifact
    refused: frozenset[str]

    @property
    def path(self) -> Path:
        return self.artifact.path(graphs.MODEL_FILE)


@dataclass
class Workshop:
    """Makes what one build needs.

    Attributes:
        say: told what is being made.
    """

    order: Order
    store: Store
    ledger: Ledger
    say: Callable[[str], None] = lambda _: None
    _made: dict[Variant, Made] = field(default_factory=dict, init=False)
    _checkpoints: dict[tuple[Role, str], Checkpoint] = field(default_factory=dict, init=False)
    _tokenizers: dict[Path, PromptTokenizer] = field(default_factory=dict, init=False)
    _graphs: dict[tuple[Role, str, str | None], Artifact] = field(default_factory=dict, init=False)
    _hints: Hints = field(default_factory=Hints, init=False)
    _failed: dict[str, RefusedError] = field(default_factory=dict, init=False)

    # --- sources ---

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

    # --- graphs ---

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
            self.say(f"exporting {_words(variant)}")
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

    # --- calibration ---

    def ranges(self, variant: Variant) -> dict[str, float]:
        """Ranges of a graph's activations on real inputs, by node."""
        return dict(self._seen_on_calibration(variant)["ranges"])

    def extent(self, variant: Variant) -> Extent:
        """How large a graph's activations get on real inputs."""
        return Extent(**self._seen_on_calibration(variant)["extent"])

    def _seen_on_calibration(self, variant: Variant) -> dict[str, Any]:
        source = self.graph(variant)
        inputs = {
            "graph": source.content,
            "calibration": self._calibration_inputs(variant),
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }

        def build(folder: Path) -> None:
            self.say(f"calibrating {_words(variant)}")
            batches, path = self._batches(variant), source.path(graphs.MODEL_FILE)
            with TemporaryDirectory(dir=folder) as scratch:
                extent = measure_extent(path, batches, Path(scratch))
            with TemporaryDirectory(dir=folder) as scratch:
                ranges = measure_ranges(path, batches, Path(scratch))
            found = {"ranges": ranges, "extent": asdict(extent)}
            (folder / "activations.json").write_text(json.dumps(found, indent=1))

        artifact = self.store.make("activations", inputs, build)
        return dict(json.loads(artifact.path("activations.json").read_text()))

    @cached_property
    def _prompts(self) -> list[str]:
        path = self.located.catalog.quality.calibration
        return self.located.prompts(path)[:CALIBRATION_PROMPTS]

    def _calibration_inputs(self, variant: Variant) -> dict[str, Any]:
        reference = self._reference(variant)
        return {
            "prompts": self._prompts,
            "sampler": digest(self.sampler.to_json()),
            "guidance_scale": self.located.catalog.sampling.guidance_scale,
            "size": [self.order.height, self.order.width],
            "with": [self.graph(v).content for v in reference],
            "tokenizer": self.tokenizer_content(reference[0].candidate),
            "latents": asdict(self.latents(reference[2].candidate)),
        }

    def _reference(self, variant: Variant) -> tuple[Variant, Variant, Variant]:
        """The mix a variant is calibrated in: the largest partners it has, all in fp32."""
        fitting = [
            parts
            for parts in self.located.catalog.mixable()
            if getattr(parts, variant.role.value) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        ]
        if not fitting:
            raise CatalogError(f"{_words(variant)} fits nothing else in the catalog")
        parts = max(fitting, key=lambda p: sum(self._parameters(r, p) for r in Role))
        partner = parts.denoiser if parts.bridge is not None else None
        return (
            Variant(Role.TEXT_ENCODER, parts.text_encoder, Precision.FP32, partner),
            Variant(Role.DENOISER, parts.denoiser, Precision.FP32),
            Variant(Role.DECODER, parts.decoder, Precision.FP32),
        )

    def _parameters(self, role: Role, parts: Any) -> int:
        return self.checkpoint(role, getattr(parts, role.value)).parameters

    def _batches(self, variant: Variant) -> list[Arrays]:
        """Real inputs of a variant's graph, from drawing the calibration prompts in fp32."""
        encoder, denoiser, decoder = self._reference(variant)
        tokenizer = self.tokenizer(encoder.candidate)
        if variant.role is Role.TEXT_ENCODER:
            return [{"input_ids": tokenizer.ids(self._prompts)}]
        seen: list[Arrays] = []
        pipeline = Pipeline(
            {v.role: self._opener(v) for v in (encoder, denoiser, decoder)},
            tokenizer,
            self.sampler,
            self.latents(decoder.candidate),
            observe=seen.append,
        )
        request = Request(
            self._prompts,
            list(range(len(self._prompts))),
            self.located.catalog.sampling.guidance_scale,
            self.order.height,
            self.order.width,
        )
        states = pipeline.encode(request.prompts)
        empty = pipeline.encode([request.negative_prompt])
        latents = pipeline.denoise(request, states, empty if request.guided else None)
        pipeline.close()
        if variant.role is Role.DECODER:
            space = self.latents(decoder.candidate)
            return [{"latent_sample": latents / space.scaling_factor + space.shift_factor}]
        chosen = np.linspace(0, len(seen) - 1, min(CALIBRATION_STEPS, len(seen))).round()
        return [seen[int(i)] for i in chosen]

    def _opener(self, variant: Variant) -> Callable[[], Any]:
        path = self.graph(variant).path(graphs.MODEL_FILE)
        return lambda: onnxruntime.load(path)

    # --- variants and plans ---

    def made(self, variant: Variant) -> Made:
        """The variant's graph, in the form the target's compiler takes.

        Raises:
            RefusedError: the compiler takes it in no form, or fp16 cannot hold its numbers.
            EngineError: the compiler could not work.
        """
        if variant not in self._made:
            self._made[variant] = self._make(variant)
        return self._made[variant]

    def prepare(self, variants: Sequence[Variant]) -> None:
        """Build the plans of these variants, as many at once as there are cores.

        Only what any order of building gives is built here; `made` does the rest.
        """
        if self.profile.runtime is not Runtime.TENSORRT_RTX:
            return
        new = [v for v in variants if self.ledger.find("refused layers", self._trial(v)) is None]
        whole = [self._variant(variant, frozenset()) for variant in new]
        jobs = [partial(self._try_plan, v, graph) for v, graph in zip(new, whole, strict=True)]
        self._side_by_side(
            jobs,
            lambda n: self.say(f"building engines for {self.profile.sm}: {n} of {len(jobs)}"),
        )

    def _make(self, variant: Variant) -> Made:
        self._refuse_overflow(variant)
        if self.profile.runtime is not Runtime.TENSORRT_RTX:
            return Made(self._variant(variant, frozenset()), frozenset())
        inputs = self._trial(variant)
        known = self.ledger.find("refused layers", inputs)
        if known is None:
            refused = self._find_refused(variant)
            self.ledger.record("refused layers", inputs, {"layers": sorted(refused)})
        else:
            refused = frozenset(known["layers"])
        if refused:
            self._hints.learn(self._model(variant), variant.precision, refused)
        return Made(self._variant(variant, refused), refused)

    def _refuse_overflow(self, variant: Variant) -> None:
        """A CPU computes fp16 graphs in fp32 and would not show what overflows on the device."""
        if computed_in(self.profile.runtime, variant.precision) is not Precision.FP16:
            return
        extent = self.extent(variant)
        if extent.largest > LARGEST_HALF:
            raise RefusedError(
                f"{_words(variant)}: {extent.node} reaches {extent.largest:.3g} on the calibration "
                f"prompts and fp16 ends at {LARGEST_HALF:.0f}; compute it in fp32"
            )

    def _trial(self, variant: Variant) -> dict[str, Any]:
        ranges = self.shapes.ranges(variant, Placement())
        shapes = {name: list(given.best) for name, given in ranges.items()}
        return {"graph": self.graph(variant).content, "shapes": shapes, **self._target(variant)}

    def _target(self, variant: Variant) -> dict[str, Any]:
        return {
            "precision": variant.precision,
            "tools": versions(("tensorrt_rtx_cu13",)),
            "compute_capability": self.profile.sm,
            "revision": REVISION,
        }

    def _find_refused(self, variant: Variant) -> frozenset[str]:
        """The layers to leave out of the precision so that the variant builds."""
        failure = self._failure(variant, frozenset())
        if failure is None:
            return frozenset()
        if variant.precision in (Precision.FP32, Precision.FP16):
            raise failure
        model = self._model(variant)
        layers = [str(weighted.node.name) for weighted in weighted_nodes(model)]
        refused = self._hints.guess(model, variant.precision)
        if not refused or self._failure(variant, refused) is not None:
            self.say(f"finding the layers of {_words(variant)} that do not build")
            everything = frozenset(layers)

            def failing(groups: Sequence[Sequence[str]]) -> list[bool]:
                return self._fail(variant, [everything - set(group) for group in groups])

            refused = frozenset(refused_layers(layers, failing))
            if self._failure(variant, refused) is not None:
                raise failure
        return refused

    def _model(self, variant: Variant) -> ir.Model:
        return ir.load(self.graph(variant).path(graphs.MODEL_FILE))

    def _fail(self, variant: Variant, kept: Sequence[frozenset[str]]) -> list[bool]:
        """For each set of layers kept out of the precision, whether the variant fails to build."""
        made = [self._variant(variant, keep) for keep in kept]
        failures = self._side_by_side([partial(self._try_plan, variant, graph) for graph in made])
        return [failure is not None for failure in failures]

    def _failure(self, variant: Variant, keep: frozenset[str]) -> RefusedError | None:
        return self._try_plan(variant, self._variant(variant, keep))

    def _try_plan(self, variant: Variant, graph: Artifact) -> RefusedError | None:
        """Why the graph does not build; tried once."""
        if graph.content not in self._failed:
            try:
                self._plan(variant, graph, Placement())
            except RefusedError as error:
                self._failed[graph.content] = error
        return self._failed.get(graph.content)

    def _side_by_side(
        self, jobs: Sequence[Callable[[], T]], done: Callable[[int], None] = lambda _: None
    ) -> list[T]:
        """The jobs' results, as many at work as there are cores; `done` gets how many are."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            running = [pool.submit(job) for job in jobs]
            try:
                found = []
                for number, job in enumerate(running, 1):
                    found.append(job.result())
                    done(number)
                return found
            finally:
                pool.shutdown(cancel_futures=True)

    def _variant(self, variant: Variant, keep: frozenset[str]) -> Artifact:
        source = self.graph(variant)
        arithmetic = computed_in(self.profile.runtime, variant.precision)
        ranges = self.ranges(variant) if variant.precision is Precision.INT8 else None
        inputs = {
            "graph": source.content,
            "precision": variant.precision,
            "computed_in": arithmetic,
            "ranges": ranges,
            "keep": sorted(keep),
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }

        def build(folder: Path) -> None:
            self.say(f"making {_words(variant)}")
            path = source.path(graphs.MODEL_FILE)
            model = make_variant(path, variant.precision, arithmetic, ranges, keep)
            graphs.save(model, folder / graphs.MODEL_FILE)

        return self.store.make("variant", inputs, build)

    def plan(self, variant: Variant, placement: Placement) -> Plan:
        """The variant's TensorRT plan under a placement."""
        return self._plan(variant, self.made(variant).artifact, placement)

    def plan_artifact(self, variant: Variant, placement: Placement) -> Artifact:
        """Where that plan is kept."""
        return self._planned(variant, self.made(variant).artifact, placement)

    def _plan(self, variant: Variant, graph: Artifact, placement: Placement) -> Plan:
        return tensorrt_builder.read_plan(self._planned(variant, graph, placement).folder)

    def _planned(self, variant: Variant, graph: Artifact, placement: Placement) -> Artifact:
        package = TENSORRT_PACKAGES[self.profile.runtime]
        shapes = self.shapes.ranges(variant, placement)
        inputs = {
            "graph": graph.content,
            "shapes": {name: list(given.best) for name, given in shapes.items()},
            **self._target(variant),
        }

        def build(folder: Path) -> None:
            self.say(f"building {_words(variant)} for {self.profile.sm}")
            path = graph.path(graphs.MODEL_FILE)
            tensorrt_builder.build(package, path, folder, shapes, self.profile.sm)

        return self.store.make("plan", inputs, build)


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


def _words(variant: Variant) -> str:
    """ "text encoder s for denoiser m in w8"."""
    words = f"{variant.role.replace('_', ' ')} {variant.candidate}"
    return (
        words
        + (f" for denoiser {variant.partner}" if variant.partner else "")
        + (f" in {variant.precision}")
    )
