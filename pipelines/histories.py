"""Histories: markets without an edge, and markets with a known one, as bar frames.

Owns how they are made. Knows neither pipelines nor verdicts. A history is a function of its kind,
number and edge alone.

    bootstrapped  the days of a real market in blocks of BLOCK_BARS on average (stationary
                  bootstrap): fat tails, drift and short-lived volatility stay, what lies further
                  back says nothing any more
    randomised    its returns with the phases of their spectrum drawn at random: drift, deviation
                  and autocorrelation stay, all other dependence goes
    trending, swinging, reverting
                  a planted edge of ``pipelines.edges``, so strong that its rule earns ``edge``,
                  as an annual Sharpe ratio after costs, over the ten years of this market
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from core import calendar
from pipelines.edges import SESSIONS, EdgeKind, market
from registry.resampling import stationary_bootstrap
from sources.bundled import LISTINGS
from sources.planted import FIRST, LAST

Kind = Literal["bootstrapped", "randomised"] | EdgeKind

REAL = ("IXIC", "AAPL", "IBM", "MSFT")  # in turn
BLOCK_BARS = 20.0
FIRST_PRICE, DAILY_SHARES = 50.0, 5e6


@dataclass(frozen=True, slots=True)
class History:
    """One made-up market."""

    kind: Kind
    number: int
    edge: float = 0.0  # net Sharpe ratio of the planted rule; 0: there is none

    @property
    def name(self) -> str:
        edge = f"-{self.edge:g}" if self.edge else ""
        return f"{self.kind}{edge}-{self.number:03d}"

    def bars(self) -> pd.DataFrame:
        """Return its bar frame."""
        if self.kind != "bootstrapped" and self.kind != "randomised":
            seed = 1_000_000 + 1_000 * int(100 * self.edge) + self.number
            return market(self.kind, seed, self.edge)
        rng = np.random.default_rng([{"bootstrapped": 1, "randomised": 2}[self.kind], self.number])
        shapes = _shapes(REAL[self.number % len(REAL)])
        if self.kind == "bootstrapped":
            rows = stationary_bootstrap(len(shapes), 1, BLOCK_BARS, rng)[0, :SESSIONS]
            return _frame(shapes[rows])
        made = shapes[rng.integers(0, len(shapes), SESSIONS)]
        made[:, 0] = randomised(shapes[:, 0], rng)[:SESSIONS]
        return _frame(made)


def randomised(returns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a series (T,) of the same mean and spectrum, hence autocorrelation, random phases.

    Theiler and others (1992), Testing for nonlinearity in time series: the method of surrogate
    data, Physica D 58.
    """
    spectrum = np.fft.rfft(returns)
    phases = np.exp(2j * np.pi * rng.random(len(spectrum)))
    phases[0] = 1.0  # the mean stays
    if len(returns) % 2 == 0:
        phases[-1] = 1.0  # a real series has a real highest frequency
    return np.fft.irfft(spectrum * phases, len(returns))


@lru_cache(maxsize=len(REAL))
def _shapes(symbol: str) -> np.ndarray:
    """Return a real market's days (T, 5): log return from close to close with what was paid out,
    open over close, high over the higher of both, low over the lower (logs), and the volume over
    the median of the 61 days around."""
    bars = LISTINGS[symbol].load()
    before = bars["close"].shift(1)
    held = (bars["close"] + bars["dividend"]) * bars["split_ratio"]
    tops, feet = bars[["open", "close"]].max(axis=1), bars[["open", "close"]].min(axis=1)
    usual = bars["volume"].rolling(61, center=True, min_periods=1).median()
    columns = {
        "return": np.log(held / before),
        "open": np.log(bars["open"] / bars["close"]),
        "high": np.log(bars["high"] / tops),
        "low": np.log(bars["low"] / feet),
        "volume": bars["volume"] / usual,
    }
    return pd.DataFrame(columns).to_numpy(np.float64)[1:]


def _frame(shapes: np.ndarray) -> pd.DataFrame:
    close = FIRST_PRICE * np.exp(np.cumsum(shapes[:, 0]))
    opened = close * np.exp(shapes[:, 1])
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * np.exp(shapes[:, 2]),
            "low": np.minimum(opened, close) * np.exp(shapes[:, 3]),
            "close": close,
            "volume": np.round(DAILY_SHARES * shapes[:, 4]),
            "dividend": 0.0,
            "split_ratio": 1.0,
        },
        index=calendar.sessions("XNYS", FIRST, LAST)[: len(shapes)],
    )
    return frame.round({"open": 4, "high": 4, "low": 4, "close": 4})
