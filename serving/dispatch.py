"""Dispatch: the orders of one sleeve at a broker that answers late, twice or not at all.

Owns what hangs: an order that may or may not have arrived, a cancel nobody confirmed, stops and
targets that no longer fit the position. Nothing is sent on a guess: what may have been sent is
asked for first, what it replaces must be gone, and the position must be the one it was decided on.
Every order is in the ledger before it leaves. Decides no targets and keeps no books.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from core.accounts import State
from core.errors import BrokerError, BrokerUnavailable
from core.risk import Rules
from serving.brokers.port import WORKING, Execution, Leg, RemoteBroker, Report, Ticket
from serving.closing import executed_of, execution_of, intent_of, report_of, status_of, ticket_of
from serving.ledger import Ledger, rows

CENT = 0.01  # the price step of US stocks
KEPT = timedelta(days=4)  # orders of older decisions are forgotten, but for those at work


class Dispatch:
    """Sends, resolves and protects for one agent in one session."""

    def __init__(
        self,
        session: int,
        agent: str,
        symbol: str,
        broker: RemoteBroker,
        ledger: Ledger,
        rules: Rules,
    ) -> None:
        self._session, self._agent, self._symbol = session, agent, symbol
        self._broker = broker
        self._ledger = ledger
        self._rules = rules
        self._tickets: dict[str, Ticket] = {}  # of this sleeve's newest days, by order_ref
        self._cancels: list[str] = []  # to be gone before the next order
        self._next: Ticket | None = None  # the newest decision's order, not yet placed
        self._may_be_there = False  # ``_next`` may have been sent
        self._held = 0.0  # the shares it was decided on
        self._hanging: dict[str, Ticket] = {}  # written, perhaps sent, not to be sent again
        self._time: datetime | None = None  # of the newest close
        self._version = ""
        self._told = ""
        # Shares and their exits when these last fitted: who misses one that was not ours to cancel?
        self._standing: tuple[float, frozenset[str]] | None = None
        self._gone: frozenset[str] = frozenset()
        self._recovered: tuple[float, frozenset[str]] | None = None  # the same, by the ledger
        self.bare = False  # no stops and targets: a person wants no order at all
        self.stopped = ""  # why this sleeve orders nothing any more

    def live_by(self, rules: Rules) -> None:
        """Protect by other rules from now on."""
        self._rules = rules

    def entries(self, working: dict[str, Report]) -> dict[str, Report]:
        """Return the orders among ``working`` that move the position to a target."""
        return {ref: one for ref, one in working.items() if self._is_entry(ref)}

    def send(
        self,
        cancels: Sequence[str],
        ticket: Ticket | None,
        state: State,
        time: datetime,
        version: str,
        held: float | None = None,
    ) -> None:
        """Let the decision of a close replace the one before, as far as the broker answers.

        ``held``: the shares it was made on, where those of the close are not the newest known.
        """
        if self._next is not None:
            self._hanging[self._next.order_ref] = self._next
        new_day = self._time is None or time.date() != self._time.date()
        self._time, self._version = time, version
        self._standing = None  # a close renews what is gone
        self._next, self._may_be_there = ticket, False
        self._held = float(state.shares[0, 0]) if held is None else held
        self._cancels = list(cancels)
        if ticket is not None:
            self._tickets[ticket.order_ref] = ticket
        self.mind(state)
        if new_day:
            self._forget(time)

    def mind(self, state: State) -> None:
        """Bring the broker in line with the ledger, as far as it answers; call again and again."""
        if self.stopped or self._time is None:
            return
        try:
            if reason := self._broker.lost(self._agent):
                raise BrokerError(reason)
            self._resolve()
            self._order(state)
            self._protect(state)
            self._told = ""
        except BrokerUnavailable as error:
            self._say("order waits", str(error))
        except BrokerError as error:
            self.stopped = str(error)
            self._say("agent stopped", f"{error}; it orders nothing until the session is resumed")

    @property
    def rests(self) -> bool:
        """Whether nothing that was written, sent or cancelled still waits for an answer."""
        return not (self._next or self._hanging or self._told)

    def held(self, state: State) -> float:
        """Return the shares with what has been executed since the close."""
        now = self._broker.preview(self._agent, state, self._rules)
        return float(now.shares[0, 0])

    def hear(self, executions: Sequence[Execution]) -> None:
        """Write down what was executed, before the broker forgets it at midnight."""
        mine = [one for one in executions if one.agent == self._agent]
        if mine:
            with self._ledger.transaction():
                for execution in mine:
                    self._ledger.add_new(executed_of(self._session, execution))

    def recover(self, state: State, time: datetime, version: str) -> None:
        """After a restart: give the broker its memory back, then resolve what had been written."""
        of: dict[str, Any] = {"session": self._session, "agent": self._agent}
        levels = {one.order_ref: one.price for one in self._ledger.rows(rows.Level)}
        orders = self._ledger.rows(rows.Order, **of)
        tickets = {o.order_ref: ticket_of(o, levels.get(o.order_ref, math.nan)) for o in orders}
        working = [order for order in orders if order.status in WORKING]
        self._tickets = tickets
        self._broker.restore(
            [(tickets[order.order_ref], report_of(order)) for order in working],
            [tickets[order.order_ref] for order in orders],
        )
        self._broker.remember(
            [execution_of(row) for row in self._ledger.rows(rows.Executed, **of)],
            [execution_of(row) for row in self._ledger.rows(rows.Fill, **of)],
            {(self._agent, self._symbol): float(state.shares[0, 0])},
        )
        unsent = [tickets[order.order_ref] for order in orders if order.status == "intended"]
        for ticket in unsent:
            if ticket.leg == "entry" and ticket.bar_time == time:
                if self._next is not None:  # a person stopped it before its order was known
                    self._hanging[self._next.order_ref] = self._next
                self._next, self._may_be_there = ticket, True
                self._cancels = [o.order_ref for o in working if self._is_entry(o.order_ref)]
            else:
                self._hanging[ticket.order_ref] = ticket
        self._time, self._version = time, version
        self._held = float(state.shares[0, 0])
        standing = [order.order_ref for order in working if not self._is_entry(order.order_ref)]
        self._recovered = float(state.shares[0, 0]), frozenset(standing)

    # -- inside

    def _forget(self, time: datetime) -> None:
        """Let go of the orders of decisions long ago that work no more; the ledger has them."""
        needed = {report.order_ref for report in self._broker.open_orders()}
        needed |= self._hanging.keys() | {*self._cancels}
        for one in (self._standing, self._recovered):
            needed |= one[1] if one else set()
        self._tickets = {
            ref: ticket
            for ref, ticket in self._tickets.items()
            if ref in needed or ticket.bar_time >= time - KEPT
        }

    def _is_entry(self, order_ref: str) -> bool:
        ticket = self._tickets.get(order_ref)
        return ticket is not None and ticket.leg == "entry"  # another sleeve's is none of ours

    def _resolve(self) -> None:
        """Find out about orders that were overtaken before anybody knew their fate."""
        for ref, ticket in list(self._hanging.items()):
            report = self._broker.fate(ticket)
            if report is None:
                report = Report(ref, "cancelled", 0.0, 0.0, "")  # it was never there
            elif report.status in WORKING and ticket.leg == "entry":
                report = self._broker.cancel(ref)
            self._note(report)
            del self._hanging[ref]

    def _order(self, state: State) -> None:
        """Place the newest decision's order once what it replaces is gone."""
        ticket = self._next
        report = self._broker.fate(ticket) if ticket and self._may_be_there else None
        if report is None:
            self._clear()
        if ticket is None:
            return
        if report is None and self._is_overtaken(state):
            report = Report(ticket.order_ref, "cancelled", 0.0, 0.0, "")
            self._say("order overtaken", f"{ticket.order_ref}: a fill came first; not sent")
        if report is None:
            self._may_be_there = True
            report = self._broker.place(ticket)
        self._note(report)
        self._next = None

    def _clear(self) -> None:
        """Cancel what the next order replaces; one that shrinks the position, stop and target."""
        if self._next is not None and self._next.shares * self._held < 0.0:
            self._cancels += [ref for ref in self._exits() if ref not in self._cancels]
            self._recovered = None  # what is missed from now on is missed by our own doing
        while self._cancels:
            self._note(self._broker.cancel(self._cancels[0]))
            self._cancels.pop(0)

    def _is_overtaken(self, state: State) -> bool:
        return self.held(state) != self._held

    def _exits(self) -> dict[str, Report]:
        return {
            report.order_ref: report
            for report in self._broker.open_orders()
            if report.order_ref in self._tickets and not self._is_entry(report.order_ref)
        }

    def _protect(self, state: State) -> None:
        """See that stop and target at the broker fit the position as it is now."""
        if any(self._is_entry(report.order_ref) for report in self._broker.open_orders()):
            return
        now = self._broker.preview(self._agent, state, self._rules)
        held = float(now.shares[0, 0])
        exits = self._exits()
        wanted = [] if self.bare else _levels(now)
        placed = sorted(
            (self._tickets[ref].leg, report.remaining, self._tickets[ref].price)
            for ref, report in exits.items()
        )
        if placed == wanted:
            self._standing = held, frozenset(exits)
            return
        if self._recovered and self._broker.unexplained(self._symbol):
            self._standing = self._recovered  # they may be gone since before the restart
        self._recovered = None
        if self._standing and self._standing[0] == held and self._misses(exits):
            return
        self._standing = None
        for ref in exits:
            self._note(self._broker.cancel(ref))
        again = self._broker.preview(self._agent, state, self._rules)
        if float(again.shares[0, 0]) != float(now.shares[0, 0]):
            return  # a fill crossed the cancel; next time
        self._place_exits([self._exit(*one) for one in wanted])

    def _misses(self, exits: Mapping[str, Report]) -> bool:
        """Notice exits that others cancelled: IBKR does when a stock splits, at prices long wrong.

        They are not renewed before the next close, which knows of a split.
        """
        assert self._standing is not None
        gone = self._standing[1] - exits.keys()
        if gone and gone != self._gone:
            refs = ", ".join(sorted(gone))
            self._say("exit gone", f"{refs}: cancelled by others; the next close renews it")
        self._gone = gone
        return bool(gone)

    def _exit(self, leg: Leg, shares: float, price: float) -> Ticket:
        assert self._time is not None
        same = [t for t in self._tickets.values() if t.leg == leg and t.bar_time == self._time]
        return Ticket(
            session=self._session,
            agent=self._agent,
            symbol=self._symbol,
            shares=shares,
            bar_time=self._time,
            leg=leg,
            model_version=self._version,
            kind="stop" if leg == "stop" else "limit",
            price=price,
            replica=len(same),
        )

    def _place_exits(self, tickets: Sequence[Ticket]) -> None:
        with self._ledger.transaction():
            for ticket in tickets:
                self._ledger.add(
                    intent_of(ticket),
                    rows.Level(
                        session=self._session, order_ref=ticket.order_ref, price=ticket.price
                    ),
                )
        for ticket in tickets:
            self._tickets[ticket.order_ref] = self._hanging[ticket.order_ref] = ticket
        for ticket in tickets:
            self._note(self._broker.place(ticket))
            del self._hanging[ticket.order_ref]

    def _note(self, report: Report) -> None:
        assert self._time is not None
        with self._ledger.transaction():
            self._ledger.add(status_of(self._session, report, self._time))

    def _say(self, kind: str, detail: str) -> None:
        if detail == self._told:
            return
        self._told = detail
        event = rows.RiskEvent(
            session=self._session,
            agent=self._agent,
            bar_time=self._time,
            kind=kind,
            detail=detail,
        )
        with self._ledger.transaction():
            self._ledger.add(event)


def _levels(state: State) -> list[tuple[Leg, float, float]]:
    """Return leg, signed shares and price of the exits a position needs, sorted."""
    shares = -float(state.shares[0, 0])
    levels: list[tuple[Leg, float]] = [
        ("stop", float(state.stop[0, 0])),
        ("target", float(state.target[0, 0])),
    ]
    return [
        (leg, shares, round(round(price / CENT) * CENT, 2))
        for leg, price in levels
        if shares and math.isfinite(price) and price > 0.0
    ]
