"""Leftovers: orders of sessions that are over, which may still work at IBKR.

Owns which they are, and that they are cancelled: nobody minds them any more, and they could open a
position. At every link at which they still work, since a cancel may be lost on its way. Knows
nothing of the orders of the session that trades.
"""

from collections.abc import Mapping

from ib_async import IB

from serving.brokers.ibkr.desk import Desk
from serving.brokers.ibkr.link import Link


class Leftovers:
    """Those of one account; only the client that placed an order may cancel it."""

    def __init__(self, link: Link, desk: Desk, client_id: int) -> None:
        self._link, self._desk = link, desk
        self._client_id = client_id
        self._over: dict[str, str] = {}  # order_ref by permId
        self._named: set[str] = set()  # those a person was told of, by permId

    def abandon(self, orders: Mapping[str, str]) -> None:
        """Take note of them, before the link is there."""
        self._over = dict(orders)
        with self._desk.lock:  # named below
            self._desk.book.strangers.update(int(perm_id) for perm_id in orders)

    async def end(self, ib: IB) -> None:
        """Cancel those among the open orders, which have just been asked for."""
        for trade in ib.openTrades():
            order, perm_id = trade.order, str(trade.order.permId)
            if self._over.get(perm_id) != order.orderRef:
                continue
            if order.clientId == self._client_id:
                await self._link.paced()
                ib.cancelOrder(order)
                done = "cancelled: its session is over, and its shares are nobody's here"
            else:
                done = f"its session is over; only client {order.clientId} may cancel it, or TWS"
            if perm_id not in self._named:
                self._named.add(perm_id)
                self._desk.tell("order left over", f"{order.orderRef}: {done}")
