"""Resuming shadows: recorded comparisons as their last bar left them, and the bars since.

Owns what is read from the ledger for it. Production may have lived through more bars than its
shadows had written when the worker died: those are lived through now, from what the ledger has of
them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from core.bars import BAR_COLUMNS, RISK_COLUMNS
from core.errors import CorruptFile
from serving import comparison
from serving.books import bar_of
from serving.comparison import Comparison, Histories, Lived
from serving.feeds import bars_after
from serving.following import Published
from serving.history import FeedBar, History
from serving.ledger import rows
from serving.ledger.reader import Reading
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.rulebook import RuleBook, rulebook
from serving.timer import heard_again, heard_bars


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where an agent's shadows go on."""

    seen: Histories  # up to the newest bar of the comparisons
    comparisons: tuple[Comparison, ...]
    missed: Sequence[Lived]  # what Production lived through since


def resumed(ledger: Reading, session: int, agent: str, seen: Histories, calendar: str) -> Resumed:
    """Return the comparisons of a session that have not ended.

    ``seen``: everything up to Production's newest bar. Raises ``CorruptFile`` where recorded books
    do not come out again.
    """
    of: dict[str, Any] = {"session": session, "agent": agent}
    over = {(end.production_version, end.place) for end in ledger.rows(ShadowEnd, **of)}
    begun = [
        one
        for one in ledger.rows(ShadowBegun, **of)
        if (one.production_version, one.place) not in over
    ]
    rules = rulebook(ledger, session, agent)
    if not begun or rules is None:
        return Resumed(seen, (), ())
    one = seen.traded.instrument
    bars = {bar.bar_time: bar for bar in ledger.rows(rows.BarSeen, **of, symbol=one.symbol)}
    lived = ledger.rows(ShadowBar, **of)
    comparisons = tuple(
        comparison.recalled(
            comparison.of(start, one, calendar),
            [row for row in lived if _key(row) == _key(start)],
            bars,
            rules,
        )
        for start in begun
    )
    newest = max(found.newest for found in comparisons if found.newest)
    until = seen.traded.newest or newest  # the worker trades on while this is read
    decisions = [d for d in ledger.rows(rows.Decision, after=newest, **of) if d.bar_time <= until]
    stale = {
        event.bar_time
        for event in ledger.rows(rows.RiskEvent, after=newest, kind="stale bar", **of)
    }
    streams = [_Stream.of(ledger, of, known) for known in (seen.traded, seen.signal)]
    same = seen.signal is seen.traded
    later = [stream.after(newest) for stream in streams]
    missed = list(_missed(later, seen.vix, newest, decisions, bars, stale, rules))
    traded = streams[0].until(newest)
    earlier = Histories(traded, traded if same else streams[1].until(newest))
    earlier.vix = seen.vix
    return Resumed(earlier, comparisons, missed)


def _key(row: ShadowBar | ShadowBegun) -> tuple[str, int]:
    return row.production_version, row.place


@dataclass(frozen=True, slots=True)
class _Stream:
    """The bars of one instrument, up to now; with a decision timer, as they were heard."""

    history: History
    heard: Sequence[rows.BarSeen]  # parts, and what came whole between them

    @classmethod
    def of(cls, ledger: Reading, of: dict[str, Any], history: History) -> "_Stream":
        one = history.instrument
        timed = ledger.rows(rows.BarSeen, **of, symbol=one.symbol) if one.decide else []
        return cls(history, timed)

    def until(self, newest: datetime) -> History:
        """Return the history as it was at a bar, or a part of one."""
        one, whole = self.history.instrument, self.history.frame()
        gone = self.history.forgotten
        heard = [bar for bar in self.heard if bar.bar_time <= newest]
        if heard:
            return heard_again(one, whole, heard, gone)
        return History(one, whole.loc[:newest], forgotten=gone)

    def after(self, newest: datetime) -> list[FeedBar]:
        one = self.history.instrument
        if not one.decide:
            return bars_after(self.history.frame(), one, newest)
        return [bar for bar in heard_bars(one, self.heard) if bar.time > newest]


def _missed(
    later: Sequence[Sequence[FeedBar]],
    vix: pd.Series | None,
    newest: datetime,
    decisions: Sequence[rows.Decision],
    bars: dict[datetime, rows.BarSeen],
    stale: set[datetime | None],
    rules: RuleBook,
) -> Iterator[Lived]:
    """Yield what Production lived through after ``newest``; ``later``: traded, signal."""
    since = newest
    for decision in decisions:
        now = decision.bar_time
        row = bars[now]
        pair = [_at(found, now, decision.agent) for found in later]
        between = dict.fromkeys(bar for found in later for bar in found if since < bar.time < now)
        yield Lived(
            agent=decision.agent,
            production=Published(decision.model_version, decision.bundle_sha256),
            bar=bar_of({name: getattr(row, name) for name in BAR_COLUMNS + RISK_COLUMNS}),
            traded=pair[0],
            signal=pair[1],
            skipped=tuple(sorted(between, key=lambda bar: bar.time)),
            stale=now in stale,
            rules=rules.at(now),
            vix=vix,
        )
        since = now


def _at(found: Sequence[FeedBar], time: datetime, agent: str) -> FeedBar:
    for bar in found:
        if bar.time == time:
            return bar
    raise CorruptFile(
        f"{agent}: the feed does not know the bar of {time.isoformat()} any more, which was traded "
        "on; its shadows cannot catch up, a new session begins them anew"
    )
