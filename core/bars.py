"""Bars: the canonical table of one symbol, and the market the engine trades.

Owns names, dtypes and the order of columns. Knows neither where bars come from nor what is
computed from them.

A *frame* of bars is a pandas DataFrame with a UTC ``DatetimeIndex`` named ``time`` (daily: the
session's date at midnight; intraday: the bar's start), strictly increasing, and float64 columns
``BAR_COLUMNS``. Prices are as traded: what the tape printed on that day, not adjusted for any
later split or dividend.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.arrays import Array, namespace
from core.compiled import plain
from core.errors import BadBars

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "dividend", "split_ratio")
# dividend: cash per share, account currency, on its ex-date (else 0), per share after any split
# of that date. split_ratio: new shares per old share on its ex-date (else 1), e.g. 2.0 or 0.1.

RISK_COLUMNS = ("atr", "volatility")
# atr: average true range, price units as traded. volatility: annualised, fraction. Both are
# known at the close of their row and feed sizing and stops, never the policy.


@dataclass(frozen=True, slots=True)
class Market:
    """Bars of ``k`` symbols on one clock of ``T`` rows: what the engine settles against.

    Every array is float64 of shape (T, k); ``time`` is datetime64[ns] UTC of shape (T,).
    ``atr`` and ``volatility`` may be NaN in the warm-up rows, nothing else may.
    """

    symbols: tuple[str, ...]
    time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    dividend: np.ndarray
    split_ratio: np.ndarray
    atr: np.ndarray
    volatility: np.ndarray

    @classmethod
    def from_frames(cls, frames: Mapping[str, pd.DataFrame]) -> "Market":
        """Stack frames (BAR_COLUMNS + RISK_COLUMNS) that share one index; raise ``BadBars``."""
        symbols = tuple(frames)
        index = frames[symbols[0]].index
        for symbol in symbols[1:]:
            if not frames[symbol].index.equals(index):
                raise BadBars(f"{symbol}: bars are not on the same clock as {symbols[0]}")
        columns = {
            name: np.column_stack([frames[s][name].to_numpy(np.float64) for s in symbols])
            for name in BAR_COLUMNS + RISK_COLUMNS
        }
        return cls(
            symbols=symbols,
            time=pd.DatetimeIndex(index).tz_localize(None).to_numpy("datetime64[ns]"),
            **columns,
        )

    def __len__(self) -> int:
        return len(self.time)

    def rows(self, start: int, stop: int) -> "Market":
        """Return rows ``start`` (included) to ``stop`` (excluded)."""
        part = {
            f.name: getattr(self, f.name)[start:stop] for f in fields(self) if f.name != "symbols"
        }
        return replace(self, **part)


class Bar(NamedTuple):
    """One bar of ``k`` symbols: arrays (k,) shared by all accounts, or (n, k), one row each."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    dividend: Array
    split_ratio: Array
    atr: Array
    volatility: Array


def bar_at(market: Market, rows: int | slice | np.ndarray) -> Bar:
    """Return row ``rows`` as a bar: an int gives arrays (k,), an array (n,) gives (n, k)."""
    return Bar(*(getattr(market, name)[rows] for name in Bar._fields))


class PackedMarket(NamedTuple):
    """A market whose numbers lie side by side, for fast look-up by many accounts."""

    table: Array  # float64 (T, k, fields of Bar)

    @classmethod
    def of(cls, market: Market, xp: Any = np, device: Any = None) -> "PackedMarket":
        """Pack every row of ``market`` into one array of ``xp``."""
        numbers = [getattr(market, name) for name in Bar._fields]
        return cls(xp.asarray(np.stack(numbers, axis=-1, dtype=np.float64), device=device))

    def at(self, rows: Array) -> "MarketRows":
        """Return the bars at ``rows`` (n,) integers, one for each account; copies nothing."""
        return MarketRows(self.table, rows)


class MarketRows(NamedTuple):
    """Rows of a packed market, each the bar of one account; may stand where a bar may.

    A row beyond the market is a caller's bug.
    """

    table: Array  # (T, k, fields of Bar)
    rows: Array  # (n,) integers


def packed(bar: Bar | MarketRows, accounts: int) -> MarketRows:
    """Return ``bar`` as rows of a table, for code that runs account by account.

    Raises ``ValueError`` where there is not one row for each account, of one symbol.
    """
    if isinstance(bar, MarketRows):
        table, rows = bar.table, plain(bar.rows, np.int64)
    else:
        block = np.stack(bar, axis=-1, dtype=np.float64)
        table = block[None] if block.ndim == 2 else block
        rows = np.zeros(accounts, np.int64) if len(table) == 1 else np.arange(len(table))
    if rows.shape != (accounts,) or table.shape[1] != 1:
        raise ValueError(
            f"bars of {table.shape[1]} symbols at {rows.shape} rows, expected those of 1 symbol "
            f"at ({accounts},) rows"
        )
    return MarketRows(table, rows)


def gathered(bar: Bar | MarketRows) -> Array:
    """Return ``bar`` as one array (n or 1, k, fields of Bar), for code that runs on all at once."""
    if isinstance(bar, MarketRows):
        return bar.table[bar.rows]
    xp = namespace(bar.open)
    block = xp.stack(bar, axis=-1)
    return block[None] if block.ndim == 2 else block
