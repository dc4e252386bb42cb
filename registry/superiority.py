"""Superiority: is the best of several policies better than a benchmark, chosen as it was?

Owns Hansen's test. Knows no thresholds, models or files.
"""

import math

import numpy as np

from registry.significance import CHUNK, STILL, stationary_bootstrap


def superior_p_value(
    models: np.ndarray,
    benchmark: np.ndarray,
    samples: int,
    mean_block: float,
    rng: np.random.Generator,
) -> float:
    """Return the p-value of "no model has a higher mean than the benchmark".

    ``models`` (K, T) and ``benchmark`` (T,): performance per bar, no NaN. Hansen (2005), A Test
    for Superior Predictive Ability, JBES 23(4): the largest studentised mean difference against
    its distribution under the stationary bootstrap, where models that are worse beyond doubt
    keep their means (the *consistent* p-value). 1 where no model is better, or none differs.

    Beside ``arch.bootstrap.SPA``: that one compares means that are not studentised, so that the
    most volatile model decides; with a single model the two agree.
    """
    difference = models - benchmark
    bars = difference.shape[1]
    mean = difference.mean(axis=1)
    resampled = np.empty((len(models), samples))
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        rows = stationary_bootstrap(bars, count, mean_block, rng)
        weight = _weights(rows, bars)
        resampled[:, start : start + count] = difference @ weight.T
    spread = resampled.std(axis=1)
    differs = spread > STILL
    if not differs.any():
        return 1.0
    mean, resampled, spread = mean[differs], resampled[differs], spread[differs]
    statistic = max(0.0, float((mean / spread).max()))
    plausible = mean >= -spread * math.sqrt(2.0 * math.log(math.log(bars)))
    centre = np.where(plausible, mean, 0.0)
    null = np.maximum(0.0, ((resampled - centre[:, None]) / spread[:, None]).max(axis=0))
    return float(np.mean(null >= statistic))


def _weights(rows: np.ndarray, bars: int) -> np.ndarray:
    """Return how often each bar is in each resample, (samples, bars), as a share."""
    samples = len(rows)
    place = rows + bars * np.arange(samples)[:, None]
    counts = np.bincount(place.ravel(), minlength=samples * bars).reshape(samples, bars)
    return np.asarray(counts / bars)
