"""The paper broker: the engine's fills told in orders, worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from core import settings
from core.accounts import State, open_accounts
from core.bars import Bar
from core.engine import submit
from core.errors import BrokerError
from core.risk import Rules
from serving.books import bar_of
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Settled, Ticket

MONDAY = datetime(2020, 1, 6, tzinfo=UTC)
RULES = Rules.of(
    settings.Account(cash=10_000.0, no_trade_band=0.0),
    settings.Costs(slippage_bps=0.0, volume_participation=0.1),
    settings.RiskLimits(reduce_drawdown=None, halt_drawdown=0.5, stop_loss=0.1),
)


def bar(open_: float, low: float, close: float, volume: float = 1e6, split: float = 1.0) -> Bar:
    prices = {"open": open_, "high": max(open_, close), "low": low, "close": close}
    actions = {"dividend": 0.0, "split_ratio": split, "atr": np.nan, "volatility": 0.2}
    return bar_of(prices | {"volume": volume} | actions)


class Trading:
    """A sleeve that has decided on Monday and is now lived through day by day."""

    def __init__(self, weight: float, rules: Rules = RULES, close: float = 10.0) -> None:
        self.rules = rules
        self.broker = PaperBroker()
        self.state: State = open_accounts(1, 1, 10_000.0)
        self.day = MONDAY
        self.target(weight, bar(close, close, close))

    def target(self, weight: float, at: Bar) -> Ticket:
        self.state = submit(self.state, np.array([[weight]]), at, self.rules).state
        shares = float(self.state.pending_shares[0, 0])
        ticket = Ticket(1, "a", "X", shares, self.day, "entry", "7", "market_on_open")
        self.broker.place(ticket)
        return ticket

    def next(self, at: Bar) -> Settled:
        self.day += timedelta(days=1)
        settled = self.broker.settle("a", self.state, at, self.rules, self.day)
        self.state = settled.state
        return settled


def told(settled: Settled) -> list[tuple[str, float, float]]:
    return [(report.status, report.filled, report.remaining) for report in settled.reports]


def test_volume_limits_fill_an_order_in_parts() -> None:
    trading = Trading(0.9)  # 900 shares at 10
    assert told(trading.next(bar(10.0, 10.0, 10.0, volume=5_000))) == [("partial", 500, 400)]
    assert trading.next(bar(10.0, 10.0, 10.0, volume=0.0)).reports == ()
    assert trading.broker.open_orders()[0].remaining == 400
    last = trading.next(bar(10.0, 10.0, 10.0, volume=5_000))
    assert told(last) == [("filled", 900, 0)]
    (execution,) = last.executions
    assert (execution.shares, execution.price, execution.commission) == (400, 10.0, 2.0)
    assert execution.exec_id == "ratchet-1-a-20200106T000000-entry-7@20200109T000000"
    assert trading.broker.open_orders() == ()
    assert trading.broker.positions()[0].shares == 900


def test_what_buying_power_refuses_is_cancelled() -> None:
    trading = Trading(1.0)  # 1000 shares at 10; the open is 20
    assert told(trading.next(bar(20.0, 20.0, 20.0))) == [("cancelled", 499, 0)]  # 9980 + 2.50


def test_a_split_changes_what_is_still_working() -> None:
    trading = Trading(0.9)
    assert told(trading.next(bar(5.0, 5.0, 5.0, volume=0.0, split=2.0))) == [("submitted", 0, 1800)]


def test_a_stop_is_an_order_of_its_own_named_after_its_entry() -> None:
    trading = Trading(0.9)
    trading.next(bar(10.0, 10.0, 10.0))
    settled = trading.next(bar(9.5, 8.0, 8.5))  # the stop lies at 9
    (ticket,), (execution,) = settled.triggered, settled.executions
    assert ticket.order_ref == "ratchet-1-a-20200106T000000-stop-7"
    assert (execution.leg, execution.shares, execution.price) == ("stop", -900, 9.0)
    assert told(settled) == [("filled", -900, 0)]


def test_a_stop_the_volume_cap_cuts_goes_on_at_the_next_open() -> None:
    trading = Trading(0.9)
    trading.next(bar(10.0, 10.0, 10.0))
    first = trading.next(bar(9.5, 8.0, 8.5, volume=3_000))
    assert told(first) == [("partial", -300, -600)]
    second = trading.next(bar(8.5, 8.5, 8.5))
    assert told(second) == [("filled", -900, 0)]
    assert second.executions[0].leg == "stop"
    assert second.executions[0].order_ref == first.executions[0].order_ref


def test_an_order_still_entering_is_cancelled_by_its_stop() -> None:
    trading = Trading(0.9)
    trading.next(bar(10.0, 10.0, 10.0, volume=5_000))
    settled = trading.next(bar(10.0, 8.5, 8.6, volume=5_000))  # buys the other 400, stop at 9
    assert told(settled) == [("filled", 900, 0), ("partial", -100, -800)]
    assert [e.leg for e in settled.executions] == ["entry", "stop"]


def test_a_sleeve_that_halts_drops_its_order() -> None:
    trading = Trading(0.9, RULES.but(stop_loss=None, halt_drawdown=0.1))
    trading.next(bar(10.0, 10.0, 10.0, volume=5_000))
    settled = trading.next(bar(7.0, 7.0, 7.0, volume=1_000))
    assert told(settled) == [("cancelled", 600, 0)]
    assert settled.state.pending_shares[0, 0] == -600  # the liquidation, to be placed at the close


def test_placing_again_is_harmless_and_two_orders_at_once_are_refused() -> None:
    trading = Trading(0.9)
    ticket = Ticket(1, "a", "X", 900, MONDAY, "entry", "7", "market_on_open")
    assert trading.broker.place(ticket).status == "submitted"
    other = replace(ticket, model_version="8")
    with pytest.raises(BrokerError, match="entry-7 is still working for a"):
        trading.broker.place(other)
    assert trading.broker.cancel(ticket.order_ref).status == "cancelled"
    assert trading.broker.cancel(ticket.order_ref).status == "cancelled"
    assert trading.broker.place(other).status == "submitted"
    with pytest.raises(BrokerError, match="no such order"):
        trading.broker.cancel("nonsense")


def test_working_orders_survive_a_restart() -> None:
    trading = Trading(0.9)
    first = trading.next(bar(10.0, 10.0, 10.0, volume=5_000))
    ticket = Ticket(1, "a", "X", 900, MONDAY, "entry", "7", "market_on_open")
    again = PaperBroker()
    again.restore([(ticket, first.reports[0])], [ticket])
    trading.broker = again
    assert again.place(ticket).status == "partial"
    assert told(trading.next(bar(10.0, 8.5, 9.5, volume=5_000))) == [
        ("filled", 900, 0), ("partial", -100, -800),
    ]  # fmt: skip
    assert len(again.executions(since=MONDAY)) == 2
