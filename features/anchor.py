"""Anchors: from which bar on a row of the feature table is computed.

Recursive indicators remember for ever, and running sums carry the rounding of every bar they
saw. Two computations agree to the last bit only if they start at the same bar. So each row starts
at a fixed anchor: daily rows on 1 January ``anchor`` years before their own year, intraday
rows at the first bar of the UTC day ``anchor`` days with bars before their own. Rows of one
period (year, day) share an anchor and are computed in one go, which keeps the cost linear.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.settings import Interval


@dataclass(frozen=True, slots=True)
class Period:
    """Rows ``first`` to ``stop`` (excluded) are computed from bars ``anchor`` to ``stop``."""

    anchor: int
    first: int
    stop: int


def periods(index: pd.DatetimeIndex, interval: Interval, anchor: int) -> list[Period]:
    """Split the rows of a sorted UTC index into the periods that share an anchor."""
    if interval == "1d":
        labels = index.year.to_numpy()
        values, first = np.unique(labels, return_index=True)
        starts = np.searchsorted(labels, values - anchor)
    else:
        labels = index.to_numpy("datetime64[D]")
        values, first = np.unique(labels, return_index=True)
        starts = first[np.maximum(np.arange(len(first)) - anchor, 0)]
    stops = np.append(first[1:], len(index))
    return [Period(int(a), int(b), int(c)) for a, b, c in zip(starts, first, stops, strict=True)]


def newest_period(index: pd.DatetimeIndex, interval: Interval, anchor: int) -> Period:
    """Return the last of ``periods``, looking at no other row than those where it begins."""
    return newest_period_of(index.to_numpy("datetime64[ns]"), interval, anchor)


def newest_period_of(times: np.ndarray, interval: Interval, anchor: int) -> Period:
    """Return the last of ``periods`` of sorted UTC times, datetime64[ns]."""
    stop = len(times)
    if interval == "1d":
        year = times[-1].astype("datetime64[Y]")
        start, first = times.searchsorted([year - anchor, year])
        return Period(int(start), int(first), stop)
    first = start = _day_start(times, stop)
    for _ in range(anchor):
        start = _day_start(times, start)
    return Period(start, first, stop)


def period_label(time: np.datetime64, interval: Interval) -> np.datetime64:
    """Return what the rows of one period share: their year, their day."""
    label: np.datetime64 = time.astype("datetime64[Y]" if interval == "1d" else "datetime64[D]")
    return label


def next_anchor(times: np.ndarray, interval: Interval, anchor: int) -> int:
    """Return the anchor of a row that comes after ``times`` and begins the next period."""
    start = len(times)
    if interval == "1d":
        year = times[-1].astype("datetime64[Y]")
        return int(times.searchsorted(year + 1 - anchor))
    for _ in range(anchor):
        start = _day_start(times, start)
    return start


def reaches(times: np.ndarray, interval: Interval, anchor: int) -> bool:
    """Say whether the newest of ``times`` has its anchor there; days before them are gone."""
    return len(times) > 0 and newest_period_of(times, interval, anchor - 1).anchor > 0


def _day_start(times: np.ndarray, stop: int) -> int:
    """Return the first row of the day that ends before row ``stop``; 0 where there is none."""
    return int(times.searchsorted(times[stop - 1].astype("datetime64[D]"))) if stop else 0


def history_start(index: pd.DatetimeIndex, interval: Interval, anchor: int) -> int:
    """Return the first row that the newest row needs; a live history may drop what is before."""
    return newest_period(index, interval, anchor).anchor
