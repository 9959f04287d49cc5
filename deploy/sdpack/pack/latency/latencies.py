"""The time of one image with a mix, from the times of its parts, and the limit on it.

    seconds = text encoders + calls of the denoiser + decoder + loading, if parts are not resident

Each part is timed once, however many mixes it is part of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.errors import TooSlowError
from sdpack.pack.candidates import Candidates
from sdpack.pack.latency.part_times import MeasuredTimes, PartTimes, PredictedTimes
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.sampler_tables import SamplerTables
from sdpack.progress import Say


@dataclass
class Latencies:
    """The time of one image with each mix of a build."""

    request: BuildRequest
    candidates: Candidates
    samplers: SamplerTables
    say: Say
    times: PartTimes
    _calls: dict[tuple[str, int], int] = field(default_factory=dict, init=False)

    @classmethod
    def of_toolchain(cls, toolchain: Toolchain) -> Latencies:
        """Measured where this machine runs what ships, predicted otherwise."""
        request, say = toolchain.request, toolchain.context.say
        times: PartTimes = PredictedTimes(toolchain)
        if request.measures_latency:
            times = MeasuredTimes(toolchain)
        return cls(request, toolchain.candidates, toolchain.samplers, say, times)

    def of(self, fitted: Fitted) -> float:
        """Seconds per image of a fitted mix."""
        mix, placement = fitted.mix, fitted.placement
        running = sum(
            self._runs(variant, mix, placement) * self.times.of(variant, placement).run_s
            for variant in mix.variants
        )
        return running + self.loading_s(fitted)

    def loading_s(self, fitted: Fitted) -> float:
        """Seconds per image to load parts; 0 if they stay loaded."""
        if fitted.placement.loading is Loading.RESIDENT:
            return 0.0
        return sum(self.times.of(v, fitted.placement).load_s for v in fitted.mix.variants)

    def within(self, fitted: Sequence[Fitted], limit_s: float) -> list[Fitted]:
        """The mixes that take at most `limit_s` seconds per image, each with its seconds.

        Raises:
            TooSlowError: every mix takes longer.
        """
        timed = [replace(each, expected_s=self.of(each)) for each in fitted]
        quick = [each for each in timed if _seconds(each) <= limit_s]
        if not quick:
            raise self.too_slow(timed, limit_s)
        if len(quick) < len(timed):
            self.say(
                f"{len(timed) - len(quick):,} of {len(timed):,} mixes are left out: they take "
                f"longer than {limit_s:g} s per image"
            )
        return quick

    def too_slow(self, timed: Sequence[Fitted], limit_s: float) -> TooSlowError:
        """The error that all of these mixes take longer than the limit."""
        fastest = min(timed, key=_seconds)
        seconds = _seconds(fastest)
        how = "measured on" if self.times.is_measured else "predicted for"
        return TooSlowError(
            f"no mix draws an image within {limit_s:g} s: the fastest that fits, {fastest.mix} "
            f"({fastest.placement}), takes {seconds:.3g} s, {how} {self.times.where}; allow at "
            f"least {1.01 * seconds:.3g} s, or ask for fewer steps or smaller images",
            seconds,
        )

    def _runs(self, variant: Variant, mix: Mix, placement: Placement) -> int:
        """How often a part runs for one image."""
        if variant.role is Role.DECODER:
            return 1
        guided = self._is_guided(mix)
        if variant.role.encodes_text:
            return 2 if guided else 1
        sequential = guided and placement.guidance is Guidance.SEQUENTIAL
        return self._calls_of(mix) * (2 if sequential else 1)

    def _calls_of(self, mix: Mix) -> int:
        """How often a sampler calls the denoiser; second-order samplers do so more than once."""
        steps = self.request.steps_of(mix)
        key = (mix.denoiser.candidate, steps)
        if key not in self._calls:
            table = self.samplers.of(mix.denoiser.candidate, steps=steps)
            self._calls[key] = table.calls
        return self._calls[key]

    def _is_guided(self, mix: Mix) -> bool:
        denoiser = mix.denoiser.candidate
        scale = self.request.sampling_of(denoiser).guidance_scale
        conditioning = self.candidates.conditioning(denoiser)
        return conditioning.guided(scale)


def _seconds(fitted: Fitted) -> float:
    assert fitted.expected_s is not None
    return fitted.expected_s
