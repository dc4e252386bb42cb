"""The backtest: the engine's own numbers, bar by bar."""

import numpy as np
import pandas as pd
import pytest
from backtest_kit import FREE, apple, scaler

from core.errors import NotEnoughData
from features.dataset import Dataset
from features.scaler import Scaler
from registry.baselines import make_baseline
from registry.policy import Decision, Policy
from training.backtest import BacktestResult, run
from training.splits import Window

__all__ = ["apple", "scaler"]  # fixtures


class Script:
    """A policy that reads its answers from a list."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = iter(weights)

    def decide(self, observation: np.ndarray) -> Decision:
        weight = np.array([[next(self.weights)]])
        return Decision(weight, np.nan_to_num(weight), np.ones(1))


def test_a_decision_at_one_close_fills_at_the_next_open(apple: Dataset, scaler: Scaler) -> None:
    first = apple.first_row
    result = run(Script([0.9, 0.0, 0.0, 0.0]), apple, scaler, FREE, Window(first, first + 4), 1e5)
    market = result.market
    shares = np.trunc(0.9e5 / market.close[0, 0])
    assert result.fills.open_shares[:, 0].tolist() == [0.0, shares, -shares, 0.0]
    expected = 1e5 + shares * (market.open[2, 0] - market.open[1, 0])
    assert result.equity[-1] == pytest.approx(expected)
    assert result.equity[0] == 1e5


def test_returns_compound_to_the_final_equity(apple: Dataset, scaler: Scaler) -> None:
    result = hold(apple, scaler)
    assert result.returns.shape == result.equity.shape
    assert 1e5 * np.prod(1 + result.returns) == pytest.approx(result.equity[-1])
    assert result.metrics["total_return"] == pytest.approx(result.equity[-1] / 1e5 - 1)


def test_the_trade_log_holds_the_round_trips(apple: Dataset, scaler: Scaler) -> None:
    first = apple.first_row
    weights = [1.0, 0.0, 0.0, 1.0, np.nan, 0.0, 0.0, 0.0]
    result = run(Script(weights), apple, scaler, FREE, Window(first, first + 8), 1e5)
    log = result.trade_log()
    assert log["bars_held"].tolist() == [1, 2]
    assert log["profit"].sum() == pytest.approx(result.equity[-1] - 1e5)
    assert isinstance(log, pd.DataFrame)


def test_the_future_changes_nothing_before_it(apple: Dataset, scaler: Scaler) -> None:
    first, cut = apple.first_row, apple.first_row + 60
    whole = run(coin(apple, scaler), apple, scaler, FREE, Window(first, cut + 40), 1e5)
    until = run(coin(apple, scaler), apple.rows(0, cut), scaler, FREE, Window(first, cut), 1e5)
    assert whole.equity[:60].tobytes() == until.equity.tobytes()
    assert whole.asked[:60].tobytes() == until.asked.tobytes()


def test_rows_in_the_warm_up_are_refused(apple: Dataset, scaler: Scaler) -> None:
    with pytest.raises(NotEnoughData, match=f"between {apple.first_row} "):
        run(Script([]), apple, scaler, FREE, Window(0, 10), 1e5)


def hold(apple: Dataset, scaler: Scaler) -> BacktestResult:
    policy = Policy.open(make_baseline("buy_and_hold", apple.spec, scaler), 1)
    return run(policy, apple, scaler, FREE, Window(apple.first_row, len(apple)), 1e5)


def coin(apple: Dataset, scaler: Scaler) -> Policy:
    return Policy.open(make_baseline("random", apple.spec, scaler, seed=3), 1)
