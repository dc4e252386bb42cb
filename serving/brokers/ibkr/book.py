"""The order book: what we asked for, what IBKR told of it, and what the sleeves have booked.

Owns the fate of every order. Words that are said once and in no order (statuses, warnings, errors)
only raise doubt; a fate is decided by complete answers: all open orders, completed orders and
executions of the day. Shares are counted from executions alone, the newest correction of each
(``execId`` ending .02 replaces .01). Knows neither sockets nor the ledger.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from serving.brokers.ibkr.aging import Ages
from serving.brokers.port import WORKING, Execution, Report, Status, Ticket


@dataclass(frozen=True, slots=True)
class Seen:
    """An order as IBKR shows it."""

    order_ref: str
    perm_id: int
    order_id: int
    client_id: int
    symbol: str
    text: str  # for people: BUY 100 AAPL LMT


@dataclass(frozen=True, slots=True)
class Told:
    """An execution as IBKR tells it."""

    exec_id: str
    order_ref: str
    symbol: str
    shares: float  # signed
    price: float
    commission: float  # account currency; NaN: not told yet
    time: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """All IBKR knows at one moment."""

    open_orders: tuple[Seen, ...]
    completed: tuple[Seen, ...]
    executions: tuple[Told, ...]
    positions: dict[str, float]  # shares of the account by symbol
    # Shares that statuses say have filled at least, by order_ref:
    said: dict[str, float] = field(default_factory=dict)


def base_of(exec_id: str) -> str:
    """Return what an execution has in common with its corrections and our own bookings of it."""
    return exec_id.partition("/")[0].rsplit(".", 1)[0]


def _number(exec_id: str) -> int:
    digits = exec_id.partition("/")[0].rsplit(".", 1)[-1]
    return int(digits) if digits.isdecimal() else 0


@dataclass(slots=True)
class _Booked:
    """What the sleeve's books already hold of one execution."""

    last: Execution  # the newest that brought shares
    commission: float = 0.0


LOST = (
    "{}: it worked when IBKR was last asked; now IBKR has no word of it, and the account holds "
    "{:+,.0f} {} that no sleeve bought or sold. It filled on a day whose executions IBKR no longer "
    "tells; compare with the statement, then begin a new session"
)


@dataclass(slots=True)
class OrderBook:
    """Not thread-safe: its owner locks."""

    tickets: dict[str, Ticket] = field(default_factory=dict)  # by order_ref
    open: dict[str, Seen] = field(default_factory=dict)  # by order_ref, at the newest answer
    afloat: set[str] = field(default_factory=set)  # sent, not yet in any answer
    known: set[str] = field(default_factory=set)  # IBKR had them once
    sent_on: dict[str, str] = field(default_factory=dict)  # ISO day in the account's zone, by ref
    told: dict[str, Execution] = field(default_factory=dict)  # by base
    foreign: dict[str, float] = field(default_factory=dict)  # shares nobody here bought
    held: dict[tuple[str, str], float] = field(default_factory=dict)  # by agent and symbol, booked
    suspected: dict[str, float] = field(default_factory=dict)  # the same, at the newest answer
    strangers: set[int] = field(default_factory=set)  # permIds of orders nobody here sent
    symbols: dict[str, set[str]] = field(default_factory=dict)  # ever ordered, by agent
    # What there is to look at again, so that no question grows with the orders of a session:
    _due: dict[str, set[str]] = field(default_factory=dict)  # bases perhaps unbooked, by agent
    _touched: dict[str, set[str]] = field(default_factory=dict)  # orders with news, by agent
    _filled: dict[str, float] = field(default_factory=dict)  # shares by order_ref
    doubted: dict[str, float] = field(default_factory=dict)  # gone without a word: foreign then
    lost: dict[str, str] = field(default_factory=dict)  # why a fate is unknown; "" till asked again
    _said: dict[str, float] = field(default_factory=dict)  # filled by the newest statuses
    _restored: set[str] = field(default_factory=set)  # at work when the ledger was read
    _booked: dict[str, _Booked] = field(default_factory=dict)  # by base
    _reported: dict[str, Report] = field(default_factory=dict)
    _news: dict[str, Execution] = field(default_factory=dict)  # by execId
    _ages: Ages = field(default_factory=Ages)

    # -- from the ledger

    def remember(self, told: Iterable[Execution], booked: Iterable[Execution]) -> None:
        for execution in told:
            self._take(execution)
        for execution in booked:
            self.mark_booked(execution)
            if execution.shares and "/" not in execution.exec_id:
                self._take(execution)
        self._news.clear()

    def restore(self, ticket: Ticket, report: Report | None) -> None:
        self.add(ticket)
        if report:
            self.known.add(ticket.order_ref)
            self._reported[ticket.order_ref] = report
            if report.status in WORKING:
                self._restored.add(ticket.order_ref)

    def add(self, ticket: Ticket) -> None:
        """Know an order as ours."""
        self.tickets[ticket.order_ref] = ticket
        self.symbols.setdefault(ticket.agent, set()).add(ticket.symbol)
        self._touch(ticket.order_ref)

    def _touch(self, order_ref: str) -> None:
        if ticket := self.tickets.get(order_ref):
            self._ages.touch(order_ref)
            self._touched.setdefault(ticket.agent, set()).add(order_ref)

    def forget(self, today: str) -> set[str]:
        """Let go of orders that ended some days of trading ago; return which. ``today``: ISO day.

        Corrections come on the day of the fill, and until they are booked an order is not over.
        """
        at_work = {*self.open, *self.afloat, *self._restored, *self.doubted, *self.lost}
        due = {self.told[base].order_ref for bases in self._due.values() for base in bases}
        untold = {ref for refs in self._touched.values() for ref in refs & self.known}
        over = self._ages.over(today, at_work | due | untold)
        for order_ref in over:
            self._touched.get(self.tickets.pop(order_ref).agent, set()).discard(order_ref)
            self.known.discard(order_ref)
            self.sent_on.pop(order_ref, None)
            self._filled.pop(order_ref, None)
            self._reported.pop(order_ref, None)
        if over:
            self.told = {b: one for b, one in self.told.items() if one.order_ref not in over}
            self._booked = {b: o for b, o in self._booked.items() if o.last.order_ref not in over}
        return over

    # -- from IBKR

    def hear(self, answer: Answer, whole: bool = True) -> list[tuple[str, str]]:
        """Take an answer; return what is out of the ordinary. ``whole``: completed orders too."""
        events = []
        before = {*self.open, *self.afloat}
        working = {*self.open, *self._restored}
        self._restored.clear()
        sent = set(self.afloat)
        self.open = {seen.order_ref: seen for seen in answer.open_orders if self.ours(seen)}
        self.afloat.clear()
        completed = {seen.order_ref for seen in answer.completed if self.ours(seen)}
        for order_ref in before | self.open.keys() | (completed - self.known):
            self._touch(order_ref)
        self.known |= self.open.keys() | completed
        for told in answer.executions:
            self.execute(told)
        self._said = {ref: n for ref, n in answer.said.items() if ref in self.tickets}
        working |= set(filter(self.untold, sent))
        self._miss(working - self.open.keys(), completed if whole else None, answer.positions)
        self.strangers &= {seen.perm_id for seen in answer.open_orders}
        for seen in answer.open_orders:
            if not self.ours(seen) and seen.perm_id not in self.strangers:
                self.strangers.add(seen.perm_id)
                events.append(("foreign order", f"{seen.text}: not ours, left alone"))
        return events + self._compare(answer.positions)

    def _miss(
        self, gone: set[str], completed: set[str] | None, positions: dict[str, float]
    ) -> None:
        """Tell orders that ended unseen from those that filled on a day that is told no more.

        A fill may lie between the answers about executions and positions: two answers decide.
        """
        for order_ref in gone - self.doubted.keys():
            self.doubted[order_ref] = self.foreign.get(self.tickets[order_ref].symbol, 0.0)
        doubted, self.doubted = self.doubted, {}
        suspects, self.lost = self.lost, {}
        for order_ref, foreign in doubted.items():
            ticket = self.tickets[order_ref]
            left = ticket.shares - self.filled(order_ref)
            fresh = positions.get(ticket.symbol, 0.0) - self._own(ticket.symbol) - foreign
            if self.untold(order_ref):
                self.doubted[order_ref], self.lost[order_ref] = foreign, ""
            elif order_ref not in (completed or ()) and 0.0 < fresh * left <= left * left:
                self.doubted[order_ref] = foreign
                sure = completed is not None and order_ref in suspects
                words = LOST.format(order_ref, fresh, ticket.symbol)
                self.lost[order_ref] = words if sure else suspects.get(order_ref, "")

    def untold(self, order_ref: str) -> bool:
        """Tell whether IBKR calls more of an order filled than its executions are.

        A status may come before them. A correction may take shares back, and no status tells of it.
        """
        if self._said.get(order_ref, 0.0) <= abs(self.filled(order_ref)):
            return False
        mine = [one for one in self.told.values() if one.order_ref == order_ref]
        return all(_number(one.exec_id) <= 1 for one in mine)

    def _own(self, symbol: str) -> float:
        """Return the shares that the sleeves hold of a symbol, booked or not yet."""
        held = sum(shares for (_, name), shares in self.held.items() if name == symbol)
        unbooked = [one for agent in self.symbols for one in self.unbooked(agent)]
        return held + sum(one.shares for one in unbooked if one.symbol == symbol)

    def execute(self, told: Told) -> bool:
        """Take one execution, or a correction of one; return whether it was news."""
        ticket = self.tickets.get(told.order_ref)
        if ticket is None:
            return False
        self.known.add(told.order_ref)
        return self._take(
            Execution(
                exec_id=told.exec_id,
                order_ref=told.order_ref,
                agent=ticket.agent,
                symbol=ticket.symbol,
                leg=ticket.leg,
                shares=told.shares,
                price=told.price,
                commission=told.commission,
                slippage=0.0,
                time=told.time,
            )
        )

    def ours(self, seen: Seen) -> bool:
        return seen.order_ref in self.tickets

    def _take(self, execution: Execution) -> bool:
        """Take an execution; return whether anything of it was not known."""
        base = base_of(execution.exec_id)
        known = self.told.get(base)
        if known and _number(execution.exec_id) < _number(known.exec_id):
            return False
        if known and known.exec_id == execution.exec_id and not math.isnan(known.commission):
            return False
        if known and math.isnan(execution.commission) and known.exec_id == execution.exec_id:
            return False
        ref = execution.order_ref
        self._filled[ref] = self._filled.get(ref, 0.0) + execution.shares
        if known:
            self._filled[known.order_ref] -= known.shares
        self.told[base] = execution
        self._news[execution.exec_id] = execution
        self._due.setdefault(execution.agent, set()).add(base)
        self._touch(ref)
        return True

    def _compare(self, positions: dict[str, float]) -> list[tuple[str, str]]:
        """Hold the account against our own shares; what is beyond them is not ours."""
        events = []
        ours = {symbol for symbols in self.symbols.values() for symbol in symbols}
        for symbol in sorted(positions.keys() | ours):
            beyond = positions.get(symbol, 0.0) - self._own(symbol)
            # A fill may lie between two of the answers: only what stays is worth a word.
            stays = self.suspected.get(symbol) == beyond
            self.suspected[symbol] = beyond
            if stays and beyond != self.foreign.get(symbol, 0.0):
                self.foreign[symbol] = beyond
                text = f"{symbol}: {beyond:+,.0f} shares on the account that no sleeve holds"
                events.append(("foreign position", f"{text}; left alone"))
        return events

    # -- asked

    def filled(self, order_ref: str) -> float:
        return self._filled.get(order_ref, 0.0)

    def report(self, order_ref: str) -> Report:
        """Return the newest word on an order of ours that IBKR knows or was just sent."""
        ticket, seen = self.tickets[order_ref], self.open.get(order_ref)
        filled = self.filled(order_ref)
        left = ticket.shares - filled
        if filled and left * ticket.shares <= 0.0:
            status, left = "filled", 0.0
        elif seen or order_ref in self.afloat:
            status = "partial" if filled else "submitted"
        else:
            status, left = "cancelled", 0.0
        word: Status = status  # type: ignore[assignment]
        return Report(order_ref, word, filled, left, str(seen.perm_id) if seen else "")

    def working(self, agent: str, leg: str | None = None) -> list[Report]:
        found = []
        for order_ref in {*self.open, *self.afloat}:
            ticket = self.tickets.get(order_ref)
            if ticket and ticket.agent == agent and leg in (None, ticket.leg):
                report = self.report(order_ref)
                if report.status in WORKING:
                    found.append(report)
        return found

    def changed(self, agent: str) -> list[Report]:
        """Return the orders of an agent with news since this was asked last."""
        fresh = []
        touched = self._touched.get(agent, set())
        for order_ref in sorted((touched & self.known) - self.lost.keys()):
            touched.discard(order_ref)
            report = self.report(order_ref)
            if not same(report, self._reported.get(order_ref)):
                self._reported[order_ref] = report
                fresh.append(report)
        return fresh

    def ended_unseen(self, report: Report) -> bool:
        """Tell whether an order is cancelled, nothing of it filled, and nobody was told yet."""
        before = self._reported.get(report.order_ref)
        fresh = before is None or before.status in WORKING
        return fresh and report.status == "cancelled" and not report.filled

    def note(self, report: Report) -> Report:
        self._reported[report.order_ref] = report
        return report

    def take_news(self) -> tuple[Execution, ...]:
        news = tuple(self._news.values())
        self._news.clear()
        return news

    # -- booking

    def unbooked(self, agent: str) -> list[Execution]:
        """Return what the agent's books lack: fills, corrections as two rows, late fees."""
        found: list[Execution] = []
        due = self._due.get(agent, set())
        mine = [self.told[base] for base in due]
        for execution in sorted(mine, key=lambda one: (one.time, one.exec_id)):
            base = base_of(execution.exec_id)
            lacking = self._difference(execution, self._booked.get(base))
            if not lacking:
                due.discard(base)
            found += lacking
        return found

    def _difference(self, told: Execution, booked: _Booked | None) -> list[Execution]:
        fee = 0.0 if math.isnan(told.commission) else told.commission
        if booked is None:
            return [replace(told, commission=fee)]
        last = booked.last
        if (last.shares, last.price) != (told.shares, told.price):
            back = replace(
                last,
                exec_id=f"{last.exec_id}/back",
                shares=-last.shares,
                commission=-booked.commission,
                leg="entry",
            )
            return [back, replace(told, commission=fee)]
        if fee != booked.commission and not math.isnan(told.commission):
            late = f"{told.exec_id}/fee"
            return [replace(told, exec_id=late, shares=0.0, commission=fee - booked.commission)]
        return []

    def mark_booked(self, execution: Execution) -> None:
        base = base_of(execution.exec_id)
        known = self._booked.get(base)
        if execution.exec_id.endswith("/back"):
            self._booked.pop(base, None)
        elif known is None or execution.shares:
            self._booked[base] = _Booked(execution, execution.commission)
        else:
            known.commission += execution.commission


def same(one: Report, other: Report | None) -> bool:
    """Tell whether two reports say the same of an order."""
    return other is not None and (one.status, one.filled, one.remaining) == (
        other.status,
        other.filled,
        other.remaining,
    )
