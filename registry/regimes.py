"""Regimes: which bars of a hold-out were a crash, calm, or a trend.

Owns their definitions, on the market's own returns up to each bar: no regime knows its future.
A bar can belong to several, or to none. Knows no policies.
"""

from typing import Literal, get_args

import numpy as np

Regime = Literal["crash", "calm", "trend"]
REGIMES: tuple[Regime, ...] = get_args(Regime)

CRASH_FALL = 0.15  # of the market from its highest close so far
CALM_BARS, TREND_BARS = 21, 63
TREND_DEVIATIONS = 1.0  # a move of TREND_BARS beyond this many of its usual deviations


def regimes(market: np.ndarray) -> dict[Regime, np.ndarray]:
    """Return one mask (T,) per regime, of the market's simple returns (T,).

    crash  CRASH_FALL or more below the highest close so far
    calm   the deviation of the last CALM_BARS is at most three quarters of that of all so far
    trend  the last TREND_BARS moved, up or down, by more than chance would mostly do
    """
    growth = np.cumprod(1.0 + market)
    crash = 1.0 - growth / np.maximum(np.maximum.accumulate(growth), 1.0) >= CRASH_FALL
    usual = _deviation(market, len(market))
    calm = _deviation(market, CALM_BARS) <= 0.75 * usual
    calm[:CALM_BARS] = False
    path = np.append(0.0, np.cumsum(np.log1p(market)))
    trend = np.zeros(len(market), dtype=bool)
    moved = np.abs(path[TREND_BARS:] - path[:-TREND_BARS])
    chance = TREND_DEVIATIONS * usual[TREND_BARS - 1 :] * np.sqrt(TREND_BARS)
    trend[TREND_BARS - 1 :] = moved > chance
    return {"crash": crash, "calm": calm, "trend": trend}


def _deviation(returns: np.ndarray, bars: int) -> np.ndarray:
    """Return the deviation around 0 of the last ``bars`` returns, fewer at the beginning, (T,)."""
    total = np.append(0.0, np.cumsum(returns**2))
    stop = np.arange(1, len(returns) + 1)
    start = np.maximum(stop - bars, 0)
    return np.asarray(np.sqrt(np.maximum(total[stop] - total[start], 0.0) / (stop - start)))
