"""The port every source of bars implements, and the conventions vendors quote prices in.

Owns what a delivery is and how it becomes bars as traded. Knows neither vendors nor storage.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import UnknownSymbol

# as_traded: what the tape printed. split_adjusted: prices, volume and dividends restated for every
# split up to the day of delivery (Yahoo), which a later split restates again.
Convention = Literal["as_traded", "split_adjusted"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bars of one symbol exactly as a source gave them."""

    symbol: str
    interval: str
    frame: pd.DataFrame  # UTC index `time`, BAR_COLUMNS, optionally `adj_close`, in `convention`
    convention: Convention
    delivered_at: datetime  # aware UTC


class Source(Protocol):
    """Anything that delivers bars."""

    name: str

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return bars from ``since`` (all there are when ``None``) up to ``now``.

        Raises ``UnknownSymbol``, ``SourceUnavailable`` or ``BadBars``.
        """
        ...


def symbol_name(symbol: str) -> str:
    """Return ``symbol`` as a file name (``BTC/USDT`` is ``BTC_USDT``).

    Raises ``UnknownSymbol`` for what is no symbol of any vendor: names reach paths and commands.
    """
    if not re.fullmatch(r"[A-Za-z0-9^][A-Za-z0-9^=._/:-]{0,39}", symbol) or ".." in symbol:
        raise UnknownSymbol(
            f"{symbol!r} is no symbol: expected letters, digits and ^ = . _ / : - only"
        )
    return re.sub("[/:]", "_", symbol)


def as_traded(
    frame: pd.DataFrame, convention: Convention, splits: pd.Series | None = None
) -> pd.DataFrame:
    """Return a bar frame (BAR_COLUMNS, as traded) from a delivered one; the input is unchanged.

    A split-adjusted price is multiplied by every later split ratio, its volume divided by it.
    ``splits``: ratios by ex-date known at the delivery, where ``frame`` is only a part of it.
    """
    bars = frame.loc[:, list(BAR_COLUMNS)].astype(np.float64)
    if convention == "as_traded":
        return bars
    if splits is None:
        splits = bars["split_ratio"][bars["split_ratio"] != 1.0]
    later = np.ones(len(bars))
    for ex_date, ratio in splits.items():
        later[bars.index < ex_date] *= ratio  # a bar on the ex-date trades in new shares already
    for name in ("open", "high", "low", "close", "dividend"):
        bars[name] = bars[name] * later
    bars["volume"] = bars["volume"] / later
    return bars
