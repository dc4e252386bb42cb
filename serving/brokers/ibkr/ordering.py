"""Ordering: how an order is sent and cancelled at IBKR, and what became of it.

Owns the rule that nothing is left open: an order that is not confirmed in time is asked for; one
that is in no answer is cancelled and asked for again before anything else may be sent. Also what
belongs to one connection alone: refusals by ``orderId``, contracts, orders adrift, how long a fate
is unknown.
Called in the worker's thread; what takes an ``IB`` runs in the link's, in the turn of the
questions. Knows no sleeve's books, and not which order should be sent.
"""

import asyncio
import time
from collections.abc import Callable

from ib_async import IB, Contract, Order
from ib_async.wrapper import RequestError

from core.errors import BrokerError, BrokerUnavailable
from serving.auction import TooLate
from serving.brokers.ibkr import wire
from serving.brokers.ibkr.asking import Asking
from serving.brokers.ibkr.desk import Desk
from serving.brokers.ibkr.link import Link
from serving.brokers.port import WORKING, Report, Ticket

CONFIRMED = {"PreSubmitted", "Submitted", "Filled"}
NO_SUCH_STOCK = 200
UNTOLD = (
    "{}: IBKR calls it filled and tells no execution of it; it filled on a day whose executions "
    "IBKR no longer tells. Compare with the statement, then begin a new session"
)


class Ordering:
    """The orders of one client of a gateway."""

    def __init__(
        self, link: Link, desk: Desk, asking: Asking, client_id: int, too_late: TooLate
    ) -> None:
        self._link, self._desk, self._asking = link, desk, asking
        self._book, self._lock = desk.book, desk.lock
        self._client_id = client_id
        self._too_late = too_late
        self._refusals: dict[int, str] = {}  # by orderId of this connection
        self._contracts: dict[str, Contract] = {}  # by symbol
        self._adrift: dict[str, Order] = {}  # sent on this connection, its fate not established
        self._waits: dict[str, float] = {}  # since when a fate is unknown on this link, by ref
        self._ib: IB | None = None  # of this connection

    # -- the link, in its thread

    def came_up(self, ib: IB) -> None:
        self._contracts.clear()
        self._refusals.clear()
        if ib is not self._ib:  # what a gateway has of an old connection it tells on the new one
            self._adrift.clear()
        self._ib = ib

    def went_down(self) -> None:
        with self._lock:
            self._waits.clear()

    def refused(self, order_id: int, words: str) -> None:
        """Keep what was said against an order; its fate is asked for."""
        self._refusals[order_id] = words

    # -- an order is sent

    def place(self, ticket: Ticket) -> Report:
        """Send an order and wait until IBKR has it; known ones are not sent again.

        Raises ``BrokerUnavailable`` when it is not known whether the order arrived.
        """
        ref = ticket.order_ref
        with self._lock:
            self._book.add(ticket)
            if ref in self._book.known or ref in self._book.afloat:
                return self._book.note(self._book.report(ref))
        if not self._desk.ready.is_set():
            raise BrokerUnavailable(f"{ref}: not sent, there is no link to IBKR")
        with self._lock:
            self._book.sent_on[ref] = self._desk.day()
        late = self._link.call(lambda ib: self._place(ib, ticket), self._link.pace.call)
        if late:
            self._desk.tell("order too late", f"{ref}: {late}")
            return Report(ref, "cancelled", 0.0, 0.0, "")
        with self._lock:
            self._require_sure(ref)
            return self._book.note(self._book.report(ref))

    async def _place(self, ib: IB, ticket: Ticket) -> str:
        """Return why it is too late to send the order, or nothing where it was sent."""
        ref = ticket.order_ref
        async with self._asking.turn:
            contract = await self._contract(ib, ticket.symbol)
            order = wire.order_of(ticket, self._desk.account, ib.client.getReqId())
            await self._link.paced()
            if not self._desk.ready.is_set():  # IBKR was lost while others asked
                raise BrokerUnavailable(f"{ref}: not sent, there is no link to IBKR")
            if late := self._too_late(ticket, self._desk.now()):
                return late
            with self._lock:
                self._book.afloat.add(ref)
            self._adrift[ref] = order
            trade = ib.placeOrder(contract, order)

            def confirmed() -> bool:  # a status may come before the order is shown, or a fill
                perm_id = trade.order.permId or trade.orderStatus.permId
                return trade.orderStatus.status in CONFIRMED and bool(perm_id)

            await self._until(
                lambda: confirmed() or order.orderId in self._refusals or self._knows(ref)
            )
            await self._asking.ask(ib)
            refusal = self._refusals.get(order.orderId, "")
            if not self._knows(ref):
                await self._asking.ask(ib, completed_too=True)
            if not self._knows(ref):
                await self._take_back(ib, order)
            self._adrift.pop(ref, None)
            with self._lock:
                over = ref not in self._book.open and ref not in self._book.lost
                gone = over and not self._book.filled(ref)
                self._book.known.add(ref)
        if gone:
            self._desk.tell("order refused", f"{ref}: {refusal or 'never confirmed, cancelled'}")
        return ""

    def _knows(self, order_ref: str) -> bool:
        with self._lock:
            return order_ref in self._book.known

    async def _contract(self, ib: IB, symbol: str) -> Contract:
        if symbol not in self._contracts:
            await self._link.paced()
            try:
                found = await self._link.within(ib.qualifyContractsAsync(wire.stock(symbol)))
            except RequestError as error:
                if error.code != NO_SUCH_STOCK:  # it may be told in a moment
                    raise
                found = []
            contract = found[0] if found else None
            if not isinstance(contract, Contract) or not contract.conId:
                if not self._desk.ready.is_set():
                    raise BrokerUnavailable(f"{symbol}: IBKR was lost while it was asked for")
                raise BrokerError(f"{symbol}: IBKR knows no US stock or ETF of that name")
            self._contracts[symbol] = contract
        return self._contracts[symbol]

    # -- an order is cancelled

    def cancel(self, order_ref: str) -> Report:
        """Cancel what still works of an order; raises ``BrokerUnavailable`` until that is sure."""
        with self._lock:
            seen = self._book.open.get(order_ref)
            if order_ref not in self._book.tickets:
                raise BrokerError(f"{order_ref}: no such order of ours")
            known = self._book.report(order_ref)
        if not self._desk.ready.is_set():
            raise BrokerUnavailable(f"{order_ref}: not cancelled, there is no link to IBKR")
        if known.status not in WORKING:
            with self._lock:
                self._require_sure(order_ref)
            return known
        if seen and seen.client_id != self._client_id:
            raise BrokerUnavailable(
                f"{order_ref}: placed by client {seen.client_id}, which alone may cancel it; set "
                f"IB_CLIENT_ID={seen.client_id} or cancel it in TWS"
            )
        self._link.call(lambda ib: self._cancel(ib, order_ref), self._link.pace.call)
        with self._lock:
            self._require_sure(order_ref)
            report = self._book.note(self._book.report(order_ref))
        if report.status in WORKING:
            raise BrokerUnavailable(f"{order_ref}: IBKR did not confirm the cancel; still working")
        return report

    async def _cancel(self, ib: IB, order_ref: str) -> None:
        async with self._asking.turn:
            await self._asking.ask(ib)
            seen = self._book.open.get(order_ref)
            if seen is None:
                return
            order = Order(orderId=seen.order_id, clientId=seen.client_id, permId=seen.perm_id)
            await self._take_back(ib, order)

    async def _take_back(self, ib: IB, order: Order) -> None:
        """Cancel an order, wait for a word on that, and ask; one never seen must not live later."""
        self._refusals.pop(order.orderId, None)
        await self._link.paced()
        ib.cancelOrder(order)
        await self._until(lambda: order.orderId in self._refusals)
        await self._asking.ask(ib)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, looking after every word of IBKR, as long as patience lasts."""
        deadline = asyncio.get_running_loop().time() + self._link.pace.patience
        while not condition() and self._desk.ready.is_set():
            self._desk.changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._desk.changed.wait(), left)
            except TimeoutError:
                return

    # -- what became of it

    def fate(self, ticket: Ticket) -> Report | None:
        """Return what became of an order that may have been sent; None: it never arrived."""
        ref = ticket.order_ref
        with self._lock:
            self._book.add(ticket)
        if not self._desk.ready.is_set():
            raise BrokerUnavailable(f"{ref}: what became of it must be asked, and there is no link")
        self._link.call(lambda ib: self._establish(ib, ref), self._link.pace.call)
        with self._lock:
            self._require_sure(ref)
            if ref in self._book.known or self._book.filled(ref):
                report = self._book.report(ref)
                if self._book.ended_unseen(report):
                    text = f"{ref}: found cancelled; by whom was not told"
                    self._desk.events.append(("order refused", text))
                return self._book.note(report)
            beyond = self._book.suspected.get(ticket.symbol, 0.0)
            forgotten = self._book.sent_on.get(ref) != self._desk.day()
        if forgotten and 0.0 < beyond * ticket.shares <= ticket.shares * ticket.shares:
            raise BrokerError(
                f"{ref}: IBKR has no word of it, but the account holds {beyond:+,.0f} "
                f"{ticket.symbol} that no sleeve holds; it may have filled on a day whose "
                "executions IBKR no longer tells. Compare with the statement, then begin a new "
                "session"
            )
        return None

    async def _establish(self, ib: IB, order_ref: str) -> None:
        """Ask for everything; take back what was sent on this connection and is in no answer.

        IBKR was away, and a gateway that kept the order may still send it on.
        """
        async with self._asking.turn:
            await self._asking.ask(ib, completed_too=True)
            order = self._adrift.get(order_ref)
            if order and not self._knows(order_ref):
                await self._take_back(ib, order)
            self._adrift.pop(order_ref, None)

    def _require_sure(self, order_ref: str) -> None:
        """An order that may have filled is not cancelled: another would double it."""
        if order_ref not in self._book.open and self._book.untold(order_ref):
            raise BrokerUnavailable(f"{order_ref}: IBKR calls it filled, its fill is not told yet")
        if why := self._book.lost.get(order_ref):
            raise BrokerError(why)
        if order_ref in self._book.lost:
            raise BrokerUnavailable(f"{order_ref}: what became of it is not sure yet")

    def lost(self, agent: str) -> str:
        """Say which order of a sleeve met a fate that can no longer be known; empty: none."""
        if "" in self._lost(agent):  # mostly a fill that lay between two of the answers
            self._link.call(self._asking.look, self._link.pace.call)
        if "" in self._lost(agent):  # a cancelled one is among the completed
            self._asking.wait()
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
