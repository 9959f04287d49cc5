"""A confidence sequence: intervals for a mean that hold at all numbers of samples at once.

Looking at it after each round of a race costs no confidence (Waudby-Smith, Arbour, Sinha, Kennedy
and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", 2021). It is
asymptotic: it uses the observed standard deviation.
"""

from __future__ import annotations

import math

from sdpack.domain.arrays import Float64Array


def interval(differences: Float64Array, alpha: float) -> tuple[float, float, float]:
    """Mean of paired differences and a confidence sequence for it, valid at every sample size.

    The two-sided asymptotic confidence sequence of Waudby-Smith et al. (2021), theorem 2.2, at
    level 1 - `alpha`. Its free parameter is chosen so that it is narrowest at 64 prompts.
    """
    n = len(differences)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if n > 1 else math.inf
    half = spread * half_width(n, alpha)
    return mean, mean - half, mean + half


def half_width(n: int, alpha: float) -> float:
    """Half the width of `interval` after n samples, in standard deviations of one sample."""
    rho2 = _rho2(alpha, 64)
    inner = 2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    return math.sqrt(inner)


def _rho2(alpha: float, n: int) -> float:
    """The parameter that makes the sequence about narrowest at n samples (ibid., appendix B.2)."""
    log = -2 * math.log(alpha)
    return (log + math.log(1 + log)) / n
