"""Metrics of small curves, worked out by hand."""

from math import isnan, sqrt

import numpy as np
import pytest

from core.errors import NotEnoughData
from core.metrics import (
    MEASURES,
    bar_returns,
    cagr,
    calmar,
    drawdowns,
    max_drawdown,
    performance,
    profit_factor,
    sharpe,
    sortino,
    total_return,
    volatility,
    win_rate,
)

# Returns +10 %, -10 %, +10 %: mean 1/30, deviation sqrt(((1/15)² × 2 + (2/15)²) / 2) = 0.11547.
CURVE = np.array([100.0, 110.0, 99.0, 108.9])
STILL = np.full(5, 100.0)


def test_the_measures_by_hand() -> None:
    assert bar_returns(CURVE) == pytest.approx([0.1, -0.1, 0.1])
    assert total_return(CURVE) == pytest.approx(0.089)
    # Three bars of a year of six: half a year.
    assert cagr(CURVE, 6) == pytest.approx(1.089**2 - 1)
    assert volatility(CURVE, 6) == pytest.approx(sqrt(1 / 75) * sqrt(6))
    assert sharpe(CURVE, 6) == pytest.approx((1 / 30) / sqrt(1 / 75) * sqrt(6))
    # One loss of 0.1 in three bars: sqrt(0.01 / 3).
    assert sortino(CURVE, 6) == pytest.approx((1 / 30) / sqrt(0.01 / 3) * sqrt(6))
    assert drawdowns(CURVE) == pytest.approx([0, 0, 0.1, 0.01])
    assert max_drawdown(CURVE) == pytest.approx(0.1)
    assert calmar(CURVE, 6) == pytest.approx((1.089**2 - 1) / 0.1)
    assert win_rate([5.0, -2.0, 3.0, 0.0]) == 0.5
    assert profit_factor([5.0, -2.0, 3.0, 0.0]) == 4.0


def test_who_does_nothing_has_nothing() -> None:
    assert sharpe(STILL, 252) == sortino(STILL, 252) == calmar(STILL, 252) == 0.0
    assert volatility(STILL, 252) == 0.0


def test_undefined_is_nan() -> None:
    rising = np.array([100.0, 101.0, 103.0])
    assert isnan(sortino(rising, 252))
    assert isnan(calmar(rising, 252))
    assert isnan(win_rate([]))
    assert isnan(profit_factor([1.0]))
    assert isnan(volatility(rising[:2], 252))


def test_equal_gains_are_not_infinite_skill() -> None:
    """Their deviation is a rounding error, not zero."""
    assert isnan(sharpe(100.0 * 1.01 ** np.arange(50), 252))


def test_many_curves_are_each_measured_as_if_alone() -> None:
    rng = np.random.default_rng(0)
    curves = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, (300, 7)), axis=0))
    for measure in (volatility, sharpe, sortino, calmar, cagr):
        together = measure(curves, 252)
        assert together.shape == (7,)
        assert together == pytest.approx([float(measure(c, 252)) for c in curves.T], rel=1e-9)
    assert max_drawdown(curves) == pytest.approx([float(max_drawdown(c)) for c in curves.T])


def test_a_lost_account_neither_gains_nor_loses() -> None:
    curve = np.array([100.0, -20.0, -10.0, -30.0])
    assert bar_returns(curve) == pytest.approx([-1.2, 0.0, 0.0])
    assert cagr(curve, 252) == -1.0


def test_one_close_is_too_few() -> None:
    with pytest.raises(NotEnoughData, match="found 1"):
        sharpe(np.array([100.0]), 252)


def test_performance_names_every_measure() -> None:
    found = performance(
        CURVE,
        6,
        traded_value=np.array([0.0, 100.0, 50.0, 0.0]),
        gross_weight=np.array([0, 1, 1, 0]),
    )
    assert tuple(found) == MEASURES
    # 150 traded in half a year, mean equity 104.475.
    assert found["turnover"] == pytest.approx(150 / 104.475 / 0.5)
    assert found["exposure"] == 0.5
    assert found["trades"] == 0
    assert isnan(performance(CURVE, 6)["turnover"])
