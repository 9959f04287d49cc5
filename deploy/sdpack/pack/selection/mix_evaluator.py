"""Draws and scores the mixes of one build."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from sdpack.documents.layout import SHEET_GAP
from sdpack.domain.arrays import Float64Array
from sdpack.domain.category_weights import full_names
from sdpack.domain.estimate import Estimate
from sdpack.domain.workload import WORKLOAD
from sdpack.engines.drawing import drawing_words
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.evaluate.rules import Rules
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.parallel.tasks import drawing_jobs
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.catalog_judge import CatalogJudge
from sdpack.pack.selection.evaluation_summary import EvaluatedMix, EvaluationSummary
from sdpack.pack.selection.measurements import Measurements
from sdpack.pack.selection.pipeline_specs import PipelineSpecs
from sdpack.pack.selection.prompt_list import PromptList
from sdpack.pack.selection.score_drawing import ScoreDrawing
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import stored_bytes
from sdpack.runtime.pipeline import Pictures
from sdpack.version import versions

REVISION = 3  # of drawing and judging; a change makes earlier figures invalid
FEWEST_FOR_KID = 16  # images; KID compares pairs of images, and its interval resamples them


class MixEvaluator:
    """Scores mixes on the catalog's prompts.

    Args:
        possible: every mix that can be built, whether it fits or not.
        fitted: the mixes that fit.
        runner: the runner of another evaluator of the same toolchain, to reuse its loaded parts.
        rules: the rules of the race; default: the request's.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        possible: Sequence[Mix],
        fitted: Sequence[Fitted],
        runner: EvaluationRunner | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.context = toolchain.context
        self.variants = toolchain.variants
        self.possible = possible
        self.fitted = fitted
        self.say = self.context.say
        self.request = toolchain.request
        located, rules = self.request.located, rules or self.request.rules
        self.judging = CatalogJudge(located, toolchain.candidates.folder)
        self._quality = located.catalog.quality
        listed = PromptList(located.prompt_list(self._quality.prompts))
        self._real_images = len(listed.listed)  # one for each prompt, drawn or not
        self.weights = full_names(self.request.weights, listed.categories)
        weighted = listed.weighted(self.weights)
        self.rules = rules.with_prompts(len(weighted.listed))
        self.prompt_list = weighted.repeated(self.rules.most)
        self.prompts = self.prompt_list.texts
        self.runner = runner or self._runner()
        self._specs = PipelineSpecs(toolchain, with_reference=not self.judging.is_judged)
        self._measurements = Measurements(self.context, self._specs, self.runner, self.judging)
        jobs = partial(drawing_jobs, built=self.variants.built, on_gpu=self._on_gpu)
        self._drawing = ScoreDrawing(self.context, self.runner, self.spec, jobs)
        self._drawn: dict[Mix, set[int]] = {}

    def scores(
        self, mixes: Sequence[Mix], numbers: Sequence[int], ahead: Sequence[int] = ()
    ) -> Float64Array:
        """The scores of these mixes on these prompts: float64 (mixes, prompts).

        Args:
            numbers: the numbers of the prompts.
            ahead: the prompts that are likely to come next; idle workers of a cluster draw them.
        """
        doing = f"drawing {len(numbers)} prompts with {len(mixes)} mixes"
        scores = self._drawing.scores(mixes, numbers, doing, ahead)
        for mix in mixes:  # only now, as a time limit may interrupt the drawing
            self._drawn.setdefault(mix, set()).update(numbers)
        return scores

    def scores_in_fp32(self, mixes: Sequence[Mix], numbers: Sequence[int]) -> Float64Array:
        """The scores of these mixes' parts in fp32: float64 (mixes, prompts).

        Nothing but the exported parts is needed.
        """
        jobs = partial(drawing_jobs, in_fp32=True, on_gpu=self._on_gpu)
        drawing = ScoreDrawing(self.context, self.runner, self.reference, jobs)
        doing = f"drawing {len(numbers)} prompts with {len(mixes)} sets of parts in fp32"
        return drawing.scores(mixes, numbers, doing)

    def quality(self, number: int, prompts: int) -> Estimate:
        """The mean score of a fitted mix over the first `prompts` prompts."""
        return self.prompt_list.mean(self.scores_of(self.fitted[number].mix, prompts))

    def by_category(self, number: int, prompts: int) -> dict[str, tuple[Estimate, int]]:
        """The mean scores of a fitted mix over the first `prompts` prompts, by category."""
        return self.prompt_list.by_category(self.scores_of(self.fitted[number].mix, prompts))

    def scores_of(self, mix: Mix, prompts: int) -> Float64Array:
        """The scores of a drawn mix on the first `prompts` prompts: float64 (prompts,)."""
        spec, chunks = self.spec(mix), self.runner.chunks(range(prompts))
        return np.concatenate([self.runner.scores([spec], chunk)[0] for chunk in chunks])

    @property
    def has_real_images(self) -> bool:
        """Whether the catalog has real images, so that distances can be measured."""
        return self.judging.has_real_images

    def distance(self, number: int, prompts: int) -> Estimate:
        """KID between a fitted mix's images of the first `prompts` prompts and all real images."""
        chunks = self.runner.chunks(range(prompts))
        return self._measurements.distance(self.fitted[number].mix, chunks, self._real_images)

    def latency_s(self, number: int, always: bool = False) -> float | None:
        """Seconds per image of a fitted mix; see `Measurements.latency_s`."""
        return self._measurements.latency_s(self.fitted[number], always)

    def tiled_difference(self, number: int) -> int | None:
        """The change that tiles make to an image; see `Measurements.tiled_difference`."""
        return self._measurements.tiled_difference(self.fitted[number])

    def summary(self) -> EvaluationSummary:
        """The mixes that were drawn and measured so far."""
        timed, distances = self._measurements.timed, self._measurements.distances
        summary = self.summary_of(self.drawn)
        mixes = {
            mix: replace(each, timed=mix in timed, distance_prompts=distances.get(mix))
            for mix, each in summary.mixes.items()
        }
        return replace(summary, mixes=mixes)

    def summary_of(self, drawn: Mapping[Mix, int]) -> EvaluationSummary:
        """The scores of these mixes, without other measurements.

        Args:
            drawn: the number of prompts each mix was scored on, by this evaluator or another.
        """
        return EvaluationSummary(
            self.metric,
            self.measured_on,
            self.drawn_with,
            tuple(self.prompts),
            self.prompt_list.captions if self.judging.scorer.reads_captions else (),
            self.prompt_list.categories,
            self.weights,
            self.rules,
            self.judging.real_content,
            {mix: self._evaluated(mix, prompts) for mix, prompts in drawn.items()},
        )

    def _evaluated(self, mix: Mix, prompts: int) -> EvaluatedMix:
        spec = self.spec(mix)
        contents = {role: part.content for role, part in spec.parts.items()}
        scorer = self.judging.scorer
        return EvaluatedMix(prompts, spec.recipe.content, scorer.content(spec), contents)

    def weight_bytes(self, mix: Mix) -> int:
        """Bytes of the graphs of a mix's parts, as they ship."""
        built = (self.variants.built(variant).artifact for variant in mix.variants)
        return sum(stored_bytes(artifact) for artifact in built)

    @property
    def drawn(self) -> dict[Mix, int]:
        """The mixes that were scored, each with the number of prompts, counted from the first."""
        return {mix: len(numbers) for mix, numbers in self._drawn.items()}

    @property
    def first_round(self) -> list[int]:
        """The numbers of the prompts that every scored mix was scored on."""
        return list(range(min(self.rules.first, self.rules.most)))

    @property
    def _on_gpu(self) -> bool:
        drawn_on = self.context.drawn_on
        return drawn_on.on_gpu

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes many seconds for an image."""
        return self.request.is_large

    @property
    def few(self) -> int | None:
        """The number of images to show where they are large; None where they are not."""
        return WORKLOAD.large_samples if self.is_large else None

    def spec(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix, as it is run for evaluation."""
        return self._specs.of(mix)

    def reference(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix's parts in fp32."""
        return self._specs.in_fp32(mix)

    def _runner(self) -> EvaluationRunner:
        height, width = self.request.height, self.request.width
        evaluation_set = self.prompt_list.evaluation_set(height, width, self.rules.most)
        store, ledger = self.context.store, self.context.ledger
        return EvaluationRunner(evaluation_set, self.judging.scorer, store, ledger, self.drawn_with)

    @property
    def metric(self) -> str:
        """The name of the scores."""
        scorer = self.judging.scorer
        return scorer.metric

    @cached_property
    def drawn_with(self) -> str:
        """Everything else the figures depend on: package versions, and this module's revision."""
        tools = versions(("onnxruntime", "numpy", "torch", "pillow"))
        return json.dumps({"on": self.measured_on, "tools": tools, "revision": REVISION})

    @cached_property
    def measured_on(self) -> str:
        """The runtime that draws the images, in words."""
        return drawing_words(self.request.drawn_on, self.request.runtime)


def sheet(images: Pictures, columns: int = 5, gap: int = SHEET_GAP) -> Pictures:
    """Images in rows on a white sheet: uint8 (H, W, 3).

    Args:
        images: uint8 (N, h, w, 3).
        gap: pixels between images, and around them.
    """
    height, width = (size + gap for size in images.shape[1:3])
    rows = -(-len(images) // columns)
    whole = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = gap + row * height, gap + column * width
        whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole
