"""Why a bundle's mix was chosen, in words, read off the evidence it carries."""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.bundle import Estimated, Evidence, Manifest, StandingFigures
from sdpack.placement import Role
from sdpack.units import format_bytes

MEASURED = ("peak", "quality", "to winner", "latency", "images", "fate")


def columns(manifest: Manifest) -> tuple[str, ...]:
    """The headings of `best_mixes`; all but the last are of numbers."""
    return (*(role.words for role in _roles(manifest)), *MEASURED)


def best_mixes(manifest: Manifest, count: int = 10) -> list[tuple[str, ...]]:
    """Rows of `columns`: the winner and the next best; weights by role and peak in MiB."""
    roles = _roles(manifest)
    return [_row(standing, roles) for standing in manifest.evidence.standings[:count]]


def _roles(manifest: Manifest) -> list[Role]:
    """Those any of the mixes has."""
    return [role for role in Role if any(role in s.weights for s in manifest.evidence.standings)]


def _row(standing: StandingFigures, roles: Sequence[Role]) -> tuple[str, ...]:
    latency = standing.latency_s
    own = [role for role in Role if role in standing.weights]
    variants = dict(zip(own, standing.mix.split(" + "), strict=True))
    return (
        *(
            f"{variants[role]} {_mebibytes(standing.weights[role]):>5}" if role in variants else "-"
            for role in roles
        ),
        _mebibytes(standing.peak_bytes),
        _interval(standing.quality),
        "" if standing.fate == "won" else _plus_or_minus(standing),
        "" if latency is None else f"{1000 * latency:.0f} ms",
        str(standing.quality.pictures),
        standing.fate,
    )


def verdict(manifest: Manifest) -> list[str]:
    """Why the winner won: a sentence or two a line."""
    evidence = manifest.evidence
    winner, others = evidence.winner, evidence.standings[1:]
    lines = [
        f"{winner.mix} won: {evidence.metric} {_interval(evidence.quality)} over "
        f"{evidence.quality.pictures} pictures on {evidence.measured_on}."
    ]
    lines += _comparison(winner, others)
    lines += [_field(evidence), _shares(winner)]
    memory = manifest.memory
    lines.append(
        f"Predicted peak {format_bytes(memory.predicted_bytes)} of "
        f"{format_bytes(memory.budget_bytes)}, {winner.placement}."
    )
    return lines


def _comparison(winner: StandingFigures, others: Sequence[StandingFigures]) -> list[str]:
    better = [
        s for s in others if s.difference > 0 and s.quality.pictures == winner.quality.pictures
    ]
    if better:
        best = max(better, key=lambda s: s.difference)
        spared = best.size_bytes - winner.size_bytes
        if spared > 0:
            gain = f"it is {format_bytes(spared)} smaller"
        elif spared == 0:
            gain = "it is no larger and the faster"
        else:
            gain = "the smaller one's pictures, taken together, are farther from real ones (KID)"
        return [
            f"Its nearest rival {best.mix} drew better by {_difference(best)}, which is as good as "
            f"a tie; {gain}."
        ]
    worse = [s for s in others if s.high is not None and s.high < 0]
    lines = []
    if others:
        next_best = max(others, key=lambda s: s.difference)
        lines.append(f"The next best, {next_best.mix}, drew {_difference(next_best)}.")
    if worse:
        lines.append(f"{len(worse)} of {len(others)} others are worse beyond chance.")
    return lines


def _field(evidence: Evidence) -> str:
    raced = len(evidence.standings)
    if evidence.screening is None:
        return f"{raced} mixes fit and raced; {evidence.pictures:,} pictures in all."
    screening = evidence.screening
    return (
        f"{evidence.mixes:,} mixes fit; {raced} of them raced, {len(screening.foretold):,} were "
        f"left out by what their parts do (off by at most {screening.error:.3f} in "
        f"{screening.checked} checks); {evidence.pictures:,} pictures in all."
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f}"


def _plus_or_minus(standing: StandingFigures) -> str:
    if standing.high is None:
        return f"{standing.difference:+.3f}"
    return f"{standing.difference:+.3f} ±{standing.high - standing.difference:.3f}"


def _shares(winner: StandingFigures) -> str:
    whole = sum(winner.weights.values())
    shares = (f"{role.words} {count / whole:.0%}" for role, count in winner.weights.items())
    return f"Its weights are shared out so: {', '.join(shares)}."


def _interval(estimate: Estimated) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _difference(standing: StandingFigures) -> str:
    if standing.low is None or standing.high is None:
        return f"{standing.difference:+.3f}"
    return f"{standing.difference:+.3f} [{standing.low:+.3f}, {standing.high:+.3f}]"
