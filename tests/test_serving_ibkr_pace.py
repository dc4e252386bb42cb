"""What is asked of IBKR, how fast, and in which order."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tws import Request
from ib_async import IB, Client
from ibkr_kit import FAST, SYMBOL, Trading, audit, market
from test_serving_ibkr_actions import WEIGHTS, frame

from core.errors import BrokerUnavailable
from serving.brokers.ibkr import Pace
from serving.ledger import LedgerReader, rows


def test_no_order_ever_queues_in_the_client(tmp_path: Path) -> None:
    """ib_async holds back what goes past 45 messages a second; a broken link loses what it held.

    So every message waits for room before it is given to the client, and room is for fewer.
    """
    most = Pace().messages_per_second
    pace = replace(FAST, patience=10.0, heartbeat=60.0, messages_per_second=most)
    assert most < Client.MaxRequests == 45
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame, pace=pace)
        link = trading.broker._link
        rooms: list[float] = []
        waiting = link.paced

        async def counted() -> None:
            await waiting()
            rooms.append(link._sent[-1])

        async def sent(ib: IB) -> int:
            return int(ib.client.conn.numMsgSent)

        async def many(ib: IB) -> None:
            await asyncio.gather(*(link.paced() for _ in range(3 * most)))

        link.paced = counted  # type: ignore[method-assign]
        try:
            before = link.call(sent, 5.0)
            trading.broker.ask()
            trading.close_bar()
            trading.broker.ask()
            messages = link.call(sent, 5.0) - before
            assert found.remote.tws.count(Request.PLACE_ORDER) == 1
            assert 8 <= messages <= len(rooms)
            link.call(many, 60.0)
        finally:
            trading.close()
        times = sorted(rooms)
        assert len(times) > 3 * most
        assert all(b - a >= 1.0 for a, b in zip(times, times[most:], strict=False))


def test_an_order_in_doubt_is_looked_for_before_all_completed_orders_are_asked_for(
    tmp_path: Path,
) -> None:
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)
        tws, broker = found.remote.tws, trading.broker
        try:
            trading.close_bar()
            (ref,) = broker._book.tickets
            completed = tws.count(Request.COMPLETED_ORDERS)
            # A fill lay between two answers: the next one clears it up, and no more is asked.
            broker._book.lost[ref] = ""
            assert broker.lost("scripted") == ""
            assert tws.count(Request.COMPLETED_ORDERS) == completed
            # Shares nobody bought, and an order without a word: only a whole answer decides.
            ticket = broker._book.tickets[ref]
            order = next(iter(found.exchange.orders.values()))
            found.remote.do(lambda tws: tws.cancel_by_hand(order.perm_id))
            found.exchange.orders.clear()
            found.remote.do(lambda tws: tws.give(SYMBOL, ticket.shares, 100.0))
            broker._book.lost[ref], broker._book.doubted[ref] = "", 0.0
            try:
                why = broker.lost("scripted")
            except BrokerUnavailable:
                why = broker.lost("scripted")
            assert "now IBKR has no word of it" in why
            assert tws.count(Request.COMPLETED_ORDERS) > completed
        finally:
            trading.close()


@pytest.mark.parametrize("told", [True, False], ids=["told with the bar", "not told"])
def test_a_cash_dividend_on_the_account_is_no_fill_and_no_gain_of_a_trade(
    tmp_path: Path, told: bool
) -> None:
    quiet = frame(1.0)
    ex_place = len(quiet) - 3
    quiet.iloc[ex_place:, :4] -= 0.5
    quiet.iloc[ex_place, quiet.columns.get_loc("dividend")] = 0.5 if told else 0.0
    with market(tmp_path, quiet) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, quiet, WEIGHTS)
        try:
            while trading.place < len(quiet):
                if trading.place == ex_place:
                    paid = 0.5 * sum(one.shares for one in found.exchange.positions.values())
                    assert paid > 0.0
                    found.exchange.cash += paid
                for phase in (0, 1):
                    found.play(trading.place, phase)
                    trading.caught_up()
                trading.close_bar()
                trading.caught_up()
        finally:
            trading.close()
        wrong = audit(tmp_path, found.exchange)
    with LedgerReader(tmp_path / "ledger.db") as ledger:
        fills, books = ledger.rows(rows.Fill), ledger.rows(rows.Equity)
        kinds = {one.kind for one in ledger.rows(rows.RiskEvent)}
    assert len(fills) == 1  # the purchase, long before
    before, after = books[ex_place - len(quiet) - 1], books[-1]
    assert (before.shares, after.shares) == (fills[0].shares, fills[0].shares)
    assert "foreign position" not in kinds
    if told:  # what the price gave up was paid
        assert after.equity == pytest.approx(before.equity, abs=1e-6)
        assert wrong == []
    else:  # IBKR's bars tell none: the books leave it out, and nothing else differs
        assert after.cash == before.cash
        assert after.equity == pytest.approx(before.equity - paid, abs=1e-6)
        assert [one.partition(":")[0] for one in wrong] == ["cash"]
