"""Splits and dividends that a raw and an adjusted close imply together.

Owns that inference, and what of it is rounding. Knows neither vendors nor files.
"""

from typing import Literal

import numpy as np
import pandas as pd

LEAST_SPLIT = 1.2  # a step of the factor beyond this (or below its inverse) is a split
LEAST_DIVIDEND = 2e-4  # fraction of the price; smaller steps are rounding

# What a vendor divides a dividend by when adjusting: the close of the ex-date (it reinvests
# there), or the close before it (CRSP, Yahoo).
Reinvested = Literal["ex_close", "close_before"]


def actions_from_adjusted(
    bars: pd.DataFrame, reinvested: Reinvested, decimals: int | None = None
) -> pd.DataFrame:
    """Return ``bars`` with the ``dividend`` and ``split_ratio`` that ``adj_close`` implies.

    The adjustment factor adjusted / raw steps up by the split ratio on its ex-date, and by the
    dividend's share of the price on a dividend's. ``decimals`` of the adjusted close: steps that
    its rounding alone can make are none.
    """
    close = bars["close"].to_numpy(np.float64)
    adjusted = bars["adj_close"].to_numpy(np.float64)
    factor = adjusted / close
    step = np.append(1.0, factor[1:] / factor[:-1])
    is_split = (step > LEAST_SPLIT) | (step < 1.0 / LEAST_SPLIT)
    ratio = np.where(is_split, _clean_ratio(step), 1.0)
    growth = step / ratio
    if reinvested == "ex_close":
        paid = growth - 1.0
        dividend = paid * close
    else:
        paid = 1.0 - 1.0 / growth
        dividend = paid * np.append(close[0], close[:-1]) / ratio
    least = np.full(len(bars), LEAST_DIVIDEND)
    if decimals is not None:
        half = 0.5 * 10.0**-decimals / adjusted
        least = np.maximum(least, 1.5 * (half + np.append(half[0], half[:-1])))
    # Tenths of a cent, but for the tiny dividends of prices adjusted through many splits.
    dividend = np.where(dividend > 0.05, np.round(dividend, 3), np.round(dividend, 6))
    return bars.assign(dividend=np.where(paid > least, dividend, 0.0), split_ratio=ratio)


def _clean_ratio(step: np.ndarray) -> np.ndarray:
    """Return the nearest ratio of small whole numbers: splits are 2:1, 3:2, 1:10 …"""
    best = np.round(np.maximum(step, 1.0))
    for old in (1, 2, 3, 4, 5, 8, 10, 15, 20, 25, 30, 50):
        new = np.maximum(np.round(step * old), 1.0)
        closer = np.abs(new / old / step - 1.0) < np.abs(best / step - 1.0) - 0.004
        best = np.where(closer, new / old, best)
    clean: np.ndarray = best
    return clean


def split_between(known: pd.DataFrame, told_now: pd.DataFrame) -> float:
    """Return the ratio of a split after ``known``, by what a vendor makes of its past; 1: none.

    A vendor that adjusts for splits tells the bars before one anew, divided by its ratio. Both are
    bar frames; only the bars they share count, and all of them must say the same.
    """
    shared = known.index.intersection(told_now.index)
    if shared.empty:
        return 1.0
    step = known.loc[shared, "close"].to_numpy() / told_now.loc[shared, "close"].to_numpy()
    if not np.allclose(step, step[0], rtol=2e-3) or 1.0 / LEAST_SPLIT <= step[0] <= LEAST_SPLIT:
        return 1.0
    return float(_clean_ratio(np.array([float(np.median(step))]))[0])


def carry_actions(bars: pd.DataFrame, kept: np.ndarray) -> pd.DataFrame:
    """Return the rows ``kept`` (T,) bool; their actions include those of rows dropped before.

    Ratios multiply; a dividend is restated per share of the row it moves to. What comes before the
    first kept row has no holder and is dropped.
    """
    ratio = bars["split_ratio"].to_numpy(np.float64).copy()
    dividend = bars["dividend"].to_numpy(np.float64).copy()
    stays = np.flatnonzero(kept)
    acting = (ratio != 1.0) | (dividend != 0.0)
    for row in np.flatnonzero(~kept & acting)[::-1]:
        after = stays[np.searchsorted(stays, row) :]
        if len(after) and row > stays[0]:
            dividend[after[0]] += dividend[row] / ratio[after[0]]
            ratio[after[0]] *= ratio[row]
    return bars.assign(split_ratio=ratio, dividend=dividend)[kept]
