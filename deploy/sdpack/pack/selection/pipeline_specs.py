"""The parts of a mix as they are loaded and run to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from sdpack.domain.placement import Role
from sdpack.domain.tiles import HEAD_FILE, TAIL_FILE
from sdpack.engines import onnxruntime
from sdpack.engines.session import Session
from sdpack.errors import EngineError
from sdpack.evaluate.pipeline_spec import LoadablePart, PipelineSpec, SamplingConfig
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.source_graphs import fused_attention_graph, split_of
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.runtime.tiling import load_tiled
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import Artifact, digest


@dataclass
class PipelineSpecs:
    """Pipelines of one build, each of their parts described once.

    Every part is run with the graph that ships, on this machine's ONNX Runtime: with the kernels a
    CPU bundle runs with, or for a GPU with floating-point ones that round where the graph
    quantizes. Those compute 16-bit graphs in fp32; what fp16 cannot hold is in fp32 in the graph.

    Args:
        with_reference: whether scores compare a mix with the same parts in fp32.
    """

    builder: VariantBuilder
    with_reference: bool
    _parts: dict[Variant, LoadablePart] = field(default_factory=dict, init=False)
    _sampling: dict[str, SamplingConfig] = field(default_factory=dict, init=False)

    def of(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix."""
        parts = {variant.role: self._part(variant) for variant in mix.variants}
        return self._spec(mix, parts, self.in_fp32(mix) if self.with_reference else None)

    def in_fp32(self, mix: Mix) -> PipelineSpec:
        """The pipeline of the same parts in fp32."""
        parts = {variant.role: self._part_in_fp32(variant) for variant in mix.variants}
        return self._spec(mix, parts, None)

    def in_tiles(self, mix: Mix, tile: int) -> PipelineSpec:
        """The pipeline of a mix whose decoder works in tiles of `tile` latent pixels."""
        whole = self.of(mix)
        graph, emulate = self.builder.drawable(mix.decoder), self._emulate
        split = split_of(graph)
        assert split is not None

        def load() -> Session:
            head, tail = (
                partial(onnxruntime.load, graph.path(file), emulate=emulate)
                for file in (HEAD_FILE, TAIL_FILE)
            )
            return load_tiled(head, tail, split, tile)

        content = digest({"decoder": whole.decoder.content, "tile": tile})
        return replace(whole, parts={**whole.parts, Role.DECODER: LoadablePart(content, load)})

    def sampling(self, denoiser: str) -> SamplingConfig:
        """How a denoiser is run."""
        if denoiser not in self._sampling:
            request = self.builder.request
            usual = request.sampling_of(denoiser)
            self._sampling[denoiser] = SamplingConfig(
                self.builder.sampler(denoiser),
                request.conditioning(denoiser),
                usual.guidance_scale,
                usual.guidance_rescale,
                usual.negative_prompt,
            )
        return self._sampling[denoiser]

    def _spec(
        self, mix: Mix, parts: Mapping[Role, LoadablePart], reference: PipelineSpec | None
    ) -> PipelineSpec:
        latents = self.builder.latents(mix.decoder.candidate)
        return PipelineSpec(parts, self.sampling(mix.denoiser.candidate), latents, reference)

    def _part(self, variant: Variant) -> LoadablePart:
        if variant not in self._parts:
            content = self._content(variant, self.builder.made(variant).artifact)
            load, opened = partial(self._load, variant), self._opened_bytes(variant)
            self._parts[variant] = LoadablePart(content, load, self._tokenizer(variant), opened)
        return self._parts[variant]

    def _part_in_fp32(self, variant: Variant) -> LoadablePart:
        graph = self.builder.graph(variant)
        load = partial(onnxruntime.load, fused_attention_graph(graph))
        opened = self._opened_bytes(variant)
        return LoadablePart(self._content(variant, graph), load, self._tokenizer(variant), opened)

    def _opened_bytes(self, variant: Variant) -> int:
        """Of a part in fp32, in which evaluation computes."""
        return 4 * self.builder.checkpoint(variant.role, variant.candidate).parameters

    def _tokenizer(self, variant: Variant) -> PromptTokenizer | None:
        return self.builder.tokenizer(variant.candidate) if variant.role.encodes_text else None

    def _content(self, variant: Variant, graph: Artifact) -> str:
        """One hash of all that decides what a part does: its graph and what it is used with."""
        inputs: dict[str, Any] = {"graph": graph.content}
        if variant.role.encodes_text:
            inputs["tokenizer"] = self.builder.tokenizer_content(variant.candidate)
        if variant.role is Role.DECODER:
            inputs["latents"] = asdict(self.builder.latents(variant.candidate))
        return digest(inputs)

    def _load(self, variant: Variant) -> Session:
        graph = self.builder.drawable(variant)
        try:
            return onnxruntime.load(fused_attention_graph(graph), emulate=self._emulate)
        except EngineError:
            self.builder.store.check(graph)
            raise

    @property
    def _emulate(self) -> bool:
        return self.builder.profile.runtime.on_gpu
