"""Intervals for the mean of paired differences that hold at all looks of a race together.

A race looks at its scores after each round. The number of rounds and the most prompts are known in
advance, so the intervals are group-sequential: after n of at most N prompts, an interval is

    c (N / n)^(1/2 - SHAPE) / sqrt(n)

observed standard deviations wide to either side (Wang and Tsiatis, "Approximately optimal
one-parameter boundaries for group sequential trials", 1987). c is the number with which a mean that
is zero stays in all of them with the wanted probability. It is found by integrating the density of
the sum from look to look (Armitage, McPherson and Rowe, 1969), as if the sums were normal with a
known deviation; the excess of Student's t at each look is added, because it is not known.

Without known looks, the interval is a confidence sequence, which holds at all numbers of prompts
(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", 2021). It is wider: by half at the last look of a race between two mixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import over_prompts

SHAPE = 0.3  # 0 spends nearly all of the error at the last look, 0.5 the same at each
NODES, MOST_NODES = 96, 1024  # of the quadrature at each look


@dataclass(frozen=True)
class Looks:
    """When a race looks at its scores.

    Attributes:
        counts: the number of images of a mix after each round, ascending.
        prompts: number of different prompts. An image beyond it has the first prompt again, from
            other noise, and so on. None if every image has a prompt of its own. The looks are
            planned as if all images were independent: once prompts come again, the means change
            less from look to look, and all intervals hold together more often than wanted.
    """

    counts: tuple[int, ...]
    prompts: int | None = None


def interval(
    differences: Float64Array, alpha: float, looks: Looks | None = None
) -> tuple[float, float, float]:
    """Return the mean of paired differences and its interval at level 1 - `alpha`.

    Args:
        differences: float64 (n,); n should be one of the looks.
        looks: after which the intervals hold together; without, at every n.
    """
    n = len(differences)
    mean = float(differences.mean())
    prompts = repeated_over_prompts(differences, None if looks is None else looks.prompts)
    scale = math.sqrt(n / len(prompts))
    spread = scale * float(prompts.std(ddof=1)) if len(prompts) > 1 else math.inf
    half = spread * half_width(n, alpha, looks)
    return mean, mean - half, mean + half


def repeated_over_prompts(scores: Float64Array, prompts: int | None) -> Float64Array:
    """Return `over_prompts` of scores whose prompts come again in the same order.

    Args:
        scores: float64 (..., n).
        prompts: how many are different; None if none comes again.
    """
    count = scores.shape[-1]
    if prompts is None or count <= prompts:
        return scores
    return over_prompts(scores, [number % prompts for number in range(count)])


def half_width(n: int, alpha: float, looks: Looks | None = None) -> float:
    """Half the width of `interval` after n differences, in standard deviations of one of them."""
    if looks is not None:
        return _critical(alpha, looks) * _growth(n, looks.counts[-1]) / math.sqrt(n)
    rho2 = _rho2(alpha, 64)
    inner = 2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    return math.sqrt(inner)


def _growth(n: int, most: int) -> float:
    """The critical value after n of at most `most` prompts, relative to that after all."""
    return float((most / n) ** (0.5 - SHAPE))


@lru_cache(maxsize=256)
def _critical(alpha: float, looks: Looks) -> float:
    """The critical value at the last look, so that all looks together err with `alpha`."""
    from scipy.optimize import brentq

    growth = np.array([_growth(n, looks.counts[-1]) for n in looks.counts])

    def excess(critical: float) -> float:
        bounds = critical * growth
        return _crossing(bounds, looks.counts) + _unknown_deviation(bounds, looks) - alpha

    return float(brentq(excess, 0.5, 1e9, xtol=1e-4))


def _crossing(bounds: Float64Array, looks: tuple[int, ...]) -> float:
    """The probability that a standardized sum of zero mean leaves the bounds at any look."""
    from scipy.stats import norm

    density, before = np.empty(0), np.empty(0)
    for place, (bound, look) in enumerate(zip(bounds, looks, strict=True)):
        limit = min(float(bound), 9.0) * math.sqrt(look)
        nodes, weights = _quadrature(limit / math.sqrt(look - (looks[place - 1] if place else 0)))
        sums = limit * nodes
        if place == 0:
            density = norm.pdf(sums, scale=math.sqrt(look))
        else:
            scale = math.sqrt(look - looks[place - 1])
            density = norm.pdf(sums[:, None], before[None, :], scale) @ density
        density, before = density * limit * weights, sums
    return 1.0 - float(density.sum())


@lru_cache(maxsize=64)
def _quadrature(deviations: float) -> tuple[Float64Array, Float64Array]:
    """Nodes and weights on [-1, 1]; more if the step to the next look is a small part of it.

    Args:
        deviations: half the range of the sums, in deviations of the step.
    """
    count = max(NODES, math.ceil(math.pi * deviations))
    return np.polynomial.legendre.leggauss(min(count, MOST_NODES))


def _unknown_deviation(bounds: Float64Array, looks: Looks) -> float:
    """By how much Student's t leaves the bounds more often than a normal variable, in sum."""
    from scipy.stats import norm, t

    most = looks.counts[-1] if looks.prompts is None else looks.prompts
    counts = np.maximum(np.minimum(looks.counts, most) - 1, 1)
    return float(2 * np.maximum(t.sf(bounds, counts) - norm.sf(bounds), 0).sum())


def _rho2(alpha: float, n: int) -> float:
    """The parameter that makes the confidence sequence about narrowest at n (ibid., B.2)."""
    log = -2 * math.log(alpha)
    return (log + math.log(1 + log)) / n


def planned_looks(first: int, most: int, prompts: int | None = None) -> Looks:
    """The looks of a race whose rounds double the number of images, from `first` to `most`."""
    found = [min(first, most)]
    while found[-1] < most:
        found.append(min(most, 2 * found[-1]))
    return Looks(tuple(found), prompts)
