"""Feeds: completed bars, one after the other, from a replay or from a vendor that is polled.

Owns what counts as history when a session begins, and the pace. A feed never yields a bar that
can still change. Knows nothing of agents and decisions.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from threading import Event
from typing import Protocol

import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import NotEnoughData, SourceUnavailable
from serving.history import FeedBar, Instrument
from serving.timer import Tick


class Feed(Protocol):
    """Where a worker's bars come from."""

    name: str  # a session is resumed only with a feed of the same name

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        """Return the newest time that is history when these are traded together for the first
        time: the first decision falls on the bar after it."""

    def history(self, instrument: Instrument, until: datetime) -> pd.DataFrame:
        """Return the bar frame up to ``until`` (included)."""

    def vix(self) -> pd.Series | None:
        """Return VIX closes by time, or None where the feed has none."""

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        """Yield bars later than ``after``, oldest first, those of one moment together."""

    def too_old(self, bar: FeedBar) -> str:
        """Say why nothing may be decided on a bar any more; empty: it may."""

    def events(self) -> tuple[tuple[str, str], ...]:
        """Return kind and detail of what was out of the ordinary since this was asked last."""

    def ticks(self) -> tuple[Tick, ...]:
        """Return the trades heard since this was asked last; none where only bars are known."""

    def close(self) -> None:
        """End connections; may be called again, and before anything was asked."""


class Calm:
    """What a feed without a connection of its own says."""

    def too_old(self, bar: FeedBar) -> str:
        """Nothing is: bars of the past are played as if they were happening."""
        return ""

    def events(self) -> tuple[tuple[str, str], ...]:
        return ()

    def ticks(self) -> tuple[Tick, ...]:
        return ()

    def close(self) -> None:
        """There is nothing to end."""


class ReplayFeed(Calm):
    """Plays the newest rows of finished histories as if they were happening.

    Instruments play side by side: at each step every one of them shows its next bar, whatever the
    years they are from, since an agent trades its own sleeve and clock. One with a decision timer
    plays the ``parts`` that finer bars make of its newest rows.
    """

    def __init__(
        self,
        frames: Mapping[Instrument, pd.DataFrame],
        paper_bars: int,
        bars_per_second: float = 0.0,
        vix: pd.Series | None = None,
        label: str = "",
        parts: Mapping[Instrument, Sequence[FeedBar]] | None = None,
    ) -> None:
        self.name = f"replay of the last {paper_bars} bars{label}"
        self._frames = dict(frames)
        self._paper_bars = paper_bars
        self._bars_per_second = bars_per_second
        self._paced_anew = False
        self._vix = vix
        self._parts = dict(parts or {})

    def pace(self, bars_per_second: float) -> None:
        """Play at another pace from the next step on; safe from any thread."""
        self._bars_per_second, self._paced_anew = bars_per_second, True

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        """Return the last bar before the reserved rows of the common clock."""
        clock = self._frames[instruments[0]].index
        for instrument in instruments[1:]:
            clock = clock.intersection(self._frames[instrument].index)
        if len(clock) <= self._paper_bars:
            names = ", ".join(instrument.symbol for instrument in instruments)
            raise NotEnoughData(
                f"{names}: {len(clock)} common bars, a replay of {self._paper_bars} needs more; "
                "ingest a longer history or lower split.paper_bars"
            )
        moment: datetime = clock[-self._paper_bars - 1].to_pydatetime()
        if not instruments[0].decide:
            return moment
        rows = [{part.row for part in self._parts[one]} for one in instruments]
        first = next((t for t in clock[-self._paper_bars :] if all(t in row for row in rows)), None)
        if first is None:
            raise NotEnoughData(
                f"{instruments[0].symbol}: the finer bars that a decision timer replays reach none "
                f"of the last {self._paper_bars} bars; ingest them anew"
            )
        before: datetime = first.to_pydatetime() - timedelta(microseconds=1)
        return before

    def history(self, instrument: Instrument, until: datetime) -> pd.DataFrame:
        return self._frames[instrument].loc[:until]

    def vix(self) -> pd.Series | None:
        return self._vix

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        """Yield one step of all instruments at a time, at the chosen pace."""
        pending = [self._after(one, moment) for one, moment in after.items()]
        due = time.monotonic()
        for step in range(max(map(len, pending), default=0)):
            pace = self._bars_per_second
            if self._paced_anew:  # what was missed at the pace before is not made up for
                due, self._paced_anew = time.monotonic(), False
            if pace and step:
                due += 1.0 / pace
                stop.wait(max(due - time.monotonic(), 0.0))
            if stop.is_set():
                return
            yield tuple(bars[step] for bars in pending if step < len(bars))

    def _after(self, one: Instrument, moment: datetime) -> list[FeedBar]:
        if one.decide:
            return [part for part in self._parts[one] if part.time > moment]
        return bars_after(self._frames[one], one, moment)


class PollingFeed(Calm):
    """Asks for the newest bars again and again and yields those that are complete and new."""

    def __init__(
        self,
        fetch: Callable[[Instrument, datetime | None], pd.DataFrame],
        poll_seconds: float,
        name: str = "yfinance",
        vix: Callable[[], pd.Series | None] = lambda: None,
        expected: Callable[[Instrument], datetime] | None = None,
        problem: Callable[[str], None] = lambda message: None,
    ) -> None:
        """``fetch`` returns the bars as traded since a time (None: all) that were complete when it
        asked; ``expected`` the time of the bar that must be there by now; ``problem`` is told what
        is wrong, once each time."""
        self.name = name
        self._fetch = fetch
        self._poll_seconds = poll_seconds
        self._known: dict[Instrument, pd.DataFrame] = {}
        self.vix = vix
        self._expected = expected
        self._problem = problem
        self._told: dict[tuple[str, Instrument], str] = {}
        self._events: deque[tuple[str, str]] = deque()  # filled by the thread that streams

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        """Return the newest complete bar that all have: what happens from now on is traded."""
        moments = [self._complete(instrument).index[-1] for instrument in instruments]
        begin: datetime = min(moments).to_pydatetime()
        return begin

    def history(self, instrument: Instrument, until: datetime) -> pd.DataFrame:
        return self._complete(instrument).loc[:until]

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        """Poll until stopped; bars that were missed meanwhile come first, in order."""
        seen = dict(after)
        while not stop.is_set():
            fresh: list[FeedBar] = []
            for instrument, moment in seen.items():
                try:
                    self._refresh(instrument)
                    self._tell("vendor", instrument, "")
                except SourceUnavailable as error:
                    self._tell("vendor", instrument, str(error))
                self._look_for_stale(instrument)
                fresh += bars_after(self._complete(instrument), instrument, moment)
            for bar in fresh:
                seen[bar.instrument] = max(bar.time, seen[bar.instrument])
            for _, together in groupby(sorted(fresh, key=by_time), key=by_time):
                if stop.is_set():
                    return
                yield tuple(together)
            stop.wait(self._poll_seconds)

    def _look_for_stale(self, instrument: Instrument) -> None:
        newest = self._complete(instrument).index[-1].to_pydatetime()
        expected = self._expected(instrument) if self._expected else newest
        late = (
            f"{instrument.symbol}: newest bar is {newest.isoformat()}, expected "
            f"{expected.isoformat()}; waiting for it"
        )
        self._tell("bar", instrument, late if newest < expected else "")

    def _tell(self, what: str, instrument: Instrument, message: str) -> None:
        """Tell a problem once while it lasts; an empty ``message`` is its end."""
        known = self._told.get((what, instrument), "")
        self._told[what, instrument] = message
        if message and message != known:
            self._problem(message)
            self._events.append(("feed stale", message))
        elif known and not any(self._told.values()):
            self._events.append(("feed back", f"{instrument.symbol}: as it should be again"))

    def events(self) -> tuple[tuple[str, str], ...]:
        """Return what the feed's thread has noted since the last time."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))

    def _complete(self, instrument: Instrument) -> pd.DataFrame:
        if instrument not in self._known:
            self._refresh(instrument)
        bars = self._known[instrument]
        if bars.empty:
            raise NotEnoughData(
                f"{instrument.symbol}: {self.name} delivered no complete {instrument.interval} bar"
            )
        return bars

    def _refresh(self, instrument: Instrument) -> None:
        """Fetch anew; bars already known stay as they were first seen."""
        known = self._known.get(instrument)
        if known is None or known.empty:
            self._known[instrument] = self._fetch(instrument, None)
            return
        fetched = self._fetch(instrument, known.index[-1].to_pydatetime())
        self._known[instrument] = pd.concat([known, fetched.loc[fetched.index > known.index[-1]]])


def by_time(bar: FeedBar) -> datetime:
    return bar.time


def bars_after(frame: pd.DataFrame, instrument: Instrument, moment: datetime) -> list[FeedBar]:
    """Return the bars of a frame later than a moment, oldest first."""
    later = frame.loc[frame.index > moment]
    rows: Iterable[tuple[float, ...]] = later[list(BAR_COLUMNS)].itertuples(index=False, name=None)
    return [
        FeedBar(instrument, time.to_pydatetime(), row)
        for time, row in zip(later.index, rows, strict=True)
    ]
