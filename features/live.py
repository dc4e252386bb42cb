"""Live rows: the newest row of the table, carried on bar by bar instead of computed anew.

Owns the streams. A recipe of columns is run once over the bars from their anchor, and every call
it makes of TA-Lib opens one of TA-Lib's own streams, which keep the bits of the function. With each
further bar the same recipe is run over the newest few bars: its calls are answered by the streams,
in the same order, and what it computes elementwise it computes as ever. One feature code, no second
set of formulas. Where the streams cannot go on (another anchor, a history too short, a number that
is none) the row is computed from its anchor. Knows neither feeds nor agents.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import talib
import talib.stream
from talib import InsufficientHistory  # type: ignore[attr-defined]

from core.bars import BAR_COLUMNS
from core.settings import Interval
from features.adjust import AdjustedBars, Array, adjust_columns
from features.anchor import newest_period_of, next_anchor, period_label
from features.indicators import Prices

TAIL = 3  # bars: a return, its predecessor, and what both are made of
CATCH_UP = 8  # bars at most that are carried on at once; more are computed from the anchor

Make = Callable[[Prices], Array]


class _Opening:
    """Stands where TA-Lib does, over the bars from their anchor: every call opens a stream."""

    def __init__(self) -> None:
        self.streams: list[tuple[Callable[..., Any], int]] = []  # ``update``, and how many inputs

    def __getattr__(self, name: str) -> Callable[..., Any]:
        opened = getattr(talib.stream, name).open_and_fill

        def call(*given: Any, **named: Any) -> Any:
            stream, values = opened(*given, **named)
            inputs = sum(isinstance(one, np.ndarray) for one in given)
            self.streams.append((stream.update, inputs))
            return values

        return call


class _Carrying:
    """Stands where TA-Lib does, over the newest bars: the streams answer in the order of opening.

    Only the newest number of an answer is filled in.
    """

    def __init__(self, streams: list[tuple[Callable[..., Any], int]]) -> None:
        self._streams = streams
        self._place = 0

    def begin(self) -> None:
        self._place = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        setattr(self, name, self._answer)  # found at once the next time
        return self._answer

    def _answer(self, *given: Any, **named: Any) -> Any:
        update, inputs = self._streams[self._place]
        self._place += 1
        numbers = [values.item(-1) for values in given[:inputs]]
        if not math.isfinite(sum(numbers)):
            raise ValueError("a stream takes no number that is none")
        newest = update(*numbers)
        if isinstance(newest, tuple):
            return tuple(_tail(number) for number in newest)
        return _tail(newest)


_UNKNOWN = np.full(TAIL, np.nan)


def _tail(newest: float) -> Array:
    values = _UNKNOWN.copy()
    values[-1] = newest
    return values


class _Line:
    """The streams of one anchor, and the newest bars as they were adjusted from it."""

    def __init__(self, values: Array, anchor: int, make: Make) -> None:
        """Open on bars (7, T) from ``anchor`` on; raise what TA-Lib does on too few."""
        self.anchor = anchor
        self.count = values.shape[1]
        self._make = make
        self._values = values[:, -1].tolist()  # of the newest bar, as traded
        known = values[:, anchor:]
        if known.shape[1] < TAIL or not bool(np.isfinite(known).all()):
            raise ValueError("a stream needs a few bars, and every number of them")
        columns = dict(zip(BAR_COLUMNS, known, strict=True))
        bars, opening = adjust_columns(columns), _Opening()
        self.row = make(Prices.of(bars, by=opening))
        self._carrying = _Carrying(opening.streams)
        self._price_factor = float(bars.factor[-1])
        self._share_factor = float(np.multiply.accumulate(columns["split_ratio"][1:])[-1])
        self._tail = np.array(
            [one[-TAIL:] for one in (bars.open, bars.high, bars.low, bars.close, bars.volume,
                                     bars.factor)]
        )  # fmt: skip

    def carry(self, values: list[float]) -> bool:
        """Live through one more bar (7,); say whether the streams can go on."""
        opened, high, low, close, volume, dividend, split_ratio = values
        kept = 1.0 - dividend * split_ratio / self._values[BAR_COLUMNS.index("close")]
        if not (all(map(math.isfinite, values)) and kept > 0.0):
            return False
        self._price_factor *= split_ratio / kept
        self._share_factor *= split_ratio
        factor, tail = self._price_factor, self._tail
        tail[:, :-1] = tail[:, 1:]
        tail[:, -1] = (
            opened * factor, high * factor, low * factor, close * factor,
            volume / self._share_factor, factor,
        )  # fmt: skip
        self._carrying.begin()
        try:
            self.row = self._make(Prices.of(AdjustedBars(*tail), by=self._carrying))
        except ValueError:
            return False
        self._values = values
        self.count += 1
        return True


class LiveRow:
    """The newest row of one history that grows."""

    def __init__(self, make: Make, interval: Interval, anchor: int) -> None:
        """``make`` returns a row of prices, never an array it was given; see ``FeatureSpec``."""
        self._make = make
        self._interval, self._anchor = interval, anchor
        self._label: np.datetime64 | None = (
            None  # of the period whose rows share the anchor of ``_line``
        )
        self._line: _Line | None = None
        self._coming: _Line | None = None  # of the period after

    def newest(self, times: np.ndarray, values: Array) -> Array:
        """Return the row of the newest of sorted UTC ``times`` (T,) and bars ``values`` (7, T)."""
        label = period_label(times[-1], self._interval)
        if label != self._label:
            anchor = newest_period_of(times, self._interval, self._anchor).anchor
            coming, self._coming = self._coming, None
            self._line = coming if coming and coming.anchor == anchor else None
            self._label = label
        else:
            anchor = self._line.anchor if self._line else -1
        if self._line is None or not _caught_up(self._line, values):
            if anchor < 0:
                anchor = newest_period_of(times, self._interval, self._anchor).anchor
            self._line = _open(values, anchor, self._make)
        if self._line is not None:
            return self._line.row
        known = dict(zip(BAR_COLUMNS, values[:, anchor:], strict=True))
        return self._make(Prices.of(adjust_columns(known)))

    def forget(self, bars: int) -> None:
        """Count on where the history let go of its oldest ``bars``: no row needs them."""
        for line in (self._line, self._coming):
            if line is not None:
                line.anchor -= bars
                line.count -= bars

    def prepare(self, times: np.ndarray, values: Array) -> None:
        """Be ready for the first bar of the next period; call when there is time."""
        if self._line is None or self._line.count != len(times):
            return
        if self._coming is None:
            anchor = next_anchor(times, self._interval, self._anchor)
            self._coming = _open(values, anchor, self._make)
        elif not _caught_up(self._coming, values):
            self._coming = None


def _open(values: Array, anchor: int, make: Make) -> _Line | None:
    try:
        return _Line(values, anchor, make)
    except (InsufficientHistory, ValueError):
        return None


def _caught_up(line: _Line, values: Array) -> bool:
    """Carry a line on to the newest bar; say whether it is there."""
    behind = range(line.count, values.shape[1])
    if len(behind) > CATCH_UP:
        return False
    return all(line.carry(values[:, place].tolist()) for place in behind)
