"""Live bars from Interactive Brokers: histories kept up to date, complete bars handed on.

Owns what is subscribed to, what is complete, and what is missing: after every connection the gap is
filled from history before a new bar is shown; a bar that should be there and is not is named; and
a bar whose successor is complete already is too old to be decided on. A connection of its own,
beside the one that trades. Bars are IBKR's ``TRADES`` of regular hours (``sources.ibkr``); a split
shows by a restated past, and is put on the first bar after it. Knows neither agents nor orders.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pandas as pd
from ib_async import IB, BarData, BarDataList, Fill

from core.calendar import (
    BAR_LENGTH,
    bar_close,
    is_partial,
    is_session,
    newest_complete,
    session_open,
)
from core.errors import BrokerUnavailable, DataError, NotAllowed, NotEnoughData, SourceUnavailable
from serving.brokers.ibkr.access import Access
from serving.brokers.ibkr.link import Link, Pace
from serving.feeds import bars_after, by_time
from serving.history import FeedBar, Instrument
from serving.ibkr_lacking import STALE, Lacking
from serving.ibkr_ticks import IbkrTicks
from serving.timer import Tick, first_of_day
from sources.actions import split_between
from sources.gateway import DATA_CLIENT, USUAL_DATA_CLIENT, whole
from sources.ibkr import PACER, Questions, Reach, frame_of, name_of, time_of
from sources.pacing import Pacer

KEPT = {  # what a subscription begins with; it needs no more than the newest bars
    "1h": Reach("30 mins", "1 D", timedelta(days=1)),
    "15m": Reach("15 mins", "1 D", timedelta(days=1)),
    "5m": Reach("5 mins", "1 D", timedelta(days=1)),
    "1m": Reach("1 min", "1 D", timedelta(days=1)),
    "5s": Reach("5 secs", "3600 S", timedelta(hours=1)),
}
LEAST_BARS = 1_000  # that are remembered, however few there were at first
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VIX = Instrument("ibkr", "^VIX", "1d")
VIX_AGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Tempo:
    """Seconds."""

    look: float = 0.5  # between two looks at the clock
    settle: float = 5.0  # after the end of an intraday bar that no other follows
    settle_daily: float = 900.0  # after a session's close: the last prints are corrected
    late: float = 30.0  # beyond that a missing bar is named
    silent: float = 60.0  # without a trade, for an agent that decides on them: named
    retry: float = 60.0  # between two questions for a bar that is not there
    answer: float = 60.0  # for one answer
    history: float = 900.0  # for a whole history, at IBKR's pace


class IbkrFeed:
    """Implements ``serving.feeds.Feed``, and the owner of its link."""

    name = "ibkr"

    def __init__(
        self,
        access: Access,
        calendar: str,
        pace: Pace | None = None,
        tempo: Tempo | None = None,
        pacer: Pacer = PACER,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``access`` must have a client id that nobody else is connected with."""
        self._access = access
        self._calendar = calendar
        self._tempo = tempo or Tempo()
        self._pacer = pacer
        self._now = now
        self._link = Link(access, self, pace)
        self._started = False
        self._linked = threading.Event()
        self._changed = threading.Condition()  # of what follows
        self._known: dict[Instrument, pd.DataFrame] = {}
        self._first: dict[Instrument, int] = {}  # bars known at the beginning
        self._events: list[tuple[str, str]] = []
        self._lacking = Lacking(self._note)
        self._splits: dict[Instrument, float] = {}  # seen, and no bar to put it on yet
        self._kept: dict[Instrument, tuple[IB, BarDataList]] = {}  # in the link's thread
        self._asked: dict[Instrument, datetime] = {}  # when for history last
        self._turn = asyncio.Lock()
        self._ticks = IbkrTicks(calendar, now)
        self._vix: pd.Series | None = None
        self._vix_asked = EPOCH

    # -- asked by the worker

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        """Return the newest complete bar that all have: what happens from now on is traded."""
        moments = [self._complete(instrument).index[-1] for instrument in instruments]
        begin: datetime = min(moments).to_pydatetime()
        if decide := instruments[0].decide:  # every part of it is over
            closed = bar_close(self._calendar, instruments[0].interval, begin)
            return closed - timedelta(seconds=decide)
        return begin

    def history(self, instrument: Instrument, until: datetime) -> pd.DataFrame:
        return self._complete(instrument).loc[:until]

    def vix(self) -> pd.Series | None:
        """Return the VIX's daily closes, asked for anew now and then; None: IBKR has none."""
        now = self._now()
        if self._linked.is_set() and now - self._vix_asked >= VIX_AGE:
            self._vix_asked = now
            problem = ""
            try:
                self._vix = self._ask(VIX)["close"]
            except DataError as error:
                problem = f"VIX: {error}"
            self._lacking.tell(VIX, problem, "VIX: it is there again")
        return self._vix

    def stream(
        self, after: Mapping[Instrument, datetime], stop: threading.Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        """Yield complete bars as they come, those that were missed first, until stopped."""
        seen = dict(after)
        while not stop.is_set():
            self._require_link_to_come()
            self._tend(seen)
            with self._changed:
                known = {instrument: self._known[instrument] for instrument in seen}
            fresh = [
                bar for one, when in seen.items() for bar in self._fresh(known[one], one, when)
            ]
            for bar in fresh:
                seen[bar.instrument] = max(bar.time, seen[bar.instrument])
            for _, together in groupby(sorted(fresh, key=by_time), key=by_time):
                if stop.is_set():
                    return
                yield tuple(together)
            with self._changed:
                if all(self._known[one] is known[one] for one in seen):
                    self._changed.wait(self._ticks.due(self._now(), self._tempo.look))

    def _fresh(self, known: pd.DataFrame, one: Instrument, when: datetime) -> list[FeedBar]:
        """Return what is new of an instrument: bars; with a timer, parts, and bars before them."""
        bars = bars_after(known, one, when)
        if not one.decide or self._waits_for_history(one):
            return bars
        parts = self._ticks.take(one, self._now(), bars[-1].time if bars else when)
        if parts:
            bars = [bar for bar in bars if bar.time < (parts[0].row or parts[0].time)]
        return bars + first_of_day(parts, when, self._splits.get(one, 1.0))

    def _waits_for_history(self, one: Instrument) -> bool:
        """Ask for history before the first part of a day: it shows a split by the days before."""
        newest, now = self._known[one].index[-1], self._now()
        if newest.date() == now.date() or not is_session(self._calendar, now):
            return False
        opened = session_open(self._calendar, now)
        if now >= opened > self._asked[one] and self._linked.is_set():
            self._ask_again(one)
        return self._asked[one] < opened

    def ticks(self) -> tuple[Tick, ...]:
        return self._ticks.heard()

    def too_old(self, bar: FeedBar) -> str:
        """Say why a bar must not be decided on: the one after it is complete already."""
        interval, now = bar.instrument.interval, self._now()
        if decide := bar.instrument.decide:
            late = (now - bar.time).total_seconds() - decide
            if late < decide:
                return ""
            return (
                f"{bar.instrument.symbol}: what was traded from {bar.time.isoformat()} on came "
                f"{late:.1f} s after its end; the timer is {decide} s"
            )
        closed = bar_close(self._calendar, interval, bar.time)
        if now < closed + BAR_LENGTH.get(interval, timedelta(hours=12)):
            return ""
        newest = newest_complete(self._calendar, interval, now)
        if newest <= bar.time:
            return ""
        return (
            f"{bar.instrument.symbol}: the bar of {bar.time.isoformat()} came at "
            f"{now.isoformat(timespec='seconds')}, when that of {newest.isoformat()} was complete"
        )

    def events(self) -> tuple[tuple[str, str], ...]:
        with self._changed:
            events, self._events = tuple(self._events), []
        return events

    def close(self) -> None:
        if self._started:
            self._link.close()

    # -- the owner of the link, in its thread

    async def came_up(self, ib: IB) -> None:
        self._ticks.lost()
        self._linked.set()
        self._link.schedule(lambda: self._take_up(ib))

    async def _take_up(self, ib: IB) -> None:
        """Fill what was missed of everything known, and subscribe anew."""
        for instrument in list(self._known):
            await self._refill(ib, instrument)

    def went_down(self) -> None:
        self._linked.clear()

    def heard(self, ib: IB, order_id: int, code: int, text: str) -> None:
        """Orders are another's; what IBKR says of market data is not."""
        self._ticks.refused(code, text)

    def filled(self, fill: Fill) -> None:
        """So are fills."""

    def look(self, ib: IB) -> None:
        """The account too."""

    def tell(self, kind: str, detail: str) -> None:
        if kind == "link up":
            self._lacking.came_back(f"link for bars: {detail}")
        else:
            self._note(STALE if kind == "link down" else kind, f"link for bars: {detail}")

    # -- inside

    def _note(self, kind: str, detail: str) -> None:
        with self._changed:
            self._events.append((kind, detail))

    def _complete(self, instrument: Instrument) -> pd.DataFrame:
        with self._changed:
            known = self._known.get(instrument)
        if known is None:
            known = self._ask(instrument)
        if known.empty:
            raise NotEnoughData(
                f"{instrument.symbol}: IBKR has no complete {instrument.interval} bar"
            )
        return known

    def _ask(self, instrument: Instrument) -> pd.DataFrame:
        """Take an instrument up, from another thread; return all that is known of it."""
        if not self._started:
            self._started = True
            logging.getLogger("ib_async").setLevel(logging.CRITICAL)
            self._link.start()
        deadline = self._link.pace.connect + self._link.pace.patience
        while not self._linked.wait(0.05) and deadline > 0.0:
            deadline -= 0.05
            self._require_link_to_come()
        try:
            return self._link.call(lambda ib: self._take(ib, instrument), self._tempo.history)
        except BrokerUnavailable as error:
            raise SourceUnavailable(
                f"{instrument.symbol}: no bars from TWS or IB Gateway at "
                f"{self._access.host}:{self._access.port} ({error}); start it, log in, or set "
                "IB_HOST and IB_PORT"
            ) from error

    def _require_link_to_come(self) -> None:
        if self._link.refused:
            raise NotAllowed(str(self._link.refused))
        if self._link.died:
            raise SourceUnavailable(
                "the link to IBKR for bars ended by an error of its own, told above; start again"
            )

    async def _take(self, ib: IB, instrument: Instrument) -> pd.DataFrame:
        """Ask for the history since the newest known bar, and keep it up to date."""
        async with self._turn:
            self._asked[instrument] = now = self._now()
            questions = Questions(ib, self._tempo.answer, self._pacer)
            contract = await questions.contract(instrument.symbol)
            known = self._known.get(instrument)
            since = None if known is None or known.empty else known.index[-1].to_pydatetime()
            found = await questions.history(contract, instrument.interval, since, now)
            self._learn(instrument, found, now)
            if reach := KEPT.get(instrument.interval):
                before = self._kept.pop(instrument, None)
                if before and before[0] is ib:
                    ib.cancelHistoricalData(before[1])
                bars = await questions.bars(contract, reach, None, keep=True)
                if not bars:  # the library ignores updates of an empty list
                    bars.append(BarData(date=EPOCH))
                bars.updateEvent += lambda bars, _: self._updated(ib, instrument, bars)
                self._kept[instrument] = ib, bars
                self._updated(ib, instrument, bars)
            if instrument.decide:
                self._ticks.keep(ib, contract, instrument, self._begun(instrument))
            return self._known[instrument]

    def _updated(self, ib: IB, instrument: Instrument, bars: Sequence[BarData]) -> None:
        """Take what is complete of a subscription; the first bar of a day from history."""
        with self._changed:
            newest = self._known[instrument].index[-1] if len(self._known[instrument]) else EPOCH
        told = {}
        for bar in reversed(list(bars)):
            if name_of(bar, instrument.interval) <= newest:
                break
            told[time_of(bar)] = bar
        now = self._now()
        first = min(told, default=now)
        asked = self._asked[instrument]
        if told and newest != EPOCH and newest.date() != first.date() != asked.date():
            self._asked[instrument] = now  # a new day: history shows a split by the days before
            self._link.schedule(lambda: self._refill(ib, instrument))
        elif told:
            fresh = frame_of(told, instrument.interval)
            self._learn(instrument, fresh, now, len(fresh) - 1)

    def _begun(self, instrument: Instrument) -> FeedBar | None:
        """Return the bar that is unfinished, as IBKR has it so far."""
        bars = self._kept[instrument][1] if instrument in self._kept else []
        newest_told = bars[-2:]  # an hour has two halves
        frame = frame_of({time_of(bar): bar for bar in newest_told}, instrument.interval)
        with self._changed:
            newest = self._known[instrument].index[-1].to_pydatetime()
        return next(iter(bars_after(frame.iloc[-1:], instrument, newest)), None)

    async def _refill(self, ib: IB, instrument: Instrument) -> None:
        """Ask for history; where there is none, say so."""
        problem = ""
        try:
            await self._take(ib, instrument)
        except DataError as error:
            problem = str(error)
        self._tell_of_history(instrument, problem)

    def _learn(
        self, instrument: Instrument, found: pd.DataFrame, now: datetime, followed: int = 0
    ) -> None:
        """Keep what is new and complete; the first ``followed`` bars have a successor."""
        settle = self._tempo.settle if instrument.interval in KEPT else self._tempo.settle_daily
        settled = now - timedelta(seconds=settle)
        while len(found) > followed and is_partial(
            self._calendar, instrument.interval, found.index[-1].to_pydatetime(), settled
        ):
            found = found.iloc[:-1]
        with self._changed:
            known = self._known.get(instrument)
            if found.empty and known is not None:
                return
            if known is None or known.empty:
                self._known[instrument] = found
                self._first[instrument] = len(found)
            else:
                new = found.loc[found.index > known.index[-1]].copy()
                if found.index[0] <= known.index[-1]:  # the past is told again
                    self._splits[instrument] = split_between(known, found)
                if new.empty:
                    return
                split = self._splits.pop(instrument, 1.0)
                new.iloc[0, new.columns.get_loc("split_ratio")] = split
                grown = pd.concat([known, new])
                self._known[instrument] = remembered(grown, self._first[instrument])
            self._changed.notify_all()
        self._tell_of_history(instrument, "")

    def _tend(self, instruments: Mapping[Instrument, datetime]) -> None:
        """Look at the clock: what it completes, what it makes due, what it shows to be missing."""
        now = self._now()
        for instrument in instruments:
            daily = instrument.interval not in KEPT
            if not daily and (kept := self._kept.get(instrument)):
                self._updated(kept[0], instrument, kept[1])
            settle = self._tempo.settle_daily if daily else self._tempo.settle
            newest = self._known[instrument].index[-1].to_pydatetime()
            due = now - timedelta(seconds=settle + (0.0 if daily else self._tempo.late))
            expected = newest_complete(self._calendar, instrument.interval, due)
            if newest < expected and self._is_time(instrument, now):
                self._ask_again(instrument)
            self._look_for_missing(instrument, now, settle)
            if instrument.decide and self._linked.is_set():
                silent = self._ticks.silent(instrument, now, self._tempo.silent)
                end = f"{instrument.symbol}: trades are heard again"
                self._lacking.tell(("trades", instrument), silent, end)

    def _is_time(self, instrument: Instrument, now: datetime) -> bool:
        ago = now - self._asked.get(instrument, EPOCH)
        return self._linked.is_set() and ago >= timedelta(seconds=self._tempo.retry)

    def _ask_again(self, instrument: Instrument) -> None:
        problem = ""
        try:
            self._link.call(lambda ib: self._take(ib, instrument), self._tempo.history)
        except (BrokerUnavailable, DataError) as error:
            problem = f"{instrument.symbol}: {error}"
        self._tell_of_history(instrument, problem)

    def _tell_of_history(self, instrument: Instrument, problem: str) -> None:
        end = f"{instrument.symbol}: history is answered again"
        self._lacking.tell(("history", instrument), problem, end)

    def _look_for_missing(self, instrument: Instrument, now: datetime, settle: float) -> None:
        """Name a bar that should be there and is not, once while it lasts."""
        newest = self._known[instrument].index[-1].to_pydatetime()
        due = now - timedelta(seconds=settle + self._tempo.late)
        expected = newest_complete(self._calendar, instrument.interval, due)
        missing = ""
        if newest < expected:
            missing = (
                f"{instrument.symbol}: newest bar is {newest.isoformat()}, expected "
                f"{expected.isoformat()}; nothing is decided until it comes"
            )
        self._lacking.tell(instrument, missing, f"{instrument.symbol}: bars are there again")


def feed_of(environment: Mapping[str, str], calendar: str) -> IbkrFeed:
    """Return the feed of the gateway that the environment names.

    Its client id is the one after that of ingests, which may come while it runs.
    """
    access = Access.from_environment(environment)
    client_id = whole(environment, DATA_CLIENT, USUAL_DATA_CLIENT) + 1
    return IbkrFeed(replace(access, client_id=client_id), calendar)


def remembered(bars: pd.DataFrame, first: int) -> pd.DataFrame:
    """Return what is kept of bars that grow: once there are twice as many, as many as at first."""
    kept = max(first, LEAST_BARS)
    return bars if len(bars) <= 2 * kept else bars.iloc[-kept:].copy()
