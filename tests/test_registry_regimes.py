"""Regimes are what their definitions say, and know no future."""

import numpy as np

from registry.regimes import CALM_BARS, TREND_BARS, regimes


def test_a_fall_of_fifteen_percent_is_a_crash_until_it_is_made_good() -> None:
    market = np.array([0.0, -0.10, -0.06, 0.0, 0.10, 0.20])
    # growth 1, 0.9, 0.846, 0.846, 0.931, 1.117: below 0.85 in the third and fourth bar
    assert regimes(market)["crash"].tolist() == [False, False, True, True, False, False]


def test_quiet_weeks_after_wild_ones_are_calm() -> None:
    market = np.tile([0.02, -0.02], 100)
    market[100:160] /= 10
    calm = regimes(market)["calm"]
    assert not calm[: 100 + CALM_BARS // 2].any()
    assert calm[100 + CALM_BARS : 160].all()


def test_a_steady_climb_is_a_trend_and_noise_mostly_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.01, 600)
    climb = noise + np.where(np.arange(600) < 300, 0.0, 0.004)
    trend = regimes(climb)["trend"]
    assert not trend[: TREND_BARS - 1].any()
    assert trend[400:].mean() > 0.9
    share = np.mean([regimes(rng.normal(0.0, 0.01, 600))["trend"].mean() for _ in range(50)])
    assert share < 0.35  # two-sided beyond one deviation: 32 % of the bars


def test_no_regime_knows_its_future() -> None:
    market = np.random.default_rng(1).normal(0.0, 0.02, 400)
    whole, part = regimes(market), regimes(market[:250])
    for name, mask in part.items():
        assert (whole[name][:250] == mask).all()
