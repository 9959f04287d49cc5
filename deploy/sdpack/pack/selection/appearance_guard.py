"""Keeps mixes from winning whose images look unlike those of the same parts in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from sdpack.domain.appearance import APPEARANCE_LIMITS, Appearance, AppearanceLimits
from sdpack.domain.workload import WORKLOAD
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.appearance import appearance
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.progress import TimeIsUp
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest

APPEARANCE = "appearance"  # kind of the rows in the ledger


@dataclass(frozen=True)
class CheckedAppearance:
    """The appearance of a mix.

    Attributes:
        images: the number of images that were compared.
        why_not: the limits that it breaks, in words; empty if the mix may win.
    """

    found: Appearance
    images: int
    why_not: str = ""


@dataclass
class AppearanceGuard:
    """Compares the images of a mix with those of its parts in fp32, on the first prompts.

    Attributes:
        limits: within which a mix may win.
    """

    evaluator: MixEvaluator
    limits: AppearanceLimits = APPEARANCE_LIMITS
    _known: dict[Mix, CheckedAppearance | None] = field(default_factory=dict, init=False)

    def check(self, mix: Mix) -> CheckedAppearance | None:
        """The appearance of a mix that was drawn.

        None if the parts do not run in fp32 where images are drawn, or draw broken images; and if a
        time limit ends the comparison.
        """
        if mix not in self._known:
            try:
                self._known[mix] = self._checked(mix)
            except TimeIsUp:
                return None
            except (EngineError, BrokenPictureError) as error:
                say = self.evaluator.say
                say(f"the look of {mix} cannot be compared with fp32: {error}")
                self._known[mix] = None
        return self._known[mix]

    def _checked(self, mix: Mix) -> CheckedAppearance:
        evaluator, numbers = self.evaluator, self._numbers(mix)
        own, reference = evaluator.spec(mix), evaluator.reference(mix)
        inputs = {
            **evaluator.runner.inputs(own, numbers),
            "reference": digest(reference.contents),
        }
        ledger = evaluator.context.ledger
        known = ledger.find(APPEARANCE, inputs)
        if known is None:
            evaluator.say(f"comparing the look of {mix} with fp32")
            images, wanted = self._images(own, numbers), self._images(reference, numbers)
            known = asdict(appearance(images, wanted))
            ledger.record(APPEARANCE, inputs, known)
        found = Appearance(**known)
        why_not = ", and ".join(self.limits.broken_by(found))
        return CheckedAppearance(found, len(numbers), why_not)

    def _numbers(self, mix: Mix) -> Sequence[int]:
        """The prompts that are compared; fewer if images are large."""
        evaluator = self.evaluator
        most = WORKLOAD.large_samples if evaluator.is_large else evaluator.rules.first
        return range(min(most, evaluator.drawn[mix]))

    def _images(self, spec: PipelineSpec, numbers: Sequence[int]) -> Pictures:
        runner = self.evaluator.runner
        return np.concatenate([runner.pictures(spec, chunk) for chunk in runner.chunks(numbers)])
