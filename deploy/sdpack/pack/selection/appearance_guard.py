"""Keeps mixes from winning whose images look unlike those of the same parts in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sdpack.domain.appearance import APPEARANCE_LIMITS, Appearance, AppearanceLimits
from sdpack.domain.workload import WORKLOAD
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.appearance import appearance
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest

APPEARANCE = "appearance"  # kind of the rows in the ledger
REVISION = 1  # of the comparison; a change makes earlier rows invalid


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

        None if the parts do not run in fp32 where images are drawn, or draw broken images.

        Raises:
            TimeIsUp: a time limit ended the comparison.
        """
        if mix not in self._known:
            try:
                self._known[mix] = self._checked(mix)
            except (EngineError, BrokenPictureError) as error:
                say = self.evaluator.say
                say(f"the look of {mix} cannot be compared with fp32: {error}")
                self._known[mix] = None
        return self._known[mix]

    def known(self, mix: Mix) -> CheckedAppearance | None:
        """The appearance of a mix that an earlier selection compared; None if none did."""
        ledger = self.evaluator.context.ledger
        row = ledger.find(APPEARANCE, self._inputs(mix))
        return None if row is None else self._limited(Appearance(**row))

    def _checked(self, mix: Mix) -> CheckedAppearance:
        known = self.known(mix)
        if known is not None:
            return known
        evaluator, numbers = self.evaluator, self._numbers
        evaluator.say(f"comparing the look of {mix} with fp32")
        images = self._images(evaluator.spec(mix), numbers)
        found = appearance(images, self._images(evaluator.reference(mix), numbers))
        evaluator.context.ledger.record(APPEARANCE, self._inputs(mix), asdict(found))
        return self._limited(found)

    def _limited(self, found: Appearance) -> CheckedAppearance:
        why_not = ", and ".join(self.limits.broken_by(found))
        return CheckedAppearance(found, len(self._numbers), why_not)

    def _inputs(self, mix: Mix) -> dict[str, Any]:
        evaluator = self.evaluator
        return {
            **evaluator.runner.inputs(evaluator.spec(mix), self._numbers),
            "reference": digest(evaluator.reference(mix).contents),
            "revision": REVISION,
        }

    @property
    def _numbers(self) -> Sequence[int]:
        """The prompts that are compared; fewer if images are large."""
        rules = self.evaluator.rules
        most = WORKLOAD.large_samples if self.evaluator.is_large else rules.first
        return range(min(most, rules.most))

    def _images(self, spec: PipelineSpec, numbers: Sequence[int]) -> Pictures:
        runner = self.evaluator.runner
        return np.concatenate([runner.pictures(spec, chunk) for chunk in runner.chunks(numbers)])
