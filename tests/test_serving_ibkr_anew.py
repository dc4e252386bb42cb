"""What was true of one link and is not of the next: answers, a cancel on its way, a log-in."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from fake_tws import (
    Exchange,
    FakeTws,
    Once,
    Point,
    Remote,
    Reply,
    Request,
    Stock,
    Ticket,
    in_thread,
)
from fake_tws.replies import managed_accounts
from ibkr_kit import FAST, SYMBOL, Trading, events, market

from core.errors import BrokerError, BrokerUnavailable, NotAllowed
from serving.brokers.ibkr import Access, IbkrBroker, link
from serving.brokers.ibkr.access import named
from serving.brokers.port import Report
from serving.brokers.port import Ticket as Order

SENDING = (Request.PLACE_ORDER, Request.CANCEL_ORDER)
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
# Nothing heals by being asked for again, and nobody loses patience.
ALONE = replace(FAST, patience=60.0, heartbeat=600.0, look=600.0)
DEADLINE_SECONDS = 60.0  # only ever spent by a run that fails


@contextmanager
def gateway() -> Iterator[tuple[Remote, IbkrBroker]]:
    """A gateway, and a broker that has not begun yet."""
    with in_thread(FakeTws(Exchange(lambda: NOON, (Stock(1, SYMBOL),)))) as remote:
        broker = IbkrBroker(Access(port=remote.port, client_id=7), ALONE, lambda: NOON)
        try:
            yield remote, broker
        finally:
            broker.close()


def until(broker: IbkrBroker, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        broker.wait_for_news(0.02)


def test_answers_that_ibkr_was_away_for_decide_nothing_though_it_is_back_before_the_last() -> None:
    with gateway() as (remote, broker):
        broker.begin()
        asked = remote.tws.count(Request.COMPLETED_ORDERS)
        said: list[str] = []

        def asking() -> None:
            try:
                broker.ask()
            except BrokerUnavailable as problem:
                said.append(str(problem))

        remote.do(lambda tws: tws.faults.held.add(Reply.COMPLETED_ORDERS_END))
        thread = threading.Thread(target=asking)
        thread.start()
        remote.received(Request.COMPLETED_ORDERS, asked + 1)  # open orders are answered
        remote.do(lambda tws: tws.announce(1100))
        until(broker, lambda: broker._link.cut_off)
        remote.do(lambda tws: tws.announce(1102))
        until(broker, lambda: not broker._link.cut_off)
        remote.do(lambda tws: tws.release())
        thread.join(DEADLINE_SECONDS)
        assert said == ["the gateway has lost IBKR; its answers may be old"]
        until(broker, lambda: broker.ready)
        broker.ask()


def test_an_order_left_over_is_cancelled_though_the_link_broke_before_the_cancel_arrived() -> None:
    with gateway() as (remote, broker):
        ref = "ratchet-1-one-20260227T210000-entry-1"
        order = Ticket(1, SYMBOL, "BUY", 50.0, "LMT", limit_price=1.0, tif="GTC", order_ref=ref)
        remote.do(lambda tws: tws.exchange.place(7, order))
        (left,) = remote.tws.exchange.open_orders()
        broker.abandon({str(left.perm_id): ref})
        remote.do(lambda tws: tws.faults.drop_at(Point.CANCEL_ARRIVED))
        broker.begin()
        told: list[str] = []

        def gone() -> bool:
            told.extend(kind for kind, _ in broker.news().events)
            return broker.ready and not remote.do(lambda tws: tws.exchange.open_orders())

        until(broker, gone)
        assert told.count("order left over") == 1


def test_a_contract_that_ibkr_does_not_tell_for_the_moment_is_asked_for_again(
    tmp_path: Path,
) -> None:
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame, pace=ALONE)
        try:
            found.remote.do(lambda tws: tws.faults.once(Once.BUSY))
            trading.close_bar()
            trading.hear()
            assert len(trading.broker.open_orders()) == 1
        finally:
            trading.close()
        said = events(tmp_path)
    assert any(one.startswith("order waits") and "322: Error processing" in one for one in said)


def test_another_account_that_is_logged_in_under_a_live_link_is_not_traded() -> None:
    with gateway() as (remote, broker):
        broker.begin(account=named("DU1234567"))

        def log_in(tws: FakeTws) -> None:
            (connection,) = tws.connections
            connection.send(managed_accounts(("DU7654321",)))
            tws.announce(1102)

        remote.do(log_in)
        with pytest.raises(NotAllowed, match="the session trades DU"):
            until(broker, lambda: bool(broker.news()) and False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", ["taken up", "looked at"])
def test_an_error_nobody_foresaw_ends_the_worker_and_leaves_no_dumb_link(place: str) -> None:
    with gateway() as (_, broker):

        async def ask(*_: object, **__: object) -> None:
            raise LookupError("of our own making")

        if place == "looked at":
            broker.begin()
        broker._asking.ask = ask  # type: ignore[method-assign]
        if place == "looked at":
            broker._link._loop.call_soon_threadsafe(broker.look, None)
        else:
            broker._link.start()
        with pytest.raises(BrokerError, match="ended by an error of its own"):
            until(broker, lambda: bool(broker.news()) and False)
        with pytest.raises(BrokerUnavailable, match="no link"):
            broker.ask()


def test_what_another_thread_schedules_is_done_in_the_links() -> None:
    with gateway() as (_, broker):
        broker.begin()
        done: Queue[str] = Queue()

        async def work() -> None:
            done.put(threading.current_thread().name)

        broker._link.schedule(work)
        assert done.get(timeout=DEADLINE_SECONDS) == "ibkr"


def test_an_order_that_waits_for_its_turn_past_the_cut_off_is_not_sent() -> None:
    late = threading.Event()

    def too_late(ticket: object, now: datetime) -> str:
        return "it is too late" if late.is_set() else ""

    with in_thread(FakeTws(Exchange(lambda: NOON, (Stock(1, SYMBOL),)))) as remote:
        broker = IbkrBroker(Access(port=remote.port, client_id=7), ALONE, lambda: NOON, too_late)
        try:
            broker.begin()
            until(broker, lambda: "link up" in [kind for kind, _ in broker.news().events])
            remote.do(lambda tws: tws.faults.held.add(Reply.CONTRACT_DETAILS_END))
            reports: list[Report] = []
            thread = threading.Thread(target=lambda: reports.append(broker.place(ordered())))
            thread.start()
            remote.received(Request.CONTRACT_DETAILS)
            late.set()
            remote.do(lambda tws: tws.release())
            thread.join(DEADLINE_SECONDS)
            (report,) = reports
            assert (report.status, report.filled) == ("cancelled", 0.0)
            assert [kind for kind, _ in broker.news().events] == ["order too late"]
            assert remote.tws.count(Request.PLACE_ORDER) == 0
        finally:
            broker.close()


def test_an_order_that_may_have_filled_unseen_is_not_called_cancelled() -> None:
    """It fills on a day that is told no more: two answers decide, and until then nobody knows."""
    with gateway() as (remote, broker):
        broker.begin()
        ticket = ordered()
        assert broker.place(ticket).status == "submitted"

        def fill_unseen(tws: FakeTws) -> None:
            (order,) = tws.exchange.open_orders()
            tws.exchange.cancel_perm_id(order.perm_id)
            tws.exchange.orders.clear()
            tws.exchange.give(SYMBOL, ticket.shares, 100.0)

        remote.do(fill_unseen)
        with pytest.raises(BrokerError):  # not sure yet, unless it was looked at meanwhile
            broker.fate(ticket)
        with pytest.raises(BrokerError):
            broker.cancel(ticket.order_ref)
        with pytest.raises(BrokerError, match="now IBKR has no word of it"):
            broker.fate(ticket)


def test_a_symbol_that_ibkr_does_not_know_is_an_error_and_none_while_ibkr_is_away() -> None:
    unknown = replace(ordered(), symbol="ZZZZ")
    with gateway() as (remote, broker):
        broker.begin()
        with pytest.raises(BrokerError, match="ZZZZ: IBKR knows no US stock") as found:
            broker.place(unknown)
        assert found.type is BrokerError  # stops the sleeve
        asked = remote.tws.count(Request.CONTRACT_DETAILS)
        said: list[type[BaseException]] = []

        def placing() -> None:
            try:
                broker.place(unknown)
            except BrokerError as problem:
                said.append(type(problem))

        remote.do(lambda tws: tws.faults.held.add(Reply.ERROR))
        thread = threading.Thread(target=placing)
        thread.start()
        remote.received(Request.CONTRACT_DETAILS, asked + 1)
        remote.do(lambda tws: tws.announce(1100))
        remote.do(lambda tws: tws.release(newest_first=True))
        thread.join(DEADLINE_SECONDS)
        assert said == [BrokerUnavailable]


def test_an_order_that_ibkrs_absence_overtook_is_taken_back_before_it_is_sent_again() -> None:
    """The gateway may have kept it, and send it on later."""
    with gateway() as (remote, broker):
        broker.begin()
        ticket = ordered()
        remote.do(lambda tws: tws.faults.unanswered.add(Request.PLACE_ORDER))
        said: list[str] = []

        def placing() -> None:
            try:
                broker.place(ticket)
            except BrokerUnavailable as problem:
                said.append(str(problem))

        thread = threading.Thread(target=placing)
        thread.start()
        remote.received(Request.PLACE_ORDER)
        remote.do(lambda tws: tws.announce(1100))
        thread.join(DEADLINE_SECONDS)
        assert said == ["the gateway has lost IBKR; its answers may be old"]
        remote.do(lambda tws: tws.announce(1102))
        until(broker, lambda: broker.ready)
        remote.do(lambda tws: tws.faults.unanswered.clear())
        assert broker.fate(ticket) is None
        assert broker.fate(ticket) is None  # it is taken back once
        assert broker.place(ticket).status == "submitted"
        orders = [kind for _, kind in remote.tws.seen if kind in SENDING]
        assert orders == [Request.PLACE_ORDER, Request.CANCEL_ORDER, Request.PLACE_ORDER]


def ordered() -> Order:
    return Order(
        session=1, agent="one", symbol=SYMBOL, shares=10.0, bar_time=NOON, leg="entry",
        model_version="1", kind="market",
    )  # fmt: skip


def test_a_question_that_comes_as_the_link_ends_is_refused_and_never_left_lying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its thread lives for a moment after the last connection, and runs nothing more."""
    said: list[str] = []
    ended = link._ended

    def ending(tasks: Iterable[asyncio.Task[Any]]) -> Coroutine[Any, Any, None]:
        if tasks is not broker._link._tasks:  # the thread's end, not a connection's
            asking = threading.Thread(target=ask)
            asking.start()
            asking.join(DEADLINE_SECONDS)
        return ended(tasks)

    def ask() -> None:
        try:
            broker.ask()
        except NotAllowed as error:
            said.append(str(error))

    monkeypatch.setattr(link, "_ended", ending)
    with gateway() as (_, broker):
        with pytest.raises(NotAllowed, match="the session trades another"):
            broker.begin("another")
        broker._link._thread.join(DEADLINE_SECONDS)
    (words,) = said
    assert words.startswith("the session trades another")
