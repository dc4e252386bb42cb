"""What a session came to: one line per agent, from the ledger alone.

Owns the summary. Knows nothing of how the session was run.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.calendar import decisions_per_year
from core.metrics import max_drawdown, sharpe, total_return
from serving.ledger import LedgerReader, rows

DURATIONS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class SleeveResult:
    """One agent's session."""

    agent: str
    model_versions: tuple[str, ...]  # in the order in which they decided
    first_bar: datetime
    last_bar: datetime
    bars: int
    decisions: int
    orders: int
    fills: int
    interventions: int  # verdicts that changed what was asked
    final_equity: float  # account currency
    total_return: float  # fraction
    sharpe: float  # annualised
    max_drawdown: float  # fraction


@dataclass(frozen=True, slots=True)
class Latency:
    """Bar in to ledger committed, milliseconds."""

    bars: int
    p50: float
    p99: float
    worst: float


@dataclass(slots=True)
class Durations:
    """How long the bars of a session took: counted all, the newest of them kept."""

    bars: int = 0
    worst: float = -np.inf  # milliseconds
    _newest: deque[float] = field(default_factory=lambda: deque(maxlen=DURATIONS_KEPT))

    def add(self, milliseconds: float) -> None:
        self.bars += 1
        self.worst = max(self.worst, milliseconds)
        self._newest.append(milliseconds)

    @property
    def latency(self) -> Latency:
        """Return count and worst of all bars, the percentiles of the newest."""
        if not self.bars:
            return Latency(0, np.nan, np.nan, np.nan)
        p50, p99 = np.percentile(list(self._newest), [50, 99])
        return Latency(self.bars, float(p50), float(p99), self.worst)


@dataclass(frozen=True, slots=True)
class SessionResult:
    """A session, agent by agent."""

    session: int
    sleeves: tuple[SleeveResult, ...]
    latency: Latency  # of this process, not of the bars before a restart
    finished: bool  # the feed came to its end


def summarise(path: Path, session: int, calendar: str = "XNYS") -> tuple[SleeveResult, ...]:
    """Return the result of every agent that saw a bar in ``session``."""
    with LedgerReader(path) as ledger:
        books = ledger.rows(rows.Equity, session=session)
        agents = dict.fromkeys(book.agent for book in books)
        return tuple(
            _sleeve(ledger, session, agent, [b for b in books if b.agent == agent], calendar)
            for agent in agents
        )


def _sleeve(
    ledger: LedgerReader, session: int, agent: str, books: list[rows.Equity], calendar: str
) -> SleeveResult:
    of: dict[str, Any] = {"session": session, "agent": agent}
    decisions = ledger.rows(rows.Decision, **of)
    seen = ledger.rows(rows.BarSeen, **of, newest=1)[0]
    interval: Any = seen.interval
    per_year = decisions_per_year(interval, seen.decide_seconds, calendar)
    # Nothing is held at the first close, so its equity is the opening cash: the curve starts there.
    equity = np.array([books[0].equity, *(book.equity for book in books)])
    return SleeveResult(
        agent=agent,
        model_versions=tuple(dict.fromkeys(d.model_version for d in decisions)),
        first_bar=books[0].bar_time,
        last_bar=books[-1].bar_time,
        bars=len(books),
        decisions=len(decisions),
        orders=len(ledger.rows(rows.Intent, **of)),
        fills=len(ledger.rows(rows.Fill, **of)),
        interventions=sum(1 for v in ledger.rows(rows.Verdict, **of) if v.reasons),
        final_equity=float(equity[-1]),
        total_return=float(total_return(equity)),
        sharpe=float(sharpe(equity, per_year)),
        max_drawdown=float(max_drawdown(equity)),
    )


def as_table(result: SessionResult) -> str:
    """Return the session as text for people."""
    lines = [f"session {result.session}, {'finished' if result.finished else 'stopped'}"]
    for one in result.sleeves:
        lines.append(
            f"{one.agent:<12} version {','.join(one.model_versions):<6} {one.bars:>5} bars  "
            f"{one.orders:>4} orders  {one.fills:>4} fills  return {one.total_return:+.2%}  "
            f"Sharpe {one.sharpe:.2f}  max drawdown {one.max_drawdown:.2%}"
        )
    return "\n".join(lines)
