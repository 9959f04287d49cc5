"""The mixes of one build, drawn and scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from sdpack.documents.layout import SHEET_GAP
from sdpack.documents.record import CHUNK
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.domain.picture_scaling import SCALING
from sdpack.evaluate.pipeline_spec import EvaluationSet, PipelineSpec
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.catalog_judge import CatalogJudge
from sdpack.pack.selection.measurements import Measurements
from sdpack.pack.selection.pipeline_specs import PipelineSpecs
from sdpack.pack.variants.source_graphs import versions
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.progress import counted, within
from sdpack.runtime.pipeline import Pictures

MEASURED_ON = "ONNX Runtime CPU"
EMULATED_ON = "ONNX Runtime CPU in floating point"
REVISION = 2  # of the ways to draw and judge; a change makes earlier figures invalid
FEWEST_FOR_KID = 16  # pictures; it looks at pairs of them, and at resamples of those


class MixEvaluator:
    """Scores mixes on the catalog's prompts.

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
        self.judging = CatalogJudge(builder.request)
        self.prompts = builder.located.prompts(builder.catalog.quality.prompts)
        self.runner = runner or self._runner()
        rules = builder.request.rules
        self.rules = replace(rules, most=min(rules.most, len(self.prompts)))
        self._specs = PipelineSpecs(builder, with_reference=not self.judging.is_judged)
        self._measurements = Measurements(self._specs, self.runner, self.judging, say)
        self._drawn: dict[Mix, set[int]] = {}

    def scores(self, mixes: Sequence[Mix], asked: Sequence[int]) -> Float64Array:
        """The scores of these mixes on these prompts: float64 (mixes, prompts)."""
        doing = f"drawing {len(asked)} prompts with {len(mixes)} mixes"
        self.say(doing)
        for mix in mixes:
            self._drawn.setdefault(mix, set()).update(asked)
        specs = [self.spec(mix) for mix in mixes]
        step, chunks = counted(self.say, doing), _chunks(asked)
        scores = [
            self.runner.scores(specs, chunk, within(step, place, len(chunks)))
            for place, chunk in enumerate(chunks)
        ]
        return np.concatenate(scores, axis=1)

    def quality(self, number: int, prompts: int) -> Estimate:
        """The mean score of one fitted mix over the first prompts."""
        return mean_estimate(self.scores_of(self.fitted[number].mix, prompts))

    def scores_of(self, mix: Mix, prompts: int) -> Float64Array:
        """Scores of a mix that was drawn, over the first prompts: float64 (prompts,)."""
        spec, chunks = self.spec(mix), _chunks(range(prompts))
        return np.concatenate([self.runner.scores([spec], chunk)[0] for chunk in chunks])

    @property
    def has_real_pictures(self) -> bool:
        """Whether distances can be measured."""
        return self.judging.has_real_pictures

    def distance(self, number: int, prompts: int) -> Estimate:
        """KID of one fitted mix over the first prompts to all the real pictures."""
        chunks = _chunks(range(prompts))
        return self._measurements.distance(self.fitted[number].mix, chunks, len(self.prompts))

    def latency_s(self, number: int, always: bool = False) -> float | None:
        """Seconds for one picture of a fitted mix, as `Measurements.latency_s`."""
        return self._measurements.latency_s(self.fitted[number], always)

    def tiled_difference(self, number: int) -> int | None:
        """What tiles change in a picture of a fitted mix, as `Measurements.tiled_difference`."""
        return self._measurements.tiled_difference(self.fitted[number])

    @property
    def timed(self) -> set[Mix]:
        """Mixes whose latency is known."""
        return self._measurements.timed

    @property
    def distances(self) -> Mapping[Mix, int]:
        """Mixes whose distance to real pictures is known, and over how many prompts."""
        return self._measurements.distances

    @property
    def drawn(self) -> dict[Mix, int]:
        """The mixes that were scored, and on how many prompts, the first ones."""
        return {mix: len(asked) for mix, asked in self._drawn.items()}

    @property
    def first_round(self) -> list[int]:
        """The prompts every mix was scored on that was scored at all, as they were drawn."""
        return _chunks(range(min(self.rules.first, self.rules.most)))[0]

    def judged_by(self, spec: PipelineSpec) -> str:
        """One hash of what its scores depend on besides its pictures and prompts."""
        return self.judging.scorer.content(spec)

    @property
    def few(self) -> int | None:
        """How many pictures are enough to look at where they are large; else None."""
        return SCALING.large_samples if self.runner.task.is_large else None

    def samples(self, number: int) -> Pictures:
        """The catalog's sample prompts through one mix, as one sheet."""
        prompts = self.builder.located.prompts(self.builder.catalog.quality.samples)[: self.few]
        runner = self.runner.on(self._evaluation_set(prompts))
        spec = self.spec(self.fitted[number].mix)
        return sheet(runner.pictures(spec, list(range(len(prompts)))))

    def spec(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix, as it is run to be evaluated."""
        return self._specs.of(mix)

    def reference(self, mix: Mix) -> PipelineSpec:
        """The pipeline of a mix's parts in fp32."""
        return self._specs.in_fp32(mix)

    def _runner(self) -> EvaluationRunner:
        evaluation_set = self._evaluation_set(self.prompts)
        store, ledger = self.builder.store, self.builder.ledger
        return EvaluationRunner(evaluation_set, self.judging.scorer, store, ledger, self.drawn_with)

    def _evaluation_set(self, prompts: Sequence[str]) -> EvaluationSet:
        request = self.builder.request
        return EvaluationSet(prompts, request.height, request.width)

    @property
    def metric(self) -> str:
        """What scores are called."""
        return self.judging.scorer.metric

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
