"""What a statistic calls five in a hundred happens five times in a hundred, or less, by simulation.

Bounds: four binomial standard errors of the simulation around the level that is expected.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from registry.significance import deflated_sharpe, expected_maximum_sharpe, sharpe_ratio

NORMAL = NormalDist()
BARS, LEVEL = 500, 0.05

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(6, size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Many small gains and a few large losses, mean 0: skewness -1.4."""
    return 2.0 - rng.gamma(2.0, 1.0, size=shape)


def error(rate: float, count: int) -> float:
    return math.sqrt(rate * (1.0 - rate) / count)


@pytest.mark.parametrize("draw", [normal, heavy_tailed, skewed])
def test_without_a_choice_the_deflated_ratio_errs_as_often_as_it_says(draw: Draw) -> None:
    count = 3_000
    rng = np.random.default_rng(20)
    worthless = draw(rng, (count, BARS))
    rate = np.mean([deflated_sharpe(series, 0.0) >= 1.0 - LEVEL for series in worthless])
    assert abs(rate - LEVEL) < 4 * error(LEVEL, count)  # 0.034 to 0.066


def test_the_moments_are_what_keeps_that_level_for_a_true_ratio_that_is_high() -> None:
    # Selling insurance: a true Sharpe ratio of 0.5 a bar, tested against itself. Without skewness
    # and kurtosis the ratio's own error would be taken as three tenths too small.
    count = 3_000
    rng = np.random.default_rng(21)
    paid = skewed(rng, (count, BARS)) + 0.5 * math.sqrt(2.0)
    told = np.mean([deflated_sharpe(series, 0.5) >= 1.0 - LEVEL for series in paid])
    naive = np.mean((sharpe_ratio(paid) - 0.5) * math.sqrt(BARS - 1) >= NORMAL.inv_cdf(1 - LEVEL))
    assert abs(told - LEVEL) < 4 * error(LEVEL, count)
    assert naive > 0.08


@pytest.mark.parametrize("trials", [2, 20])
def test_the_best_of_several_errs_less_often_than_it_says(trials: int) -> None:
    count = 1_500
    rng = np.random.default_rng(trials)
    luck = expected_maximum_sharpe(trials, 1 / (BARS - 1))
    wrong = 0
    for _ in range(count):
        series = rng.normal(size=(trials, BARS))
        best = series[int(sharpe_ratio(series).argmax())]
        wrong += deflated_sharpe(best, luck) >= 1.0 - LEVEL
    # Exactly: one of them must pass what luck reaches by 1.645 errors of a single ratio.
    threshold = luck * math.sqrt(BARS - 1) + NORMAL.inv_cdf(1.0 - LEVEL)
    exact = 1.0 - NORMAL.cdf(threshold) ** trials
    assert exact < LEVEL
    assert abs(wrong / count - exact) < 4 * error(exact, count)
