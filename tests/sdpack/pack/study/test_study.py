"""The rules of a study, for mixes with known scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from sdpack.pack.study.budget import Budget
from sdpack.pack.study.comparison_rules import DENOISERS_FIRST, ENCODERS_FIRST, ComparisonRules
from sdpack.pack.study.study import _check_writable, _spread

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
    winner = next(s.arm for s in standings if s.outcome is Outcome.WON)
    race = RaceResult(winner, tuple(standings), 0)
    screened = None
    if common is not None:
        means = np.array(common)
        # A race leaves means over different prompts, which must not be compared: they are reversed.
        screened = ScreeningResult([s.arm for s in standings], means[::-1].copy(), means, 0.0, 0)
    every = tuple(fitted(each) for each in mixes)
    return Budget(2**20, SelectionResult(every, race, screened, 0, Rules()))


def comparisons() -> ComparisonRules:
    def is_in(of: Mix, precision: Precision) -> bool:
        return all(variant.precision is precision for variant in of.variants)

    candidates: Any = SimpleNamespace(parameters=lambda _, candidate: PARAMETERS[candidate])
    variants: Any = SimpleNamespace(is_in=is_in)
    footprints: Any = SimpleNamespace(of=weight)
    return ComparisonRules(candidates, variants, footprints)


BIG_ENCODER = mix("large", "small", Precision.W8)
BIG_ENCODER_WIDE = mix("large", "small", Precision.W8, Precision.FP16)
BIG_DENOISER = mix("small", "large", Precision.W8)
SMALL = mix("small", "small", Precision.FP16)
FIELD = [BIG_ENCODER, BIG_ENCODER_WIDE, BIG_DENOISER, SMALL]


def test_the_worth_of_a_mix_is_its_paired_difference_or_the_screening_s_prediction() -> None:
    raced = [standing(0, Outcome.WON, 0.0, 0.0), standing(2, Outcome.WORSE, -0.2, -0.1)]
    studied = budget(FIELD, raced, common=[0.5, 0.45, 0.9, -1.0])
    assert studied.worth[BIG_ENCODER] == 0.0
    assert studied.worth[BIG_ENCODER_WIDE] == pytest.approx(-0.05)
    assert studied.worth[BIG_DENOISER] == -0.2  # it raced, so its prediction does not count
    assert studied.worth[SMALL] == -np.inf  # its images are broken


def test_among_mixes_with_the_largest_encoder_the_most_promising_is_picked() -> None:
    raced = [standing(n, Outcome.OPEN, 0.0, 0.1) for n in range(3)]
    raced.append(standing(3, Outcome.WON, 0.0, 0.0))
    raced[0] = standing(0, Outcome.WORSE, -0.3, -0.2)
    studied = budget(FIELD, raced)
    first = comparisons().largest(ENCODERS_FIRST, studied)
    assert first is not None
    assert first.mix == BIG_ENCODER_WIDE
    other = comparisons().largest(DENOISERS_FIRST, studied)
    assert other is not None
    assert other.mix == BIG_DENOISER


def test_among_mixes_in_one_precision_the_most_promising_is_picked() -> None:
    raced = [
        standing(0, Outcome.WORSE, -0.3, -0.2),
        standing(1, Outcome.OPEN, 0.2, 0.3),
        standing(2, Outcome.WORSE, -0.1, -0.05),
        standing(3, Outcome.WON, 0.0, 0.0),
    ]
    studied = budget(FIELD, raced)
    rules = comparisons()
    narrow, wide = rules.all_in(Precision.W8, studied), rules.all_in(Precision.FP16, studied)
    assert narrow is not None
    assert narrow.mix == BIG_DENOISER
    assert wide is not None
    assert wide.mix == SMALL
    assert rules.all_in(Precision.INT8, studied) is None


def test_the_mix_most_like_stable_diffusion_has_a_small_encoder() -> None:
    raced = [standing(n, Outcome.OPEN, 0.0, 0.1) for n in range(3)]
    studied = budget(FIELD, [*raced, standing(3, Outcome.WON, 0.0, 0.0)])
    chosen = comparisons().like_stable_diffusion(studied)
    assert chosen is not None
    assert chosen.mix == BIG_DENOISER  # 18 / 73 / 9 %


def test_a_mix_equal_to_a_beaten_one_is_not_level_with_the_best() -> None:
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
def test_places_are_evenly_spread(count: int, places: list[int]) -> None:
    assert _spread(count, 3) == places


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_drawn(
    tmp_path: Path,
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is a bundle; choose another --out"):
        _check_writable(tmp_path / "bundle")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        _check_writable(tmp_path / "file")
    _check_writable(tmp_path / "new" / "study")
    assert not list((tmp_path / "new" / "study").glob(f"*{LEDGER}*"))
