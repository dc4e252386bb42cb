"""The trade log: round trips worked out by hand, and the sum of all of them."""

import numpy as np
import pytest
from core_kit import bar, every_rule, flat, free_rules, random_market, random_weights

from core.accounts import open_accounts
from core.bars import Bar, Market, bar_at
from core.engine import Fills, settle, submit
from core.rules import Rules
from core.trades import OPEN, ORDER, STOP, TARGET, Trade, log_fills, trades_of

HOLD = np.nan


def market_of(*bars: Bar) -> Market:
    columns = {name: np.stack([getattr(b, name) for b in bars]) for name in Bar._fields}
    days = np.datetime64("2024-01-01", "ns") + np.arange(len(bars)) * np.timedelta64(1, "D")
    symbols = tuple(f"S{i}" for i in range(columns["open"].shape[1]))
    return Market(symbols, days, **columns)


def traded(
    market: Market, rules: Rules, weights: np.ndarray, cash: float = 10_000.0
) -> tuple[list[Trade], float]:
    """Return the trades of one account, and what its equity gained; row 0 only decides."""
    state, fills = open_accounts(1, len(market.symbols), cash), list[Fills]()
    for row, weight in enumerate(weights):
        submitted = submit(state, weight, bar_at(market, row), rules).state
        state, filled = settle(submitted, bar_at(market, row + 1), rules)
        fills.append(filled)
    lived = market.rows(1, len(weights) + 1)
    return trades_of(lived, log_fills(fills)), float(state.equity[0]) - cash


def asked(*weights: float) -> np.ndarray:
    return np.array(weights)[:, None, None]


def test_a_round_trip_by_hand() -> None:
    market = market_of(
        flat(100.0), bar(100, 104, 98, 102), bar(103, 110, 101, 105), bar(106, 107, 90, 92)
    )
    rules = free_rules(commission_minimum=1.0)
    trades, gained = traded(market, rules, asked(0.5, HOLD, 0.0))
    (trade,) = trades
    assert (trade.symbol, trade.side, trade.shares) == ("S0", 1, 50)
    assert (trade.entry_row, trade.exit_row, trade.bars_held) == (0, 2, 2)
    assert str(trade.entry_time)[:10] == "2024-01-02"
    assert str(trade.exit_time)[:10] == "2024-01-04"
    assert (trade.entry_price, trade.exit_price, trade.exit_reason) == (100.0, 106.0, ORDER)
    # 50 × 6 less two commissions; the low of 90 comes after the exit at the open.
    assert trade.profit == gained == 298.0
    assert trade.profit_fraction == pytest.approx(298 / 5_000)
    assert trade.commission == 2.0
    assert trade.adverse == pytest.approx(-0.02)
    assert trade.favourable == pytest.approx(0.10)


def test_stops_and_targets_are_named() -> None:
    rules = free_rules(stop_loss=0.05, take_profit=0.10)
    market = market_of(flat(100.0), bar(100, 101, 94, 97), flat(100.0), bar(100, 111, 99, 100))
    trades, _ = traded(market, rules, asked(1.0, 0.0, 1.0))
    assert [t.exit_reason for t in trades] == [STOP, TARGET]
    assert [t.profit for t in trades] == pytest.approx([-500.0, 950.0])
    assert [t.bars_held for t in trades] == [0, 0]


def test_a_reversal_ends_one_trade_and_begins_the_next() -> None:
    market = market_of(flat(100.0), flat(100.0), flat(110.0), flat(99.0))
    trades, gained = traded(market, free_rules(allow_short=True), asked(0.5, -0.5, HOLD))
    first, second = trades
    assert (first.side, first.shares, first.profit) == (1, 50, 500.0)
    assert (second.side, second.shares, second.exit_reason) == (-1, 50, OPEN)
    assert second.profit == 50 * 11.0
    assert not second.closed
    assert gained == 500.0 + 550.0


def test_a_split_is_divided_out_of_a_trade() -> None:
    market = market_of(flat(100.0), flat(100.0), flat(52.0, split=2.0), flat(55.0))
    (trade,), gained = traded(market, free_rules(), asked(0.5, HOLD, 0.0))
    assert (trade.shares, trade.entry_price, trade.exit_price) == (100, 50.0, 55.0)
    assert trade.profit == gained == 500.0
    assert trade.favourable == pytest.approx(0.10)


def test_dividends_belong_to_the_trade() -> None:
    market = market_of(flat(100.0), flat(100.0), flat(100.0, dividend=2.0), flat(100.0))
    (trade,), gained = traded(market, free_rules(), asked(0.5, HOLD, 0.0))
    assert trade.profit == gained == 100.0


def test_scaling_in_and_out_is_one_trade() -> None:
    market = market_of(flat(100.0), flat(100.0), flat(110.0), flat(120.0), flat(120.0))
    trades, gained = traded(market, free_rules(), asked(0.3, 0.6, 0.3, 0.0))
    (trade,) = trades
    assert trade.shares == 60
    assert trade.profit == pytest.approx(gained)


@pytest.mark.parametrize("seed", range(6))
def test_the_trades_add_up_to_the_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market = random_market(rng, 80, 2)
    rules = every_rule(allow_short=bool(seed % 2), halt_drawdown=None)
    trades, gained = traded(market, rules, random_weights(rng, 79, 1, 2))
    assert len(trades) > 5
    assert sum(t.profit for t in trades) == pytest.approx(gained, abs=1e-6)


def test_the_value_traded_counts_both_ways() -> None:
    market = market_of(flat(100.0), flat(100.0), flat(110.0))
    state, fills = open_accounts(1, 1, 10_000.0), list[Fills]()
    for row, weight in enumerate(asked(0.5, 0.0)):
        submitted = submit(state, weight, bar_at(market, row), free_rules()).state
        state, filled = settle(submitted, bar_at(market, row + 1), free_rules())
        fills.append(filled)
    assert log_fills(fills).traded_value.tolist() == [5_000.0, 5_500.0]
