"""The paper broker: ``core.engine`` is the market, so paper equals backtest by construction.

Owns the names of working orders; the shares themselves are the engine's (``pending_shares``).
Orders fill at the next open within the volume limit, the rest keeps working. After a restart the
ledger tells it which orders were working. Knows neither ledger nor models.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core import engine
from core.accounts import State
from core.bars import Bar
from core.engine import Fills
from core.errors import BrokerError
from core.fills import NO_EXIT, STOP_EXIT
from core.risk import Rules
from serving.brokers.port import (
    Execution,
    Leg,
    Position,
    Report,
    Settled,
    Status,
    Ticket,
)

KEPT = 1_000  # orders that are over, and executions: the newest


@dataclass(frozen=True, slots=True)
class _Working:
    ticket: Ticket
    filled: float  # signed shares


class PaperBroker:
    """Implements ``serving.brokers.port.Broker``; one symbol per sleeve."""

    name = "paper"
    mode = "paper"
    remote = False

    def __init__(self) -> None:
        self._working: dict[str, _Working] = {}  # by agent: the engine keeps one order a symbol
        self._entries: dict[str, Ticket] = {}  # by agent: whose fill made the position
        self._reports: dict[str, Report] = {}
        self._executions: deque[Execution] = deque(maxlen=KEPT)
        self._shares: dict[tuple[str, str], float] = {}

    def restore(self, working: Sequence[tuple[Ticket, Report]], entries: Sequence[Ticket]) -> None:
        """Take up working orders and the tickets behind open positions, as the ledger has them."""
        for ticket, report in working:
            self._working[ticket.agent] = _Working(ticket, report.filled)
            self._reports[ticket.order_ref] = report
        self._entries.update({ticket.agent: ticket for ticket in entries})

    def place(self, ticket: Ticket) -> Report:
        """Accept an order for the next open."""
        if known := self._reports.get(ticket.order_ref):
            return known
        if blocking := self._working.get(ticket.agent):
            raise BrokerError(
                f"{ticket.order_ref}: {blocking.ticket.order_ref} is still working for "
                f"{ticket.agent}; cancel it first"
            )
        self._working[ticket.agent] = _Working(ticket, 0.0)
        return self._report(ticket.order_ref, "submitted", 0.0, ticket.shares)

    def cancel(self, order_ref: str) -> Report:
        """Take an order out of the book; one that is done stays as it is."""
        known = self._reports.get(order_ref)
        if known is None:
            raise BrokerError(f"{order_ref}: no such order at the paper broker")
        for agent, working in list(self._working.items()):
            if working.ticket.order_ref == order_ref:
                del self._working[agent]
                return self._report(order_ref, "cancelled", known.filled, 0.0)
        return known

    def open_orders(self) -> tuple[Report, ...]:
        return tuple(self._reports[w.ticket.order_ref] for w in self._working.values())

    def executions(self, since: datetime | None = None) -> tuple[Execution, ...]:
        return tuple(e for e in self._executions if since is None or e.time >= since)

    def positions(self) -> tuple[Position, ...]:
        return tuple(
            Position(agent, symbol, shares)
            for (agent, symbol), shares in self._shares.items()
            if shares
        )

    def replay(self, state: State, bar: Bar, rules: Rules, booked: Sequence[Execution]) -> State:
        """The engine is deterministic: it comes to the same fills again."""
        return engine.settle(state, bar, rules).state

    def settle(self, agent: str, state: State, bar: Bar, rules: Rules, time: datetime) -> Settled:
        """Let the engine live through the bar, and tell what it did in terms of orders."""
        due = state
        if float(bar.split_ratio[0]) != 1.0:
            due = engine.apply_split(state, bar)
        after, fills = engine.settle(state, bar, rules)
        executions: list[Execution] = []
        reports: list[Report] = []
        triggered: tuple[Ticket, ...] = ()
        left = float(after.pending_shares[0, 0])
        leaving = float(fills.exit_reason[0, 0]) != NO_EXIT
        # A sleeve that halts drops its order; the engine has put the liquidation in its place.
        halts = bool(after.halted[0]) and not bool(state.halted[0])
        if agent in self._working:
            ticket, opened = self._working[agent].ticket, _opened(fills)
            executions += opened.executed(ticket, time)
            if opened.shares and ticket.leg == "entry":
                self._entries[agent] = ticket
            whole = opened.shares == float(due.pending_shares[0, 0])
            remaining = 0.0 if leaving or halts else left
            if opened.shares or remaining != self._reports[ticket.order_ref].remaining:
                reports.append(self._advance(ticket, opened.shares, remaining, whole))
        if leaving:
            ticket, closed = self._protective(agent, fills, left), _closed(fills)
            triggered = (ticket,)
            executions += closed.executed(ticket, time)
            reports.append(self._advance(ticket, closed.shares, left, whole=True))
        self._executions += executions
        for execution in executions:
            self._shares[agent, execution.symbol] = float(after.shares[0, 0])
        return Settled(after, tuple(executions), tuple(reports), triggered)

    def _advance(self, ticket: Ticket, shares: float, remaining: float, whole: bool) -> Report:
        """Book ``shares`` on an order; it works on while something remains."""
        known = self._reports.get(ticket.order_ref)
        filled = (known.filled if known else 0.0) + shares
        self._working.pop(ticket.agent, None)
        if remaining:
            self._working[ticket.agent] = _Working(ticket, filled)
            word: Status = "partial" if filled else "submitted"
        else:
            word = "filled" if whole else "cancelled"
        return self._report(ticket.order_ref, word, filled, remaining)

    def _protective(self, agent: str, fills: Fills, left: float) -> Ticket:
        """Name the stop or target that came to life after the entry it protects."""
        entry = self._entries.get(agent)
        if entry is None:
            raise BrokerError(f"{agent}: a stop came to life, but the ledger knows no entry for it")
        leg: Leg = "stop" if float(fills.exit_reason[0, 0]) == STOP_EXIT else "target"
        return replace(
            entry,
            leg=leg,
            kind="stop" if leg == "stop" else "limit",
            shares=float(fills.exit_shares[0, 0]) + left,
        )

    def _report(self, order_ref: str, status: Status, filled: float, remaining: float) -> Report:
        report = Report(order_ref, status, filled, remaining, f"paper:{order_ref}")
        self._reports[order_ref] = report
        if len(self._reports) > 2 * KEPT:
            self._forget()
        return report

    def _forget(self) -> None:
        """Let go of the oldest orders that work no more; the ledger has them."""
        working = {one.ticket.order_ref for one in self._working.values()}
        for order_ref in list(self._reports)[:-KEPT]:
            if order_ref not in working:
                del self._reports[order_ref]


@dataclass(frozen=True, slots=True)
class _Traded:
    """One of the two trades the engine can make in a bar."""

    shares: float
    price: float
    commission: float
    slippage: float

    def executed(self, ticket: Ticket, time: datetime) -> list[Execution]:
        if not self.shares:
            return []
        return [
            Execution(
                exec_id=f"{ticket.order_ref}@{time:%Y%m%dT%H%M%S}",
                order_ref=ticket.order_ref,
                agent=ticket.agent,
                symbol=ticket.symbol,
                leg=ticket.leg,
                shares=self.shares,
                price=self.price,
                commission=self.commission,
                slippage=self.slippage,
                time=time,
            )
        ]


def _opened(fills: Fills) -> _Traded:
    """Return what traded at the open."""
    return _Traded(
        shares=float(fills.open_shares[0, 0]),
        price=float(fills.open_price[0, 0]),
        commission=float(fills.open_commission[0, 0]),
        slippage=float(fills.open_slippage[0, 0]),
    )


def _closed(fills: Fills) -> _Traded:
    """Return what a stop or target traded."""
    return _Traded(
        shares=float(fills.exit_shares[0, 0]),
        price=float(fills.exit_price[0, 0]),
        commission=float(fills.exit_commission[0, 0]),
        slippage=float(fills.exit_slippage[0, 0]),
    )
