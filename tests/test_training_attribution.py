"""Every action's result is split into market, timing, costs and risk, and nothing is left over."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from backtest_kit import FREE, PARAMS, apple, scaler
from core_kit import every_rule, random_market
from features_kit import spec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bars import Market
from core.rules import Rules
from core.settings import Account, Costs, RiskLimits
from features.dataset import Dataset
from features.scaler import Scaler
from registry.policy import Decision
from training.attribution import PARTS, UNIT, attribute, totals
from training.backtest import BacktestResult, run
from training.splits import Window

__all__ = ["apple", "scaler"]

STRICT = Rules.of(
    PARAMS.account,
    Costs(slippage_bps=20.0),
    RiskLimits(max_weight=0.6, stop_loss=0.02, take_profit=0.03, reduce_drawdown=0.02),
)


BARS = 120
MODEST = (0.0, 0.5, 1.0, np.nan)
WILD = (-2.5, -1.0, 0.0, 0.3, 1.0, 2.5, np.nan)
RULES = {
    "every rule": {},
    "leverage": {"max_leverage": 3.0, "max_exposure": 3.0, "max_weight": 3.0},
    "long only": {"allow_short": False},
    "never halts": {"halt_drawdown": 9e99, "reduce_drawdown": 9e99, "volatility_target": 9e99},
}


class Dice:
    """Asks for whatever the dice say; NaN holds."""

    def __init__(self, seed: int, weights: tuple[float, ...] = WILD) -> None:
        self._rng, self._weights = np.random.default_rng(seed), weights

    def decide(self, observation: np.ndarray) -> Decision:
        weight = np.array([[self._rng.choice(self._weights)]])
        return Decision(weight, np.zeros((1, 1)), np.zeros(1))


class Always:
    def decide(self, observation: np.ndarray) -> Decision:
        return Decision(np.ones((1, 1)), np.ones((1, 1)), np.ones(1))


def played(policy: Dice | Always, data: Dataset, scale: Scaler, rules: Rules) -> BacktestResult:
    rows = Window(data.first_row, data.first_row + 150)
    return run(policy, data, scale, rules, rows, 100_000.0)


def wild(seed: int, delisted: bool) -> Dataset:
    """A market of gaps, splits, dividends, thin and empty bars, whose symbol may stop trading."""
    market = random_market(np.random.default_rng(seed), BARS)
    known = {name: np.nan_to_num(getattr(market, name), nan=0.3) for name in ("atr", "volatility")}
    if delisted:
        later = np.arange(BARS)[:, None] >= BARS - 30
        for name in ("open", "high", "low", "close"):
            known[name] = np.where(later, 0.01 * getattr(market, name), getattr(market, name))
        known["volume"] = np.where(later, 0.0, market.volume)
    return dataset_of(replace(market, **known))


def dataset_of(market: Market) -> Dataset:
    returns = np.diff(np.log(market.close), axis=0, prepend=np.log(market.close[:1]))
    return Dataset.of("S0", "S0", market, returns, spec(indicators=("return_1",)))


def exactly(column: "pd.Series[float]") -> Fraction:
    return sum(map(Fraction, column), Fraction(0))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rules=st.sampled_from(sorted(RULES)),
    delisted=st.booleans(),
    cash=st.sampled_from([2_000.0, 98_765.43, 1e7, 3e12]),
)
def test_the_parts_add_up_to_the_profit_to_the_last_bit(
    seed: int, rules: str, delisted: bool, cash: float
) -> None:
    data = wild(seed, delisted)
    scale = Scaler.fit(data.table, data.spec)
    result = run(Dice(seed), data, scale, every_rule(**RULES[rules]), Window(0, BARS), cash)
    split = attribute(result)
    for row in split[["profit", *PARTS]].itertuples(index=False):
        assert Fraction(row.profit) == sum(map(Fraction, row[1:]), Fraction(0))
        assert row.risk + row.costs + row.timing + row.market == row.profit
    # In any order, and by any tool: floats lose nothing on the way.
    sums = totals(result)
    backwards = {name: sum(split[name][::-1].tolist()) for name in sums}
    assert sums == backwards == {name: float(exactly(split[name])) for name in sums}
    assert sums["profit"] == sum(sums[part] for part in PARTS)
    unit = UNIT if cash < 1e9 else np.spacing(1e5 * cash)
    assert abs(sums["profit"] - (result.equity[-1] - cash)) <= unit
    assert np.abs(split["profit"].to_numpy() - np.diff(result.equity)).max() <= unit


def test_the_random_markets_have_every_event_that_parts_must_bear() -> None:
    met: dict[str, bool] = {}
    for seed in range(6):
        data = wild(seed, delisted=True)
        scale = Scaler.fit(data.table, data.spec)
        result = run(Dice(seed), data, scale, every_rule(), Window(0, BARS), 98_765.43)
        log, market, held = result.fills, result.market, result.position[:-1, None]
        cap = np.floor(market.volume * every_rule().volume_participation)
        for event, rows in {
            "stop": log.exit_reason == 1.0,
            "target": log.exit_reason == 2.0,
            "split": (market.split_ratio != 1.0)[1:] & (held != 0.0),
            "dividend": (market.dividend != 0.0)[1:] & (held != 0.0),
            "short": held < 0.0,
            "part of an order": (np.abs(log.open_shares) == cap) & (cap > 0.0),
            "delisted": (market.volume[1:] == 0.0)[-30:] & (held[-30:] != 0.0),
            "intervention": result.interventions,
        }.items():
            met[event] = met.get(event, False) or bool(rows.any())
    assert met == dict.fromkeys(met, True)


def test_amounts_lie_on_a_unit_that_billions_make_larger() -> None:
    data = wild(5, delisted=False)
    scale = Scaler.fit(data.table, data.spec)
    for cash, least in ((98_765.43, UNIT), (3e12, 2.0**-8)):
        result = run(Dice(5), data, scale, every_rule(), Window(0, BARS), cash)
        amounts = attribute(result)[["profit", *PARTS]].to_numpy()
        assert np.array_equal(amounts, np.rint(amounts / least) * least)


def test_what_a_stop_slips_is_a_cost_and_no_gain_of_leaving() -> None:
    """Bought 980 at 100 on an open of 99.50; the stop at 90 slips to 89.55; the bar ends at 80."""
    prices = np.array([[99.5], [99.5], [99.5]]), np.array([[99.5], [99.5], [80.0]])
    low = np.array([[99.5], [99.5], [79.0]])
    flat = {"volume": 1e9, "dividend": 0.0, "split_ratio": 1.0, "atr": 1.0, "volatility": 0.2}
    columns = {name: np.full((3, 1), value) for name, value in flat.items()}
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    market = Market(("S0",), time, open=prices[0], high=prices[0], low=low, close=prices[1],
                    **columns)  # fmt: skip
    rules = FREE.but(slippage_rate=0.005, stop_loss=0.1)
    data = dataset_of(market)
    result = run(Always(), data, Scaler.fit(data.table, data.spec), rules, Window(0, 3), 100_000.0)
    shares, paid = float(result.fills.open_shares[1, 0]), 99.5 * 1.005
    stop = paid * 0.9
    assert (shares, result.fills.exit_shares[2, 0]) == (1_000.0, -1_000.0)
    last = attribute(result).iloc[-1]
    assert last["risk"] == pytest.approx(shares * (stop - 80.0), abs=1e-5)
    assert last["costs"] == pytest.approx(-shares * stop * 0.005, abs=1e-5)


def test_without_costs_and_limits_neither_has_a_part(apple: Dataset, scaler: Scaler) -> None:
    sums = totals(played(Dice(1, MODEST), apple, scaler, FREE))
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
