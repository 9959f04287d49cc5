"""Explanation of a bundle's choice, from the evidence in its manifest."""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.documents.evidence import (
    Estimated,
    Evidence,
    StandingFigures,
    judge_words,
    weight_words,
)
from sdpack.documents.manifest import Manifest
from sdpack.domain.placement import Role
from sdpack.units import format_bytes, format_duration

MEASURED_COLUMNS = ("peak", "quality", "to winner [race]", "latency", "images", "outcome")


def columns(manifest: Manifest) -> tuple[str, ...]:
    """The headings of `best_mixes`; all but the last are of numbers."""
    steps = ("steps",) if _has_steps(manifest.evidence) else ()
    return (*(role.words for role in _roles(manifest)), *steps, *MEASURED_COLUMNS)


def best_mixes(manifest: Manifest, count: int = 10) -> list[tuple[str, ...]]:
    """Return rows for `columns`: the winner and the next best, with weights and peak in MiB.

    A mix that left the race early has drawn only the first prompts. Its quality is therefore given
    as the winner's mean plus the paired difference over the prompts that both drew.
    """
    roles = _roles(manifest)
    evidence = manifest.evidence
    quality = evidence.winner.quality
    level, with_steps = quality.value, _has_steps(evidence)
    return [_row(standing, roles, with_steps, level) for standing in evidence.standings[:count]]


def _has_steps(evidence: Evidence) -> bool:
    """Whether mixes differ in their number of steps."""
    return any(standing.steps for standing in evidence.standings)


def _roles(manifest: Manifest) -> list[Role]:
    """Return the roles that any mix has."""
    return [role for role in Role if any(role in s.weights for s in manifest.evidence.standings)]


def _row(
    standing: StandingFigures, roles: Sequence[Role], with_steps: bool, level: float
) -> tuple[str, ...]:
    latency = standing.latency_s
    own = [role for role in Role if role in standing.weights]
    names = standing.mix.removesuffix(f" in {standing.steps} steps").split(" + ")
    variants = dict(zip(own, names, strict=True))
    return (
        *(
            f"{variants[role]} {_mebibytes(standing.weights[role]):>5}" if role in variants else "-"
            for role in roles
        ),
        *([str(standing.steps or "-")] if with_steps else []),
        _mebibytes(standing.peak_bytes),
        f"{level + standing.difference:.3f}",
        "" if standing.outcome == "won" else _difference(standing),
        "" if latency is None else f"{1000 * latency:.0f} ms",
        str(standing.quality.pictures),
        standing.outcome,
    )


def verdict(manifest: Manifest) -> list[str]:
    """Explain why the winner won, in lines of one or two sentences."""
    evidence = manifest.evidence
    winner, others = evidence.winner, evidence.standings[1:]
    lines = [
        f"{winner.mix} won: {evidence.metric} {evidence.quality.value:.3f} over "
        f"{evidence.quality.pictures} images on {evidence.measured_on} "
        f"(95 % interval of this mean: {_bounds(evidence.quality)})."
    ]
    lines += [*_rule(evidence), *_comparison(winner, others), _field(evidence), _shares(winner)]
    memory = manifest.memory
    lines.append(
        f"Predicted peak {format_bytes(memory.predicted_bytes)} of "
        f"{format_bytes(memory.budget_bytes)}, {winner.placement}."
    )
    lines += [
        *weight_words(evidence.rule.weights if evidence.rule else {}),
        *judge_words(evidence.other_judges, evidence.judges_left_out),
        *_appearance(evidence),
        *_preselection(evidence),
        *_limit(evidence),
        *_time_limit(evidence),
    ]
    return lines


def _rule(evidence: Evidence) -> list[str]:
    """Explain the rule that decided; empty for bundles of schema 1."""
    rule = evidence.rule
    if rule is None:
        return []
    if rule.basis == "best":
        return ["No other mix has a better mean over the images that both drew."]
    if rule.basis == "open" and evidence.compared.startswith("were tried"):
        return ["A comparison with a mix of a better mean was open when the time was up."]
    preferred = "the faster one" if rule.prefer == "speed" else "the smaller, then the faster one"
    if rule.basis == "shown equal":
        return [
            "It was shown equal to every mix with a better mean (the whole interval is within "
            f"{rule.indifference:g}); among equals, {preferred} wins."
        ]
    return [
        f"--prefer {rule.prefer} chose it although a comparison with a better mean is still open: "
        f"no mix was seen to be better by {rule.indifference:g}, and none was shown to be better."
    ]


def _appearance(evidence: Evidence) -> list[str]:
    """The look of the winner's images, and the mixes that may not win by theirs."""
    lines = [] if evidence.appearance is None else [evidence.appearance.words()]
    unlike = [s.mix for s in evidence.standings if s.outcome == "unlike fp32"]
    if unlike:
        lines.append(f"Not allowed to win, as they look too unlike fp32: {', '.join(unlike)}.")
    return lines


def _limit(evidence: Evidence) -> list[str]:
    """Explain the limit on the time of an image; empty without one."""
    limit, seconds = evidence.latency_limit, evidence.winner.expected_s
    if limit is None or seconds is None:
        return []
    return [limit.words(seconds)]


def _preselection(evidence: Evidence) -> list[str]:
    """The sets of parts that were left out before the race."""
    words = evidence.preselection.words() if evidence.preselection else ""
    return [words] if words else []


def _time_limit(evidence: Evidence) -> list[str]:
    """What a build with a time limit left out; empty without a limit."""
    limit = evidence.time_limit
    if limit is None:
        return []
    if limit.is_complete:
        return [f"Everything was tried; the limit was {format_duration(limit.seconds)}."]
    open_ = sum(standing.outcome == "open" for standing in evidence.standings)
    undecided = f"; {open_} comparisons with the winner are still open" if open_ else ""
    return [
        f"The time limit of {format_duration(limit.seconds)} was reached. "
        f"Left out: {', '.join(limit.left_out)}{undecided}. The same command continues from here."
    ]


def _comparison(winner: StandingFigures, others: Sequence[StandingFigures]) -> list[str]:
    """How the nearest rival came out, by the interval that decided the race."""
    working = [s for s in others if s.outcome not in ("broken", "unlike fp32")]
    if not working:
        return []
    rival = max(working, key=lambda s: s.difference)
    line = (
        f"The nearest rival, {rival.mix}, differs by {_difference(rival)} over "
        f"{min(rival.quality.pictures, winner.quality.pictures)} images"
    )
    spared = rival.size_bytes - winner.size_bytes
    if spared:
        line += f", and is {format_bytes(abs(spared))} {'larger' if spared > 0 else 'smaller'}"
    if rival.outcome == "open" and rival.low is not None and rival.high is not None:
        line += (
            f". A measured difference of {(rival.high - rival.low) / 2:.3f} would have decided it"
        )
    worse = [s for s in working if s.high is not None and s.high < 0]
    lines = [f"{line}."]
    if worse:
        lines.append(f"{len(worse)} of {len(others)} others were shown to be worse.")
    return lines


def _field(evidence: Evidence) -> str:
    raced = len(evidence.standings)
    if evidence.screening is None:
        return f"{raced} mixes raced; {evidence.pictures:,} images in all."
    screening = evidence.screening
    return (
        f"{evidence.mixes:,} mixes {evidence.compared}; {raced} of them raced, and the screening "
        f"excluded {len(screening.predicted):,} (its estimates were off by at most "
        f"{screening.error:.3f} in {screening.checked} checks); {evidence.pictures:,} images in "
        "all."
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f}"


def _shares(winner: StandingFigures) -> str:
    whole = sum(winner.weights.values())
    shares = (f"{role.words} {count / whole:.0%}" for role, count in winner.weights.items())
    return f"Its weights are divided as follows: {', '.join(shares)}."


def _bounds(estimate: Estimated) -> str:
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _difference(standing: StandingFigures) -> str:
    if standing.low is None or standing.high is None:
        return f"{standing.difference:+.3f}"
    return f"{standing.difference:+.3f} [{standing.low:+.3f}, {standing.high:+.3f}]"
