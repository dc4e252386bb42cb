"""A sleeve: one agent's own cash, shares and equity, and what happens to it at every bar.

Owns the order of events at a close: settle, see, decide, judge, record, send. An intent is durable
in the ledger before its order leaves, and everything of one bar is one transaction; so a crash at
any point leaves whole bars, and ``recover`` sends what was written but not yet sent. Knows
brokers by their port only, and nothing of feeds, threads or registries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from core import engine
from core.accounts import State
from core.bars import BAR_COLUMNS, RISK_COLUMNS, Bar
from core.portfolio import Claim, applied
from core.risk import Reason, Rules
from serving.books import bar_of
from serving.brokers.port import WORKING, Broker, Execution, Report, Ticket, remote
from serving.closing import (
    Close,
    Cut,
    intent_of,
    report_of,
    status_of,
    ticket_of,
)
from serving.deciding import Trader
from serving.dispatch import Dispatch
from serving.history import FeedBar, History
from serving.ledger import Ledger, rows
from serving.switch import Policy


class Sleeve:
    """One agent's account in one session."""

    def __init__(
        self,
        session: int,
        trader: Trader,
        state: State,
        traded: History,
        signal: History,  # the same object where the agent looks at what it trades
        rules: Rules,
        broker: Broker,
        ledger: Ledger,
    ) -> None:
        self.session = session
        self.name = trader.name
        self.trader = trader
        self.state = state
        self.traded, self.signal = traded, signal
        self.paused = False
        self.stopped: Policy | None = None  # by the kill switch
        self.last: Close | None = None
        self._rules = rules
        self._broker = broker
        self._ledger = ledger
        self._dispatch: Dispatch | None = None
        if across := remote(broker):
            symbol = traded.instrument.symbol
            self._dispatch = Dispatch(session, trader.name, symbol, across, ledger, rules)
        self._working: dict[str, Report] = {}
        self._closed_at: datetime | None = None  # the newest close it has lived through
        self._skipped: list[FeedBar] = []

    def weigh(self, traded: FeedBar, signal: FeedBar, too_old: str = "") -> Close:
        """Live through one completed bar up to the verdict; ``write`` and ``send`` must follow.

        ``too_old`` says why nothing may be ordered on its price: the sleeve holds what it has.
        """
        self.traded.append(traded)
        if self.signal is not self.traded:
            self.signal.append(signal)
        self.trader.see()
        close = self._decide(traded, signal, too_old)
        if too_old and bool(close.verdict.moves[0, 0]):
            wanted = self.claim(close).wanted
            close = self.clipped(close, Cut(wanted, np.nan, Reason.STALE_PRICE, too_old))
        return close

    def write(self, close: Close) -> None:
        """Put a close into the ledger, inside the caller's transaction."""
        self._ledger.add(*close.record())
        for intent in close.intents():
            self._ledger.add_new(intent)

    def send(self, close: Close) -> None:
        """Let the orders of a close leave, once it is durable."""
        self.state, self.last, self._closed_at = close.after, close, close.time
        self._skipped.clear()
        if self._dispatch:  # which knows itself what works
            self._dispatch.send(
                close.cancels, close.ticket, close.after, close.time, close.model_version
            )
        else:
            self._working = self._after(close.settled.reports)
            self._send(close.cancels, close.ticket, close.time)

    def clipped(self, close: Close, cut: Cut) -> Close:
        """Return a close whose verdict something outside the sleeve has cut."""
        submitted = engine.Submission(close.after, close.verdict)
        after, verdict = applied(close.settled.state, submitted, cut.allowed, cut.reason)
        replaced, ticket = self._orders(close.working, after, close.time)
        return replace(
            close,
            verdict=verdict,
            reasons=int(verdict.reasons[0, 0]),
            after=after,
            cancels=tuple(close.working) if replaced else (),
            ticket=ticket,
            cut=cut,
        )

    def claim(self, close: Close | None = None) -> Claim:
        """Return what the sleeve holds and wants: at ``close``, or since its newest one."""
        state = close.after if close else self.state
        held, pending = float(state.shares[0, 0]), float(state.pending_shares[0, 0])
        return Claim(
            agent=self.name,
            symbol=self.traded.instrument.symbol,
            price=self.traded.newest_close,
            equity=float(state.equity[0]),
            held=held,
            wanted=held + pending,
            decided=close is not None and bool(close.verdict.moves[0, 0]),
        )

    @property
    def rules(self) -> Rules:
        return self._rules

    def live_by(self, rules: Rules) -> None:
        """Obey other rules from the next bar on."""
        self._rules = rules
        if self._dispatch:
            self._dispatch.live_by(rules)

    def stopped_by(self, policy: Policy | None) -> None:
        """Order nothing of its own while there is a ``policy``; None: decide again."""
        self.stopped = policy
        if self._dispatch:
            self._dispatch.bare = policy == "hold"

    def stop(self, policy: Policy, detail: str) -> None:
        """Between closes: take back what was ordered, by ``policy``, and order nothing more."""
        self.stopped_by(policy)
        time = self._closed_at
        if time is None:
            return  # nothing was ever ordered
        working = self._working
        if self._dispatch:
            open_orders = {report.order_ref: report for report in self._broker.open_orders()}
            working = self._dispatch.entries(open_orders)
        after = engine.recall(self.state, policy == "flatten")
        held = self.held
        shares = -held if policy == "flatten" else 0.0
        of: dict[str, Any] = {"session": self.session, "agent": self.name, "bar_time": time}
        before = self._ledger.rows(rows.Intervention, session=self.session, agent=self.name)
        replica = 1 + sum(1 for one in before if one.bar_time == time)
        ticket = self._ticket(shares, time, "market", replica) if shares else None
        with self._ledger.transaction():
            self._ledger.add(rows.Intervention(**of, policy=policy, detail=detail))
            if ticket:
                self._ledger.add_new(intent_of(ticket))
        self.state = after
        if self._dispatch:
            self._dispatch.send(tuple(working), ticket, after, time, self.trader.version, held)
        else:
            self._send(tuple(working), ticket, time)

    @property
    def held(self) -> float:
        """Return the shares: of the newest close, and what a broker has executed since."""
        return self._dispatch.held(self.state) if self._dispatch else float(self.state.shares[0, 0])

    @property
    def rests(self) -> bool:
        """Whether no order of this sleeve waits for a word of the broker."""
        return self._dispatch is None or self._dispatch.rests

    def hear(self, executions: Sequence[Execution]) -> None:
        """Write down what a broker across a network told; ``mind`` must follow."""
        if self._dispatch:
            self._dispatch.hear(executions)

    def mind(self) -> None:
        """Between closes: bring a broker across a network in line with the ledger."""
        if self._dispatch:
            self._dispatch.mind(self.state)

    def skip(self, bar: FeedBar) -> None:
        """Remember a bar whose counterpart never came: it is history, but no close of ours."""
        (self.traded if bar.instrument == self.traded.instrument else self.signal).append(bar)
        self._skipped.append(bar)

    def _with_carried_actions(self, values: dict[str, float]) -> dict[str, float]:
        """Add the splits and dividends of skipped bars, as datasets do (``carry_actions``)."""
        for bar in reversed(self._skipped):
            if bar.instrument == self.traded.instrument:
                skipped = dict(zip(BAR_COLUMNS, bar.values, strict=True))
                values["dividend"] += skipped["dividend"] / values["split_ratio"]
                values["split_ratio"] *= skipped["split_ratio"]
        return values

    def keep_snapshot(self) -> None:
        """Store the state since the newest close inside the caller's transaction."""
        if self.last is not None:
            self._ledger.add_snapshot(self.session, self.name, self.last.time, self.state)

    def _decide(self, traded: FeedBar, signal: FeedBar, too_old: str) -> Close:
        bar, time = self._bar(traded), traded.time
        settled = self._broker.settle(self.name, self.state, bar, self._rules, time)
        answer = self.trader.decide(settled.state, bar)
        holds = self.paused or self.stopped
        weight = 0.0 if self.stopped == "flatten" else np.nan if holds else answer.weight
        target = np.array([[weight]])
        submission = engine.submit(settled.state, target, bar, self._rules)
        working = self._after(settled.reports)
        if self._dispatch:
            open_orders = {report.order_ref: report for report in self._broker.open_orders()}
            working = self._dispatch.entries(open_orders)
        replaced, ticket = self._orders(working, submission.state, time)
        return Close(
            session=self.session,
            agent=self.name,
            model_version=self.trader.version,
            bundle_sha256=self.trader.bundle.sha256,
            traded=traded,
            signal=signal,
            bar=bar,
            before=self.state,
            settled=settled,
            answer=answer,
            paused=self.paused,
            too_old=too_old,
            stopped=self.stopped or "",
            verdict=submission.verdict,
            reasons=int(submission.verdict.reasons[0, 0]),
            after=submission.state,
            cancels=tuple(working) if replaced else (),
            ticket=ticket,
            skipped=tuple(self._skipped),
            working=working,
        )

    def _bar(self, newest: FeedBar) -> Bar:
        risk = self.traded.risk(self.trader.bundle.spec)
        values = dict(zip(BAR_COLUMNS + RISK_COLUMNS, (*newest.values, *risk), strict=True))
        return bar_of(self._with_carried_actions(values))

    def _after(self, reports: Sequence[Report]) -> dict[str, Report]:
        """Return the orders that still work after ``reports``."""
        known = self._working | {report.order_ref: report for report in reports}
        return {ref: report for ref, report in known.items() if report.status in WORKING}

    def _orders(
        self, working: Mapping[str, Report], after: State, time: datetime
    ) -> tuple[bool, Ticket | None]:
        """Say whether the new target replaces what is working, and return the order to place."""
        old = sum(report.remaining for report in working.values())
        new = float(after.pending_shares[0, 0])
        if new == old:
            return False, None
        if not new:
            return True, None
        one = self.traded.instrument
        daily = one.interval == "1d" and not one.decide
        return True, self._ticket(new, time, "market_on_open" if daily else "market")

    def _ticket(self, shares: float, time: datetime, kind: str, replica: int = 0) -> Ticket:
        return Ticket(
            session=self.session,
            agent=self.name,
            symbol=self.traded.instrument.symbol,
            shares=shares,
            bar_time=time,
            leg="entry",
            model_version=self.trader.version,
            kind=kind,
            replica=replica,
        )

    def _send(self, cancels: Sequence[str], ticket: Ticket | None, time: datetime) -> None:
        """Tell the broker, then the ledger what it said."""
        reports = [self._broker.cancel(order_ref) for order_ref in cancels]
        if ticket is not None:
            reports.append(self._broker.place(ticket))
        if reports:
            with self._ledger.transaction():
                self._ledger.add(*(status_of(self.session, r, time) for r in reports))
        self._working = self._after(reports)

    def recover(self, time: datetime) -> None:
        """After a restart: give the broker its orders back, and send what had not been sent."""
        self._closed_at = time
        if self._dispatch:
            self._dispatch.recover(self.state, time, self.trader.version)
            return
        of: dict[str, Any] = {"session": self.session, "agent": self.name}
        orders = self._ledger.rows(rows.Order, **of)
        working = [order for order in orders if order.status in WORKING]
        unsent = [order for order in orders if order.status == "intended"]
        fills = self._ledger.rows(rows.Fill, **of, leg="entry", newest=1)
        entries = [o for o in orders if fills and o.order_ref == fills[0].order_ref]
        self._broker.restore(
            [(ticket_of(order), report_of(order)) for order in working],
            [ticket_of(order) for order in entries],
        )
        self._working = {order.order_ref: report_of(order) for order in working}
        if unsent:
            self._send(tuple(self._working), ticket_of(unsent[-1]), time)
        elif not float(self.state.pending_shares[0, 0]):
            self._send(tuple(self._working), None, time)
