"""Superiority: is the best of several policies better than a benchmark, chosen as it was?

Owns Hansen's test. Knows no thresholds, models or files.
"""

import math

import numpy as np

from registry.resampling import moments
from registry.significance import STILL


def superior_p_values(
    models: np.ndarray,
    benchmarks: np.ndarray,
    samples: int,
    mean_block: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return, per benchmark, the p-value of "no model has a higher mean than it", (B,).

    ``models`` (K, T) and ``benchmarks`` (B, T): performance per bar, no NaN. Hansen (2005), A Test
    for Superior Predictive Ability, JBES 23(4): the largest studentised mean difference against
    its distribution under the stationary bootstrap, where models that are worse beyond doubt
    keep their means (the *consistent* p-value). 1 where no model is better, or none differs.

    Beside ``arch.bootstrap.SPA``: that one compares means that are not studentised, so that the
    most volatile model decides; with a single model the two agree.
    """
    bars = models.shape[1]
    found = moments(np.concatenate([models, benchmarks]), samples, mean_block, rng).mean
    resampled, of_benchmarks = found[: len(models)], found[len(models) :]
    return np.array(
        [
            _p_value((models - benchmark).mean(axis=1), resampled - other, bars)
            for benchmark, other in zip(benchmarks, of_benchmarks, strict=True)
        ]
    )


def _p_value(mean: np.ndarray, resampled: np.ndarray, bars: int) -> float:
    """Return the p-value from mean differences (K,) and those of every resample (K, samples)."""
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
