"""The pipelines of mixes, as they are loaded and run for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sdpack.domain.placement import Role
from sdpack.domain.tiles import STEM_FILE, TAIL_FILE
from sdpack.engines import onnxruntime
from sdpack.engines.drawing import runs_shipped_kernels
from sdpack.engines.session import Session
from sdpack.errors import EngineError
from sdpack.evaluate.pipeline_spec import LoadablePart, PipelineSpec, SamplingConfig
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import fused_attention_graph, split_of
from sdpack.runtime.tiling import load_tiled
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import Artifact, digest


@dataclass
class PipelineSpecs:
    """Describes the pipelines of one build, each part once.

    Every part runs the graph that ships, in ONNX Runtime on this machine. A bundle for the CPU, or
    for ONNX Runtime on a GPU of this machine, uses the same kernels here as on its device. For
    others, floating-point kernels round where the graph quantizes. They compute 16-bit graphs in
    fp32; where fp16 would overflow, the graph itself computes in fp32.

    Attributes:
        with_reference: whether scores compare a mix with the same parts in fp32.
    """

    toolchain: Toolchain
    with_reference: bool
    _parts: dict[Variant, LoadablePart] = field(default_factory=dict, init=False)
    _sampling: dict[tuple[str, int], SamplingConfig] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        context = self.toolchain.context
        self.request = context.request
        self.store = context.store
        self.candidates = self.toolchain.candidates
        self.samplers = self.toolchain.samplers
        self.sources = self.toolchain.sources
        self.tokenizers = self.toolchain.tokenizers
        self.variants = self.toolchain.variants

    def of(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix."""
        parts = {variant.role: self.part(variant) for variant in mix.variants}
        return self._spec(mix, parts, self.in_fp32(mix) if self.with_reference else None)

    def in_fp32(self, mix: Mix) -> PipelineSpec:
        """The pipeline of the same parts in fp32."""
        parts = {variant.role: self._part_in_fp32(variant) for variant in mix.variants}
        return self._spec(mix, parts, None)

    def in_tiles(self, mix: Mix, tile: int) -> PipelineSpec:
        """The pipeline of a mix whose decoder works in tiles of `tile` latent pixels."""
        whole = self.of(mix)
        return replace(whole, parts={**whole.parts, Role.DECODER: self.tiled(mix.decoder, tile)})

    def tiled(self, decoder: Variant, tile: int) -> LoadablePart:
        """A decoder that works in tiles of `tile` latent pixels."""
        graph, open_session = self.variants.runnable(decoder), self._open
        split = split_of(graph)
        assert split is not None

        def load() -> Session:
            stem, tail = (
                partial(open_session, graph.path(file), emulate=self._emulate)
                for file in (STEM_FILE, TAIL_FILE)
            )
            return load_tiled(stem, tail, split, tile)

        content = digest({"decoder": self.part(decoder).content, "tile": tile})
        return LoadablePart(content, load)

    def sampling(self, mix: Mix) -> SamplingConfig:
        """The sampling settings of a mix."""
        denoiser, steps = mix.denoiser.candidate, self.request.steps_of(mix)
        key = denoiser, steps
        if key not in self._sampling:
            sampling = self.request.sampling_of(denoiser)
            self._sampling[key] = SamplingConfig(
                self.samplers.of(denoiser, steps=steps),
                self.candidates.conditioning(denoiser),
                sampling.guidance_scale,
                sampling.guidance_rescale,
                sampling.negative_prompt,
            )
        return self._sampling[key]

    def _spec(
        self, mix: Mix, parts: Mapping[Role, LoadablePart], reference: PipelineSpec | None
    ) -> PipelineSpec:
        latents = self.candidates.latents(mix.decoder.candidate)
        return PipelineSpec(parts, self.sampling(mix), latents, reference)

    def part(self, variant: Variant) -> LoadablePart:
        """A part of a pipeline, as it ships."""
        if variant not in self._parts:
            content = self._content(variant, self.variants.built(variant).artifact)
            load, opened = partial(self._load, variant), self._opened_bytes(variant)
            self._parts[variant] = LoadablePart(content, load, self._tokenizer(variant), opened)
        return self._parts[variant]

    def _part_in_fp32(self, variant: Variant) -> LoadablePart:
        graph = self.sources.of(variant)
        load = partial(self._open, fused_attention_graph(graph), emulate=self._emulate)
        opened = self._opened_bytes(variant)
        return LoadablePart(self._content(variant, graph), load, self._tokenizer(variant), opened)

    def _opened_bytes(self, variant: Variant) -> int:
        """Bytes of a part's weights in fp32, the type in which evaluation computes."""
        return 4 * self.candidates.parameters(variant.role, variant.candidate)

    def _tokenizer(self, variant: Variant) -> PromptTokenizer | None:
        return self.tokenizers.of(variant.candidate) if variant.role.encodes_text else None

    def _content(self, variant: Variant, graph: Artifact) -> str:
        """One hash of everything that determines a part's outputs: its graph and its settings."""
        inputs: dict[str, Any] = {"graph": graph.content}
        if variant.role.encodes_text:
            inputs["tokenizer"] = self.tokenizers.content(variant.candidate)
        if variant.role is Role.DECODER:
            inputs["latents"] = asdict(self.candidates.latents(variant.candidate))
        return digest(inputs)

    def _load(self, variant: Variant) -> Session:
        graph = self.variants.runnable(variant)
        try:
            return self._open(fused_attention_graph(graph), self._emulate)
        except EngineError:
            self.store.check(graph)
            raise

    def _open(self, path: Path, emulate: bool) -> Session:
        return onnxruntime.load(path, self.request.drawn_on, emulate=emulate)

    @property
    def _emulate(self) -> bool:
        return not runs_shipped_kernels(self.request.drawn_on, self.request.runtime)
