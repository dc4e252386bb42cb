"""A fake TWS / IB Gateway: the real socket protocol, for the real ``ib_async`` client, on loopback.

    async with running(FakeTws(Exchange(clock))) as tws:
        await IB().connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)

What is modelled, and where it is written down:

- Framing, handshake, fields: ``ib_async`` 2.1.0, ``client.py`` and ``decoder.py``; server versions
  176 to 178.
- Order ids, statuses, brackets held until ``transmit``, OCA types, cancelling by the placing client
  alone, visibility (own orders; all on request; those typed into TWS for client 0; all for the
  master client): https://interactivebrokers.github.io/tws-api/ under "Orders" (order_submission,
  bracket_order, oca, open_orders, cancel_order).
- Executions of the current day, corrections that differ after the last period of the execId,
  commission reports behind each: ".../executions_commissions" and the Execution class.
- Positions, portfolio, account values and summary: ".../account_portfolio".
- Historical bars, ``keepUpToDate``, 5-second bars, ticks, the historical pacing rules:
  ".../md_request", ".../historical_bars", ".../historical_limitations".
- Codes and their texts: ".../message_codes". Completed orders without orderId, client or quantity,
  1101 losing market data subscriptions and 1102 keeping them: the same pages, and what
  ``ib_async.wrapper`` expects.

Simplified: stocks only; the children of a bracket wait for its entry to fill whole and go when it
is cancelled; a bracket's or group's partial fill reduces the others at once; orders typed into TWS
are not given an order id; pacing counts requests, not their weight.
"""

from fake_tws.exchange import Exchange
from fake_tws.faults import Faults, Once, Point
from fake_tws.orders import (
    Order,
    Stock,
    Ticket,
)
from fake_tws.protocol import Request
from fake_tws.replies import Bar, Reply
from fake_tws.server import FakeTws, Remote, in_thread, running

__all__ = [
    "Bar",
    "Exchange",
    "FakeTws",
    "Faults",
    "Once",
    "Order",
    "Point",
    "Remote",
    "Reply",
    "Request",
    "Stock",
    "Ticket",
    "in_thread",
    "running",
]
