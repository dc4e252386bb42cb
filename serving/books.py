"""The books of a sleeve, as the ledger has them: recorded bars lived through again.

Owns the replay after a restart, which must come to the recorded equity to the last bit. Knows
nothing of orders, and places none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from core import engine
from core.accounts import State
from core.bars import BAR_COLUMNS, RISK_COLUMNS, Bar
from core.errors import CorruptFile
from core.portfolio import applied
from core.risk import Reason, Rules
from serving.brokers.port import Broker, Execution
from serving.closing import execution_of
from serving.ledger import Ledger, rows
from serving.rulebook import RuleBook


@dataclass(frozen=True, slots=True)
class Books:
    """What a sleeve was when its last recorded bar had closed."""

    state: State
    time: datetime | None  # of that bar; None: nothing recorded yet


def bar_of(values: Mapping[str, float]) -> Bar:
    """Return the engine's bar of one account with one symbol."""
    arrays: dict[str, Any] = {name: np.array([value]) for name, value in values.items()}
    return Bar(**arrays)


def replay_books(
    ledger: Ledger,
    session: int,
    agent: str,
    opening: State,
    rules: RuleBook | Rules,
    broker: Broker,
) -> Books:
    """Return a sleeve's books after its last recorded bar.

    From the newest snapshot on, recorded bars and decisions are lived through again, by the rules
    and with the cuts of their time; every close must give the recorded equity, to the last bit.
    Raises ``CorruptFile`` where it does not.
    """
    past = rules if isinstance(rules, RuleBook) else RuleBook.only(rules)
    snapshot = ledger.newest_snapshot(session, agent)
    time, state = snapshot if snapshot else (None, opening)
    of: dict[str, Any] = {"session": session, "agent": agent}
    asked = {v.bar_time: v.asked for v in ledger.rows(rows.Verdict, after=time, **of)}
    bars = {(b.bar_time, b.symbol): b for b in ledger.rows(rows.BarSeen, after=time, **of)}
    cuts = {clip.bar_time: clip for clip in ledger.rows(rows.Clip, after=time, **of)}
    fills: dict[datetime, list[Execution]] = {}
    for fill in ledger.rows(rows.Fill, after=time, **of):
        fills.setdefault(fill.bar_time, []).append(execution_of(fill))
    stops: dict[datetime, list[rows.Intervention]] = {}
    for stop in ledger.rows(rows.Intervention, **of):
        stops.setdefault(stop.bar_time, []).append(stop)
    state = _stopped(state, stops.get(time, []) if time else [])
    for book in ledger.rows(rows.Equity, after=time, **of):
        seen = bars[book.bar_time, book.symbol]
        bar = bar_of({name: getattr(seen, name) for name in BAR_COLUMNS + RISK_COLUMNS})
        valid = past.at(book.bar_time)
        state = broker.replay(state, bar, valid, fills.get(book.bar_time, []))
        if float(state.equity[0]) != book.equity:
            raise CorruptFile(
                f"{ledger.path}: {agent} at {book.bar_time.isoformat()} replays to an equity of "
                f"{float(state.equity[0])!r}, recorded is {book.equity!r}; the opening cash "
                "changed since, or the ledger was altered: restore it, or begin a new session"
            )
        target = np.array([[asked[book.bar_time]]])
        submitted = engine.submit(state, target, bar, valid)
        if cut := cuts.get(book.bar_time):
            submitted = applied(state, submitted, cut.allowed, Reason(cut.reason))
        state, time = submitted.state, book.bar_time
        state = _stopped(state, stops.get(time, []))
    return Books(state, time)


def _stopped(state: State, stops: Sequence[rows.Intervention]) -> State:
    """Return the state after what a person did behind a close; once more changes nothing."""
    for stop in stops:
        state = engine.recall(state, stop.policy == "flatten")
    return state
