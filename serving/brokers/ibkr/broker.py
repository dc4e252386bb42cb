"""The IBKR broker: one whole of link, order book, questions and orders, as the worker sees it.

Owns what a link coming up and going down means, which account the session is bound to, and what
the order book tells the worker without asking IBKR. Must not know how IBKR is asked (``asking``),
nor how orders are sent and their fates established (``ordering``). Between two threads: the
worker's, which calls, and the link's, which hears.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ib_async import IB, Fill

from core.accounts import State
from core.bars import Bar
from core.errors import BrokerError, NotAllowed
from core.risk import Rules
from serving import booking
from serving.auction import TooLate, never
from serving.brokers.ibkr import wire
from serving.brokers.ibkr.access import Access, named
from serving.brokers.ibkr.asking import Asking
from serving.brokers.ibkr.desk import Desk
from serving.brokers.ibkr.leftovers import Leftovers
from serving.brokers.ibkr.link import Link, Pace
from serving.brokers.ibkr.ordering import Ordering
from serving.brokers.port import WORKING, Execution, News, Position, Report, Settled, Ticket

LOOK_SECONDS = 0.05  # between two looks whether the link was refused for good


class IbkrBroker:
    """Implements ``serving.brokers.port.RemoteBroker``; stocks in US dollars."""

    name = "ibkr"
    remote = True

    def __init__(
        self,
        access: Access,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        too_late: TooLate = never,
    ) -> None:
        """``too_late`` says why an order must not be sent any more, or nothing."""
        self._access = access
        self.mode: str = access.mode
        self._bound = ""  # the session's account, as ``named``
        self._desk = Desk(now)
        self._book, self._lock = self._desk.book, self._desk.lock
        self._link = Link(access, self, pace)
        self._asking = Asking(self._link, self._desk)
        self._ordering = Ordering(self._link, self._desk, self._asking, access.client_id, too_late)
        self._leftovers = Leftovers(self._link, self._desk, access.client_id)
        self._wake: Callable[[], None] = lambda: None

    def begin(self, account: str = "") -> None:
        """Connect; wait for the first answer, but trade without it when it comes later.

        Raises ``NotAllowed`` when account, mode and session do not fit.
        """
        self._bound = account
        self._link.start()
        pace = self._link.pace
        deadline = time.monotonic() + pace.connect + pace.patience
        while not self._desk.ready.wait(LOOK_SECONDS) and time.monotonic() < deadline:
            self._require_link_to_come()
        self._require_link_to_come()

    def abandon(self, orders: Mapping[str, str]) -> None:
        self._leftovers.abandon(orders)

    def _require_link_to_come(self) -> None:
        if self._link.refused:
            raise NotAllowed(str(self._link.refused))
        if self._link.died:
            raise BrokerError(
                "the link to IBKR ended by an error of its own, told above; it comes up with a new "
                "start, which asks IBKR for everything"
            )

    def close(self) -> None:
        self._link.close()

    @property
    def ready(self) -> bool:
        """Whether orders can be sent."""
        return self._desk.ready.is_set()

    # -- the owner of the link, in its thread

    async def came_up(self, ib: IB) -> None:
        self._desk.account = self._access.agrees_with(ib.managedAccounts())
        self._bind(named(self._desk.account))
        self._ordering.came_up(ib)
        await self._asking.everything(ib)
        await self._leftovers.end(ib)
        self._desk.ready.set()
        self._desk.said.set()
        self._asking.look_again(ib)

    def _bind(self, account: str) -> None:
        """A session's books are of one account, and of no other."""
        if not self._bound:
            self._bound = account
            self.tell("account", account)
        if account != self._bound:
            raise NotAllowed(
                f"the session trades {self._bound}, logged in is {account}; log in to the "
                "session's account, or begin a new session with --fresh"
            )

    def went_down(self) -> None:
        self._desk.ready.clear()
        self._ordering.went_down()
        self._desk.changed.set()

    def heard(self, ib: IB, order_id: int, code: int, text: str) -> None:
        """Let any word on an order be checked by asking."""
        if code:
            self._ordering.refused(order_id, f"{code}: {text}")
        self._desk.stir()
        if order_id:
            self.look(ib)

    def filled(self, fill: Fill) -> None:
        """Take an execution at once: it alone, since each answer tells all of the day again."""
        with self._lock:
            fresh = self._book.execute(wire.told_of(fill))
        self._desk.stir()
        if fresh:  # told anew with every answer: only once is it worth waking anybody
            self._wake()

    def tell(self, kind: str, detail: str) -> None:
        self._desk.tell(kind, detail)

    def look(self, ib: IB) -> None:
        self._asking.look_soon(ib)

    # -- asked by the worker, answered by IBKR

    def ask(self) -> None:
        """Ask IBKR for all it knows; ``BrokerUnavailable`` without an answer."""
        self._asking.wait()

    def place(self, ticket: Ticket) -> Report:
        return self._ordering.place(ticket)

    def cancel(self, order_ref: str) -> Report:
        return self._ordering.cancel(order_ref)

    def fate(self, ticket: Ticket) -> Report | None:
        return self._ordering.fate(ticket)

    def lost(self, agent: str) -> str:
        return self._ordering.lost(agent)

    # -- asked by the worker, answered from the order book

    def settle(self, agent: str, state: State, bar: Bar, rules: Rules, time: datetime) -> Settled:
        """Book what was executed since the last close."""
        with self._lock:
            booked = [_at(one, time) for one in self._book.unbooked(agent)]
            reports = self._book.changed(agent)
            left = sum(report.remaining for report in self._book.working(agent, "entry"))
            after = booking.settle(state, bar, booked, rules)
            for execution in booked:
                self._book.mark_booked(execution)
            for symbol in self._book.symbols.get(agent, ()):
                self._book.held[agent, symbol] = float(after.shares[0, 0])
        if not bool(after.halted[0]):
            after = after.but(pending_shares=left)
        return Settled(after, tuple(booked), tuple(reports))

    def replay(self, state: State, bar: Bar, rules: Rules, booked: Sequence[Execution]) -> State:
        return booking.settle(state, bar, booked, rules)

    def unexplained(self, symbol: str) -> float:
        with self._lock:
            return self._book.suspected.get(symbol, 0.0)

    def preview(self, agent: str, state: State, rules: Rules) -> State:
        with self._lock:
            return booking.book(state, self._book.unbooked(agent), rules)

    def wait_for_news(self, seconds: float) -> bool:
        """Wait until something is said, or for so long; return whether it was."""
        return self._desk.said.wait(seconds)

    def listen(self, filled: Callable[[], None]) -> None:
        self._wake = filled

    def news(self) -> News:
        """Return what is new; ``NotAllowed`` once the link may never be made again.

        ``BrokerError`` once it never will be, by an error of its own.
        """
        self._require_link_to_come()
        self._desk.said.clear()
        with self._lock:
            events, self._desk.events = tuple(self._desk.events), []
            return News(self._book.take_news(), events)

    def restore(self, working: Sequence[tuple[Ticket, Report]], entries: Sequence[Ticket]) -> None:
        with self._lock:
            for ticket, report in working:
                self._book.restore(ticket, report)
            for ticket in entries:
                self._book.restore(ticket, None)

    def remember(
        self,
        told: Sequence[Execution],
        booked: Sequence[Execution],
        held: Mapping[tuple[str, str], float],
    ) -> None:
        with self._lock:
            self._book.remember(told, booked)
            self._book.held.update(held)

    def open_orders(self) -> tuple[Report, ...]:
        with self._lock:
            known = (self._book.report(ref) for ref in self._book.open)
            return tuple(report for report in known if report.status in WORKING)

    def executions(self, since: datetime | None = None) -> tuple[Execution, ...]:
        with self._lock:
            told = tuple(self._book.told.values())
        return tuple(one for one in told if since is None or one.time >= since)

    def positions(self) -> tuple[Position, ...]:
        with self._lock:
            held = dict(self._book.held)
        return tuple(Position(agent, symbol, n) for (agent, symbol), n in held.items() if n)


def _at(execution: Execution, time: datetime) -> Execution:
    return replace(execution, time=time)
