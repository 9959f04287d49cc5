from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import TooSlowError
from sdpack.memory.predict import Peak
from sdpack.pack.latency.latencies import Latencies
from sdpack.pack.latency.part_times import PartTime
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant

RUN_S = {Role.TEXT_ENCODER: 0.01, Role.DENOISER: 0.1, Role.DECODER: 0.5}
LOAD_S = 1.0
CALLS = {4: 4, 8: 15}  # a second-order sampler calls the denoiser more often


class Times:
    is_measured = True
    where = "this machine"

    def of(self, variant: Variant, placement: Placement) -> PartTime:
        return PartTime(RUN_S[variant.role], LOAD_S)


def fitted(steps: int, placement: Placement) -> Fitted:
    roles = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
    variants = [Variant(role, "x", Precision.FP16) for role in roles]
    mix = Mix.of(*variants, steps=steps)
    return Fitted(mix, placement, Peak(Role.DENOISER, {}, 0), 1, 0)


def latencies(guided: bool, said: list[str] | None = None) -> Latencies:
    lines = [] if said is None else said
    request = SimpleNamespace(
        steps_of=lambda mix: mix.steps,
        sampling_of=lambda name: SimpleNamespace(guidance_scale=3.0),
    )
    conditioning = SimpleNamespace(guided=lambda scale: guided)
    candidates = SimpleNamespace(conditioning=lambda name: conditioning)
    samplers = SimpleNamespace(of=lambda name, steps: SimpleNamespace(calls=CALLS[steps]))
    return Latencies(
        cast(Any, request), cast(Any, candidates), cast(Any, samplers), lines.append, Times()
    )


@pytest.mark.parametrize(
    ("guided", "placement", "seconds"),
    [
        (False, Placement(), 0.01 + 4 * 0.1 + 0.5),
        (True, Placement(), 2 * 0.01 + 4 * 0.1 + 0.5),
        (True, Placement(guidance=Guidance.SEQUENTIAL), 2 * 0.01 + 8 * 0.1 + 0.5),
        (False, Placement(guidance=Guidance.SEQUENTIAL), 0.01 + 4 * 0.1 + 0.5),
        (False, Placement(Loading.PHASED), 0.01 + 4 * 0.1 + 0.5 + 3 * LOAD_S),
    ],
)
def test_parts_run_as_often_as_the_placement_asks(
    guided: bool, placement: Placement, seconds: float
) -> None:
    assert latencies(guided).of(fitted(4, placement)) == pytest.approx(seconds)


def test_the_denoiser_runs_once_for_each_call_of_the_sampler() -> None:
    times = latencies(guided=False)
    slow, quick = (times.of(fitted(steps, Placement())) for steps in (8, 4))
    assert slow - quick == pytest.approx((CALLS[8] - CALLS[4]) * RUN_S[Role.DENOISER])


def test_mixes_beyond_the_limit_are_left_out() -> None:
    said: list[str] = []
    every = [fitted(steps, Placement()) for steps in (4, 8)]
    (kept,) = latencies(False, said).within(every, 1.0)
    assert kept.mix == every[0].mix
    assert kept.expected_s == pytest.approx(0.91)
    assert said == ["1 of 2 mixes are left out: they take longer than 1 s per image"]
    assert len(latencies(False).within(every, 99)) == 2


def test_a_limit_that_no_mix_meets_names_the_fastest() -> None:
    every = [fitted(steps, Placement()) for steps in (4, 8)]
    with pytest.raises(
        TooSlowError, match=r"in 4 steps .* takes 0\.91 s, measured on this machine"
    ) as error:
        latencies(False).within(every, 0.5)
    assert error.value.fastest_s == pytest.approx(0.91)
    assert error.value.exit_code == 2
