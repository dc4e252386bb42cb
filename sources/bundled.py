"""Bundled: real daily bars that arrive with ordinary dependencies; no network, no key.

    AAPL IBM MSFT     2000-03 to 2013-03, as traded, with splits and dividends (bokeh_sampledata)
    GOOG              2004-08 to 2013-03
    GSPC IXIC         S&P 500 and Nasdaq Composite, 1999 to 2018: indices, not for sale (arch)
    VIX               closes, 2014 to 2019 (arch)
    IXIC3X            a *synthetic* daily-reset fund of three times the Nasdaq Composite

Splits and dividends are read off the ratio of adjusted to raw close: its steps are the vendor's
adjustment factors. Knows nothing of storage.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import MissingDependency, UnknownSymbol
from sources.actions import actions_from_adjusted
from sources.port import Delivery

STOCKS = ("AAPL", "IBM", "MSFT", "GOOG")
LEVERAGE = 3.0
EXPENSE_RATIO = 0.0095  # a year; what listed 3x funds charge
FINANCING_RATE = 0.02  # a year, on what is borrowed; about the mean US overnight rate 1999-2018
FIRST_PRICE, SPLIT_BELOW, SPLIT_ABOVE = 100.0, 10.0, 250.0
DAILY_TURNOVER = 2e8  # account currency on a median day; follows the index's own volume


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of the bundle."""

    description: str
    load: Callable[[], pd.DataFrame]


class Bundled:
    """The bundled data as a source."""

    name = "bundled"

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return the bundled bars up to ``now``; the same on every call."""
        listing = LISTINGS.get(symbol)
        if listing is None or interval != "1d":
            known = ", ".join(LISTINGS)
            raise UnknownSymbol(f"bundled: no {symbol} at {interval}; it has {known}, at 1d")
        bars = listing.load()
        bars = bars[bars.index <= pd.Timestamp(now)]
        if since is not None:
            bars = bars[bars.index >= pd.Timestamp(since)]
        return Delivery(symbol, interval, bars, "as_traded", now)


def _stock(symbol: str) -> pd.DataFrame:
    from bokeh_sampledata import stocks

    raw = pd.DataFrame(getattr(stocks, symbol))
    raw.index = _index(raw["date"])
    bars = raw[["open", "high", "low", "close", "volume", "adj_close"]].astype(np.float64)
    return actions_from_adjusted(bars, reinvested="ex_close")


def _composite(name: Literal["nasdaq", "sp500"]) -> pd.DataFrame:
    bars = _arch_table(name).rename(columns=str.lower)[list(BAR_COLUMNS[:5])]
    return bars.astype(np.float64).assign(dividend=0.0, split_ratio=1.0)


def _vix() -> pd.DataFrame:
    closes = pd.to_numeric(_arch_table("vix")["vix"], errors="coerce").dropna().astype(np.float64)
    bars = pd.DataFrame(dict.fromkeys(BAR_COLUMNS[:4], closes), index=closes.index)
    return bars.assign(volume=0.0, dividend=0.0, split_ratio=1.0)


def _arch_table(name: Literal["nasdaq", "sp500", "vix"]) -> pd.DataFrame:
    """Read a table of the package ``arch`` without importing it: that would load statsmodels."""
    package = importlib.util.find_spec("arch")
    if package is None or package.origin is None:
        raise MissingDependency("the package arch is not installed; run `pip install arch`")
    path = Path(package.origin).parent / "data" / name / f"{name}.csv.gz"
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise MissingDependency(
            f"{path}: cannot be read ({error}); the package arch should have it: reinstall it"
        ) from error
    return table.set_index(_index(table.pop("Date")))


def leveraged(index: pd.DataFrame) -> pd.DataFrame:
    """Return a synthetic fund that earns LEVERAGE × the index's daily return, less its costs.

    Reset at every close: within a day the fund moves LEVERAGE times as far from its last close as
    the index does. The expense ratio and the interest on what is borrowed are taken at the close,
    1/252 of the year's each day. Splits as such funds do them: one for ten below SPLIT_BELOW,
    five for one above SPLIT_ABOVE, on the next session.
    """
    columns = {name: index[name].to_numpy(np.float64) for name in BAR_COLUMNS[:5]}
    last_close = np.append(columns["open"][0], columns["close"][:-1])
    daily_cost = (EXPENSE_RATIO + (LEVERAGE - 1.0) * FINANCING_RATE) / 252.0
    moved = {n: 1.0 + LEVERAGE * (columns[n] / last_close - 1.0) for n in BAR_COLUMNS[:4]}
    growth = moved["close"] - daily_cost
    ratio, start, price = np.ones(len(index)), np.empty(len(index)), FIRST_PRICE
    for t, grown in enumerate(growth):
        ratio[t] = 0.1 if price < SPLIT_BELOW else 5.0 if price > SPLIT_ABOVE else 1.0
        start[t] = price / ratio[t]
        price = start[t] * grown
    fund = pd.DataFrame({name: start * moved[name] for name in BAR_COLUMNS[:4]}, index=index.index)
    fund["close"] = start * growth
    fund["low"] = fund[["low", "close"]].min(axis=1)
    fund = fund.round(4)
    turnover = DAILY_TURNOVER * columns["volume"] / np.median(columns["volume"])
    fund["volume"] = np.round(turnover / fund["close"])
    return fund.assign(dividend=0.0, split_ratio=ratio)


def _index(dates: pd.Series | pd.Index) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(dates), name="time").tz_localize(UTC)


LISTINGS: dict[str, Listing] = {
    **{s: Listing("common stock, as traded", partial(_stock, s)) for s in STOCKS},
    "GSPC": Listing("S&P 500 index", partial(_composite, "sp500")),
    "IXIC": Listing("Nasdaq Composite index", partial(_composite, "nasdaq")),
    "VIX": Listing("CBOE volatility index, closes", _vix),
    "IXIC3X": Listing(
        "synthetic daily-reset 3x fund on the Nasdaq Composite",
        lambda: leveraged(_composite("nasdaq")),
    ),
}
