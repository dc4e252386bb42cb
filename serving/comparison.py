"""A comparison: Production and a challenger on the same bars, each with a simulated book.

Owns the two books and the sequential test between them. Both open as Production's sleeve stood when
the comparison began, as if the alias had moved then, and live by the same engine, rules and feature
code as the sleeve. What people and other sleeves do to the real one (pause, kill switch, limits
across the account) is left out of both: policies are compared, not operations. Knows neither
threads nor where bars come from.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from core import engine
from core.accounts import State, state_from_json, state_to_json
from core.bars import BAR_COLUMNS, RISK_COLUMNS, Bar
from core.calendar import decisions_per_year
from core.errors import CorruptFile
from core.portfolio import applied
from core.risk import Reason
from core.rules import Rules
from features.table import risk_row
from registry import sequential
from registry.bundle import Bundle
from serving.agent import TradingAgent
from serving.books import bar_of
from serving.following import Published
from serving.history import FeedBar, History, Instrument
from serving.ledger import rows
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.rulebook import RuleBook


@dataclass(frozen=True, slots=True)
class Lived:
    """One bar, as Production's sleeve lived through it."""

    agent: str
    production: Published
    bar: Bar  # of the traded symbol, with the actions of bars that were skipped
    traded: FeedBar
    signal: FeedBar
    skipped: tuple[FeedBar, ...]  # bars since the last close that had no counterpart
    stale: bool  # too old to order on
    rules: Rules  # it was settled by
    vix: pd.Series | None


class Histories:
    """The bars of one agent, as its shadows know them."""

    def __init__(self, traded: History, signal: History) -> None:
        self.traded, self.signal = traded, signal
        self.vix: pd.Series | None = None

    def append(self, bar: FeedBar) -> None:
        (self.traded if bar.instrument == self.traded.instrument else self.signal).append(bar)

    def hear(self, lived: Lived) -> None:
        """Take in a bar and what was skipped before it."""
        self.vix = lived.vix
        for bar in dict.fromkeys((*lived.skipped, lived.traded, lived.signal)):
            self.append(bar)
        self.traded.forget()
        self.signal.forget()


class Book:
    """A version's simulated account."""

    def __init__(
        self, name: str, version: str, bundle: Bundle, seen: Histories, state: State
    ) -> None:
        self._spec = bundle.spec
        self._seen = seen
        self._agent = TradingAgent(
            name, version, bundle, seen.signal, seen.traded, lambda: seen.vix
        )
        self.state = state  # after the newest close, with what is ordered
        self.closed = state  # at the newest close, before the decision

    def risk(self) -> tuple[float, float]:
        """Return atr and volatility of the newest bar, as this version's features have them."""
        spec = self._spec
        found = risk_row(self._seen.traded.since_anchor(spec.anchor), spec, spec.interval)
        return float(found[0]), float(found[1])

    def step(self, lived: Lived) -> tuple[float, Bar]:
        """Live through the newest bar of the histories; return the weight asked, and the bar."""
        self._agent.see()
        bar = lived.bar._replace(**_arrays(dict(zip(RISK_COLUMNS, self.risk(), strict=True))))
        closed = engine.settle(self.state, bar, lived.rules).state
        asked = self._agent.decide(closed, bar).weight
        self.closed, self.state = closed, _decided(closed, asked, bar, lived.stale, lived.rules)
        return asked, bar


class Comparison:
    """One challenger against one Production version, until its test ends."""

    def __init__(self, begun: ShadowBegun, interval_bars: float) -> None:
        self.begun = begun
        self._year = math.sqrt(interval_bars)
        self._differences: list[float] = []
        self._deviations: list[float] = []
        self._volatility = math.nan  # annualised, of the newest bar
        self._standing: sequential.Standing | None = None
        opening = state_from_json(json.loads(begun.state))
        self._states = opening, opening  # of Production's book and the challenger's, to open with
        self.newest: datetime | None = begun.begun_after

    @property
    def versions(self) -> tuple[Published, Published]:
        """Return Production and challenger."""
        begun = self.begun
        return (
            Published(begun.production_version, begun.production_sha256),
            Published(begun.model_version, begun.bundle_sha256),
        )

    def open(self, bundles: tuple[Bundle, Bundle], seen: Histories) -> None:
        """Open both books; ``seen`` ends with the newest bar of the comparison."""
        agent, versions = self.begun.agent, self.versions
        self._production, self._challenger = (
            Book(agent, one.version, bundle, seen, state)
            for one, bundle, state in zip(versions, bundles, self._states, strict=True)
        )
        self._volatility = self._production.risk()[1] if len(seen.traded) else math.nan

    def recall(self, row: ShadowBar, seen: rows.BarSeen, rules: Rules) -> None:
        """Live through a recorded bar again; raise ``CorruptFile`` where it comes out otherwise."""
        known = bar_of({name: getattr(seen, name) for name in BAR_COLUMNS + RISK_COLUMNS})
        own = known._replace(**_arrays({"atr": row.atr, "volatility": row.volatility}))
        told = (
            (known, row.production_asked, row.production_equity),
            (own, row.asked, row.equity),
        )
        states = []
        for state, (bar, asked, equity) in zip(self._states, told, strict=True):
            closed = engine.settle(state, bar, rules).state
            if _number(closed.equity) != equity:
                raise CorruptFile(
                    f"shadow of {row.agent} version {row.model_version} at "
                    f"{row.bar_time.isoformat()}: a recorded equity of {equity!r} replays to "
                    f"{_number(closed.equity)!r}; the ledger was altered: restore it"
                )
            states.append(_decided(closed, asked, bar, bool(row.stale), rules))
        self._states = states[0], states[1]
        self._judge(row.bar_time, row.log_return - row.production_log_return, row.deviation)

    def step(self, lived: Lived) -> ShadowBar:
        """Live through one bar with both books; ``lived`` is in the histories already."""
        deviation = self._volatility / self._year
        production_asked, known = self._production.step(lived)
        asked, bar = self._challenger.step(lived)
        ours, theirs = self._challenger, self._production
        difference = _number(ours.closed.log_return) - _number(theirs.closed.log_return)
        standing = self._judge(lived.traded.time, difference, deviation)
        self._volatility = _number(known.volatility)
        begun = self.begun
        return ShadowBar(
            session=begun.session,
            agent=begun.agent,
            production_version=begun.production_version,
            model_version=begun.model_version,
            place=begun.place,
            bar_time=lived.traded.time,
            asked=asked,
            action=_action(ours.state),
            weight=_weight(ours.closed, bar),
            atr=_number(bar.atr),
            volatility=_number(bar.volatility),
            stale=int(lived.stale),
            equity=_number(ours.closed.equity),
            log_return=_number(ours.closed.log_return),
            production_asked=production_asked,
            production_weight=_weight(theirs.closed, known),
            production_equity=_number(theirs.closed.equity),
            production_log_return=_number(theirs.closed.log_return),
            deviation=deviation,
            evidence=standing.evidence,
            against=standing.against,
        )

    def _judge(self, time: datetime, difference: float, deviation: float) -> sequential.Standing:
        self.newest = time
        self._differences.append(difference)
        self._deviations.append(deviation)
        begun = self.begun
        self._standing = sequential.judge(
            np.array(self._differences),
            np.array(self._deviations),
            begun.alpha,
            begun.drop_alpha,
            begun.longest_bars,
        )
        return self._standing

    def ended(self) -> ShadowEnd | None:
        """Return how the test ended; None: it goes on."""
        found = self._standing
        if found is None or found.verdict == "continue":
            return None
        return self.end(found.verdict, found.reason)

    def end(self, verdict: str, reason: str) -> ShadowEnd:
        """Return the row that ends the comparison."""
        begun, found = self.begun, self._standing
        return ShadowEnd(
            session=begun.session,
            agent=begun.agent,
            production_version=begun.production_version,
            model_version=begun.model_version,
            production_sha256=begun.production_sha256,
            bundle_sha256=begun.bundle_sha256,
            place=begun.place,
            bar_time=self.newest,
            verdict=verdict,
            bars=len(self._differences),
            evidence=found.evidence if found else 1.0,
            against=found.against if found else 1.0,
            reason=reason,
        )


def begin(
    session: int,
    agent: str,
    versions: tuple[Published, Published],
    state: State,
    after: datetime | None,
    place: int,
    alphas: tuple[float, float],
    longest_bars: int,
) -> ShadowBegun:
    """Return the row that begins a comparison of Production with a challenger.

    ``state``: Production's sleeve after the bar ``after``. ``alphas``: for all challengers of this
    Production together, to be promoted and to be dropped.
    """
    production, challenger = versions
    return ShadowBegun(
        session=session,
        agent=agent,
        production_version=production.version,
        model_version=challenger.version,
        production_sha256=production.bundle_sha256,
        bundle_sha256=challenger.bundle_sha256,
        begun_after=after,
        state=json.dumps(state_to_json(state), sort_keys=True),
        place=place,
        alpha=sequential.share_of(alphas[0], place),
        drop_alpha=alphas[1],
        longest_bars=longest_bars,
    )


def of(begun: ShadowBegun, traded: Instrument, calendar: str) -> Comparison:
    """Return a comparison that steps as often as ``traded`` is decided on."""
    return Comparison(begun, decisions_per_year(traded.interval, traded.decide, calendar))


def recalled(
    comparison: Comparison,
    bars: Sequence[ShadowBar],
    seen: Mapping[datetime, rows.BarSeen],
    rules: RuleBook,
) -> Comparison:
    """Return a comparison after its recorded ``bars``, lived through by the rules of their time."""
    for row in bars:
        comparison.recall(row, seen[row.bar_time], rules.at(row.bar_time))
    return comparison


def _decided(closed: State, asked: float, bar: Bar, stale: bool, rules: Rules) -> State:
    """Return the books with what was ordered at a close."""
    submitted = engine.submit(closed, np.array([[asked]]), bar, rules)
    if stale and bool(submitted.verdict.moves[0, 0]):  # as the sleeve itself does
        submitted = applied(closed, submitted, math.nan, Reason.STALE_PRICE)
    return submitted.state


def _action(state: State) -> str:
    pending = _number(state.pending_shares)
    return "buy" if pending > 0.0 else "sell" if pending < 0.0 else "hold"


def _weight(state: State, bar: Bar) -> float:
    value, equity = _number(state.shares) * _number(bar.close), _number(state.equity)
    return value / equity if equity > 0.0 else 0.0


def _number(array: Any) -> float:
    return float(np.ravel(array)[0])


def _arrays(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: np.array([value]) for name, value in values.items()}
