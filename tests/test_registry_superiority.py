"""Hansen's test agrees with another implementation, and its level is what it says."""

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap

from registry.resampling import stationary_bootstrap
from registry.superiority import superior_p_values

SAMPLES, BLOCK = 4_000, 8


def superior_p_value(
    models: np.ndarray, benchmark: np.ndarray, samples: int, block: int, rng: np.random.Generator
) -> float:
    return float(superior_p_values(models, benchmark[None], samples, block, rng)[0])


@pytest.mark.parametrize("edge", [-0.05, 0.02, 0.08, 0.15])
def test_with_one_model_the_p_value_is_that_of_arch(edge: float) -> None:
    rng = np.random.default_rng(7)
    benchmark = rng.normal(size=400)
    model = 0.5 * benchmark + rng.normal(size=400) + edge
    theirs = SPA(-benchmark, -model[:, None], BLOCK, SAMPLES, seed=1)
    theirs.compute()
    ours = superior_p_value(model[None], benchmark, SAMPLES, BLOCK, np.random.default_rng(2))
    if model.mean() > benchmark.mean():
        assert ours == pytest.approx(theirs.pvalues["consistent"], abs=0.035)  # 3 errors of 4,000
    else:
        assert ours == 1.0  # Hansen's statistic is never below 0


def test_with_models_of_one_spread_the_p_value_is_that_of_arch() -> None:
    rng = np.random.default_rng(8)
    models = rng.normal(size=(30, 500))
    models /= models.std(axis=1, keepdims=True)
    models += 0.1 - models.mean(axis=1, keepdims=True)
    models[2:] -= 0.5  # worse beyond doubt: neither lets them weaken the test
    theirs = SPA(np.zeros(500), -models.T, 1, SAMPLES, seed=1)
    theirs.compute()
    ours = superior_p_value(models, np.zeros(500), SAMPLES, 1, np.random.default_rng(2))
    assert ours == pytest.approx(theirs.pvalues["consistent"], abs=0.035)


@pytest.mark.parametrize("models", [1, 5])
def test_its_level_is_its_nominal_level(models: int) -> None:
    rng = np.random.default_rng(models)
    rejected = 0
    for _ in range(400):
        common = rng.normal(size=250)
        policies = common + rng.normal(size=(models, 250))
        rejected += superior_p_value(policies, common, 200, 5, rng) <= 0.10
    assert 0.05 < rejected / 400 < 0.16  # nominal 0.10, standard error 0.015


def test_a_clear_winner_among_many_losers_is_found() -> None:
    rng = np.random.default_rng(9)
    models = rng.normal(-0.3, 1.0, (10, 300))
    models[4] += 0.6
    assert superior_p_value(models, np.zeros(300), 1_000, 5, rng) < 0.01
    assert superior_p_value(models[:4], np.zeros(300), 1_000, 5, rng) == 1.0


def test_a_model_equal_to_the_benchmark_is_not_better() -> None:
    series = np.random.default_rng(10).normal(size=100)
    assert superior_p_value(series[None], series, 200, 5, np.random.default_rng(0)) == 1.0


def test_several_benchmarks_are_tested_as_each_alone() -> None:
    rng = np.random.default_rng(12)
    models, benchmarks = rng.normal(0.1, 1.0, (3, 200)), rng.normal(size=(4, 200))
    together = superior_p_values(models, benchmarks, 500, 5, np.random.default_rng(0))
    alone = [superior_p_value(models, b, 500, 5, np.random.default_rng(0)) for b in benchmarks]
    assert together.tolist() == alone


def test_resampled_means_spread_as_they_do_in_arch() -> None:
    rng = np.random.default_rng(11)
    noise = rng.normal(size=600)
    series = noise + 0.6 * np.append(0.0, noise[:-1])
    rows = stationary_bootstrap(600, SAMPLES, 12.0, np.random.default_rng(1))
    theirs = StationaryBootstrap(12, series, seed=1).apply(np.mean, SAMPLES)[:, 0]
    assert series[rows].mean(axis=1).std() == pytest.approx(theirs.std(), rel=0.05)
    # Exactly: Politis and Romano (1994), lemma 1, the variance of the mean of a resample.
    centred, t, p = series - series.mean(), 600, 1 / 12
    lags = np.arange(1, t)
    kept = (1 - lags / t) * (1 - p) ** lags + lags / t * (1 - p) ** (t - lags)
    covariance = np.array([centred[:-lag] @ centred[lag:] for lag in lags]) / t
    variance = (centred @ centred / t + 2 * kept @ covariance) / t
    assert series[rows].mean(axis=1).std() == pytest.approx(np.sqrt(variance), rel=0.04)
