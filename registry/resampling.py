"""Resampling: the stationary bootstrap of series that belong together, and its moments.

Owns how resamples are drawn. Knows no thresholds and no tests.
"""

from dataclasses import dataclass

import numpy as np

CHUNK = 256  # resamples at once: keeps a long record within memory


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and standard deviation (ddof 1) of every series in every resample, (K, samples)."""

    mean: np.ndarray
    deviation: np.ndarray


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


def moments(
    series: np.ndarray, samples: int, mean_block: float, rng: np.random.Generator
) -> Moments:
    """Return the moments of ``series`` (K, T) under one stationary bootstrap, the same for all.

    A resample is how often it holds each bar; so its sums are a matrix product. Sums are of the
    distances from the series' own mean: squares of returns far from 0 would lose their digits.
    """
    count, bars = series.shape
    centre = series.mean(axis=1, keepdims=True)
    distance = series - centre
    both = np.concatenate([distance, distance**2])
    sums = np.empty((2 * count, samples))
    for start in range(0, samples, CHUNK):
        stop = min(start + CHUNK, samples)
        rows = stationary_bootstrap(bars, stop - start, mean_block, rng)
        sums[:, start:stop] = both @ _times(rows).T
    mean, square = sums[:count] / bars, sums[count:]
    variance = np.maximum(square - bars * mean**2, 0.0) / max(1, bars - 1)
    return Moments(mean + centre, np.sqrt(variance))


def _times(rows: np.ndarray) -> np.ndarray:
    """Return how often each bar is in each resample, (samples, bars)."""
    samples, bars = rows.shape
    place = rows + bars * np.arange(samples)[:, None]
    counted = np.bincount(place.ravel(), minlength=samples * bars)
    return counted.reshape(samples, bars).astype(np.float64)
