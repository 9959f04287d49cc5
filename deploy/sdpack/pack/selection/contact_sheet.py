"""The contact sheet: the same prompts and noise, drawn by several mixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdpack.domain.precision import Precision
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.evaluate.rules import Outcome
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator, sheet
from sdpack.pack.selection.selection import SelectionResult
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.runtime.pipeline import Pictures

COLUMNS = 8  # images of each mix; fewer if they are large
UNIFORM = (Precision.FP16, Precision.INT8)
IN_FP32 = "the same parts in fp32"

NOT_RIVALS = (Outcome.WON, Outcome.BROKEN, Outcome.UNLIKE)


@dataclass(frozen=True)
class SheetRow:
    """A row of the contact sheet.

    Attributes:
        mix: the mix that drew it; None for the winner's parts in fp32.
        images: uint8 (N, H, W, 3).
    """

    label: str
    mix: Mix | None
    images: Pictures


@dataclass(frozen=True)
class ContactSheet:
    """The rows of the sheet, and how many images each has."""

    rows: tuple[SheetRow, ...]
    columns: int

    def image(self) -> Pictures:
        """The sheet: uint8 (H, W, 3)."""
        return sheet(np.concatenate([row.images for row in self.rows]), columns=self.columns)


@dataclass(frozen=True)
class SheetDrawing:
    """Draws the contact sheet of a selection; mixes that draw broken images are left out."""

    evaluator: MixEvaluator
    variants: VariantBuilder
    selected: SelectionResult

    def draw(self) -> ContactSheet:
        """Draw one row for each mix, the winner first."""
        rows: dict[Mix, SheetRow] = {}
        for label, mix in self._mixes().items():
            images = None if mix in rows else self._images_of(mix)
            if images is not None:
                rows[mix] = SheetRow(label, mix, images)
        in_fp32 = None if self.selected.is_hurried else self._in_fp32()
        last = () if in_fp32 is None else (SheetRow(IN_FP32, None, in_fp32),)
        return ContactSheet((*rows.values(), *last), len(self._numbers))

    def _mixes(self) -> dict[str, Mix]:
        """The mixes of the sheet, by the label of their row."""
        selected, fitted = self.selected, self.selected.fitted
        winner = selected.winner.mix
        mixes = {"the winner": winner}
        rivals = [s for s in selected.standings if s.outcome not in NOT_RIVALS]
        if rivals:
            nearest = max(rivals, key=lambda s: s.difference)
            mixes["the runner-up"] = fitted[nearest.arm].mix
        for precision in UNIFORM:
            mix = self._uniform(winner, precision)
            if mix is not None:
                mixes[f"the same parts in {precision}"] = mix
        return mixes

    @property
    def _numbers(self) -> range:
        """The prompts of the sheet."""
        return range(min(len(self.evaluator.first_round), self.evaluator.few or COLUMNS))

    def _images_of(self, mix: Mix) -> Pictures | None:
        """The images of a mix; it is scored as well if that is cheap and was not done yet."""
        if mix not in self.evaluator.drawn and self.evaluator.few is None:
            try:
                self.evaluator.scores([mix], self.evaluator.first_round)
            except EngineError as error:
                self.evaluator.say(f"not on the contact sheet: {error}")
                return None
        scored = mix in self.evaluator.drawn
        numbers = self.evaluator.first_round if scored else list(self._numbers)
        return self._images(self.evaluator.spec(mix), numbers)

    def _in_fp32(self) -> Pictures | None:
        """The images of the winner's parts in fp32; without a judge, scoring drew them already."""
        evaluator, winner = self.evaluator, self.selected.winner
        judged = evaluator.judging.is_judged
        numbers = list(self._numbers) if judged else evaluator.first_round
        return self._images(evaluator.reference(winner.mix), numbers)

    def _images(self, spec: PipelineSpec, numbers: Sequence[int]) -> Pictures | None:
        runner = self.evaluator.runner
        try:
            return runner.pictures(spec, numbers, len(self._numbers))
        except (BrokenPictureError, EngineError) as error:
            self.evaluator.say(f"not on the contact sheet: {error}")
            return None

    def _uniform(self, winner: Mix, precision: Precision) -> Mix | None:
        """The winner's parts in one precision; None if they cannot be built in it.

        If the time of the build is up, only a mix that was drawn is looked for: others may have
        graphs that are not made yet.
        """
        of_parts = self.evaluator.drawn if self.selected.is_hurried else self.evaluator.possible
        same_parts = (
            mix
            for mix in of_parts
            if (mix.candidates, mix.steps) == (winner.candidates, winner.steps)
        )
        if self.selected.is_hurried:
            return next((mix for mix in same_parts if _is_wholly(mix, precision)), None)
        return next((mix for mix in same_parts if self.variants.is_in(mix, precision)), None)


def _is_wholly(mix: Mix, precision: Precision) -> bool:
    return all(variant.precision is precision for variant in mix.variants)
