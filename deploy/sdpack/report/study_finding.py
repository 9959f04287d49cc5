"""What a study's numbers show, in sentences that claim no more than the intervals do."""

from __future__ import annotations

from collections.abc import Sequence

from sdpack.documents.record import (
    BEST,
    DENOISER_FIRST,
    ENCODER_FIRST,
    FIDELITY,
    LIKE_STABLE_DIFFUSION,
    BudgetFigures,
    StudyRecord,
)
from sdpack.report.study_points import GROUPS, VERDICTS, Claim, StudyPoint, StudyResult

_IMAGEN = (
    "Imagen found that growing the text encoder helps more than growing the UNet. For a fixed "
    "budget, this suggests choosing the text encoder first. "
)
_LIKE = (
    "Stable Diffusion 1.x divides its parameters 12 / 80 / 8 between text encoder, denoiser and "
    "VAE. "
)


def finding(study: StudyResult) -> list[str]:
    """What the numbers show, in sentences."""
    record, budgets = study.record, study.feasible
    first, last, names = budgets[0], budgets[-1], study.names
    uniform = dict.fromkeys(c.second for c in study.claims if c.second.startswith("all "))
    lines = [
        f"{len(budgets)} budgets from {names[first.budget_bytes]} to "
        f"{names[last.budget_bytes]}, {len(record.prompts)} prompts each, "
        f"{record.metric}. Better and worse are at 95 % for each comparison by itself, not for "
        "all of them together.",
        f"{_rule(record)} It was chosen on the same prompts it is compared on here, which favours "
        "it.",
        "Fidelity is not quality: it measures how close images are to those in fp32."
        if record.metric == FIDELITY
        else "",
        _limit(record),
        _verdicts(study, ENCODER_FIRST, DENOISER_FIRST, _IMAGEN),
        _shares(study, first, last),
        _verdicts(study, BEST, LIKE_STABLE_DIFFUSION, _LIKE),
        *(_verdicts(study, BEST, why, "") for why in uniform),
        *_missing(study),
    ]
    return [line for line in lines if line]


def _limit(record: StudyRecord) -> str:
    """The limit on the time of an image; "" without one."""
    limit = record.latency_limit
    if limit is None:
        return ""
    longer = f"longer than {limit.max_seconds:g} s per image ({limit.how})"
    return f"Mixes that take {longer} are left out."


def _rule(record: StudyRecord) -> str:
    """How the best mix at a budget was chosen."""
    if record.prefer is None:  # schema 1
        return (
            "The best mix at a budget won its race: the smallest of those not distinguished from "
            f"the leader, nor seen to score less by more than {record.indifference:g}, unless its "
            "images taken together were farther from real ones (KID)."
        )
    rule = (
        "The best mix at a budget won its race: it has the best mean, or it was shown equal to "
        f"every mix with a better one (the whole interval within {record.indifference:g})"
    )
    if record.prefer != "quality":
        rule += f", or, as --prefer {record.prefer} allows, not distinguished from it"
    return f"{rule}, unless its images taken together were farther from real ones (KID)."


def _missing(study: StudyResult) -> list[str]:
    """Which mixes drew broken images, and which budgets have no mix."""
    names, lines = study.names, []
    broken = dict.fromkeys(mix for budget in study.feasible for mix in budget.broken)
    if broken:
        lines.append(f"Chosen, but then excluded because of broken images: {', '.join(broken)}.")
    empty = [budget for budget in study.record.budgets if not budget.runs]
    nothing = [budget for budget in empty if "nothing fits" in (budget.infeasible or "")]
    slow = [budget for budget in empty if "draws an image within" in (budget.infeasible or "")]
    broken_at = [budget for budget in empty if budget not in (*nothing, *slow)]
    for group, why in (
        (nothing, "Nothing fits into"),
        (slow, "No mix that fits is fast enough at"),
        (broken_at, "The best mix generates broken images at"),
    ):
        if group:
            lines.append(f"{why} {', '.join(names[b.budget_bytes] for b in group)}.")
    return lines


def _verdicts(study: StudyResult, first: str, second: str, before: str) -> str:
    """Where the first is better or worse than the second; "" if they were never compared."""
    claims = [c for c in study.claims if (c.first, c.second) == (first, second)]
    if not claims:
        return ""
    by_verdict: dict[str, list[str]] = {}
    for alike in _neighbours(study, claims):
        by_verdict.setdefault(alike[0].verdict, []).append(_group(study, alike))
    told = [f"{name} at {', '.join(by_verdict[name])}" for name in VERDICTS if name in by_verdict]
    one = _named(first)
    return f"{before}{one[0].upper()}{one[1:]} against {_named(second)}: {'; '.join(told)}."


def _neighbours(study: StudyResult, claims: Sequence[Claim]) -> list[list[Claim]]:
    """The claims in groups: neighbouring budgets with the same result are one group."""
    places = {budget.budget_bytes: n for n, budget in enumerate(study.record.budgets)}
    found: list[list[Claim]] = []
    for claim in claims:
        before = found[-1][-1] if found else None
        if (
            before is not None
            and (before.verdict, before.difference) == (claim.verdict, claim.difference)
            and places[claim.budget_bytes] == places[before.budget_bytes] + 1
        ):
            found[-1].append(claim)
        else:
            found.append([claim])
    return found


def _group(study: StudyResult, alike: Sequence[Claim]) -> str:
    """The budgets of one group of claims, and the difference there."""
    budgets = [study.names[claim.budget_bytes] for claim in alike]
    told = budgets[0] if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
    away = alike[0].difference
    return told if away is None else f"{told} ({away.signed()})"


def _named(why: str) -> str:
    if why == BEST:
        return "the best mix"
    return why if why.startswith("all ") else f"“{why}”"


def _shares(study: StudyResult, first: BudgetFigures, last: BudgetFigures) -> str:
    shares = []
    for budget in dict.fromkeys((first.budget_bytes, last.budget_bytes)):
        figures = next(b for b in study.feasible if b.budget_bytes == budget)
        best = next(p for p in study.points if p.budget_bytes == budget and p.why == BEST)
        low, high = study.level_shares(figures)
        text = f"{study.names[budget]}: {_percent(best)}"
        if high > low:
            text += f", and mixes that tied with it give the text encoder {low:.0%} to "
            text += f"{high:.0%}"
        shares.append(text)
    return (
        "Shares of the weights (text encoder / denoiser / decoder) in the best mix at "
        + "; at ".join(shares)
        + "."
    )


def _percent(point: StudyPoint) -> str:
    return " / ".join(f"{point.shares[group]:.0%}" for group in GROUPS)
