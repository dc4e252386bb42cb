"""The engine: order tables worked out by hand."""

import numpy as np
import pytest
from core_kit import bar, flat, free_rules, held, live, random_market

from core.accounts import open_accounts
from core.bars import Bar
from core.engine import PackedMarket, bar_at, settle, step, submit
from core.rules import Rules

HOLD = np.nan
START = flat(100.0)  # decide here: 10,000 of equity are 100 shares

# Rules, the bar after the decision, weight asked, shares and cash after that bar.
ONE_BAR = {
    # The decision's close is 100, the fill is at 104: 96 × 104 = 9,984 is what 10,000 can pay.
    "fills at the next open, not at the close": (
        free_rules(), bar(104, 105, 101, 102), 1.0, 96, 10_000 - 96 * 104),
    "whole shares, truncated": (
        free_rules(), flat(100.0), 0.555, 55, 10_000 - 55 * 100),
    "a fraction of the equity is put to work": (
        free_rules(fraction=0.5), flat(100.0), 1.0, 50, 5_000),
    # 50 × 100.1 + max(1, 50 × 0.01).
    "slippage is paid by the buyer, and the minimum commission": (
        free_rules(slippage_rate=0.001, commission_per_share=0.01, commission_minimum=1.0),
        flat(100.0), 0.5, 50, 10_000 - 50 * 100.1 - 1.0),
    # 50 × 0.05 = 2.50 is more than the minimum.
    "commission per share": (
        free_rules(commission_per_share=0.05, commission_minimum=1.0),
        flat(100.0), 0.5, 50, 10_000 - 5_000 - 2.5),
    "commission in basis points": (
        free_rules(commission_rate=0.001), flat(100.0), 0.5, 50, 10_000 - 5_000 - 5.0),
    # 100 shares and the commission are 10,001: one too many.
    "commission counts as buying power": (
        free_rules(commission_minimum=1.0), flat(100.0), 1.0, 99, 10_000 - 9_900 - 1),
    "nothing traded, nothing paid": (
        free_rules(commission_minimum=1.0), flat(100.0), 0.0, 0, 10_000),
    "a bar's volume caps the fill": (
        free_rules(volume_participation=0.05), flat(100.0, volume=1_010), 1.0, 50, 5_000),
    "no volume, no fill": (
        free_rules(), flat(100.0, volume=0.0), 1.0, 0, 10_000),
    "a short is denied unless allowed": (
        free_rules(), flat(100.0), -0.5, 0, 10_000),
    "a short brings in cash": (
        free_rules(allow_short=True), flat(100.0), -0.5, -50, 15_000),
    # 2 × 10,000 of buying power are 200 shares.
    "leverage": (
        free_rules(max_leverage=2.0, max_weight=2.0, max_exposure=2.0),
        flat(100.0), 2.0, 200, -10_000),
    # At 110 the equity of 10,000 carries 20,000 / 110 = 181.8 shares.
    "the leverage limit holds at the fill": (
        free_rules(max_leverage=2.0, max_weight=2.0, max_exposure=2.0),
        flat(110.0), 2.0, 181, 10_000 - 181 * 110),
    "position limit": (
        free_rules(max_weight=0.3), flat(100.0), 1.0, 30, 7_000),
    "exposure limit": (
        free_rules(max_exposure=0.4), flat(100.0), 1.0, 40, 6_000),
    # A stop 5 % below 100; the low of the entry's own bar touches it.
    "stopped out in the bar of the entry": (
        free_rules(stop_loss=0.05), bar(100, 101, 94, 96), 1.0, 0, 100 * 95),
    "takes the profit in the bar of the entry": (
        free_rules(take_profit=0.10), bar(100, 111, 99, 105), 1.0, 0, 100 * 110),
    "of both touched, the worse": (
        free_rules(stop_loss=0.05, take_profit=0.10), bar(100, 111, 94, 105), 1.0, 0, 100 * 95),
    # A stop sells at the market and pays slippage, here on both legs: 99 shares at 101.
    "a stop pays slippage": (
        free_rules(stop_loss=0.05, slippage_rate=0.01), bar(100, 101, 90, 96), 1.0, 0,
        10_000 - 99 * 101 + 99 * (101 * 0.95) * 0.99),
    "a target is a limit order and does not": (
        free_rules(take_profit=0.05, slippage_rate=0.01), bar(100, 120, 99, 110), 1.0, 0,
        10_000 - 99 * 101 + 99 * 101 * 1.05),
    # In and out are two orders: two commissions.
    "an exit pays its own commission": (
        free_rules(stop_loss=0.05, commission_minimum=1.0), bar(100, 101, 90, 96), 0.5, 0,
        10_000 - 5_000 - 1 + 50 * 95 - 1),
    # The stop of a short is above: 50 × (100 - 105).
    "a short is stopped above": (
        free_rules(allow_short=True, stop_loss=0.05), bar(100, 106, 99, 101), -0.5, 0,
        10_000 - 50 * 5),
    "a short takes its profit below": (
        free_rules(allow_short=True, take_profit=0.05), bar(100, 101, 94, 96), -0.5, 0,
        10_000 + 50 * 5),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "after", "ask", "shares", "cash"), ONE_BAR.values(), ids=ONE_BAR)
def test_one_bar_by_hand(rules: Rules, after: Bar, ask: float, shares: int, cash: float) -> None:
    state = live(rules, START, after, asks=[ask])[-1].state
    assert held(state) == (shares, pytest.approx(cash, abs=1e-9))
    assert state.equity[0] == pytest.approx(cash + shares * after.close[0], abs=1e-9)


# With 100 shares bought at 100 and no cash left: the next bar and what the account becomes.
NEXT_BAR = {
    "the stop, where the bar passes through it": (bar(99, 100, 90, 92), 0, 9_500),
    "a gap through the stop fills at the open": (bar(91, 93, 88, 92), 0, 9_100),
    "the target, where the bar passes through it": (bar(101, 120, 100, 118), 0, 11_000),
    "a gap through the target fills at the open": (bar(115, 120, 112, 118), 0, 11_500),
    # The open comes first: by the time the low is made, nothing is held.
    "an open beyond the target comes before the stop": (bar(112, 113, 90, 95), 0, 11_200),
    "neither touched": (bar(100, 109, 96, 97), 100, 0),
    "the stop at its very price": (bar(100, 101, 95, 100), 0, 9_500),
    "a bar without volume touches nothing": (bar(90, 90, 90, 90, volume=0), 100, 0),
}


@pytest.mark.parametrize(("after", "shares", "cash"), NEXT_BAR.values(), ids=NEXT_BAR)
def test_a_held_position_by_hand(after: Bar, shares: int, cash: float) -> None:
    rules = free_rules(stop_loss=0.05, take_profit=0.10)
    state = live(rules, START, START, after, asks=[1.0, HOLD])[-1].state
    assert held(state) == (shares, pytest.approx(cash))


def test_the_remainder_of_a_capped_order_works_on() -> None:
    rules = free_rules(volume_participation=0.1)
    # 120 asked, 50 a bar: 50, 50, 20.
    bars = [flat(10.0, volume=500)] * 5
    found = live(rules, *bars, asks=[0.12, HOLD, HOLD, HOLD])
    assert [s.state.shares[0, 0] for s in found] == [50, 100, 120, 120]
    assert [s.fills.open_shares[0, 0] for s in found] == [50, 50, 20, 0]


def test_a_new_target_replaces_what_is_pending() -> None:
    rules = free_rules(volume_participation=0.1)
    bars = [flat(10.0, volume=500)] * 3
    found = live(rules, *bars, asks=[0.12, 0.05])
    assert [s.state.shares[0, 0] for s in found] == [50, 50]
    assert found[-1].state.pending_shares[0, 0] == 0


def test_what_buying_power_refuses_is_cancelled() -> None:
    state = live(free_rules(), START, flat(104.0), asks=[1.0])[-1].state
    assert state.shares[0, 0] == 96
    assert state.pending_shares[0, 0] == 0


def test_a_stop_that_volume_caps_sells_the_rest_at_the_next_open() -> None:
    rules = free_rules(stop_loss=0.05, volume_participation=0.1)
    thin = bar(96, 97, 90, 92, volume=600)  # 60 of the 100 shares leave at 95
    found = live(rules, START, flat(100.0), thin, flat(93.0), asks=[1.0, HOLD, HOLD])
    assert held(found[1].state) == (40, pytest.approx(60 * 95))
    assert held(found[2].state) == (0, pytest.approx(60 * 95 + 40 * 93))


def test_the_nearer_of_percent_and_atr_stops() -> None:
    rules = free_rules(stop_loss=0.05, stop_loss_atr=2.0)
    decided = flat(100.0, atr=1.5)  # 2 × 1.5 = 3 below is nearer than 5
    # The ATR of the fill's own bar, 0.1, is not known when the order is placed.
    state = live(rules, decided, bar(100, 101, 98, 99, atr=0.1), asks=[1.0])[-1].state
    assert state.stop[0, 0] == 97.0
    unknown = live(rules, START, bar(100, 101, 98, 99), asks=[1.0])[-1].state
    assert unknown.stop[0, 0] == 95.0


def test_adding_to_a_position_averages_its_price_and_moves_its_stop() -> None:
    rules = free_rules(stop_loss=0.10)
    # 50 at 100, then equity 10,000 + 50 × 10 = 10,500 at 110: 95 shares wanted, 45 more at 110.
    found = live(rules, START, flat(100.0), flat(110.0), flat(110.0), asks=[0.5, HOLD, 1.0])
    state = found[-1].state
    assert state.shares[0, 0] == 95
    average = (50 * 100 + 45 * 110) / 95
    assert state.entry_price[0, 0] == pytest.approx(average)
    assert state.stop[0, 0] == pytest.approx(0.9 * average)


def test_a_reduction_leaves_entry_and_stop_alone() -> None:
    rules = free_rules(stop_loss=0.10)
    state = live(rules, START, flat(100.0), flat(110.0), asks=[1.0, 0.5])[-1].state
    # 10,000 of equity at the close of 100: weight 0.5 is 50 shares.
    assert state.shares[0, 0] == 50
    assert state.entry_price[0, 0] == 100.0
    assert state.stop[0, 0] == 90.0


def test_a_closed_position_leaves_no_entry_and_no_stop() -> None:
    rules = free_rules(stop_loss=0.10, take_profit=0.5)
    state = live(rules, START, flat(100.0), flat(110.0), asks=[1.0, 0.0])[-1].state
    assert held(state) == (0, 11_000)
    assert state.entry_price[0, 0] == 0.0
    assert np.isnan(state.stop[0, 0])
    assert np.isnan(state.target[0, 0])


def test_slippage_is_paid_by_the_seller_too() -> None:
    rules = free_rules(slippage_rate=0.01)
    # 50 bought at 101 and sold at 99.
    state = live(rules, START, START, START, asks=[0.5, 0.0])[-1].state
    assert held(state) == (0, 10_000 - 50 * 101 + 50 * 99)


def test_a_reversal_closes_first_and_then_goes_short() -> None:
    rules = free_rules(allow_short=True)
    state = live(rules, START, flat(100.0), flat(100.0), asks=[0.5, -0.5])[-1].state
    assert held(state) == (-50, 15_000)
    assert state.entry_price[0, 0] == 100.0


def test_two_for_one_split_doubles_shares_orders_and_halves_prices() -> None:
    rules = free_rules(stop_loss=0.10, volume_participation=0.1)
    thin = flat(100.0, volume=600)  # 60 of 100 fill, 40 stay pending
    split = bar(50, 51, 49, 50, split=2.0, volume=0)
    found = live(rules, START, thin, split, asks=[1.0, HOLD])
    before, after = found[0].state, found[1].state
    assert after.shares[0, 0] == 120
    assert after.pending_shares[0, 0] == 80
    assert after.entry_price[0, 0] == 50.0
    assert after.stop[0, 0] == 45.0
    assert after.equity[0] == before.equity[0] == 10_000.0


def test_one_for_ten_reverse_split_pays_the_fraction_in_cash() -> None:
    rules = free_rules(stop_loss=0.10, volume_participation=0.1)
    thin = flat(100.0, volume=670)  # 67 of 100 fill, 33 stay pending
    split = bar(1000, 1010, 990, 1000, split=0.1, volume=0)
    found = live(rules, START, thin, split, asks=[1.0, HOLD])
    before, after = found[0].state, found[1].state
    # 6.7 shares: 6, and 0.7 × 1,000 in cash. The order for 3.3 becomes one for 3.
    assert after.shares[0, 0] == 6
    assert after.pending_shares[0, 0] == 3
    assert after.cash[0] == pytest.approx(10_000 - 67 * 100 + 700)
    assert after.stop[0, 0] == pytest.approx(900.0)
    assert after.equity[0] == pytest.approx(before.equity[0])


def test_a_split_by_a_third_forgives_the_rounding_of_the_ratio() -> None:
    found = live(free_rules(), START, START, flat(300.0, split=1 / 3), asks=[0.99, HOLD])
    assert held(found[-1].state) == (33, pytest.approx(100.0))


def test_a_dividend_is_paid_per_share_after_the_split() -> None:
    rules = free_rules(allow_short=True)
    ex_date = flat(50.0, dividend=0.5, split=2.0)
    long = live(rules, START, START, ex_date, asks=[0.5, HOLD])[-1].state
    assert held(long) == (100, 5_000 + 100 * 0.5)
    short = live(rules, START, START, ex_date, asks=[-0.5, HOLD])[-1].state
    assert held(short) == (-100, 15_000 - 100 * 0.5)


def test_sells_pay_for_buys_of_the_same_open() -> None:
    two = flat([100.0, 50.0])
    state = live(free_rules(), two, two, two, asks=[[1.0, 0.0], [0.0, 1.0]])[-1].state
    assert state.shares.tolist() == [[0, 200]]
    assert state.cash[0] == 0.0


def test_buys_share_what_there_is_in_proportion() -> None:
    two, dear = flat([100.0, 50.0]), flat([200.0, 100.0])
    # 60 and 80 shares were asked; at twice the price half of each can be paid.
    state = live(free_rules(), two, dear, asks=[[0.6, 0.4]])[-1].state
    assert state.shares.tolist() == [[30, 40]]
    assert state.cash[0] == 0.0


def test_ruin_terminates() -> None:
    rules = free_rules(allow_short=True, ruin_fraction=0.05)
    # 100 sold at 100, bought for 196: 20,000 - 19,600 = 400 is less than 5 % of 10,000.
    state = live(rules, START, START, flat(196.0), asks=[-1.0, HOLD])[-1].state
    assert state.equity[0] == pytest.approx(400.0)
    assert state.ruined[0]
    assert state.terminated[0]
    # It leaves the market at the next open by itself, and no wish opens it again.
    settled = settle(state, flat(196.0), rules).state
    assert settled.shares[0, 0] == 0
    again = submit(settled, np.array([[1.0]]), flat(196.0), rules).state
    assert again.pending_shares[0, 0] == 0


def test_negative_equity_is_survived_without_a_warning() -> None:
    rules = free_rules(allow_short=True, reduce_drawdown=0.1, halt_drawdown=0.3)
    found = live(rules, START, START, flat(300.0), flat(310.0), asks=[-1.0, HOLD, 0.5])
    state = found[-1].state
    assert state.equity[0] == pytest.approx(-10_000.0 - 1_000.0)
    assert state.shares[0, 0] == 0
    assert np.isfinite(state.log_return[0])


def test_memory_of_returns_and_trades() -> None:
    found = live(free_rules(), START, START, flat(110.0), flat(110.0), asks=[1.0, HOLD, HOLD])
    states = [s.state for s in found]
    assert [s.bars_since_trade[0, 0] for s in states] == [0, 1, 2]
    assert states[1].log_return[0] == pytest.approx(np.log(1.1))
    # The average moves a 21st of the way from 10,000 to 11,000.
    assert states[1].month_return[0] == pytest.approx(11_000 / (10_000 + 1_000 / 21) - 1)
    asked = [float(weight[0, 0]) for weight in states[-1].recent]
    assert asked == pytest.approx([HOLD, HOLD, 1.0], nan_ok=True)


def test_a_step_decides_at_its_row_and_lives_through_the_next() -> None:
    market = random_market(np.random.default_rng(3), 10)
    rules = free_rules()
    state = open_accounts(1, 1, 10_000.0)
    weight = np.array([[0.7]])
    by_hand = settle(
        submit(state, weight, bar_at(market, 4), rules).state, bar_at(market, 5), rules
    )
    assert step(state, weight, market, 4, rules).state.equity == by_hand.state.equity


def test_a_packed_market_is_the_market() -> None:
    rng = np.random.default_rng(4)
    market, rules = random_market(rng, 50), free_rules(stop_loss=0.05)
    packed = PackedMarket.of(market)
    slow = quick = open_accounts(8, 1, 10_000.0)
    rows = rng.integers(0, 20, 8)
    for day in range(25):
        weight = rng.random((8, 1))
        slow = settle(
            submit(slow, weight, bar_at(market, rows + day), rules).state,
            bar_at(market, rows + day + 1),
            rules,
        ).state
        quick = settle(
            submit(quick, weight, packed.at(rows + day), rules).state,
            packed.at(rows + day + 1),
            rules,
        ).state
    assert slow.cash.tobytes() == quick.cash.tobytes()
    assert slow.shares.tobytes() == quick.shares.tobytes()
