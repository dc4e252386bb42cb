"""Significance: could this Sharpe ratio, or this difference of two, be luck?

Owns the statistics of the gate, on plain arrays of per-bar returns. Knows no thresholds, models or
files. Sharpe ratios here are per bar (not annualised), excess of nothing, ddof = 1.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

EULER_MASCHERONI = 0.5772156649015329
STILL = 1e-12  # a standard deviation below this is a series that does not move
CHUNK = 256  # resamples at once: keeps a long hold-out within memory

_normal = NormalDist()


def sharpe_ratio(returns: np.ndarray) -> np.ndarray:
    """Return mean / standard deviation along the last axis; 0 where nothing moves."""
    deviation = returns.std(axis=-1, ddof=1)
    moves = deviation > STILL
    return np.where(moves, returns.mean(axis=-1) / np.where(moves, deviation, 1.0), 0.0)


def stationary_bootstrap(
    bars: int, samples: int, mean_block: float, rng: np.random.Generator
) -> np.ndarray:
    """Return row indices (samples, bars): circular blocks of geometric length.

    Politis and Romano (1994), The Stationary Bootstrap, JASA 89: each index follows its
    predecessor, or with probability 1 / mean_block starts anew at a random bar.
    """
    anew = rng.random((samples, bars)) < 1.0 / mean_block
    anew[:, 0] = True
    starts = rng.integers(0, bars, size=(samples, bars))
    position = np.arange(bars)
    newest_start = np.maximum.accumulate(np.where(anew, position, 0), axis=1)
    begun = np.take_along_axis(starts, newest_start, axis=1)
    return (begun + position - newest_start) % bars


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
    better = np.zeros(len(references), dtype=np.int64)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        rows = stationary_bootstrap(len(candidate), count, mean_block, rng)
        own = sharpe_ratio(candidate[rows])
        for i, reference in enumerate(references):
            better[i] += np.count_nonzero(own > sharpe_ratio(reference[rows]))
    return [float(count / samples) for count in better]


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
