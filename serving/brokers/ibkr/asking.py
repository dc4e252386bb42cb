"""Asking: what IBKR is asked about the account, and when again; the answers go into the order book.

Owns the questions (all open orders, completed ones, the day's executions, the positions), their
turn (one at a time) and the doubt that a word of IBKR raises. Only complete answers decide: one
that is late ends the connection, one given while IBKR was away counts for nothing. Places and
cancels nothing, and does not know why anybody asks. Runs in the link's thread, but for ``wait``.
"""

import asyncio
import contextlib

from ib_async import IB, Order, Trade

from core.errors import BrokerUnavailable
from serving.brokers.ibkr import wire
from serving.brokers.ibkr.desk import Desk
from serving.brokers.ibkr.forgetting import forget
from serving.brokers.ibkr.link import Link

ASKED_AT_MOST = 3  # times for open orders, while one of ours looks dead among them


class Asking:
    """Asks when told to, or when something was said."""

    def __init__(self, link: Link, desk: Desk) -> None:
        self._link, self._desk = link, desk
        self.turn = asyncio.Lock()  # overlapping requests of one kind lose the first
        self.doubt = False  # something was said that no answer covers yet

    def wait(self) -> None:
        """Ask for everything, from the worker's thread; ``BrokerUnavailable`` without an answer."""
        self._link.call(self.everything, self._link.pace.call)

    async def everything(self, ib: IB) -> None:
        """Establish what IBKR knows."""
        async with self.turn:
            await self.ask(ib, completed_too=True)

    def look_soon(self, ib: IB) -> None:
        """Look once, however often this is called meanwhile; a new link asks anyway."""
        if self._desk.ready.is_set() and not self.doubt:
            self._link.schedule(lambda: self.look(ib))
        self.doubt = True

    def look_again(self, ib: IB) -> None:
        """A link is there: look where something was said while everything was asked."""
        if self.doubt:
            self._link.schedule(lambda: self.look(ib))

    async def look(self, ib: IB) -> None:
        async with self.turn:
            if self._desk.ready.is_set():
                with contextlib.suppress(BrokerUnavailable):  # IBKR is away; asked when it is back
                    await self.ask(ib)

    async def ask(self, ib: IB, completed_too: bool = False) -> None:
        """Ask for open orders, executions and positions; the turn is the caller's.

        Completed orders are many at the end of a day, and tell only that IBKR had an order which
        neither works nor filled: they are asked for where that is in doubt. Without IBKR the
        gateway answers too, by what it knew: that decides nothing, also where IBKR is back before
        the last answer.
        """
        self.doubt = False
        era = self._link.era
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
        if self._link.cut_off or self._link.era != era:
            raise BrokerUnavailable("the gateway has lost IBKR; its answers may be old")
        fills = wire.with_fees(fills, ib.fills())
        answer = wire.answer_of(
            open_orders, completed, fills, positions, self._desk.account, [*ib.trades(), *completed]
        )
        with self._desk.lock:
            self._desk.events += self._desk.book.hear(answer, completed_too)
            self._desk.book.forget(self._desk.day())
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
        with self._desk.lock:
            return order.orderRef in self._desk.book.tickets
