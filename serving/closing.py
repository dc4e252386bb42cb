"""A close: everything known about one bar of one sleeve, and how the ledger says it.

Owns the translation from engine, policy and broker to ledger rows and to words. Decides nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.accounts import State
from core.bars import BAR_COLUMNS, Bar
from core.risk import Reason, Verdict, describe
from serving.agent import Answer
from serving.attribution import Contribution
from serving.brokers.port import Execution, Report, Settled, Ticket
from serving.history import FeedBar
from serving.ledger import rows

RISK_STATES = ("ACTIVE", "REDUCING", "HALTED")
ROUTINE = int(Reason.NO_TRADE_BAND)  # happens at most bars: in the verdict, but no event


@dataclass(frozen=True, slots=True)
class Cut:
    """What was left of a verdict by something outside the sleeve."""

    wanted: float  # signed whole shares to hold
    allowed: float  # signed whole shares; NaN: keep what is held and working
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Close:
    """One bar in the life of a sleeve, decided and judged."""

    session: int
    agent: str
    model_version: str
    bundle_sha256: str
    traded: FeedBar
    signal: FeedBar
    bar: Bar  # of the traded symbol, one account
    before: State  # at the close before
    settled: Settled
    answer: Answer
    paused: bool
    too_old: str  # why nothing may be decided on the bar
    stopped: str  # by which policy the kill switch holds the sleeve; "": it is off
    verdict: Verdict
    reasons: int  # bits of core.risk.Reason; working them out takes time, so once
    after: State  # with the new pending orders
    cancels: tuple[str, ...]  # orders the new target replaces
    ticket: Ticket | None
    skipped: tuple[FeedBar, ...]  # bars since the last close whose counterpart never came
    working: Mapping[str, Report]  # orders that moved towards the target before, by order_ref
    cut: Cut | None = None

    @property
    def time(self) -> datetime:
        return self.traded.time

    @property
    def symbol(self) -> str:
        return self.traded.instrument.symbol

    @property
    def risk_words(self) -> list[str]:
        """Everything risk had to say about this decision."""
        words = ["paused: holds what it has"] if self.paused else []
        words += [f"kill switch: {self.stopped}"] if self.stopped else []
        return words + describe(self.reasons)

    @property
    def action(self) -> str:
        """What was ordered after risk."""
        if self.ticket is None:
            return "hold"
        return "buy" if self.ticket.shares > 0.0 else "sell"

    @property
    def words(self) -> str:
        """Why, in one line."""
        risk = f"; risk: {', '.join(self.risk_words)}" if self.risk_words else ""
        return self.answer.words + risk

    @property
    def _key(self) -> dict[str, Any]:
        return {"session": self.session, "agent": self.agent, "bar_time": self.time}

    def intents(self) -> list[rows.Intent]:
        """Orders that must be durable before anything is sent, and those that came to life."""
        tickets = [*self.settled.triggered, *([self.ticket] if self.ticket else [])]
        return [intent_of(ticket) for ticket in tickets]

    def record(self) -> Iterator[rows.Row]:
        """Everything else this bar leaves in the ledger, in order."""
        for bar in self.skipped:
            if bar.instrument.decide:  # a replay grows the same rows
                yield self._bar_seen(bar, None)
        yield self._bar_seen(self.traded, self.bar)
        if self.signal.instrument != self.traded.instrument:
            yield self._bar_seen(self.signal, None)
        for execution in self.settled.executions:
            yield fill_of(self.session, execution)
        for report in self.settled.reports:
            yield status_of(self.session, report, self.time)
        yield self._equity()
        yield self._decision()
        yield self._verdict()
        if self.cut:
            yield rows.Clip(
                **self._key,
                symbol=self.symbol,
                wanted=self.cut.wanted,
                allowed=self.cut.allowed,
                reason=int(self.cut.reason),
                detail=self.cut.detail,
            )
        for kind, detail in self.events():
            yield rows.RiskEvent(**self._key, kind=kind, detail=detail)

    def events(self) -> Iterator[tuple[str, str]]:
        """Kind and detail of everything out of the ordinary at this close."""
        if self.too_old:
            yield "stale bar", f"{self.too_old}; holds what it has"
        for bar in self.skipped:
            heard = "heard whole, too late to decide on" if bar.instrument.decide else "alone"
            yield "bar skipped", f"{bar.instrument.symbol} {bar.time.isoformat()}: {heard}"
        for execution in self.settled.executions:
            if execution.leg != "entry" and execution.shares:  # a late fee is no fill
                yield execution.leg, f"{execution.shares:+,.0f} {self.symbol} at {execution.price}"
        for report in self.settled.reports:
            if report.status == "partial":
                text = f"{report.filled:+,.0f} shares, {report.remaining:+,.0f} still working"
                yield "partial fill", f"{report.order_ref}: {text}"
            elif report.status == "cancelled":
                yield "order cut", f"{report.order_ref}: {report.filled:+,.0f} shares were filled"
        was, now = (RISK_STATES[int(s.risk_state[0])] for s in (self.before, self.after))
        if was != now:
            drawdown = float(self.after.drawdown[0])
            yield "risk state", f"{was} -> {now} at a drawdown of {drawdown:.1%}"
        if self.cut and self.cut.reason & Reason.ACCOUNT_CLIP:
            shares = f"{self.cut.wanted:,.0f} -> {self.cut.allowed:,.0f} shares"
            yield "account clip", f"{shares}: {self.cut.detail}"
        if self.reasons & ~ROUTINE:
            asked, allowed = float(self.verdict.asked[0, 0]), float(self.verdict.allowed[0, 0])
            yield "risk", f"{_weight(asked)} -> {_weight(allowed)}: {', '.join(self.risk_words)}"
        if self.answer.problem:
            yield "policy failed", self.answer.problem

    def _bar_seen(self, bar: FeedBar, risk: Bar | None) -> rows.BarSeen:
        prices: dict[str, Any] = dict(zip(BAR_COLUMNS, bar.values, strict=True))
        if risk:  # with the actions of bars that were skipped
            prices |= {name: float(getattr(risk, name)[0]) for name in BAR_COLUMNS}
        return rows.BarSeen(
            **self._key | {"bar_time": bar.time},
            symbol=bar.instrument.symbol,
            interval=bar.instrument.interval,
            row_time=bar.row,
            decide_seconds=bar.instrument.decide,
            **prices,
            atr=float(risk.atr[0]) if risk else math.nan,
            volatility=float(risk.volatility[0]) if risk else math.nan,
        )

    def _equity(self) -> rows.Equity:
        state = self.settled.state
        return rows.Equity(
            **self._key,
            symbol=self.symbol,
            cash=float(state.cash[0]),
            shares=float(state.shares[0, 0]),
            close=float(self.bar.close[0]),
            equity=float(state.equity[0]),
            drawdown=float(state.drawdown[0]),
            risk_state=RISK_STATES[int(state.risk_state[0])],
        )

    def _decision(self) -> rows.Decision:
        answer = self.answer
        return rows.Decision(
            **self._key,
            symbol=self.symbol,
            model_version=self.model_version,
            bundle_sha256=self.bundle_sha256,
            observation=answer.observation,
            observation_sha256=answer.observation_sha256,
            action=self.action,
            weight=answer.weight,
            score=answer.score,
            confidence=answer.confidence,
            rationale={
                "features": [_content(contribution) for contribution in answer.contributions],
                "risk": self.risk_words,
                "text": self.words,
            },
        )

    def _verdict(self) -> rows.Verdict:
        return rows.Verdict(
            **self._key,
            symbol=self.symbol,
            asked=float(self.verdict.asked[0, 0]),
            allowed=float(self.verdict.allowed[0, 0]),
            reasons=self.reasons,
            words=tuple(self.risk_words),
        )


def intent_of(ticket: Ticket) -> rows.Intent:
    return rows.Intent(
        session=ticket.session,
        order_ref=ticket.order_ref,
        agent=ticket.agent,
        bar_time=ticket.bar_time,
        leg=ticket.part,
        model_version=ticket.model_version,
        symbol=ticket.symbol,
        shares=ticket.shares,
        kind=ticket.kind,
    )


def ticket_of(order: rows.Order, price: float = math.nan) -> Ticket:
    """Return the ticket an intent was written for."""
    leg, _, replica = order.leg.partition(".")
    return Ticket(
        session=order.session,
        agent=order.agent,
        symbol=order.symbol,
        shares=order.shares,
        bar_time=order.bar_time,
        leg=leg,  # type: ignore[arg-type]
        model_version=order.model_version,
        kind=order.kind,
        price=price,
        replica=int(replica or 0),
    )


def report_of(order: rows.Order, broker_id: str = "") -> Report:
    """Return the newest word on an order as the ledger has it."""
    status: Any = order.status
    return Report(order.order_ref, status, order.filled, order.remaining, broker_id)


def status_of(session: int, report: Report, time: datetime) -> rows.OrderStatus:
    return rows.OrderStatus(session=session, bar_time=time, **_content(report))


def fill_of(session: int, execution: Execution) -> rows.Fill:
    content = _content(execution)
    return rows.Fill(session=session, bar_time=content.pop("time"), **content)


def executed_of(session: int, execution: Execution) -> rows.Executed:
    content = _content(execution)
    del content["slippage"]
    return rows.Executed(session=session, executed_at=content.pop("time"), **content)


def execution_of(row: rows.Executed | rows.Fill) -> Execution:
    """Return what a broker told, or what was booked of it, as the ledger has it."""
    return Execution(
        exec_id=row.exec_id,
        order_ref=row.order_ref,
        agent=row.agent,
        symbol=row.symbol,
        leg=row.leg.partition(".")[0],  # type: ignore[arg-type]
        shares=row.shares,
        price=row.price,
        commission=row.commission,
        slippage=row.slippage if isinstance(row, rows.Fill) else 0.0,
        time=row.bar_time if isinstance(row, rows.Fill) else row.executed_at,
    )


def _content(plain: Report | Execution | Contribution) -> dict[str, Any]:
    """Return the fields by name; ``asdict`` would copy each number and text of them."""
    return {name: getattr(plain, name) for name in plain.__slots__}


def _weight(weight: float) -> str:
    return "hold" if math.isnan(weight) else f"{weight:.1%}"
