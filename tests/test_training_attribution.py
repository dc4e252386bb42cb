"""Every action's result is split into market, timing, costs and risk, and nothing is left over."""

import numpy as np
import pytest
from backtest_kit import FREE, PARAMS, apple, scaler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.rules import Rules
from core.settings import Account, Costs, RiskLimits
from features.dataset import Dataset
from features.scaler import Scaler
from registry.policy import Decision
from training.attribution import PARTS, attribute, totals
from training.backtest import BacktestResult, run
from training.splits import Window

__all__ = ["apple", "scaler"]

STRICT = Rules.of(
    PARAMS.account,
    Costs(slippage_bps=20.0),
    RiskLimits(max_weight=0.6, stop_loss=0.02, take_profit=0.03, reduce_drawdown=0.02),
)


class Dice:
    """Asks for whatever the dice say; NaN holds."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, observation: np.ndarray) -> Decision:
        weight = np.array([[self._rng.choice([0.0, 0.5, 1.0, np.nan])]])
        return Decision(weight, np.zeros((1, 1)), np.zeros(1))


class Always:
    def decide(self, observation: np.ndarray) -> Decision:
        return Decision(np.ones((1, 1)), np.ones((1, 1)), np.ones(1))


def played(policy: Dice | Always, data: Dataset, scale: Scaler, rules: Rules) -> BacktestResult:
    rows = Window(data.first_row, data.first_row + 150)
    return run(policy, data, scale, rules, rows, 100_000.0)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6))
def test_the_parts_add_up_to_the_profit(apple: Dataset, scaler: Scaler, seed: int) -> None:
    result = played(Dice(seed), apple, scaler, STRICT)
    split = attribute(result)
    gap = split[list(PARTS)].sum(axis=1) - split["profit"]
    assert np.abs(gap).max() < 1e-8
    assert split["profit"].sum() == pytest.approx(result.equity[-1] - result.opening_cash, abs=1e-6)
    assert totals(result)["costs"] == pytest.approx(
        -(result.fills.commission.sum() + result.fills.slippage.sum())
    )
    assert np.count_nonzero(split["risk"]) > 5


def test_without_costs_and_limits_neither_has_a_part(apple: Dataset, scaler: Scaler) -> None:
    sums = totals(played(Dice(1), apple, scaler, FREE))
    assert sums["costs"] == 0.0
    assert sums["risk"] == 0.0
    assert sums["timing"] != 0.0


def test_who_always_holds_owes_the_result_to_the_market(apple: Dataset, scaler: Scaler) -> None:
    result = played(Always(), apple, scaler, FREE)
    sums = totals(result)
    # The first action is the only one with another exposure than the average: from nothing to all.
    later = attribute(result).iloc[1:]
    assert abs(later["timing"].sum()) < 0.02 * abs(later["profit"].sum())
    assert sums["market"] == pytest.approx(sums["profit"], rel=0.1)


def test_a_clip_at_half_the_weight_costs_half_of_a_rising_bar(
    apple: Dataset, scaler: Scaler
) -> None:
    rules = Rules.of(
        Account(fraction=1.0, no_trade_band=0.0),
        PARAMS.costs,
        RiskLimits(max_weight=0.5, reduce_drawdown=None, halt_drawdown=None),
    )
    result = played(Always(), apple, scaler, rules)
    split = attribute(result)
    market = result.market
    move = market.close[1:, 0] / market.close[:-1, 0] - 1.0
    row = int(np.argmax(move))
    expected = -0.5 * result.equity[row] * move[row]
    assert result.interventions[row]
    assert split["risk"].iloc[row] == pytest.approx(expected, rel=1e-9)
