"""What a worker holds after months: counted, not weighed; the ledger remembers the rest."""

import math
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ibkr_kit import HISTORY_BARS, Trading, audit, bars, market

from serving.brokers.ibkr import Access, IbkrBroker, Pace
from serving.brokers.ibkr.aging import KEPT_DAYS
from serving.brokers.ibkr.book import Answer, OrderBook, Seen, Told
from serving.brokers.paper import KEPT, PaperBroker
from serving.brokers.port import Leg, Ticket
from serving.results import DURATIONS_KEPT, Durations

MONDAY = datetime(2026, 1, 5, 15, tzinfo=UTC)
ORDERS = 8  # a day


def ticket(day: int, number: int, leg: Leg = "entry") -> Ticket:
    moment = MONDAY + timedelta(days=day, minutes=number)
    return Ticket(1, "a", "X", 10.0, moment, leg, "7", "market")


def seen(one: Ticket) -> Seen:
    return Seen(one.order_ref, hash(one.order_ref), 1, 7, "X", "BUY")


def told(one: Ticket, number: str = "01", price: float = 9.0, fee: float = 1.0) -> Told:
    return Told(f"{one.order_ref}.{number}", one.order_ref, "X", 10.0, price, fee, one.bar_time)


def iso(day: int) -> str:
    return f"{MONDAY + timedelta(days=day):%Y-%m-%d}"


class Days:
    """A book that lives through days of trading; ``shares`` are those of the account."""

    def __init__(self) -> None:
        self.book = OrderBook()
        self.shares = 0.0

    def hear(self, day: int, *executions: Told, open_orders: tuple[Ticket, ...] = ()) -> None:
        at_work = tuple(seen(one) for one in open_orders)
        self.book.hear(Answer(at_work, (), executions, {"X": self.shares}))
        self.book.forget(iso(day))

    def settle(self) -> list[str]:
        """Book what is due, as a close does; return its execIds."""
        booked = self.book.unbooked("a")
        self.book.changed("a")
        for execution in booked:
            self.book.mark_booked(execution)
            held = self.book.held.get(("a", "X"), 0.0)
            self.book.held["a", "X"] = held + execution.shares
        self.book.unbooked("a")
        self.book.take_news()
        return [execution.exec_id for execution in booked]

    def live(self, day: int) -> list[Ticket]:
        """Orders that fill, orders that are cancelled, and one that IBKR never heard of."""
        tickets = [ticket(day, number) for number in range(ORDERS)]
        for one in tickets:
            self.book.add(one)
        self.hear(day, open_orders=tuple(tickets[:-1]))
        self.settle()
        filled = tickets[: ORDERS // 2]
        self.shares += 10.0 * len(filled)
        self.hear(day, *(told(one) for one in filled))
        self.settle()
        return tickets


def held(book: OrderBook) -> dict[str, int]:
    """Return how many things lie in each of the book's collections, nested ones counted."""
    values = {one.name: getattr(book, one.name) for one in fields(book)}
    values |= {f"ages.{one.name}": getattr(book._ages, one.name) for one in fields(book._ages)}
    return {name: _count(value) for name, value in values.items() if hasattr(value, "__len__")}


def _count(value: object) -> int:
    inside: Iterator[object] = iter(value.values() if isinstance(value, dict) else ())
    nested = [one for one in inside if isinstance(one, set | dict)]
    return sum(map(len, nested)) if nested else len(value)  # type: ignore[arg-type]


def test_after_sixty_days_the_book_holds_what_it_held_after_six():
    days, early = Days(), {}
    for day in range(60):
        days.live(day)
        if day == 6:
            early = held(days.book)
    assert held(days.book) == early
    # The one IBKR never heard of is from before the first look at its day, and goes with it.
    assert early["tickets"] == KEPT_DAYS * ORDERS - 1
    assert early["told"] == early["_booked"] == KEPT_DAYS * ORDERS // 2
    assert days.book.held["a", "X"] == days.shares == 60 * 10.0 * ORDERS // 2


def test_a_correction_of_yesterdays_fill_is_booked_and_one_of_last_weeks_is_not_ours():
    days = Days()
    first = days.live(0)[0]
    days.live(1)
    days.hear(1, told(first, "02", price=9.5))
    assert days.settle() == [f"{first.order_ref}.01/back", f"{first.order_ref}.02"]
    for day in range(2, 2 + KEPT_DAYS):
        days.live(day)
    days.hear(1 + KEPT_DAYS, told(first, "03", price=9.6))
    assert days.settle() == []


def test_an_order_that_works_for_a_month_is_remembered_until_it_fills():
    days, stop = Days(), ticket(0, 0, "stop")
    days.book.add(stop)
    for day in range(30):
        days.hear(day, open_orders=(stop,))
        days.settle()
    days.shares = 10.0
    days.hear(30, told(stop))
    assert days.settle() == [f"{stop.order_ref}.01"]


def test_an_order_whose_fate_nobody_knows_is_named_as_long_as_the_session_lives():
    days, one = Days(), ticket(0, 0)
    days.book.add(one)
    days.hear(0, open_orders=(one,))
    days.shares = 10.0  # it filled on a day whose executions IBKR tells no more
    for day in range(1, 30):
        days.hear(day)
        days.settle()
    assert days.book.lost.keys() == {one.order_ref}


def test_a_fill_that_no_close_has_booked_is_kept_however_long_that_takes():
    days, one = Days(), ticket(0, 0)
    days.book.add(one)
    days.shares = 10.0
    days.hear(0, told(one))
    for day in range(1, 30):
        days.hear(day)
        days.book.changed("a")
    assert days.settle() == [f"{one.order_ref}.01"]


def test_a_clock_that_is_set_back_and_on_again_makes_no_order_older():
    days = Days()
    tickets = days.live(0)
    for day in (1, 0, 1, 0, 1, 0, 1, 0):
        days.hear(day)
    assert {one.order_ref for one in tickets} <= days.book.tickets.keys()


def test_a_sleeve_of_many_days_at_ibkr_remembers_the_newest_and_its_books_agree(tmp_path: Path):
    count = 24
    with market(tmp_path, bars(HISTORY_BARS + count + 1)) as found:
        assert found.remote is not None

        def broker(access: Access, pace: Pace) -> IbkrBroker:
            return IbkrBroker(access, pace, found.clock)

        weights = [0.9, 0.0] * (count // 2)
        trading = Trading(tmp_path, found.remote.port, found.frame, weights, broker=broker)
        sizes: list[tuple[int, int, int]] = []
        try:
            for place in range(HISTORY_BARS, HISTORY_BARS + count):
                for phase in (0, 1):
                    found.play(place, phase)
                    trading.caught_up()
                trading.close_bar()
                dispatch = trading.sleeve._dispatch
                assert dispatch is not None
                book = trading.broker._book
                sizes.append((len(dispatch._tickets), len(book.tickets), len(book.sent_on)))
            trading.caught_up()
        finally:
            trading.close()
        assert audit(tmp_path, found.exchange) == []
        assert len(found.exchange.orders) > 24
    # An entry a day, and stop and target on every second; the dispatch thinks in calendar days.
    tickets, booked, sent_on = map(max, zip(*sizes[10:], strict=True))
    assert tickets <= 15
    assert booked <= 3 * (KEPT_DAYS + 1)
    assert sent_on <= 3 * (KEPT_DAYS + 1)


def test_the_paper_broker_keeps_the_newest_orders_and_those_that_work():
    broker = PaperBroker()
    first = ticket(0, 0)
    broker.place(first)
    for number in range(1, 5 * KEPT):
        one = Ticket(1, "b", "X", 10.0, MONDAY + timedelta(minutes=number), "entry", "7", "market")
        broker.place(one)
        broker.cancel(one.order_ref)
    assert KEPT <= len(broker._reports) <= 2 * KEPT + 1
    assert [report.order_ref for report in broker.open_orders()] == [first.order_ref]


def test_durations_are_counted_all_and_kept_but_for_the_newest():
    durations = Durations()
    assert durations.latency.bars == 0
    assert math.isnan(durations.latency.p50)
    durations.add(500.0)
    for _ in range(3 * DURATIONS_KEPT):
        durations.add(2.0)
    assert len(durations._newest) == DURATIONS_KEPT
    latency = durations.latency
    assert (latency.bars, latency.p50, latency.worst) == (3 * DURATIONS_KEPT + 1, 2.0, 500.0)
