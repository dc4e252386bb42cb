"""A dataset: the market an agent trades and the features it sees, on one clock, with a hash.

Owns their joint slicing and the first row an agent can act on. Knows nothing of files.
"""

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np

from core.bars import Market
from core.errors import BadBars, NotEnoughData
from core.settings import Interval
from features.adjust import Array
from features.spec import FeatureSpec


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows of one symbol to trade and of the features of its signal symbol; make with ``of``."""

    symbol: str  # traded
    signal_symbol: str  # looked at
    interval: Interval
    market: Market  # (T, 1)
    table: Array  # (T, d) float64, unscaled, columns of ``spec``
    spec: FeatureSpec
    first_row: int  # first row at which an observation can be built and sized
    sha256: str  # of everything above but first_row

    @classmethod
    def of(
        cls, symbol: str, signal_symbol: str, market: Market, table: Array, spec: FeatureSpec
    ) -> "Dataset":
        """Join market and table (same T); raise ``NotEnoughData`` when no row is complete."""
        table = np.ascontiguousarray(table, dtype=np.float64)
        if table.shape != (len(market), len(spec.columns)):
            raise BadBars(
                f"{symbol}: feature table of shape {table.shape}, expected "
                f"({len(market)}, {len(spec.columns)})"
            )
        first = _first_complete(market, table, symbol) + spec.look_back_rows
        if first >= len(market):
            raise NotEnoughData(
                f"{symbol}: {len(market)} bars, the first observation needs {first + 1}"
            )
        content = _content_sha256(symbol, signal_symbol, market, table, spec)
        interval = spec.interval
        return cls(symbol, signal_symbol, interval, market, table, spec, first, content)

    def __len__(self) -> int:
        return len(self.market)

    def rows(self, start: int, stop: int) -> "Dataset":
        """Return rows ``start`` (included) to ``stop`` (excluded), with a hash of their own.

        What lies before ``start`` is gone: where observations look back (window, rolling scaler),
        ``first_row`` of the part lies that many rows in. To observe at ``start`` itself, begin
        ``spec.look_back_rows`` earlier.
        """
        start, stop = max(start, 0), min(stop, len(self))
        first = max(self.first_row - start, self.spec.look_back_rows)
        if first >= stop - start:
            raise NotEnoughData(
                f"{self.symbol}: rows {start} to {stop} hold no complete observation; "
                f"the first of this part is row {start + first}"
            )
        market, table = self.market.rows(start, stop), self.table[start:stop]
        content = _content_sha256(self.symbol, self.signal_symbol, market, table, self.spec)
        return replace(self, market=market, table=table, first_row=first, sha256=content)


def _first_complete(market: Market, table: Array, symbol: str) -> int:
    """Return the row after the last one with a NaN in features, ATR or volatility."""
    complete = np.all(np.isfinite(table), axis=1)
    for risk in (market.atr, market.volatility):
        complete &= np.all(np.isfinite(risk), axis=1)
    if not len(complete) or not complete[-1]:
        raise NotEnoughData(
            f"{symbol}: the newest of {len(complete)} rows is not complete; give more bars, or "
            "raise features.anchor_years or features.anchor_sessions in params.yaml"
        )
    gaps = np.flatnonzero(~complete)
    return int(gaps[-1]) + 1 if len(gaps) else 0


def _content_sha256(
    symbol: str, signal_symbol: str, market: Market, table: Array, spec: FeatureSpec
) -> str:
    digest = hashlib.sha256(f"{symbol}\n{signal_symbol}\n{spec.sha256}\n".encode())
    for field in fields(market):
        value = getattr(market, field.name)
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()
