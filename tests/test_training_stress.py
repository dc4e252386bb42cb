"""Stress: the same policy, the same bars, worse conditions; and each is what it says."""

import numpy as np
import pytest
from backtest_kit import PARAMS, apple, scaler

from core.rules import Rules
from features.dataset import Dataset
from features.scaler import Scaler
from registry.baselines import make_baseline
from registry.evidence import Stress
from registry.policy import Decision, Policy
from training import backtest, stress
from training.splits import Window

__all__ = ["apple", "scaler"]  # fixtures

RULES = Rules.of(PARAMS.account, PARAMS.costs, PARAMS.risk_for("aapl"))
CASH = 1e5


class Clock:
    """Buys, then sells, then buys …, bar by bar, whatever it sees."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = iter(weights)

    def decide(self, observation: np.ndarray) -> Decision:
        weight = np.full((len(observation), 1), next(self.weights))
        return Decision(weight, weight, np.ones(len(observation)))


@pytest.fixture(scope="module")
def crossover(apple: Dataset, scaler: Scaler) -> Policy:
    return Policy.open(make_baseline("ma_crossover", apple.spec, scaler), 1)


@pytest.fixture(scope="module")
def rows(apple: Dataset) -> Window:
    return Window(apple.first_row, apple.first_row + 300)


@pytest.fixture(scope="module")
def stressed(apple: Dataset, scaler: Scaler, crossover: Policy, rows: Window) -> Stress:
    return stress.run(crossover, apple, scaler, RULES, rows, CASH)


def test_as_it_is_it_equals_the_backtest_to_the_last_bit(
    apple: Dataset, scaler: Scaler, crossover: Policy, rows: Window, stressed: Stress
) -> None:
    alone = backtest.run(crossover, apple, scaler, RULES, rows, CASH)
    assert stressed.costs[1].tobytes() == alone.returns.tobytes()
    assert (stressed.capital[1] == alone.returns).all()


@pytest.mark.parametrize("multiple", [2, 5])
def test_multiplied_costs_are_those_of_a_backtest_with_such_rules(
    apple: Dataset,
    scaler: Scaler,
    crossover: Policy,
    rows: Window,
    stressed: Stress,
    multiple: int,
) -> None:
    dear = RULES.but(
        commission_per_share=multiple * RULES.commission_per_share,
        commission_minimum=multiple * RULES.commission_minimum,
        slippage_rate=multiple * RULES.slippage_rate,
    )
    alone = backtest.run(crossover, apple, scaler, dear, rows, CASH)
    assert (stressed.costs[multiple] == alone.returns).all()
    assert stressed.costs[multiple].sum() < stressed.costs[1].sum()


def test_a_late_account_does_everything_one_bar_later(apple: Dataset, scaler: Scaler) -> None:
    rows = Window(apple.first_row, apple.first_row + 8)
    orders = [1.0, np.nan, 0.0, np.nan, 1.0, 0.0, 0.0, 0.0]
    late = stress.run(Clock(orders), apple, scaler, RULES, rows, CASH).delayed
    shifted = backtest.run(Clock([np.nan, *orders[:-1]]), apple, scaler, RULES, rows, CASH)
    assert (late == shifted.returns).all()


def test_ten_times_the_capital_meets_a_tenth_of_the_volume(
    apple: Dataset, scaler: Scaler, crossover: Policy, rows: Window, stressed: Stress
) -> None:
    thin = RULES.but(volume_participation=RULES.volume_participation / 10_000)
    alone = backtest.run(crossover, apple, scaler, thin, rows, CASH)
    assert (stressed.capital[10_000] == alone.returns).all()
    assert np.abs(stressed.capital[100_000]).sum() < np.abs(stressed.capital[1]).sum()


def test_the_capacity_lies_where_half_of_the_growth_is_left() -> None:
    # 0.8 at 10, 0.2 at 100: half lies half way between them, at 10 ** 1.5.
    assert stress.capacity({1: 1.0, 10: 0.8, 100: 0.2}) == pytest.approx(10**1.5)
    assert stress.capacity({1: 1.0, 10: 0.9, 100: 0.6}) == 100.0
    assert stress.capacity({1: -0.1, 10: 0.9, 100: 0.6}) == 0.0
