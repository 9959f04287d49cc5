"""How well do a catalog's judges agree, and how small a difference do races see?

    python -m benchmarks.judges

Mixes of every set of parts, in several precisions, draw the same prompts, and every judge scores
them. Four tables: the rank correlation of the judges; the pairs of mixes about which they agree;
the smallest difference that a race sees after all prompts, by kind of interval; and the looks of
the mixes compared with fp32, next to the limits within which a mix may win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sdpack.domain.appearance import APPEARANCE_LIMITS
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import percentiles
from sdpack.domain.precision import Precision
from sdpack.evaluate.confidence import Looks, half_width, interval, planned_looks
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.appearance_guard import AppearanceGuard
from sdpack.pack.selection.mix_evaluator import MixEvaluator

from benchmarks.budget_selections import open_selections
from benchmarks.measured_on import machine_and_versions

RESAMPLES = 20
BOOTSTRAPS = 400
FIRST_JUDGE = "judge"
PRECISIONS = (Precision.W4, Precision.INT8, Precision.FP32)


@dataclass(frozen=True)
class JudgedMixes:
    """The scores of mixes by several judges.

    Attributes:
        scores: by judge, float64 (mixes, prompts).
        categories: of the prompts.
    """

    mixes: Sequence[Mix]
    scores: dict[str, Float64Array]
    categories: Sequence[str]


@click.command()
@click.option("--profile", "name", default="cpu-2gb", show_default=True)
@click.option(
    "--catalog", "path", type=click.Path(path_type=Path), help="Catalog; default: the zoo."
)
@click.option("--prompts", default=384, show_default=True, help="Number of prompts per mix.")
def main(name: str, path: Path | None, prompts: int) -> None:
    """Print four tables."""
    console = Console(width=160)
    with open_selections(name, path, prompts, console) as selections:
        mixes = [mix for mix in selections.possible if _is_uniform(mix)]
        evaluator = MixEvaluator(selections.toolchain, selections.possible, ())
        judged = _judged(evaluator, mixes)
        console.print(agreement_table(judged), disagreement_table(judged), width_table(judged))
        console.print(_appearance_table(AppearanceGuard(evaluator), mixes))
    console.print(machine_and_versions("sdpack", "onnxruntime"))


def _is_uniform(mix: Mix) -> bool:
    """Whether all parts have one of the precisions, and there is one number of steps."""
    found = {variant.precision for variant in mix.variants}
    return len(found) == 1 and found.issubset(PRECISIONS)


def _judged(evaluator: MixEvaluator, mixes: Sequence[Mix]) -> JudgedMixes:
    numbers = range(evaluator.rules.most)
    scores = {FIRST_JUDGE: evaluator.scores(mixes, numbers)}
    specs = [evaluator.spec(mix) for mix in mixes]
    for name, judge in evaluator.judging.others.items():
        runner = evaluator.runner.judged_by(judge.scorer)
        parts = [runner.scores(specs, chunk) for chunk in runner.chunks(numbers)]
        scores[name] = np.concatenate(parts, axis=1)
    return JudgedMixes(mixes, scores, evaluator.prompt_list.categories)


def agreement_table(judged: JudgedMixes) -> Table:
    """The rank correlation of each other judge with the first, over all mixes and the best half."""
    table = Table(
        "judge", "mixes", "prompts", "Spearman, 95 %", title="agreement with the first judge"
    )
    first = judged.scores[FIRST_JUDGE]
    order = np.argsort(-first.mean(axis=1))
    for name, scores in judged.scores.items():
        if name == FIRST_JUDGE:
            continue
        for words, chosen in (("all", order), ("best half", order[: len(order) // 2])):
            for count in dict.fromkeys((64, 128, first.shape[1])):
                own, other = first[chosen, :count], scores[chosen, :count]
                table.add_row(
                    name, f"{len(chosen)} ({words})", str(count), _correlation(own, other)
                )
    return table


def _correlation(own: Float64Array, other: Float64Array) -> str:
    rng, count = np.random.default_rng(0), own.shape[1]
    resampled = []
    for _ in range(BOOTSTRAPS):
        places = rng.integers(count, size=count)
        means = own[:, places].mean(1), other[:, places].mean(1)
        resampled.append(float(spearmanr(*means).statistic))
    value = float(spearmanr(own.mean(1), other.mean(1)).statistic)
    return percentiles(value, resampled).to(3)


def disagreement_table(judged: JudgedMixes) -> Table:
    """The pairs that the first judge tells apart, and what another one says about them."""
    table = Table("judge", "pairs told apart", "agreed", "not seen", "opposed", title="pairs")
    first, alpha = judged.scores[FIRST_JUDGE], 0.05
    looks = Looks((first.shape[1],))
    for name, scores in judged.scores.items():
        if name == FIRST_JUDGE:
            continue
        found = {"agreed": 0, "not seen": 0, "opposed": 0}
        for one in range(len(first)):
            for other in range(one):
                _, low, high = interval(first[one] - first[other], alpha, looks)
                if low <= 0 <= high:
                    continue
                sign = 1.0 if low > 0 else -1.0
                _, low, high = interval(sign * (scores[one] - scores[other]), alpha, looks)
                found["agreed" if low > 0 else "opposed" if high < 0 else "not seen"] += 1
        table.add_row(name, str(sum(found.values())), *map(str, found.values()))
    return table


def width_table(judged: JudgedMixes) -> Table:
    """The smallest difference that a race sees, over resampled prompts."""
    table = Table(
        "judge",
        "mixes",
        "confidence sequence",
        "group-sequential",
        "and by category",
        "ratio",
        "ratio",
        title=f"smallest difference seen after all prompts, mean of {RESAMPLES} resamples",
    )
    for name, scores in judged.scores.items():
        for racing in (2, 10, 24):
            means = np.array([_widths(judged, scores, racing, seed) for seed in range(RESAMPLES)])
            old, new, stratified = means.mean(axis=0)
            ratios = f"{new / old:.3f}", f"{stratified / old:.3f}"
            table.add_row(
                name, str(racing), f"{old:.4f}", f"{new:.4f}", f"{stratified:.4f}", *ratios
            )
    return table


def _widths(
    judged: JudgedMixes, scores: Float64Array, racing: int, seed: int
) -> tuple[float, float, float]:
    """Half the width of the intervals of the best mix against the next, on resampled prompts."""
    count = scores.shape[1]
    places = np.asarray(np.random.default_rng(seed).integers(count, size=count))
    means = np.asarray(scores.mean(axis=1))
    ranked = scores[np.argsort(-means)[:racing]][:, places]
    apart = np.asarray(ranked[1:] - ranked[0])
    alpha, looks = 0.05 / (racing - 1), planned_looks(16, count)
    plain = float(apart.std(axis=1, ddof=1).mean())
    within = _within_categories(apart, np.asarray(judged.categories)[places].tolist())
    new = half_width(count, alpha, looks)
    return plain * half_width(count, alpha), plain * new, within * new


def _within_categories(apart: Float64Array, categories: Sequence[str]) -> float:
    """The standard deviation of differences within categories of prompts."""
    names = sorted(set(categories))
    squares = np.zeros(len(apart))
    for name in names:
        own = apart[:, [place for place, each in enumerate(categories) if each == name]]
        squares += np.square(own - own.mean(axis=1, keepdims=True)).sum(axis=1)
    return float(np.sqrt(squares / (apart.shape[1] - len(names))).mean())


def _appearance_table(guard: AppearanceGuard, mixes: Sequence[Mix]) -> Table:
    """The range of each figure over the mixes of a precision, and the limits."""
    table = Table("precision", "mixes", "similarity", "colour offset", "sharpness", title="looks")
    for precision in PRECISIONS:
        of_precision = [mix for mix in mixes if mix.denoiser.precision is precision]
        found = [checked.found for checked in map(guard.check, of_precision) if checked]
        if found:
            table.add_row(
                precision.value,
                str(len(found)),
                _range([each.similarity for each in found]),
                _range([each.colour_offset for each in found]),
                _range([each.sharpness for each in found]),
            )
    limits = APPEARANCE_LIMITS
    table.add_row(
        "limits",
        "",
        f"at least {limits.least_similarity:g}",
        f"at most {limits.most_colour_offset:g}",
        f"{limits.least_sharpness:g} to {limits.most_sharpness:g}",
    )
    return table


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
