"""The paper broker: ``core.engine`` is the market, so paper equals backtest by construction.

Owns the names of working orders; the shares themselves are the engine's (``pending_shares``).
Orders fill at the next open within the volume limit, the rest keeps working. After a restart the
ledger tells it which orders were working. Knows neither ledger nor models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core import costs, engine
from core.accounts import State
from core.bars import Bar
from core.engine import STOP_EXIT, Fills
from core.errors import BrokerError
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


@dataclass(frozen=True, slots=True)
class _Working:
    ticket: Ticket
    filled: float  # signed shares


class PaperBroker:
    """Implements ``serving.brokers.port.Broker``; one symbol per sleeve."""

    name = "paper"

    def __init__(self) -> None:
        self._working: dict[str, _Working] = {}  # by agent: the engine keeps one order a symbol
        self._entries: dict[str, Ticket] = {}  # by agent: whose fill made the position
        self._reports: dict[str, Report] = {}
        self._executions: list[Execution] = []
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

    def settle(self, agent: str, state: State, bar: Bar, rules: Rules, time: datetime) -> Settled:
        """Let the engine live through the bar, and tell what it did in terms of orders."""
        expected = float(engine.apply_actions(state, bar).pending_shares[0, 0])
        settlement = engine.settle(state, bar, rules)
        after, fills = settlement.state, settlement.fills
        left = float(after.pending_shares[0, 0])
        opened, closed = _trades(fills, bar, rules)
        executions: list[Execution] = []
        reports: list[Report] = []
        triggered: tuple[Ticket, ...] = ()
        if agent in self._working:
            ticket = self._working[agent].ticket
            whole = opened.shares == expected
            stays = left != 0.0 and not fills.exit_reason[0, 0]
            executions += opened.executed(ticket, time)
            if opened.shares and ticket.leg == "entry":
                self._entries[agent] = ticket
            if not stays or opened.shares:
                reports.append(self._advance(ticket, opened.shares, left if stays else 0.0, whole))
        if fills.exit_reason[0, 0]:
            ticket = self._protective(agent, fills, left)
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
        leg: Leg = "stop" if int(fills.exit_reason[0, 0]) == STOP_EXIT else "target"
        return replace(
            entry,
            leg=leg,
            kind="stop" if leg == "stop" else "limit",
            shares=float(fills.exit_shares[0, 0]) + left,
        )

    def _report(self, order_ref: str, status: Status, filled: float, remaining: float) -> Report:
        report = Report(order_ref, status, filled, remaining, f"paper:{order_ref}")
        self._reports[order_ref] = report
        return report


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


def _trades(fills: Fills, bar: Bar, rules: Rules) -> tuple[_Traded, _Traded]:
    """Split what traded at the open from what a stop or target traded: the engine adds costs up."""
    size, price = abs(fills.open_shares), fills.open_price
    fee = float(costs.commission(size, price, rules)[0, 0])
    slippage = float((size * abs(price - bar.open))[0, 0])
    opened = _Traded(float(fills.open_shares[0, 0]), float(price[0, 0]), fee, slippage)
    fee = float(costs.commission(abs(fills.exit_shares), fills.exit_price, rules)[0, 0])
    rest = max(float(fills.slippage[0, 0]) - slippage, 0.0)
    exit_price = float(fills.exit_price[0, 0])
    return opened, _Traded(float(fills.exit_shares[0, 0]), exit_price, fee, rest)
