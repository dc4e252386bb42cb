"""Booking: what executions of a real broker make of the books, worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from core import settings
from core.accounts import UNKNOWN_ATR, State, open_accounts
from core.bars import BAR_COLUMNS, RISK_COLUMNS, Bar
from core.rules import Rules
from serving.booking import book, settle
from serving.books import bar_of
from serving.brokers.port import Execution, Leg

CASH = 10_000.0
ATR = 2.0  # dollars


def rules(**risk: float | None) -> Rules:
    limits = {"reduce_drawdown": None, "halt_drawdown": None, "cooldown_bars": 5} | risk
    return Rules.of(
        settings.Account(cash=CASH), settings.Costs(), settings.RiskLimits(**limits)  # type: ignore[arg-type]
    )  # fmt: skip


BOTH = rules(stop_loss=0.1, stop_loss_atr=3.0, take_profit=0.05, take_profit_atr=4.0)


def fill(shares: float, price: float, fee: float = 0.0, leg: Leg = "entry") -> Execution:
    return Execution("1.01", "ref", "a", "X", leg, shares, price, fee, 0.0, datetime.now(UTC))


def opened(atr: float = ATR) -> State:
    return open_accounts(1, 1, CASH).but(atr=atr)


def bar(close: float, split: float = 1.0) -> Bar:
    numbers = [close, close, close, close, 1e6, 0.0, split, ATR, 0.2]
    return bar_of(dict(zip(BAR_COLUMNS + RISK_COLUMNS, numbers, strict=True)))


def position(state: State) -> tuple[float, float, float, float]:
    """Return shares, average price, gap of the stop, gap of the target."""
    found = (state.shares, state.average_price, state.stop_gap, state.target_gap)
    return tuple(float(one[0, 0]) for one in found)  # type: ignore[return-value]


def test_stop_and_target_are_the_nearer_of_a_fraction_and_a_multiple_of_atr() -> None:
    after = book(opened(), [fill(50.0, 100.0, fee=1.0)], BOTH)
    assert float(after.cash[0]) == CASH - 5_000.0 - 1.0
    assert position(after) == (50.0, 100.0, 6.0, 5.0)  # 3 ATR before 10 %, 5 % before 4 ATR


@pytest.mark.parametrize(
    ("atr", "limits", "levels"),
    [
        (ATR, {"stop_loss_atr": 3.0, "take_profit_atr": 4.0}, (94.0, 108.0)),
        (ATR, {"take_profit": 0.05}, (np.nan, 105.0)),
        (UNKNOWN_ATR, {"stop_loss_atr": 3.0, "take_profit": 0.05}, (np.nan, 105.0)),
        (UNKNOWN_ATR, {"stop_loss_atr": 3.0, "stop_loss": 0.1}, (90.0, np.nan)),
    ],
    ids=["multiples alone", "no stop", "an unknown ATR stops nothing", "the fraction without ATR"],
)
def test_a_rule_that_is_off_or_unknown_gives_no_level(
    atr: float, limits: dict[str, float], levels: tuple[float, float]
) -> None:
    after = book(opened(atr), [fill(50.0, 100.0)], rules(**limits))
    found = float(after.stop[0, 0]), float(after.target[0, 0])
    assert np.array_equal(found, levels, equal_nan=True)


def test_average_and_gaps_move_by_the_part_that_a_fill_brings() -> None:
    held = book(opened(), [fill(10.0, 100.0)], BOTH)
    grown = book(held.but(atr=1.0), [fill(30.0, 104.0)], BOTH)  # three quarters are new
    assert position(grown) == (40.0, 103.0, 0.25 * 6.0 + 0.75 * 3.0, 0.25 * 5.0 + 0.75 * 4.0)
    shrunk = book(grown, [fill(-25.0, 90.0, leg="target")], BOTH)
    assert position(shrunk) == (15.0, *position(grown)[1:])
    assert float(shrunk.cash[0]) == CASH - 1_000.0 - 3_120.0 + 2_250.0


def test_a_fill_that_turns_the_position_around_begins_a_new_one() -> None:
    held = book(opened(), [fill(10.0, 100.0)], BOTH)
    short = book(held, [fill(-15.0, 80.0)], BOTH)
    assert position(short) == (-5.0, 80.0, 6.0, 4.0)
    more = book(short, [fill(-5.0, 60.0)], BOTH)
    assert position(more) == (-10.0, 70.0, 6.0, 3.5)


def test_an_entry_waits_after_a_stop_and_after_nothing_else() -> None:
    held = book(opened(), [fill(50.0, 100.0)], BOTH)
    legs: tuple[Leg, ...] = ("stop", "target", "entry")
    after = [book(held, [fill(-50.0, 94.0, leg=leg)], BOTH) for leg in legs]
    assert [float(one.shares[0, 0]) for one in after] == [0.0, 0.0, 0.0]
    before = float(held.entry_from[0, 0])
    waits = [float(one.entry_from[0, 0]) for one in after]
    assert waits == [held.clock + 1 + 5, before, before]


def test_a_correction_takes_the_fill_back_and_leaves_what_the_right_one_makes() -> None:
    wrong = fill(50.0, 100.0, fee=1.0)
    back = replace(wrong, shares=-50.0, commission=-1.0)
    right = replace(wrong, shares=40.0, price=101.0, commission=0.5)
    corrected = book(opened(), [wrong, back, right], BOTH)
    assert position(corrected) == position(book(opened(), [right], BOTH))
    assert float(corrected.cash[0]) == CASH - 4_040.0 - 0.5


def test_a_fee_that_comes_after_its_fill_is_paid_and_is_no_trade() -> None:
    held = settle(opened(), bar(100.0), [fill(50.0, 100.0)], BOTH)
    later = settle(held, bar(100.0), [fill(0.0, 100.0, fee=1.0)], BOTH)
    assert position(later) == position(held)
    assert float(later.cash[0]) == float(held.cash[0]) - 1.0
    traded = [float(one.last_trade[0, 0]) for one in (held, later)]
    assert traded == [float(held.clock)] * 2
    assert float(settle(held, bar(100.0), [fill(1.0, 100.0)], BOTH).last_trade[0, 0]) == later.clock


def test_what_was_executed_after_a_split_is_booked_onto_the_split_position() -> None:
    held = settle(opened(), bar(100.0), [fill(50.0, 100.0)], BOTH)
    after = settle(held, bar(50.0, split=2.0), [fill(-20.0, 50.0)], BOTH)
    assert position(after) == (80.0, 50.0, 3.0, 2.5)
    assert float(after.equity[0]) == CASH
    assert np.isclose(float(after.stop[0, 0]), 47.0)
    assert np.isclose(float(after.target[0, 0]), 52.5)
