"""The selection among the mixes that are fast enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdpack.documents.evidence import LatencyLimit
from sdpack.evaluate.rules import Rules
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.latency.latencies import Latencies
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.appearance_guard import AppearanceGuard
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.rounds import finalists_of
from sdpack.pack.selection.selection import Selection, SelectionResult
from sdpack.pack.selection.time_left import TimeLeft
from sdpack.pack.toolchain import Toolchain
from sdpack.progress import TimeIsUp
from sdpack.units import format_duration


@dataclass(frozen=True)
class Selected:
    """A selection, and the evaluator that drew its mixes."""

    evaluator: MixEvaluator
    result: SelectionResult

    @property
    def runner(self) -> EvaluationRunner:
        """The runner that drew the images."""
        return self.evaluator.runner

    @property
    def winner(self) -> Fitted:
        """The mix that was selected."""
        return self.result.winner

    @property
    def is_cut(self) -> bool:
        """Whether a time limit ended the race before it was decided."""
        race = self.result.race
        return race.is_cut


@dataclass(frozen=True)
class SelectionSettings:
    """What a selection takes over from others of the same toolchain, and its rules.

    Attributes:
        runner, rules: see `MixEvaluator`.
        latencies: the times of earlier selections, to reuse them.
        tells_time: whether to say after each round how long the rest will take.
    """

    runner: EvaluationRunner | None = None
    rules: Rules | None = None
    latencies: Latencies | None = None
    tells_time: bool = False


def select(
    toolchain: Toolchain,
    possible: Sequence[Mix],
    fitted: Sequence[Fitted],
    settings: SelectionSettings | None = None,
) -> Selected:
    """Select one of the mixes that fit and, if the request limits its time, are fast enough.

    Where the times are measured, the winner also draws whole images. If these take longer than its
    parts did and exceed the limit, the selection is repeated without it. Scores are never drawn
    twice.

    Args:
        possible: every mix that can be built.

    Raises:
        TimeIsUp: a time limit ended the race, and its winner is too slow.
        TooSlowError: every mix takes too long.
        BrokenPictureError: every mix draws broken images.
    """
    settings = settings or SelectionSettings()
    limit_s = toolchain.request.latency_limit_s
    if limit_s is None:
        evaluator = MixEvaluator(toolchain, possible, fitted, settings.runner, settings.rules)
        return Selected(evaluator, _run(evaluator, settings))
    latencies, runner = settings.latencies or Latencies.of_toolchain(toolchain), settings.runner
    quick, slow = latencies.within(fitted, limit_s), list[Fitted]()
    while True:
        evaluator = MixEvaluator(toolchain, possible, quick, runner, settings.rules)
        result = _run(evaluator, settings)
        whole_s = _whole_s(latencies, evaluator, result)
        if whole_s is None or whole_s <= limit_s:
            limit = _limit(latencies, len(fitted) - len(quick), whole_s)
            return Selected(evaluator, replace(result, limit=limit))
        if result.race.is_cut:
            raise TimeIsUp
        winner, runner = result.winner, evaluator.runner
        slow.append(replace(winner, expected_s=whole_s))
        quick = [each for each in quick if each.mix != winner.mix]
        if not quick:
            raise latencies.too_slow(slow, limit_s)
        toolchain.context.say(
            f"left out: {winner.mix} takes {format_duration(whole_s)} for a whole image"
        )


def _run(evaluator: MixEvaluator, settings: SelectionSettings) -> SelectionResult:
    few, mixes = finalists_of(evaluator.is_large), [fitted.mix for fitted in evaluator.fitted]
    time_left = TimeLeft(evaluator.rules, few, mixes) if settings.tells_time else None
    return Selection(evaluator, AppearanceGuard(evaluator), time_left).run()


def _whole_s(
    latencies: Latencies, evaluator: MixEvaluator, result: SelectionResult
) -> float | None:
    """Measured seconds of a whole image by the winner.

    None where times are predicted, and if a time limit interrupts the measurement.
    """
    if not latencies.times.is_measured:
        return None
    try:
        drawn_s = evaluator.latency_s(result.race.winner, always=True)
    except TimeIsUp:
        return None
    return None if drawn_s is None else drawn_s + latencies.loading_s(result.winner)


def _limit(latencies: Latencies, left_out: int, whole_s: float | None) -> LatencyLimit:
    times, request = latencies.times, latencies.request
    limit_s = request.latency_limit_s
    assert limit_s is not None
    return LatencyLimit(
        max_seconds=limit_s,
        is_measured=times.is_measured,
        where=times.where,
        left_out=left_out,
        whole_s=whole_s,
    )
