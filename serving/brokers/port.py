"""The broker port: what the worker asks of whoever executes its orders.

Owns the words between worker and broker. Two kinds stand behind it: ``paper``, where the engine
is the market and answers at once, and brokers across a network, which answer late, twice or not
at all. Hence: an order is named by us (``order_ref``) before it is sent, placing it again is
harmless, and fills are told by executions with ids of their own. Knows neither ledger nor models.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, cast

from core.accounts import State
from core.bars import Bar
from core.risk import Rules

Leg = Literal["entry", "stop", "target"]
Status = Literal["submitted", "partial", "filled", "cancelled"]
WORKING: tuple[Status, ...] = ("submitted", "partial")


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order to place, named by what caused it: the same decision gives the same name."""

    session: int  # of the ledger
    agent: str
    symbol: str
    shares: float  # signed, whole
    bar_time: datetime  # of the decision behind it
    leg: Leg
    model_version: str
    kind: str  # market_on_open, market, stop, limit
    price: float = math.nan  # of a stop or limit; account currency
    replica: int = 0  # stops and targets of one bar are renewed when the position changes

    @property
    def part(self) -> str:
        """The leg, and which of its renewals."""
        return f"{self.leg}.{self.replica}" if self.replica else self.leg

    @property
    def order_ref(self) -> str:
        moment = f"{self.bar_time.astimezone(UTC):%Y%m%dT%H%M%S}"
        return f"ratchet-{self.session}-{self.agent}-{moment}-{self.part}-{self.model_version}"


@dataclass(frozen=True, slots=True)
class Report:
    """The newest word on an order."""

    order_ref: str
    status: Status
    filled: float  # signed shares so far
    remaining: float  # signed shares still working
    broker_id: str  # the broker's own name for it


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill, or part of one."""

    exec_id: str  # unique for ever
    order_ref: str
    agent: str
    symbol: str
    leg: Leg
    shares: float  # signed
    price: float
    commission: float  # account currency
    slippage: float  # account currency, inside the price; 0 where unknown
    time: datetime  # of the bar it happened in


@dataclass(frozen=True, slots=True)
class Position:
    """Shares a sleeve holds at the broker."""

    agent: str
    symbol: str
    shares: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A sleeve after one completed bar, and what happened to its orders inside it."""

    state: State  # marked at the close
    executions: tuple[Execution, ...] = ()
    reports: tuple[Report, ...] = ()
    triggered: tuple[Ticket, ...] = ()  # protective orders that came to life


@dataclass(frozen=True, slots=True)
class News:
    """What a broker had to say between two closes."""

    executions: tuple[Execution, ...] = ()  # new ones, and those whose commission is now known
    events: tuple[tuple[str, str], ...] = ()  # kind and detail, for ledger and alerts


class Broker(Protocol):
    """Executes tickets; every method may raise ``BrokerError``."""

    name: str
    mode: str  # paper or live
    remote: bool  # answers late or not at all, and needs stops and targets placed as orders

    def restore(self, working: Sequence[tuple[Ticket, Report]], entries: Sequence[Ticket]) -> None:
        """Take note, after a restart, of working orders and of each sleeve's last filled entry."""

    def settle(self, agent: str, state: State, bar: Bar, rules: Rules, time: datetime) -> Settled:
        """Return the sleeve's books after the bar ``time`` is complete."""

    def place(self, ticket: Ticket) -> Report:
        """Send an order; one whose ``order_ref`` is known is not sent again."""

    def cancel(self, order_ref: str) -> Report:
        """Cancel what is still working of an order."""

    def open_orders(self) -> tuple[Report, ...]:
        """Return the orders that are working."""

    def executions(self, since: datetime | None = None) -> tuple[Execution, ...]:
        """Return what the broker remembers of fills at or after ``since``."""

    def positions(self) -> tuple[Position, ...]:
        """Return the shares held for each sleeve."""

    def replay(self, state: State, bar: Bar, rules: Rules, booked: Sequence[Execution]) -> State:
        """Return the books ``settle`` gave at a recorded bar, in which these were booked."""


class RemoteBroker(Broker, Protocol):
    """A broker across a network: what it says between closes, and what became of an order."""

    def begin(self, account: str = "") -> None:
        """Connect and take up what is there; without a link, go on trying.

        ``account``: how an event of kind ``account`` named the session's; no other is traded.
        """

    def abandon(self, orders: Mapping[str, str]) -> None:
        """Have orders of sessions that are over cancelled at the next link, if they still work:
        order_ref by the broker's own name for each. Called before ``begin``."""

    def close(self) -> None:
        """End the connection; orders stay."""

    def remember(
        self,
        told: Sequence[Execution],
        booked: Sequence[Execution],
        held: Mapping[tuple[str, str], float],
    ) -> None:
        """Take note, after a restart, of the executions the ledger knows, of those that are
        booked, and of the shares (by agent and symbol) that makes."""

    def listen(self, filled: Callable[[], None]) -> None:
        """Call ``filled`` from now on, in any thread, as soon as ``news`` holds a new execution or
        the fee of one. It must neither wait nor raise."""

    def news(self) -> News:
        """Return what has happened since this was asked last."""

    def fate(self, ticket: Ticket) -> Report | None:
        """Return what became of an order that may have been sent; None: it never arrived.

        Raises ``BrokerUnavailable`` while that cannot be known.
        """

    def unexplained(self, symbol: str) -> float:
        """Return the shares on the account that no sleeve holds, at the newest answer."""

    def lost(self, agent: str) -> str:
        """Say which order of a sleeve met a fate that can no longer be known; empty: none."""

    def preview(self, agent: str, state: State, rules: Rules) -> State:
        """Return the books with what has been executed since the close, not marked."""


def remote(broker: Broker) -> RemoteBroker | None:
    """Return the broker as one across a network, if it is one."""
    return cast(RemoteBroker, broker) if broker.remote else None
