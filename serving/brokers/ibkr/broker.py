"""The IBKR broker: tickets out, executions in, and the fate of every order established.

Owns the order of questions: after anything doubtful it asks for all open orders, the completed
ones, the day's executions and the positions, and acts only on that answer. An order that is not
confirmed in time is asked for; one that is in no answer is cancelled and asked for again before
anything else may be sent. Between two threads: the worker's, which calls, and the link's, which
hears.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from ib_async import IB, Contract, Fill, Order, Trade
from ib_async.wrapper import RequestError

from core.accounts import State
from core.bars import Bar
from core.errors import BrokerError, BrokerUnavailable, NotAllowed
from core.risk import Rules
from serving import booking
from serving.auction import TooLate, never
from serving.brokers.ibkr import wire
from serving.brokers.ibkr.access import Access, named
from serving.brokers.ibkr.book import OrderBook
from serving.brokers.ibkr.forgetting import forget
from serving.brokers.ibkr.link import Link, Pace
from serving.brokers.port import WORKING, Execution, News, Position, Report, Settled, Ticket

ACCOUNT_ZONE = ZoneInfo("US/Eastern")  # executions are kept for its day
LOOK_SECONDS = 0.05  # between two looks whether the link was refused for good
CONFIRMED = {"PreSubmitted", "Submitted", "Filled"}
ASKED_AT_MOST = 3  # times for open orders, while one of ours looks dead among them
UNTOLD = (
    "{}: IBKR calls it filled and tells no execution of it; it filled on a day whose executions "
    "IBKR no longer tells. Compare with the statement, then begin a new session"
)


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
        self._link = Link(access, self, pace)
        self._now = now
        self._too_late = too_late
        self._access = access
        self.mode: str = access.mode
        self._account = ""
        self._bound = ""  # the session's account, as ``named``
        self._book = OrderBook()
        self._lock = threading.Lock()  # of the book; never held while waiting
        self._one_at_a_time = asyncio.Lock()  # overlapping requests of one kind lose the first
        self._ready = threading.Event()  # linked, and everything has been asked
        self._said = threading.Event()
        self._wake: Callable[[], None] = lambda: None
        self._doubt = False
        self._changed = asyncio.Event()
        self._refusals: dict[int, str] = {}  # by orderId of this connection
        self._contracts: dict[str, Contract] = {}
        self._events: list[tuple[str, str]] = []
        self._over: dict[str, str] = {}  # order_ref by permId, of sessions that are over
        self._waits: dict[
            str, float
        ] = {}  # since when a fate is unknown on this link, by order_ref
        self._sent_on: dict[str, str] = {}  # day in the account's zone, by order_ref

    # -- the life of the link

    def begin(self, account: str = "") -> None:
        """Connect; wait for the first answer, but trade without it when it comes later.

        Raises ``NotAllowed`` when account, mode and session do not fit.
        """
        self._bound = account
        self._link.start()
        pace = self._link.pace
        deadline = time.monotonic() + pace.connect + pace.patience
        while not self._ready.wait(LOOK_SECONDS) and time.monotonic() < deadline:
            self._require_allowed()
        self._require_allowed()

    def abandon(self, orders: Mapping[str, str]) -> None:
        self._over = dict(orders)
        with self._lock:
            self._book.strangers.update(int(perm_id) for perm_id in orders)  # named below

    def _require_allowed(self) -> None:
        if self._link.refused:
            raise NotAllowed(str(self._link.refused))

    def close(self) -> None:
        self._link.close()

    @property
    def ready(self) -> bool:
        """Whether orders can be sent."""
        return self._ready.is_set()

    async def came_up(self, ib: IB) -> None:
        self._account = self._access.agrees_with(ib.managedAccounts())
        self._bind(named(self._account))
        self._contracts.clear()
        self._refusals.clear()
        await self._ask_all(ib)
        await self._end_what_is_over(ib)
        self._ready.set()
        self._said.set()
        if self._doubt:  # something was said after it was asked for
            self._link.schedule(lambda: self._look(ib))

    async def _end_what_is_over(self, ib: IB) -> None:
        """Cancel what older sessions left: nobody minds it, and it could open a position."""
        for trade in ib.openTrades():
            order = trade.order
            if self._over.get(str(order.permId)) != order.orderRef:
                continue
            if order.clientId == self._access.client_id:
                await self._link.paced()
                ib.cancelOrder(order)
                done = "cancelled: its session is over, and its shares are nobody's here"
            else:
                done = f"its session is over; only client {order.clientId} may cancel it, or TWS"
            self.tell("order left over", f"{order.orderRef}: {done}")
        self._over.clear()

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
        self._ready.clear()
        with self._lock:
            self._waits.clear()
        self._changed.set()

    def heard(self, ib: IB, order_id: int, code: int, text: str) -> None:
        """Let any word on an order be checked by asking."""
        if code:
            self._refusals[order_id] = f"{code}: {text}"
        self._changed.set()
        self._said.set()
        if order_id:
            self.look(ib)

    def filled(self, fill: Fill) -> None:
        """Take an execution at once: it alone, since each answer tells all of the day again."""
        with self._lock:
            fresh = self._book.execute(wire.told_of(fill))
        self._changed.set()
        self._said.set()
        if fresh:  # told anew with every answer: only once is it worth waking anybody
            self._wake()

    def tell(self, kind: str, detail: str) -> None:
        with self._lock:
            self._events.append((kind, detail))
        self._said.set()

    def look(self, ib: IB) -> None:
        if self._ready.is_set() and not self._doubt:
            self._link.schedule(lambda: self._look(ib))
        self._doubt = True

    async def _ask_all(self, ib: IB) -> None:
        """Establish what IBKR knows."""
        async with self._one_at_a_time:
            await self._ask(ib, completed_too=True)

    async def _look(self, ib: IB) -> None:
        async with self._one_at_a_time:
            if self._ready.is_set():
                with contextlib.suppress(BrokerUnavailable):  # IBKR is away; asked when it is back
                    await self._ask(ib)

    async def _ask(self, ib: IB, completed_too: bool = False) -> None:
        """Ask for open orders, executions and positions.

        Completed orders are many at the end of a day, and tell only that IBKR had an order which
        neither works nor filled: they are asked for where that is in doubt. Without IBKR the
        gateway answers too, by what it knew: that decides nothing.
        """
        self._doubt = False
        for _ in range(3):
            await self._link.paced()
        try:
            open_orders = await self._open_orders(ib)
            completed = (
                await self._link.within(ib.reqCompletedOrdersAsync(False)) if completed_too else []
            )
            fills = await self._link.within(ib.reqExecutionsAsync())
            positions = await self._link.within(ib.reqPositionsAsync())
        except (TimeoutError, asyncio.CancelledError):
            self._link.unanswered("orders, executions and positions")
            raise
        if self._link.cut_off:
            raise BrokerUnavailable("the gateway has lost IBKR; its answers may be old")
        fills = wire.with_fees(fills, ib.fills())
        answer = wire.answer_of(
            open_orders, completed, fills, positions, self._account, [*ib.trades(), *completed]
        )
        with self._lock:
            self._events += self._book.hear(answer, completed_too)
            for order_ref in self._book.forget(self._day()):
                self._sent_on.pop(order_ref, None)
        working = {trade.order.permId for trade in open_orders}
        forget(ib, working, {fill.execution.execId for fill in fills})

    async def _open_orders(self, ib: IB) -> list[Trade]:
        """Ask for all open orders, again while one of ours among them has ended.

        The message that says how an order ended is of the same kind as an answer's: one that comes
        meanwhile counts as part of the answer. What an answer itself says of an order follows it
        at once, so whatever has ended after the answer was none of it. It is said once only.
        """
        for _ in range(ASKED_AT_MOST):
            await self._link.paced()
            found = await self._link.within(ib.reqAllOpenOrdersAsync())
            if not any(trade.isDone() and self._is_ours(trade.order) for trade in found):
                break
        return found

    def _is_ours(self, order: Order) -> bool:
        with self._lock:
            return order.orderRef in self._book.tickets

    def ask(self) -> None:
        """Ask IBKR for all it knows; ``BrokerUnavailable`` without an answer."""
        self._link.call(self._ask_all, 5.0 * self._link.pace.patience)

    # -- orders

    def place(self, ticket: Ticket) -> Report:
        """Send an order and wait until IBKR has it; known ones are not sent again.

        Raises ``BrokerUnavailable`` when it is not known whether the order arrived.
        """
        ref = ticket.order_ref
        with self._lock:
            self._book.add(ticket)
            if ref in self._book.known or ref in self._book.afloat:
                return self._book.note(self._book.report(ref))
        if not self._ready.is_set():
            raise BrokerUnavailable(f"{ref}: not sent, there is no link to IBKR")
        if reason := self._too_late(ticket, self._now()):
            self.tell("order too late", f"{ref}: {reason}")
            return Report(ref, "cancelled", 0.0, 0.0, "")
        with self._lock:
            self._sent_on[ref] = self._day()
        self._link.call(lambda ib: self._place(ib, ticket), 5.0 * self._link.pace.patience)
        with self._lock:
            self._require_told(ref)
            return self._book.note(self._book.report(ref))

    async def _place(self, ib: IB, ticket: Ticket) -> None:
        ref = ticket.order_ref
        async with self._one_at_a_time:
            contract = await self._contract(ib, ticket.symbol)
            order = wire.order_of(ticket, self._account, ib.client.getReqId())
            await self._link.paced()
            if not self._ready.is_set():  # IBKR was lost while others asked
                raise BrokerUnavailable(f"{ref}: not sent, there is no link to IBKR")
            with self._lock:
                self._book.afloat.add(ref)
            trade = ib.placeOrder(contract, order)

            def confirmed() -> bool:  # a status may come before the order is shown, or a fill
                perm_id = trade.order.permId or trade.orderStatus.permId
                return trade.orderStatus.status in CONFIRMED and bool(perm_id)

            await self._until(
                lambda: confirmed() or order.orderId in self._refusals or self._knows(ref)
            )
            await self._ask(ib)
            refusal = self._refusals.get(order.orderId, "")
            if not self._knows(ref):
                await self._ask(ib, completed_too=True)
            if not self._knows(ref):  # it must not come to life later
                await self._link.paced()
                ib.cancelOrder(order)
                await self._until(lambda: order.orderId in self._refusals)
                await self._ask(ib)
            with self._lock:
                over = ref not in self._book.open and ref not in self._book.lost
                gone = over and not self._book.filled(ref)
                self._book.known.add(ref)
        if gone:
            self.tell("order refused", f"{ref}: {refusal or 'never confirmed, cancelled'}")

    def _knows(self, order_ref: str) -> bool:
        with self._lock:
            return order_ref in self._book.known

    def cancel(self, order_ref: str) -> Report:
        """Cancel what still works of an order; raises ``BrokerUnavailable`` until that is sure."""
        with self._lock:
            seen = self._book.open.get(order_ref)
            if order_ref not in self._book.tickets:
                raise BrokerError(f"{order_ref}: no such order of ours")
            known = self._book.report(order_ref)
        if not self._ready.is_set():
            raise BrokerUnavailable(f"{order_ref}: not cancelled, there is no link to IBKR")
        if known.status not in WORKING:
            return known
        if seen and seen.client_id != self._access.client_id:
            raise BrokerUnavailable(
                f"{order_ref}: placed by client {seen.client_id}, which alone may cancel it; set "
                f"IB_CLIENT_ID={seen.client_id} or cancel it in TWS"
            )
        self._link.call(lambda ib: self._cancel(ib, order_ref), 5.0 * self._link.pace.patience)
        with self._lock:
            self._require_told(order_ref)
            report = self._book.note(self._book.report(order_ref))
        if report.status in WORKING:
            raise BrokerUnavailable(f"{order_ref}: IBKR did not confirm the cancel; still working")
        return report

    async def _cancel(self, ib: IB, order_ref: str) -> None:
        async with self._one_at_a_time:
            await self._ask(ib)
            seen = self._book.open.get(order_ref)
            if seen is None:
                return
            order_id = seen.order_id
            order = Order(orderId=order_id, clientId=seen.client_id, permId=seen.perm_id)
            self._refusals.pop(order_id, None)
            await self._link.paced()
            ib.cancelOrder(order)
            await self._until(lambda: order_id in self._refusals)
            await self._ask(ib)

    def fate(self, ticket: Ticket) -> Report | None:
        ref = ticket.order_ref
        with self._lock:
            self._book.add(ticket)
        if not self._ready.is_set():
            raise BrokerUnavailable(f"{ref}: what became of it must be asked, and there is no link")
        self.ask()
        with self._lock:
            self._require_told(ref)
            if ref in self._book.known or self._book.filled(ref):
                report = self._book.report(ref)
                if self._book.ended_unseen(report):
                    text = f"{ref}: found cancelled; by whom was not told"
                    self._events.append(("order refused", text))
                return self._book.note(report)
            beyond = self._book.suspected.get(ticket.symbol, 0.0)
        forgotten = self._sent_on.get(ref) != self._day()
        if forgotten and 0.0 < beyond * ticket.shares <= ticket.shares * ticket.shares:
            raise BrokerError(
                f"{ref}: IBKR has no word of it, but the account holds {beyond:+,.0f} "
                f"{ticket.symbol} that no sleeve holds; it may have filled on a day whose "
                "executions IBKR no longer tells. Compare with the statement, then begin a new "
                "session"
            )
        return None

    def _require_told(self, order_ref: str) -> None:
        """An order that is called filled is not cancelled: its executions come later."""
        if order_ref not in self._book.open and self._book.untold(order_ref):
            raise BrokerUnavailable(f"{order_ref}: IBKR calls it filled, its fill is not told yet")

    def lost(self, agent: str) -> str:
        if "" in self._lost(agent):  # mostly a fill that lay between two of the answers
            self._link.call(self._look, 5.0 * self._link.pace.patience)
        if "" in self._lost(agent):  # a cancelled one is among the completed
            self.ask()
        if "" in (found := self._lost(agent)):
            raise BrokerUnavailable("what became of an order is not sure yet")
        return "; ".join(found)

    def _lost(self, agent: str) -> list[str]:
        """Return of each order of unknown fate why it is lost; "" while that is not sure."""
        with self._lock:
            tickets, lost = self._book.tickets, self._book.lost
            self._waits = {ref: since for ref, since in self._waits.items() if ref in lost}
            mine = [(ref, why) for ref, why in lost.items() if tickets[ref].agent == agent]
            return [why or self._given_up(ref) for ref, why in mine]

    def _given_up(self, order_ref: str) -> str:
        """Return that an order is called filled, and its executions are not told any more."""
        now = time.monotonic()
        waited = now - self._waits.setdefault(order_ref, now)
        late = waited >= self._link.pace.untold and self._book.untold(order_ref)
        return UNTOLD.format(order_ref) if late else ""

    # -- asked by the worker

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
        return self._said.wait(seconds)

    def listen(self, filled: Callable[[], None]) -> None:
        self._wake = filled

    def news(self) -> News:
        """Return what is new; ``NotAllowed`` once the link may never be made again."""
        self._require_allowed()
        self._said.clear()
        with self._lock:
            events, self._events = tuple(self._events), []
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

    # -- inside

    def _day(self) -> str:
        return f"{self._now().astimezone(ACCOUNT_ZONE):%Y-%m-%d}"

    async def _contract(self, ib: IB, symbol: str) -> Contract:
        if symbol not in self._contracts:
            await self._link.paced()
            try:
                found = await self._link.within(ib.qualifyContractsAsync(wire.stock(symbol)))
            except RequestError:
                found = []
            contract = found[0] if found else None
            if not isinstance(contract, Contract) or not contract.conId:
                raise BrokerError(f"{symbol}: IBKR knows no US stock or ETF of that name")
            self._contracts[symbol] = contract
        return self._contracts[symbol]

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, looking after every word of IBKR, as long as patience lasts."""
        deadline = asyncio.get_running_loop().time() + self._link.pace.patience
        while not condition() and self._ready.is_set():
            self._changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return


def _at(execution: Execution, time: datetime) -> Execution:
    return replace(execution, time=time)
