"""Histories: the completed bars of one instrument, growing bar by bar.

Owns memory of bars and their order, and how long bars within a day are remembered: as many days as
it began with, and as many more as features look back. A version that needs what is forgotten is
refused (``needs``). Knows neither where bars come from nor what is computed.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import BadBars, SpecMismatch
from core.settings import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.indicators import Prices
    from features.live import LiveRow
    from features.spec import FeatureSpec

DAY = "datetime64[D]"
FORGETS_AT = 2  # times the days that are kept
KEPT = 4  # rows carried on from bar to bar: of the newest versions


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """One stream of bars."""

    source: str
    symbol: str
    interval: Interval
    decide: int = 0  # seconds between two decisions on its unfinished bar; 0: at its close


@dataclass(frozen=True, slots=True)
class FeedBar:
    """A completed bar of one instrument, or a *part* of one: what happened between two decisions.

    An instrument with a decision timer is lived through part by part. A whole bar of it (``row``
    is None) is history only: nobody heard its parts.
    """

    instrument: Instrument
    time: datetime  # aware UTC: session date at midnight, or the bar's start
    values: tuple[float, ...]  # in the order of BAR_COLUMNS
    row: datetime | None = None  # time of the bar it is a part of


class History:
    """Bars of one instrument; ``append`` refuses anything but a newer one.

    Parts of a bar grow its row: the newest row is then unfinished, and ``newest`` the time of the
    newest part.
    """

    def __init__(
        self,
        instrument: Instrument,
        bars: pd.DataFrame,
        newest_part: datetime | None = None,
        forgotten: datetime | None = None,
    ) -> None:
        self.instrument = instrument
        self.newest_part = newest_part  # its time; None: the newest row is a whole bar
        self.forgotten = forgotten  # time of the newest bar that is; None: all are here
        self._since: tuple[tuple[datetime | int, int], Prices] | None = None  # by newest, anchor
        self._live: dict[tuple[Any, ...], LiveRow | None] = {}
        self._count = len(bars)
        self._forgotten = 0  # bars, the oldest
        self._newest_row: datetime | None = None
        room = max(2 * len(bars), 1024)
        self._values = np.empty((len(BAR_COLUMNS), room))  # a column lies in one piece
        self._times = np.empty(room, dtype="datetime64[ns]")
        self._values[:, : self._count] = bars[list(BAR_COLUMNS)].to_numpy(np.float64).T
        if self._count:
            self._times[: self._count] = bars.index.to_numpy("datetime64[ns]")
            newest = pd.Timestamp(self._times[self._count - 1], tz="UTC")
            self._newest_row = newest.to_pydatetime()
        self._days = self._first_days = len(np.unique(self._times[: self._count].astype(DAY)))
        self._looked_back = self._rows = 0  # days, and rows before the newest, at most: ``needs``
        self._left = 0  # days, when it last looked what to forget

    def __len__(self) -> int:
        """Return how many bars there were, those it has forgotten included."""
        return self._forgotten + self._count

    def copy(self) -> "History":
        """Return one that grows, and forgets, by itself."""
        return History(self.instrument, self.frame(), self.newest_part, self.forgotten)

    def needs(self, anchor: int, rows: int = 0) -> None:
        """Keep from now on what the newest row and ``rows`` before it are computed from.

        Raises ``SpecMismatch`` when that is forgotten already.
        """
        if anchor <= self._looked_back and rows <= self._rows:
            return
        anchor, rows = max(anchor, self._looked_back), max(rows, self._rows)
        if self.forgotten is not None:
            from features.anchor import reaches

            known = self._times[: max(self._count - rows, 0)]
            if not reaches(known, self.instrument.interval, anchor):
                raise SpecMismatch(
                    f"{self.instrument.symbol}: a row is computed from {anchor} sessions before "
                    f"it, and {rows} rows before the newest are looked at; bars up to "
                    f"{self.forgotten.isoformat()} are forgotten: restart the worker, which reads "
                    "them again"
                )
        self._looked_back, self._rows = anchor, rows

    def holds(self, times: "pd.Index[Any]", spec: "FeatureSpec") -> None:
        """See that rows of a table are what they were if nothing was ever forgotten.

        ``times``: of the rows that an observation looks back on, and of the newest one. Raises
        ``SpecMismatch``.
        """
        wanted = spec.look_back_rows + 1
        if self.forgotten is not None and len(times) < wanted:
            raise SpecMismatch(
                f"{self.instrument.symbol}: {wanted} rows are looked back on, of the bars that "
                f"are kept only {len(times)} are shared with the other symbol: restart the "
                "worker, which reads the others again"
            )
        if len(times):
            known, oldest = self._times[: self._count], times.to_numpy("datetime64[ns]")[0]
            self.needs(spec.anchor, self._count - 1 - int(known.searchsorted(oldest)))

    @property
    def newest(self) -> datetime | None:
        return self.newest_part or self.newest_row

    @property
    def newest_row(self) -> datetime | None:
        """Return the time of the newest bar, finished or not."""
        return self._newest_row

    @property
    def newest_close(self) -> float:
        """Return the newest close, as traded; 0 where there is none."""
        close = BAR_COLUMNS.index("close")
        return float(self._values[close, self._count - 1]) if self._count else 0.0

    def append(self, bar: FeedBar) -> None:
        """Add the next bar; raise ``BadBars`` when it is not newer than the newest."""
        newest = self.newest
        if newest is not None and bar.time <= newest:
            raise BadBars(
                f"{self.instrument.symbol}: bar {bar.time.isoformat()} came after "
                f"{newest.isoformat()}; bars of a feed must be in order"
            )
        self.newest_part = bar.time if bar.row else None
        if bar.row is not None and bar.row == self.newest_row:
            grow(self._values[:, self._count - 1], bar.values)
            self._live.clear()
            return
        if self._count == len(self._times):
            self._move(0, 2 * self._count)
        self._values[:, self._count] = bar.values
        before, self._newest_row = self._newest_row, bar.row or bar.time
        self._days += before is None or before.date() != self._newest_row.date()
        self._times[self._count] = np.datetime64(self._newest_row.replace(tzinfo=None), "ns")
        self._count += 1

    def frame(self, newest: int | None = None) -> pd.DataFrame:
        """Return a bar frame of all that is remembered, or of the ``newest`` bars."""
        start = 0 if newest is None else max(self._count - newest, 0)
        times = pd.DatetimeIndex(self._times[start : self._count], name="time").tz_localize("UTC")
        values = self._values[:, start : self._count].T.copy()
        return pd.DataFrame(values, index=times, columns=list(BAR_COLUMNS))

    def since_anchor(self, anchor: int) -> pd.DataFrame:
        """Return the bars the newest feature row is computed from (``features.anchor``)."""
        return self.frame(self._count - self._start(anchor))

    def row(self, spec: "FeatureSpec") -> np.ndarray:
        """Return the newest feature row, (d,) float64, of a spec without VIX columns."""
        from features.table import live_row, newest_row

        live = self._carried("row", spec, live_row)
        if live is None:
            return newest_row(self.prices(spec.anchor), spec)
        return live.newest(*self._seen())

    def risk(self, spec: "FeatureSpec") -> np.ndarray:
        """Return ``core.bars.RISK_COLUMNS`` at the newest bar, (2,) float64."""
        from features.table import live_risk, newest_risk

        live = self._carried("risk", spec, live_risk)
        if live is None:
            return newest_risk(self.prices(spec.anchor), spec.interval)
        return live.newest(*self._seen())

    def prepare(self) -> None:
        """Do now what would hold up the first bar of the next day (daily: year)."""
        self.forget()
        for live in self._live.values():
            if live is not None and self.newest_part is None:
                live.prepare(*self._seen())

    def forget(self) -> None:
        """Let go of days that no row needs any more, many at once.

        What is left reaches back as far as at the beginning, before the anchor of its oldest row:
        a restart would know no more. Daily bars stay: a year of them is 16 kB.
        """
        kept = self._first_days + self._looked_back + 1
        most = max(FORGETS_AT * kept, self._left + kept)
        if self.instrument.interval == "1d" or self._days <= most:
            return
        from features.anchor import next_anchor

        oldest = max(self._count - self._rows, 0)  # of the rows that are looked back on
        bars = next_anchor(self._times[:oldest], self.instrument.interval, kept)
        self._days = self._left = len(np.unique(self._times[bars : self._count].astype(DAY)))
        if not bars:
            return
        self.forgotten = pd.Timestamp(self._times[bars - 1], tz="UTC").to_pydatetime()
        self._move(bars, len(self._times))
        self._forgotten += bars
        self._since = None
        for live in self._live.values():
            if live is not None:
                live.forget(bars)

    def _move(self, first: int, room: int) -> None:
        """Go on in other arrays, from bar ``first`` on; others may look at what was there.

        Of the room only what is written to takes memory.
        """
        values, times = self._values[:, first : self._count], self._times[first : self._count]
        self._count -= first
        self._values = np.empty((len(BAR_COLUMNS), room))
        self._times = np.empty(room, dtype=times.dtype)
        self._values[:, : self._count] = values
        self._times[: self._count] = times

    def _carried(
        self, kind: str, spec: "FeatureSpec", make: "Callable[[FeatureSpec], LiveRow | None]"
    ) -> "LiveRow | None":
        self.needs(spec.anchor)
        if self.newest_part is not None:
            return None  # nothing is carried on over a row that still grows
        key = (kind, spec.columns if kind == "row" else (), spec.anchor)
        if key not in self._live:
            self._live[key] = make(spec)
            while len(self._live) > KEPT:  # of versions that decided before
                del self._live[next(iter(self._live))]
        return self._live[key]

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        values = self._values[:, : self._count]
        values.flags.writeable = False  # no indicator may alter the history
        return self._times[: self._count], values

    def prices(self, anchor: int) -> "Prices":
        """Return what rows are computed from, of the bars from the anchor on, without a copy."""
        from features.table import live_prices

        key = self.newest_part or self._count, anchor
        if self._since is None or self._since[0] != key:
            values = self._values[:, self._start(anchor) : self._count]
            values.flags.writeable = False  # no indicator may alter the history
            columns = dict(zip(BAR_COLUMNS, values, strict=True))
            self._since = key, live_prices(columns)
        return self._since[1]

    def _start(self, anchor: int) -> int:
        from features.anchor import newest_period_of

        self.needs(anchor)
        times = self._times[: self._count]
        return newest_period_of(times, self.instrument.interval, anchor).anchor if len(times) else 0


def grow(row: np.ndarray, part: tuple[float, ...]) -> None:
    """Let a bar (BAR_COLUMNS) grow, in place, by what happened after it."""
    _, high, low, close, volume, dividend, split_ratio = range(len(BAR_COLUMNS))
    row[high] = max(row[high], part[high])
    row[low] = min(row[low], part[low])
    row[close] = part[close]
    row[volume] += part[volume]
    row[dividend] += part[dividend]
    row[split_ratio] *= part[split_ratio]
