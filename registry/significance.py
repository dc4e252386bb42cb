"""Significance: could this Sharpe ratio, or this difference of two, be luck?

Owns the statistics of the gate, on plain arrays of per-bar returns. Knows no thresholds, models or
files. Sharpe ratios here are per bar (not annualised), excess of nothing, ddof = 1.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from registry.resampling import moments

EULER_MASCHERONI = 0.5772156649015329
STILL = 1e-12  # a standard deviation below this is a series that does not move

_normal = NormalDist()


def sharpe_ratio(returns: np.ndarray) -> np.ndarray:
    """Return mean / standard deviation along the last axis; 0 where nothing moves."""
    deviation = returns.std(axis=-1, ddof=1)
    moves = deviation > STILL
    return np.where(moves, returns.mean(axis=-1) / np.where(moves, deviation, 1.0), 0.0)


def share_better(
    candidate: np.ndarray,
    references: Sequence[np.ndarray],
    samples: int,
    mean_block: float,
    rng: np.random.Generator,
) -> list[float]:
    """Return, per reference, in which share of resamples the candidate's Sharpe is higher.

    All series (T,) are resampled by the same indices, so what they share cancels. A tie is not
    better: the share against itself is 0.
    """
    found = moments(np.stack([candidate, *references]), samples, mean_block, rng)
    moves = found.deviation > STILL
    sharpe = np.where(moves, found.mean / np.where(moves, found.deviation, 1.0), 0.0)
    return [float(np.mean(sharpe[0] > other)) for other in sharpe[1:]]


def expected_maximum_sharpe(trials: int, variance: float) -> float:
    """Return the Sharpe ratio that the best of ``trials`` skill-less trials is expected to show.

    Bailey and López de Prado (2014), The Deflated Sharpe Ratio, equation 1. ``variance`` is that
    of the trials' Sharpe ratios; one trial is no choice and gives 0.
    """
    if trials <= 1:
        return 0.0
    first = _normal.inv_cdf(1.0 - 1.0 / trials)
    second = _normal.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second)


def probabilistic_sharpe(
    sharpe: float, benchmark: float, bars: int, skewness: float, kurtosis: float
) -> float:
    """Return the probability that the true Sharpe ratio exceeds ``benchmark``.

    The same paper, equation 2; ``kurtosis`` is 3 for a normal distribution.
    """
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    if spread <= 0.0:  # such moments admit no estimate; claim nothing
        return 0.0
    return _normal.cdf((sharpe - benchmark) * math.sqrt(bars - 1) / math.sqrt(spread))


def deflated_sharpe(returns: np.ndarray, benchmark: float) -> float:
    """Return ``probabilistic_sharpe`` of a series (T,); 0 where it does not move."""
    deviation = returns.std()
    if deviation <= STILL:
        return 0.0
    standard = (returns - returns.mean()) / deviation
    return probabilistic_sharpe(
        float(sharpe_ratio(returns)),
        benchmark,
        len(returns),
        float((standard**3).mean()),
        float((standard**4).mean()),
    )


def max_drawdown(returns: np.ndarray) -> np.ndarray:
    """Return the deepest fall of the equity from its peak, along the last axis, as a fraction."""
    equity = np.cumprod(1.0 + returns, axis=-1)
    peak = np.maximum(np.maximum.accumulate(equity, axis=-1), 1.0)
    return np.asarray((1.0 - equity / peak).max(axis=-1))


def total_return(returns: np.ndarray) -> np.ndarray:
    """Return the compounded return along the last axis."""
    return np.asarray(np.prod(1.0 + returns, axis=-1) - 1.0)
