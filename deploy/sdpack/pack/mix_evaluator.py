"""The mixes of one build, drawn and judged."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdpack.documents.bundle import SHEET_GAP
from sdpack.documents.record import CHUNK, DISTANCE, LATENCY
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.domain.placement import Loading, Role
from sdpack.domain.tiles import HEAD_FILE, TAIL_FILE
from sdpack.engines import onnxruntime
from sdpack.engines.session import Session
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.metrics import Panel, kid
from sdpack.evaluate.runner import (
    EvaluationRunner,
    EvaluationSet,
    LoadablePart,
    PipelineSpec,
    SamplingConfig,
    Scorer,
)
from sdpack.evaluate.scorers import Faithful, Judged
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.fit import Fitted
from sdpack.pack.mix import Mix, Variant
from sdpack.pack.request import real_pictures
from sdpack.pack.source_graphs import files_digest, fused_attention_graph, split_of, versions
from sdpack.pack.variant_builder import VariantBuilder
from sdpack.progress import counted, within
from sdpack.runtime.pipeline import Pictures
from sdpack.runtime.tiling import load_tiled
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import Artifact, digest, file_sha256

Floats = NDArray[np.float64]

MEASURED_ON = "ONNX Runtime CPU"
EMULATED_ON = "ONNX Runtime CPU in floating point"
REVISION = 2  # of the ways to draw and judge; a change makes earlier figures strangers
TIMED_PICTURES = 3
FEW_SAMPLES = 2  # of large pictures, that are enough to look at
SLOW_S = 10.0  # a picture that takes longer is not drawn again to be timed
TIMING_S = 30.0  # of timing, after which no further mix is timed
FEWEST_FOR_KID = 16  # pictures; it looks at pairs of them, and at resamples of those


class MixEvaluator:
    """Scores mixes on the catalog's prompts.

    Every part is drawn with the graph that ships, on this machine's ONNX Runtime: with the kernels
    a CPU bundle runs with, or for a GPU with floating-point ones that round where the graph
    quantizes. Those compute 16-bit graphs in fp32; what fp16 cannot hold is in fp32 in the graph.

    Attributes:
        timed: mixes of which one picture was.
        distances: mixes whose distance to real pictures was measured, and over how many prompts.

    Args:
        possible: every mix that can be built, whether it fits or not.
        runner: of another evaluator of the same builder, whose open parts are used on.
    """

    def __init__(
        self,
        builder: VariantBuilder,
        possible: Sequence[Mix],
        fitted: Sequence[Fitted],
        say: Callable[[str], None],
        runner: EvaluationRunner | None = None,
    ) -> None:
        self.builder = builder
        self.possible = possible
        self.fitted = fitted
        self.say = say
        quality = builder.located.catalog.quality
        self.prompts = builder.located.prompts(quality.prompts)
        self.runner = runner or self._runner(self.prompts)
        rules = builder.request.rules
        self.rules = replace(rules, most=min(rules.most, len(self.prompts)))
        self._timed_s = 0.0
        self.timed: set[Mix] = set()
        self.distances: dict[Mix, int] = {}
        self._loadable_parts: dict[Variant, LoadablePart] = {}
        self._recipes: dict[str, SamplingConfig] = {}
        self._drawn: dict[Mix, set[int]] = {}

    def scores(self, mixes: Sequence[Mix], asked: Sequence[int]) -> Floats:
        """What these mixes are worth on these prompts: float64 (mixes, prompts)."""
        doing = f"drawing {len(asked)} prompts with {len(mixes)} mixes"
        self.say(doing)
        for mix in mixes:
            self._drawn.setdefault(mix, set()).update(asked)
        specs = [self.spec(mix) for mix in mixes]
        step, chunks = counted(self.say, doing), _chunks(asked)
        found = [
            self.runner.scores(specs, chunk, within(step, place, len(chunks)))
            for place, chunk in enumerate(chunks)
        ]
        return np.concatenate(found, axis=1)

    def quality(self, number: int, prompts: int) -> Estimate:
        """What one fitted mix is worth over the first prompts."""
        return mean_estimate(self.scores_of(self.fitted[number].mix, prompts))

    def scores_of(self, mix: Mix, prompts: int) -> Floats:
        """Scores of a mix that was drawn, over the first prompts: float64 (prompts,)."""
        drawn, asked = self.spec(mix), _chunks(range(prompts))
        return np.concatenate([self.runner.scores([drawn], c)[0] for c in asked])

    @property
    def has_real_pictures(self) -> bool:
        return self.builder.catalog.quality.real_images is not None

    def distance(self, number: int, prompts: int) -> Estimate:
        """KID of one fitted mix over the first prompts to all the real pictures."""
        mix, catalog = self.spec(self.fitted[number].mix), self.builder.catalog
        self.distances[self.fitted[number].mix] = prompts
        inputs = {
            **self.runner.inputs(mix, range(prompts)),
            "real": self.real_content,
            "cut": [catalog.image_size, catalog.quality.real_columns, len(self.prompts)],
        }
        known = self.builder.ledger.find(DISTANCE, inputs)
        if known is None:
            self.say(f"setting {self.fitted[number].mix} beside real pictures")
            pictures = [self.runner.pictures(mix, c) for c in _chunks(range(prompts))]
            drawn = self.panel.features(torch.from_numpy(np.concatenate(pictures)))
            known = asdict(kid(drawn, self._real_features))
            self.builder.ledger.record(DISTANCE, inputs, known)
        return Estimate(**known)

    @property
    def _real_pictures(self) -> Pictures:
        return real_pictures(self.builder.located, self._real_images)

    @property
    def _real_images(self) -> Path:
        found = self.builder.catalog.quality.real_images
        assert found is not None
        return found

    @cached_property
    def _real_features(self) -> torch.Tensor:
        return self.panel.features(torch.from_numpy(self._real_pictures))

    def latency_s(self, number: int, always: bool = False) -> float | None:
        """Seconds for one picture of a fitted mix on this machine, loading not counted.

        None where the picture is broken; and, unless it is `always` wanted, where it is not known
        and others have taken all the time there is for that.
        """
        placement = self.fitted[number].placement
        mix = self.spec(self.fitted[number].mix)
        inputs = {
            **self.runner.inputs(mix, [0]),
            "guidance": placement.guidance,
            "tile": placement.tile,
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        }
        known = self.builder.ledger.find(LATENCY, inputs)
        if known is None:
            if self._timed_s > TIMING_S and not always:
                return None
            self.say(f"timing {self.fitted[number].mix}")
            resident = replace(placement, loading=Loading.RESIDENT)
            if placement.tile is not None:
                mix = self._in_tiles(self.fitted[number].mix, mix, placement.tile)
            try:
                times = self.runner.times(mix, resident, 1 + TIMED_PICTURES, SLOW_S)
            except BrokenPictureError:
                return None
            spent = sum(times)
            known = {"seconds": float(np.median(times[1:] or times)), "spent": spent}
            self.builder.ledger.record(LATENCY, inputs, known)
        self._timed_s += float(known.get("spent", known["seconds"]))
        self.timed.add(self.fitted[number].mix)
        return float(known["seconds"])

    def tiled_difference(self, number: int) -> int | None:
        """By how many levels of 255 a picture in tiles differs from the same decoded at once.

        Of a fitted mix whose decoder works in tiles; of others None.

        Raises:
            BrokenPictureError: in tiles it is not finite, or constant.
        """
        mix, tile = self.fitted[number].mix, self.fitted[number].placement.tile
        if tile is None:
            return None
        whole = self.spec(mix)
        inputs = {**self.runner.inputs(whole, [0]), "tile": tile}
        known = self.builder.ledger.find("tiled difference", inputs)
        if known is None:
            self.say(f"decoding {mix} in tiles of {tile}")
            pictures = [
                self.runner.pictures(each, [0]).astype(int)
                for each in (whole, self._in_tiles(mix, whole, tile))
            ]
            known = {"levels": int(np.abs(pictures[0] - pictures[1]).max())}
            self.builder.ledger.record("tiled difference", inputs, known)
        return int(known["levels"])

    def _in_tiles(self, mix: Mix, whole: PipelineSpec, tile: int) -> PipelineSpec:
        """The same parts, the decoder's pictures made tile by tile."""
        drawn = self.builder.drawable(mix.decoder)
        split, on_gpu = split_of(drawn), self.builder.profile.runtime.on_gpu
        assert split is not None

        def load() -> Session:
            head, tail = (
                partial(onnxruntime.load, drawn.path(file), emulate=on_gpu)
                for file in (HEAD_FILE, TAIL_FILE)
            )
            return load_tiled(head, tail, split, tile)

        content = digest({"decoder": whole.decoder.content, "tile": tile})
        return replace(whole, parts={**whole.parts, Role.DECODER: LoadablePart(content, load)})

    @property
    def drawn(self) -> dict[Mix, int]:
        """The mixes that were scored, and on how many prompts, the first ones."""
        return {mix: len(asked) for mix, asked in self._drawn.items()}

    @property
    def first_round(self) -> list[int]:
        """The prompts every mix was scored on that was scored at all, as they were drawn."""
        return _chunks(range(min(self.rules.first, self.rules.most)))[0]

    @property
    def real_content(self) -> str | None:
        """Hash of the real pictures distances are to."""
        if not self.has_real_pictures:
            return None
        return file_sha256(self.builder.located.path(self._real_images))

    def judged_by(self, spec: PipelineSpec) -> str:
        """One hash of what its scores depend on besides its pictures and prompts."""
        return self._scorer.content(spec)

    @property
    def few(self) -> int | None:
        """How many pictures are enough to look at where they are large; else None."""
        return FEW_SAMPLES if self.runner.task.is_large else None

    def samples(self, number: int) -> Pictures:
        """The catalog's sample prompts through one mix, as one sheet."""
        prompts = self.builder.located.prompts(self.builder.catalog.quality.samples)
        prompts = prompts[: self.few]
        request = self.builder.request
        runner = self.runner.on(EvaluationSet(prompts, request.height, request.width))
        mix = self.spec(self.fitted[number].mix)
        return sheet(runner.pictures(mix, list(range(len(prompts)))))

    @cached_property
    def panel(self) -> Panel:
        """The catalog's judge."""
        from sdpack.evaluate.clip import panel_of

        return panel_of(self._judge_folder, self._judge_tokenizer)

    @property
    def _judge_folder(self) -> Path:
        source = self.builder.catalog.quality.judge
        assert source is not None
        return self.builder.request.folder(source)

    @property
    def _judge_tokenizer(self) -> Path:
        source = self.builder.catalog.quality.tokenizer
        assert source is not None
        return self.builder.request.folder(source)

    def spec(self, mix: Mix) -> PipelineSpec:
        """The parts of a mix, as the runner takes them."""
        parts = {variant.role: self._loadable_part(variant) for variant in mix.variants}
        reference = None if self.is_judged else self.reference(mix)
        return self._spec(mix, parts, reference)

    def reference(self, mix: Mix) -> PipelineSpec:
        """The parts of a mix in fp32."""
        parts = {variant.role: self._loadable_part_in_fp32(variant) for variant in mix.variants}
        return self._spec(mix, parts, None)

    def _spec(
        self, mix: Mix, parts: Mapping[Role, LoadablePart], reference: PipelineSpec | None
    ) -> PipelineSpec:
        latents = self.builder.latents(mix.decoder.candidate)
        return PipelineSpec(parts, self.recipe(mix.denoiser.candidate), latents, reference)

    def recipe(self, denoiser: str) -> SamplingConfig:
        """How a denoiser is run, as the runner takes it."""
        if denoiser not in self._recipes:
            sampling = self.builder.request.sampling_of(denoiser)
            self._recipes[denoiser] = SamplingConfig(
                self.builder.sampler(denoiser),
                self.builder.request.conditioning(denoiser),
                sampling.guidance_scale,
                sampling.guidance_rescale,
                sampling.negative_prompt,
            )
        return self._recipes[denoiser]

    def _loadable_part(self, variant: Variant) -> LoadablePart:
        if variant not in self._loadable_parts:
            content = self._content(variant, self.builder.made(variant).artifact)
            load = partial(self._load, variant)
            opened = self._opened_bytes(variant)
            self._loadable_parts[variant] = LoadablePart(
                content, load, self._tokenizer(variant), opened
            )
        return self._loadable_parts[variant]

    def _loadable_part_in_fp32(self, variant: Variant) -> LoadablePart:
        graph = self.builder.graph(variant)
        load = partial(onnxruntime.load, fused_attention_graph(graph))
        opened = self._opened_bytes(variant)
        return LoadablePart(self._content(variant, graph), load, self._tokenizer(variant), opened)

    def _opened_bytes(self, variant: Variant) -> int:
        """Of a part in fp32, as what draws computes."""
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
        drawn, on_gpu = self.builder.drawable(variant), self.builder.profile.runtime.on_gpu
        try:
            return onnxruntime.load(fused_attention_graph(drawn), emulate=on_gpu)
        except EngineError:
            self.builder.store.check(drawn)
            raise

    def _runner(self, prompts: Sequence[str]) -> EvaluationRunner:
        request = self.builder.request
        store, ledger = self.builder.store, self.builder.ledger
        task = EvaluationSet(prompts, request.height, request.width)
        return EvaluationRunner(task, self._scorer, store, ledger, self.drawn_with)

    @cached_property
    def _scorer(self) -> Scorer:
        if self.is_judged:
            return Judged(lambda: self.panel, self._judge_content)
        return Faithful()

    @property
    def is_judged(self) -> bool:
        return self.builder.catalog.quality.judge is not None

    @property
    def metric(self) -> str:
        """What scores are called."""
        return self._scorer.metric

    @cached_property
    def _judge_content(self) -> str:
        judge = Checkpoint(self._judge_folder).content
        return digest({"judge": judge, "tokenizer": files_digest(self._judge_tokenizer)})

    @cached_property
    def drawn_with(self) -> str:
        """What else the figures depend on: packages, and this module's ways."""
        tools = versions(("onnxruntime", "numpy", "torch"))
        return json.dumps({"on": self.measured_on, "tools": tools, "revision": REVISION})

    @property
    def measured_on(self) -> str:
        """What draws."""
        return EMULATED_ON if self.builder.profile.runtime.on_gpu else MEASURED_ON


def _chunks(asked: Sequence[int]) -> list[list[int]]:
    """Prompts cut at multiples of CHUNK: what is drawn is kept by chunk, whoever asks for it."""
    if not asked:
        return []
    found: dict[int, list[int]] = {}
    for number in asked:
        found.setdefault(number // CHUNK, []).append(number)
    return list(found.values())


def sheet(pictures: Pictures, columns: int = 5, gap: int = SHEET_GAP) -> Pictures:
    """Pictures side by side on white: uint8 (H, W, 3)."""
    height, width = (size + gap for size in pictures.shape[1:3])
    rows = -(-len(pictures) // columns)
    whole = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * height, gap + column * width
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole
