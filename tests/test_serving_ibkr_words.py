"""What IBKR says in another order, or amid an answer, as its words may come."""

import asyncio
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_tws import Exchange, FakeTws, Once, Remote, Reply, Request, Stock, in_thread
from fake_tws import Ticket as Typed
from fault_kit import FRAME, WEIGHTS, linked, play_session, until
from ib_async import Contract, Position
from ibkr_kit import FAST, SYMBOL, Market, Trading, events, market

from core.errors import BrokerUnavailable
from serving.brokers.ibkr import Access, IbkrBroker, wire
from serving.brokers.port import Ticket

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
# Nothing heals by being asked for again, and nobody loses patience.
ALONE = replace(FAST, patience=60.0, heartbeat=600.0, look=600.0)
DEADLINE_SECONDS = 60.0  # only ever spent by a run that fails


@contextmanager
def trading_at(root: Path) -> Iterator[tuple[Market, Remote, Trading]]:
    with market(root) as found:
        assert found.remote is not None
        trading = Trading(root, found.remote.port, found.frame, pace=ALONE)
        try:
            yield found, found.remote, trading
        finally:
            trading.close()


def test_a_status_that_comes_before_the_order_is_shown_confirms_it(tmp_path: Path) -> None:
    patient = replace(ALONE, patience=2 * DEADLINE_SECONDS)
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame, pace=patient)
        found.remote.do(lambda tws: tws.faults.once(Once.UNSHOWN))
        closing = threading.Timer(DEADLINE_SECONDS, trading.broker._link.close)
        closing.start()  # where it waits for more
        try:
            trading.close_bar()
            assert closing.is_alive()
            assert len(trading.broker.open_orders()) == 1
        finally:
            closing.cancel()
            trading.close()


@contextmanager
def filling(times: int) -> Iterator[tuple[Remote, IbkrBroker]]:
    """A broker at a market that fills orders as they come, shown so many times by status alone."""
    exchange = Exchange(lambda: NOON, (Stock(1, SYMBOL),), fill_markets=True)
    exchange.prices[SYMBOL] = 100.0
    with in_thread(FakeTws(exchange)) as remote:
        broker = IbkrBroker(Access(port=remote.port, client_id=7), ALONE, lambda: NOON)
        try:
            broker.begin()
            remote.do(lambda tws: tws.faults.once(Once.UNSHOWN, times))
            yield remote, broker
        finally:
            broker.close()


def ordered(replica: int = 1) -> Ticket:
    return Ticket(
        session=1, agent="one", symbol=SYMBOL, shares=10.0, bar_time=NOON, leg="entry",
        model_version="1", kind="market", price=math.nan, replica=replica,
    )  # fmt: skip


def test_the_fee_of_a_fill_is_known_though_the_order_was_never_shown() -> None:
    with filling(2) as (_, broker):  # submitted, filled
        assert broker.place(ordered()).status == "filled"
        (execution,) = broker.executions()
        assert (execution.shares, execution.commission) == (10.0, 1.0)


def test_an_order_that_is_called_filled_is_not_taken_for_cancelled_before_its_fill_is_told() -> (
    None
):
    late = {Reply.EXECUTION, Reply.COMMISSION_REPORT, Reply.POSITION}
    with filling(0) as (remote, broker):
        remote.do(lambda tws: tws.faults.held.update(late))
        ticket = ordered()
        with pytest.raises(BrokerUnavailable, match="its fill is not told yet"):
            broker.place(ticket)
        with pytest.raises(BrokerUnavailable, match="its fill is not told yet"):
            broker.fate(ticket)
        with pytest.raises(BrokerUnavailable, match="is not sure yet"):
            broker.lost("one")
        assert "order refused" not in [kind for kind, _ in broker.news().events]
        remote.do(lambda tws: tws.release())
        assert broker.lost("one") == ""
        found = broker.fate(ticket)
        assert found is not None
        assert (found.status, found.filled) == ("filled", 10.0)


def test_a_fill_that_was_corrected_to_fewer_shares_leaves_nothing_untold() -> None:
    with filling(0) as (remote, broker):
        ticket = ordered()
        assert broker.place(ticket).status == "filled"
        (execution,) = broker.executions()
        remote.do(lambda tws: tws.correct(execution.exec_id, shares=7.0))
        assert filled(broker, ticket) == 7.0
        remote.do(lambda tws: tws.drop())  # now the completed order is called filled
        assert filled(broker, ticket) == 7.0


def filled(broker: IbkrBroker, ticket: Ticket) -> float:
    """Return what has filled of an order, once there is a link."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            report = broker.fate(ticket)
        except BrokerUnavailable:
            if time.monotonic() > deadline:
                raise
            broker.wait_for_news(0.05)
        else:
            assert report is not None
            return report.filled


def test_an_order_that_a_person_cancels_is_gone_though_it_is_shown_amid_the_look_at_it(
    tmp_path: Path,
) -> None:
    with trading_at(tmp_path) as (found, remote, trading):
        trading.close_bar()
        (order,) = found.exchange.open_orders()
        remote.do(lambda tws: tws.end_amid_answer(order.perm_id))
        until(trading, lambda: trading.broker.open_orders() == ())


def test_what_is_said_while_a_new_connection_asks_is_looked_at(tmp_path: Path) -> None:
    with trading_at(tmp_path) as (found, remote, trading):
        trading.close_bar()
        (order,) = found.exchange.open_orders()
        asked = remote.tws.count(Request.COMPLETED_ORDERS)

        def strike(tws: FakeTws) -> None:
            tws.faults.held.add(Reply.COMPLETED_ORDERS_END)
            tws.drop()

        remote.do(strike)
        remote.received(Request.COMPLETED_ORDERS, asked + 1)  # it knows the open orders
        remote.do(lambda tws: tws.cancel_by_hand(order.perm_id))
        remote.do(lambda tws: tws.release())
        until(trading, lambda: trading.broker.ready)
        until(trading, lambda: trading.broker.open_orders() == ())


def test_a_question_that_is_given_up_midway_ends_the_connection(tmp_path: Path) -> None:
    with trading_at(tmp_path) as (_, remote, trading):
        remote.do(lambda tws: tws.faults.held.add(Reply.OPEN_ORDER_END))
        with pytest.raises(BrokerUnavailable, match="no answer within"):
            trading.broker._link.call(trading.broker._asking.look, 0.2)
        remote.do(lambda tws: tws.release())  # the late answer ends no other question
        until(trading, lambda: any("no answer about orders" in one for one in events(tmp_path)))
        until(trading, lambda: trading.broker.ready)
        trading.close_bar()
        assert len(trading.broker.open_orders()) == 1


def test_a_gateway_that_loses_ibkr_again_while_it_is_asked_is_not_back(tmp_path: Path) -> None:
    with trading_at(tmp_path) as (_, remote, trading):
        asked = remote.tws.count(Request.COMPLETED_ORDERS)

        def back(tws: FakeTws) -> None:
            tws.faults.held.add(Reply.COMPLETED_ORDERS_END)
            tws.announce(1100)
            tws.announce(1102)

        remote.do(back)
        remote.received(Request.COMPLETED_ORDERS, asked + 1)
        remote.do(lambda tws: tws.announce(1100))
        remote.do(lambda tws: tws.release())
        with pytest.raises(BrokerUnavailable, match="its answers may be old"):
            trading.broker.ask()  # waits until the questions before it are answered
        trading.hear()
        assert not trading.broker.ready
        assert sum(one.startswith("link up") for one in events(tmp_path)) == 1
        remote.do(lambda tws: tws.announce(1102))
        until(trading, lambda: trading.broker.ready)


def test_an_order_on_its_way_when_ibkr_is_lost_is_not_given_up_before_ibkr_is_back(
    tmp_path: Path,
) -> None:
    with trading_at(tmp_path) as (found, remote, trading):
        kept: list[Ticket] = []

        def forward(tws: FakeTws) -> None:
            """What waited in the gateway arrives; its client hears nothing of it yet."""
            (ticket,) = kept
            tws.exchange.place(7, typed(1, ticket.order_ref, ticket.shares))

        remote.do(lambda tws: tws.faults.unanswered.add(Request.PLACE_ORDER))
        deciding = threading.Thread(target=trading.close_bar)
        deciding.start()
        remote.received(Request.PLACE_ORDER)
        remote.do(lambda tws: tws.announce(1100))
        deciding.join(DEADLINE_SECONDS)
        assert not deciding.is_alive()
        kept += trading.broker._book.tickets.values()
        remote.do(forward)
        remote.do(lambda tws: tws.announce(1102))
        until(trading, lambda: trading.broker.ready)
        (report,) = trading.broker.open_orders()
        assert report.order_ref == kept[0].order_ref
        trading.hear()
        assert [order.ticket.order_ref for order in found.exchange.orders.values()] == [
            report.order_ref
        ]
        said = events(tmp_path)
        assert not any(one.startswith("order refused") for one in said)


def typed(order_id: int, order_ref: str, shares: float) -> Typed:
    return Typed(order_id, SYMBOL, "BUY", shares, "MKT", tif="OPG", order_ref=order_ref)


def test_an_option_on_a_stock_or_its_listing_abroad_are_no_shares_of_it() -> None:
    own = Contract(secType="STK", symbol=SYMBOL, currency="USD")
    option = Contract(secType="OPT", symbol=SYMBOL, currency="USD")
    abroad = Contract(secType="STK", symbol=SYMBOL, currency="CAD")
    held = [Position("DU1", one, 7.0, 1.0) for one in (own, option, abroad)]
    held[1:] = [one._replace(position=-3.0) for one in held[1:]]
    assert wire.answer_of([], [], [], held, "DU1", []).positions == {SYMBOL: 7.0}


def test_an_order_that_is_called_filled_and_whose_fill_is_never_told_stops_the_sleeve(
    tmp_path: Path,
) -> None:
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame, pace=replace(FAST, untold=0.3))
        try:
            trading.close_bar()
            (order,) = found.exchange.open_orders()

            def fill_overnight(tws: FakeTws) -> None:
                tws.refuse_connections()
                tws.drop()
                tws.auction(SYMBOL, 100.0)
                found.at += timedelta(days=1)
                order.completed_at = found.at  # IBKR's day of orders ends later than that of fills

            found.remote.do(fill_overnight)
            found.remote.listen()
            words = "agent stopped.*calls it filled and tells no execution"
            until(trading, lambda: any(re.match(words, one) for one in events(tmp_path)))
        finally:
            trading.close()


def test_a_fee_that_comes_after_the_close_is_booked_and_told_as_no_stop(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=ALONE)
        try:
            while trading.place < len(FRAME):
                found.remote.do(lambda tws: tws.faults.held.add(Reply.COMMISSION_REPORT))
                play_session(trading, found)
                trading.close_bar()
                found.remote.do(lambda tws: tws.release())
                linked(trading)
        finally:
            trading.close()
        told = [one for one in events(tmp_path) if one.startswith(("stop:", "target:"))]
        assert told
        assert not [one for one in told if ": +0 " in one]


def test_a_question_that_the_end_of_the_link_overtakes_has_no_answer() -> None:
    link = IbkrBroker(Access(port=1), ALONE)._link
    link._loop = asyncio.new_event_loop()

    async def end_before_it_begins() -> None:
        while not (asked := asyncio.all_tasks() - {asyncio.current_task()}):
            await asyncio.sleep(0)
        for task in asked:
            assert task is not None
            task.cancel()
        await asyncio.gather(*filter(None, asked), return_exceptions=True)

    thread = threading.Thread(target=lambda: link._loop.run_until_complete(end_before_it_begins()))
    thread.start()

    async def nothing(_: object) -> None:
        """Never begun."""

    with pytest.raises(BrokerUnavailable, match="no answer"):
        link.call(nothing, DEADLINE_SECONDS)
    thread.join(DEADLINE_SECONDS)
    link._loop.close()
