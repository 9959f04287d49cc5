"""The rules of a study, on a field whose scores are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.documents.layout import LEDGER
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import InputError, StoreError
from sdpack.evaluate.rules import Outcome, RaceResult, Rules, Standing
from sdpack.memory.predict import Footprint, Peak
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.screening import ScreeningResult
from sdpack.pack.selection.selection import SelectionResult
from sdpack.pack.study import (
    _DENOISER_FIRST,
    _ENCODER_FIRST,
    Budget,
    Study,
    _check_writable,
    _spread,
)

PARAMETERS = {"small": 10, "large": 40, "vae": 5}
WIDTH = {Precision.FP16: 2, Precision.W8: 1}


def mix(encoder: str, denoiser: str, precision: Precision, encoded: Precision | None = None) -> Mix:
    return Mix.of(
        Variant(Role.TEXT_ENCODER, encoder, encoded or precision),
        Variant(Role.DENOISER, denoiser, precision),
        Variant(Role.DECODER, "vae", precision),
    )


def weight(variant: Variant, placement: Placement) -> Footprint:
    return Footprint(PARAMETERS[variant.candidate] * WIDTH[variant.precision], 0)


def fitted(of: Mix) -> Fitted:
    size = sum(weight(variant, Placement()).weight_bytes for variant in of.variants)
    return Fitted(of, Placement(), Peak(Role.DENOISER, {Role.DENOISER: size}, 0), size, 0)


def standing(arm: int, outcome: Outcome, difference: float, high: float, to: int = 0) -> Standing:
    return Standing(arm, outcome, 16, 0.5, difference, difference - 0.1, high, to)


def budget(
    mixes: Sequence[Mix], standings: Sequence[Standing], common: Sequence[float] | None = None
) -> Budget:
    outcome = RaceResult(next(s.arm for s in standings if s.outcome is Outcome.WON), tuple(standings), 0)
    screened = None
    if common is not None:
        means = np.array(common)
        # Means over other prompts, as a race leaves them: nothing may be picked by these.
        screened = ScreeningResult([s.arm for s in standings], means[::-1].copy(), means, 0.0, 0)
    evaluator = SimpleNamespace(fitted=[fitted(each) for each in mixes], rules=Rules())
    return Budget(2**20, cast(Any, evaluator), SelectionResult(outcome, screened, 0))


def study() -> Study:
    def checkpoint(role: Role, candidate: str) -> SimpleNamespace:
        return SimpleNamespace(parameters=PARAMETERS[candidate])

    def is_in(of: Mix, precision: Precision) -> bool:
        return all(variant.precision is precision for variant in of.variants)

    made = Study(cast(Any, SimpleNamespace(checkpoint=checkpoint, is_in=is_in)), [])
    made.footprints = cast(Any, SimpleNamespace(of=weight))
    return made


BIG_ENCODER = mix("large", "small", Precision.W8)
BIG_ENCODER_WIDE = mix("large", "small", Precision.W8, Precision.FP16)
BIG_DENOISER = mix("small", "large", Precision.W8)
SMALL = mix("small", "small", Precision.FP16)
FIELD = [BIG_ENCODER, BIG_ENCODER_WIDE, BIG_DENOISER, SMALL]


def test_a_mix_promises_its_paired_difference_or_what_a_screening_put_together() -> None:
    raced = [standing(0, Outcome.WON, 0.0, 0.0), standing(2, Outcome.WORSE, -0.2, -0.1)]
    found = budget(FIELD, raced, common=[0.5, 0.45, 0.9, -1.0])
    assert found.worth[BIG_ENCODER] == 0.0
    assert found.worth[BIG_ENCODER_WIDE] == pytest.approx(-0.05)
    assert found.worth[BIG_DENOISER] == -0.2  # it raced: what was put together counts no more
    assert found.worth[SMALL] == -np.inf  # its pictures are broken


def test_the_largest_encoder_comes_first_and_the_rest_by_promise() -> None:
    raced = [standing(n, Outcome.OPEN, 0.0, 0.1) for n in range(3)]
    raced.append(standing(3, Outcome.WON, 0.0, 0.0))
    raced[0] = standing(0, Outcome.WORSE, -0.3, -0.2)
    found = budget(FIELD, raced)
    first = study()._first(found, _ENCODER_FIRST)
    assert first is not None
    assert first.mix == BIG_ENCODER_WIDE
    other = study()._first(found, _DENOISER_FIRST)
    assert other is not None
    assert other.mix == BIG_DENOISER


def test_what_is_stored_alike_is_the_most_promising_of_its_kind() -> None:
    raced = [
        standing(0, Outcome.WORSE, -0.3, -0.2),
        standing(1, Outcome.OPEN, 0.2, 0.3),
        standing(2, Outcome.WORSE, -0.1, -0.05),
        standing(3, Outcome.WON, 0.0, 0.0),
    ]
    found = budget(FIELD, raced)
    narrow, wide = study()._all_in(Precision.W8, found), study()._all_in(Precision.FP16, found)
    assert narrow is not None
    assert narrow.mix == BIG_DENOISER
    assert wide is not None
    assert wide.mix == SMALL
    assert study()._all_in(Precision.INT8, found) is None


def test_the_nearest_to_stable_diffusion_has_a_small_encoder() -> None:
    raced = [standing(n, Outcome.OPEN, 0.0, 0.1) for n in range(3)]
    found = budget(FIELD, [*raced, standing(3, Outcome.WON, 0.0, 0.0)])
    chosen = study()._like_stable_diffusion(found)
    assert chosen is not None
    assert chosen.mix == BIG_DENOISER  # 18 / 73 / 9 %


def test_the_same_as_a_mix_that_was_beaten_is_not_level_with_the_best() -> None:
    raced = [
        standing(0, Outcome.WON, 0.0, 0.0),
        standing(1, Outcome.SAME, -0.005, 0.004),
        standing(2, Outcome.SAME, -0.05, -0.01, to=3),
        standing(3, Outcome.WORSE, -0.05, -0.01),
    ]
    assert budget(FIELD, raced).level == [BIG_ENCODER, BIG_ENCODER_WIDE]


@pytest.mark.parametrize(
    ("count", "places"), [(0, []), (1, [0]), (3, [0, 1, 2]), (8, [0, 4, 7]), (7, [0, 3, 6])]
)
def test_some_budgets_are_spread_over_all(count: int, places: list[int]) -> None:
    assert _spread(count, 3) == places


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is a bundle; choose another --out"):
        _check_writable(tmp_path / "bundle")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        _check_writable(tmp_path / "file")
    _check_writable(tmp_path / "new" / "study")
    assert not list((tmp_path / "new" / "study").glob(f"*{LEDGER}*"))
