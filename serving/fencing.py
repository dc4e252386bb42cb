"""Fencing: a broker that sends nothing for a process whose lease is not the newest any more.

Owns the look at the lease before every order and every cancel. At IBKR a second fence stands
behind it: a client id is connected once, so whoever took over cannot even connect before the old
connection has ended. Knows neither ledger nor sleeves.
"""

from typing import Any, cast

from serving.brokers.port import Broker, Report, Ticket
from serving.lease import Lease


class FencedBroker:
    """Passes everything on; ``place`` and ``cancel`` raise ``Fenced`` first where they must."""

    def __init__(self, broker: Broker, lease: Lease) -> None:
        self._broker = broker
        self._lease = lease

    def place(self, ticket: Ticket) -> Report:
        self._lease.check()
        return self._broker.place(ticket)

    def cancel(self, order_ref: str) -> Report:
        self._lease.check()
        return self._broker.cancel(order_ref)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def fenced(broker: Broker, lease: Lease) -> Broker:
    """Return ``broker`` as a process with this lease may use it."""
    return cast(Broker, FencedBroker(broker, lease))
