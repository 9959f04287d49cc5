"""The images of a catalog's sample prompts, which ship with a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdpack.evaluate.pipeline_spec import EvaluationSet
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator, sheet
from sdpack.runtime.pipeline import Pictures


@dataclass(frozen=True)
class Samples:
    """Draws the sample prompts."""

    evaluator: MixEvaluator

    @property
    def prompts(self) -> Sequence[str]:
        """The sample prompts; fewer of them if images are large."""
        request = self.evaluator.request
        located, quality = request.located, request.catalog.quality
        return located.prompts(quality.samples)[: self.evaluator.few]

    def draw(self, mix: Mix) -> Pictures:
        """The images of a mix on one sheet: uint8 (H, W, 3)."""
        evaluator, prompts = self.evaluator, self.prompts
        request = evaluator.request
        runner = evaluator.runner.on(EvaluationSet(prompts, request.height, request.width))
        return sheet(runner.pictures(evaluator.spec(mix), list(range(len(prompts)))))
