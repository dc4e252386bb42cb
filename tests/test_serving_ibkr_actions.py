"""Corporate actions at IBKR: shares and stops change, the value does not, and no stop misfires.

IBKR cancels good-till-cancelled orders of a stock that splits; the fake is made to do so.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from fake_tws import FakeTws, Ticket
from ibkr_kit import (
    FAST,
    HISTORY_BARS,
    RULES,
    SYMBOL,
    Trading,
    WatchedExchange,
    audit,
    bars,
    events,
    market,
)

from core.accounts import open_accounts
from core.bars import BAR_COLUMNS, RISK_COLUMNS
from serving import booking
from serving.books import bar_of
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.port import Execution
from serving.ledger import LedgerReader, rows
from serving.session import left_over

WEIGHTS = (0.9, float("nan"), float("nan"), float("nan"), float("nan"), float("nan"))
SPLIT_PLACE = HISTORY_BARS + 2


def frame(ratio: float) -> pd.DataFrame:
    """A quiet market around 100 that splits; nothing reaches a stop or a target."""
    found = bars(HISTORY_BARS + len(WEIGHTS))
    prices = ["open", "high", "low", "close"]
    found[prices] = [100.0, 100.5, 99.5, 100.0]
    found.iloc[SPLIT_PLACE:, :4] /= ratio
    found.iloc[SPLIT_PLACE, found.columns.get_loc("split_ratio")] = ratio
    return found


def splits(tws: FakeTws, ratio: float) -> None:
    tws.split(SYMBOL, ratio)
    for order in tws.exchange.open_orders():
        if order.ticket.tif == "GTC":
            tws.cancel_by_hand(order.perm_id)


def exits(exchange: WatchedExchange) -> list[tuple[str, float, float | None, float | None]]:
    return sorted(
        (o.ticket.order_type, o.ticket.quantity, o.ticket.stop_price, o.ticket.limit_price)
        for o in exchange.open_orders()
    )


@pytest.mark.parametrize(
    ("ratio", "again"), [(2.0, False), (0.5, True)], ids=["2:1, running", "1:2, restarted"]
)
def test_a_split_keeps_the_value_and_moves_the_stops(
    ratio: float, again: bool, tmp_path: Path
) -> None:
    bars_of = frame(ratio)
    pace = replace(FAST, patience=2.0)
    with market(tmp_path, bars_of) as found:
        assert found.remote is not None
        port = found.remote.port
        trading = Trading(tmp_path, port, bars_of, WEIGHTS, pace=pace)
        try:
            while trading.place < len(bars_of):
                if trading.place == SPLIT_PLACE:
                    before = exits(found.exchange)
                    found.remote.do(lambda tws: splits(tws, ratio))
                    if again:
                        trading.close()
                        trading = Trading(tmp_path, port, bars_of, WEIGHTS, pace=pace)
                for phase in (0, 1):
                    trading.caught_up()
                    found.play(trading.place, phase)
                    trading.caught_up()
                    if trading.place == SPLIT_PLACE:
                        assert exits(found.exchange) == []  # the old prices are wrong by now
                trading.close_bar()
                trading.caught_up()
                trading.hear()
        finally:
            trading.close()
        assert [fill.order.ticket.order_type for fill in found.exchange.executions.values()] == [
            "MKT"
        ]
        after = exits(found.exchange)
        assert audit(tmp_path, found.exchange) == []
    shares = before[0][1]
    assert [(kind, n) for kind, n, _, _ in before] == [("LMT", shares), ("STP", shares)]
    assert after == [
        ("LMT", shares * ratio, None, round((before[0][3] or 0.0) / ratio, 2)),
        ("STP", shares * ratio, round((before[1][2] or 0.0) / ratio, 2), None),
    ]
    with LedgerReader(tmp_path / "ledger.db") as ledger:
        equity = [book.equity for book in ledger.rows(rows.Equity)]
    assert equity[-4:] == pytest.approx([equity[1]] * 4, abs=1e-6)
    assert sum("exit gone" in text for text in events(tmp_path)) == 1


def test_the_orders_of_a_session_that_is_over_are_cancelled_and_named(tmp_path: Path) -> None:
    bars_of = frame(1.0)
    with market(tmp_path, bars_of) as found:
        assert found.remote is not None
        port = found.remote.port
        trading = Trading(tmp_path, port, bars_of, WEIGHTS, pace=replace(FAST, patience=2.0))
        try:
            for _ in range(2):
                for phase in (0, 1):
                    found.play(trading.place, phase)
                    trading.caught_up()
                trading.close_bar()
            over = left_over(trading.ledger, 2)
            assert left_over(trading.ledger, 1) == {}  # a session's own go on
        finally:
            trading.close()
        typed = Ticket(0, SYMBOL, "BUY", 50, "LMT", limit_price=1.0, tif="GTC")
        found.remote.do(lambda tws: tws.type_order(typed) and None)
        assert len(found.exchange.open_orders()) == 3
        told: list[tuple[str, str]] = []
        for client in (8, 7):  # a stranger, and the client that placed them
            broker = IbkrBroker(Access(port=port, client_id=client), replace(FAST, patience=2.0))
            broker.abandon(over)
            broker.begin()
            told += broker.news().events
            broker.ask()  # behind the cancels on the same line
            broker.close()
        assert [order.ticket.order_id for order in found.exchange.open_orders()] == [0]
    left = [detail.partition(": ") for kind, detail in told if kind == "order left over"]
    assert sorted(ref for ref, _, _ in left) == sorted([*over.values()] * 2)
    assert sum("only client 7 may cancel it" in text for _, _, text in left) == 2
    assert sum("cancelled: its session is over" in text for _, _, text in left) == 2


def test_a_dividend_is_paid_and_the_value_stays() -> None:
    bought = booking.book(
        open_accounts(1, 1, 10_000.0),
        [Execution("1.01", "ref", "one", SYMBOL, "entry", 80.0, 100.0, 1.0, 0.0, datetime.min)],
        RULES,
    )
    numbers = [100.0, 100.5, 99.0, 99.5, 1e6, 0.5, 1.0, 1.0, 0.2]  # the close gave the dividend up
    bar = bar_of(dict(zip(BAR_COLUMNS + RISK_COLUMNS, numbers, strict=True)))
    paid = booking.settle(bought, bar, [], RULES)
    assert float(paid.cash[0]) == 10_000.0 - 80.0 * 100.0 - 1.0 + 80.0 * 0.5
    assert float(paid.equity[0]) == 10_000.0 - 1.0
