"""The decision timer: what happened between two decisions, as parts of a bar that is unfinished.

Owns the grid of moments at which an agent with `decide: 5s` decides, and how trades, or finer bars,
become parts (``FeedBar`` with a row). The engine lives through parts as through bars: decided at a
part's end, filled from the next one's beginning. Knows neither brokers nor agents.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.calendar import is_session, session_close, session_open
from core.settings import INTERVAL_SECONDS
from serving.history import FeedBar, History, Instrument, grow
from serving.ledger import rows

DIVIDEND, RATIO = BAR_COLUMNS.index("dividend"), BAR_COLUMNS.index("split_ratio")


@dataclass(frozen=True, slots=True)
class Tick:
    """A trade, or some that came as one."""

    symbol: str
    at: datetime  # when it was heard
    price: float
    shares: float


class Place(NamedTuple):
    """Where a moment lies."""

    part: datetime  # beginning of its part: what it is named by
    row: datetime  # the bar it is in
    row_begins: datetime  # another time than ``row`` for a daily bar


class Grid:
    """Parts and rows of one instrument: whole timers since its session opened."""

    def __init__(self, instrument: Instrument, calendar: str) -> None:
        self._step = timedelta(seconds=instrument.decide)
        self._length = timedelta(seconds=INTERVAL_SECONDS.get(instrument.interval, 0))
        self._calendar = calendar
        self._session: tuple[datetime, datetime] | None = None  # open and close of the newest asked

    def opened(self, at: datetime) -> datetime | None:
        """Return when the session that is open at ``at`` began; None: none is."""
        if self._session is None or not self._session[0] <= at < self._session[1]:
            if not is_session(self._calendar, at):
                return None
            edges = session_open(self._calendar, at), session_close(self._calendar, at)
            self._session = edges
            if not edges[0] <= at < edges[1]:
                return None
        return self._session[0]

    def place(self, at: datetime) -> Place | None:
        """Return where ``at`` lies; None: no session is open then."""
        opened = self.opened(at)
        if opened is None:
            return None
        part = opened + (at - opened) // self._step * self._step
        if not self._length:
            day = opened.replace(hour=0, minute=0, second=0, microsecond=0)
            return Place(part, day, opened)
        row = opened + (at - opened) // self._length * self._length
        return Place(part, row, row)


class _Part(NamedTuple):
    """A part that was heard, and what was known of its bar when its first trade came."""

    place: Place
    values: np.ndarray  # float64 of shape (7,), as ``FeedBar.values``
    whole: bool  # the bar was heard from its beginning
    begun: FeedBar | None  # the bar as it was when the subscription began


class Slicer:
    """Makes parts of trades as they are heard; for one subscription at a time."""

    def __init__(self, instrument: Instrument, calendar: str) -> None:
        self._instrument = instrument
        self._grid = Grid(instrument, calendar)
        self._step = timedelta(seconds=instrument.decide)
        self._done: list[_Part] = []
        self._growing: _Part | None = None
        self._begun: FeedBar | None = None
        self._since: datetime | None = None
        self.hears = False  # a subscription is there, and ``begun`` is of it

    def listening_since(self, now: datetime) -> datetime | None:
        """Return since when trades should be heard; None: no session is open, or nobody listens."""
        opened = self._grid.opened(now)
        return max(self._since, opened) if self._since and opened else None

    def subscribed(self, at: datetime, begun: FeedBar | None) -> None:
        """Hear from now on; ``begun``: the bar that is unfinished, as it is known so far."""
        self._since, self._begun, self.hears = at, begun, True

    def lost(self) -> None:
        """Hear nothing until ``subscribed``: what is traded before is in the next ``begun``."""
        self.hears = False

    def hear(self, tick: Tick) -> None:
        """Take a trade in; one outside of regular hours is none."""
        place = self._grid.place(tick.at) if self.hears else None
        if place is None:
            return
        values = (*(tick.price,) * 4, tick.shares, 0.0, 1.0)
        if self._growing and self._growing.place.part == place.part:
            grow(self._growing.values, values)
            return
        self._finish()
        whole = self._since is not None and self._since <= place.row_begins
        self._growing = _Part(place, np.array(values), whole, self._begun)

    def take(self, now: datetime, lived: datetime) -> list[FeedBar]:
        """Return the parts that are over, oldest first; ``lived``: the newest that was taken.

        Before the first part of a bar that was not heard from its beginning comes the bar as it
        was known to have begun; where nobody knows that, its parts are left out.
        """
        if self._growing and now >= self._growing.place.part + self._step:
            self._finish()
        done, self._done = self._done, []
        found: list[FeedBar] = []
        for place, values, whole, begun in done:
            if place.part <= lived:
                continue
            if not (place.row_begins <= lived or whole):
                if not (begun and begun.time == place.row < place.part):
                    continue
                found.append(begun)
            lived = place.part
            found.append(FeedBar(self._instrument, place.part, tuple(values.tolist()), place.row))
        return found

    def due(self, now: datetime) -> float:
        """Return in how many seconds a part is over; infinite: none has begun."""
        if self._done:
            return 0.0
        if not self._growing:
            return math.inf
        return max((self._growing.place.part + self._step - now).total_seconds(), 0.0)

    def _finish(self) -> None:
        if self._growing:
            self._done.append(self._growing)
            self._growing = None


def parts_of(finer: pd.DataFrame, instrument: Instrument, calendar: str) -> Iterator[FeedBar]:
    """Yield the parts that finer bars make, oldest first."""
    grid = Grid(instrument, calendar)
    growing: tuple[Place, np.ndarray] | None = None
    columns = finer[list(BAR_COLUMNS)].to_numpy(np.float64)
    for time, values in zip(finer.index, columns, strict=True):
        place = grid.place(time.to_pydatetime())
        if place is None:
            continue
        if growing and growing[0].part == place.part:
            grow(growing[1], tuple(values))
            continue
        if growing:
            yield _part(instrument, *growing)
        growing = place, values.copy()
    if growing:
        yield _part(instrument, *growing)


def first_of_day(parts: Sequence[FeedBar], before: datetime, ratio: float) -> list[FeedBar]:
    """Put a split on the first part of a day later than ``before``; trades do not tell it."""
    if not parts or ratio == 1.0 or parts[0].time.date() == before.date():
        return list(parts)
    values = list(parts[0].values)
    values[RATIO] = ratio
    return [replace(parts[0], values=tuple(values)), *parts[1:]]


def _part(instrument: Instrument, place: Place, values: np.ndarray) -> FeedBar:
    return FeedBar(instrument, place.part, tuple(values.tolist()), place.row)


def heard_again(
    instrument: Instrument,
    whole: pd.DataFrame,
    heard: Sequence[rows.BarSeen],
    forgotten: datetime | None = None,
) -> History:
    """Return a history as it was lived through: whole bars up to the first that was ``heard``."""
    bars = list(heard_bars(instrument, heard))
    first = bars[0].row or bars[0].time
    before = whole.loc[whole.index < pd.Timestamp(first)]
    history = History(instrument, before, forgotten=forgotten)
    for bar in bars:
        history.append(bar)
    return history


def heard_bars(instrument: Instrument, heard: Iterable[rows.BarSeen]) -> Iterator[FeedBar]:
    """Yield recorded bars as they came: a traded one carries the actions of those skipped."""
    ratio, dividend = 1.0, 0.0
    for seen in heard:
        values = [float(getattr(seen, name)) for name in BAR_COLUMNS]
        if math.isnan(seen.atr):  # skipped, or looked at only: as it came
            dividend += values[DIVIDEND] / ratio
            ratio *= values[RATIO]
        elif ratio != 1.0 or dividend:
            values[RATIO] /= ratio
            values[DIVIDEND] = max(values[DIVIDEND] - dividend / values[RATIO], 0.0)
            ratio, dividend = 1.0, 0.0
        yield FeedBar(instrument, seen.bar_time, tuple(values), seen.row_time)
