"""Resuming shadows: recorded comparisons as their last bar left them, and the bars since.

Owns what is read from the ledger for it. Production may have lived through more bars than its
shadows had written when the worker died: those are lived through now, from what the ledger has of
them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.bars import BAR_COLUMNS, RISK_COLUMNS
from core.errors import CorruptFile
from serving import comparison
from serving.comparison import Comparison, Histories, Lived
from serving.feeds import bars_after
from serving.following import Published
from serving.history import FeedBar, History
from serving.ledger import rows
from serving.ledger.reader import Reading
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.rulebook import RuleBook, rulebook
from serving.sleeve import bar_of


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
            comparison.of(start, one.interval, calendar),
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
    missed = list(_missed(seen, newest, decisions, bars, stale, rules))
    return Resumed(_until(seen, newest), comparisons, missed)


def _key(row: ShadowBar | ShadowBegun) -> tuple[str, int]:
    return row.production_version, row.place


def _until(seen: Histories, newest: datetime) -> Histories:
    """Return the histories as they were at a bar."""
    traded = History(seen.traded.instrument, seen.traded.frame().loc[:newest])
    same = seen.signal is seen.traded
    signal = traded if same else History(seen.signal.instrument, seen.signal.frame().loc[:newest])
    earlier = Histories(traded, signal)
    earlier.vix = seen.vix
    return earlier


def _missed(
    seen: Histories,
    newest: datetime,
    decisions: Sequence[rows.Decision],
    bars: dict[datetime, rows.BarSeen],
    stale: set[datetime | None],
    rules: RuleBook,
) -> Iterator[Lived]:
    """Yield what Production lived through after ``newest``."""
    traded = bars_after(seen.traded.frame(), seen.traded.instrument, newest)
    signal = traded
    if seen.signal is not seen.traded:
        signal = bars_after(seen.signal.frame(), seen.signal.instrument, newest)
    since = newest
    for decision in decisions:
        now = decision.bar_time
        row = bars[now]
        pair = [_at(found, now, decision.agent) for found in (traded, signal)]
        between = dict.fromkeys(
            bar for found in (traded, signal) for bar in found if since < bar.time < now
        )
        yield Lived(
            agent=decision.agent,
            production=Published(decision.model_version, decision.bundle_sha256),
            bar=bar_of({name: getattr(row, name) for name in BAR_COLUMNS + RISK_COLUMNS}),
            traded=pair[0],
            signal=pair[1],
            skipped=tuple(sorted(between, key=lambda bar: bar.time)),
            stale=now in stale,
            rules=rules.at(now),
            vix=seen.vix,
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
