"""PLANTED: a made-up market with a known edge, to see every path of the pipeline.

A hidden drift is up or down for twenty sessions on average; daily returns are that drift plus
noise, so a short average of past returns tells which it is. ``rule`` is that knowledge: long while
the average is positive, flat otherwise. Over most seeds it earns a Sharpe ratio of about 3 after
costs, where holding earns about 0.5. Promises nothing about any real market.
"""

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from core import calendar
from core.errors import UnknownSymbol
from sources.port import Delivery

SYMBOL = "PLANTED"
SESSIONS = 3_600
FIRST, LAST = pd.Timestamp("2004-01-02", tz=UTC), pd.Timestamp("2024-12-31", tz=UTC)
SEED = 20_040_102
TURN_PROBABILITY = 1 / 20  # per session
DRIFT = 0.005  # of the daily log return, while up; minus that while down
GROWTH = 0.0003  # daily log return on top
NOISE = 0.010  # standard deviation of the daily log return
NIGHT = 0.2  # share of the noise that falls between close and open
FAST = 9  # sessions of the rule's exponential average


class Planted:
    """The generator as a source."""

    name = "planted"

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return the market's bars up to ``now``; the same on every call."""
        if symbol != SYMBOL or interval != "1d":
            raise UnknownSymbol(f"planted: no {symbol} at {interval}; it has {SYMBOL} at 1d")
        bars = planted_bars()
        bars = bars[bars.index <= pd.Timestamp(now)]
        if since is not None:
            bars = bars[bars.index >= pd.Timestamp(since)]
        return Delivery(symbol, interval, bars, "as_traded", now)


def planted_bars(
    seed: int = SEED,
    sessions: int = SESSIONS,
    drift: float = DRIFT,
    turn_probability: float = TURN_PROBABILITY,
) -> pd.DataFrame:
    """Generate the bar frame of one such market; same arguments, same bars.

    ``drift``: of the daily log return, while up; minus that while down.
    """
    rng = np.random.default_rng(seed)
    turns = np.where(rng.random(sessions) < turn_probability, -1.0, 1.0)
    return made_bars(GROWTH + drift * np.cumprod(turns), rng)


def made_bars(expected: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Generate a bar frame from the daily log returns (T,) that somebody who knows all expects."""
    sessions = len(expected)
    noise = NOISE * rng.standard_normal(sessions)
    night = NOISE * np.sqrt(NIGHT) * rng.standard_normal(sessions)
    close = 50.0 * np.exp(np.cumsum(expected + noise))
    opened = np.append(close[0], close[:-1]) * np.exp(night * 0.5)
    reach = np.abs(NOISE * 0.5 * rng.standard_normal((2, sessions)))
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * np.exp(reach[0]),
            "low": np.minimum(opened, close) * np.exp(-reach[1]),
            "close": close,
            "volume": np.round(5e6 * np.exp(0.3 * rng.standard_normal(sessions))),
            "dividend": 0.0,
            "split_ratio": 1.0,
        },
        index=calendar.sessions("XNYS", FIRST, LAST)[:sessions],
    )
    return frame.round({"open": 4, "high": 4, "low": 4, "close": 4})


def rule(close: np.ndarray) -> np.ndarray:
    """Return the known rule's position (T,), 1 or 0, decided at each close."""
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    average, smooth = np.zeros_like(returns), 2.0 / (FAST + 1)
    for t in range(1, len(returns)):
        average[t] = average[t - 1] + smooth * (returns[t] - average[t - 1])
    return np.where(average > 0.0, 1.0, 0.0)
