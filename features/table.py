"""The feature table: indicators over anchored history, whole or only the newest row.

Owns how bars become rows, the one code for training and trading: ``build_table`` computes every
period (year or day) from its anchor, ``build_row`` only the newest row from the same anchor, and
their bytes agree. Knows nothing of scaling, files or who asks.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import talib as ta

from core.bars import BAR_COLUMNS, RISK_COLUMNS
from core.calendar import bars_per_year
from core.errors import BadBars, NotEnoughData
from core.settings import Interval
from features.adjust import Array, adjust_columns
from features.anchor import Period, newest_period, periods
from features.indicators import INDICATORS, VIX_INDICATORS, Prices, is_path, own_indicator
from features.spec import FeatureSpec

RISK_VOLATILITY_BARS = 20
VIX_AGE = pd.Timedelta(days=7)  # an older VIX is not known
_SHORTEST = 3  # bars: TA-Lib refuses less of an input that starts with NaN; such rows are NaN


def build_table(
    bars: pd.DataFrame, spec: FeatureSpec, interval: Interval, vix: pd.Series | None = None
) -> pd.DataFrame:
    """Return the columns of ``spec``, float64 (T, d) on the index of ``bars``.

    NaN only in the warm-up: rows with less than ``LONGEST_LOOK_BACK`` bars since their anchor.
    ``vix`` (closes by time, increasing) is read only where the spec has VIX columns.
    """
    columns, vix_closes = _arrays(bars, spec, interval, vix)
    table = np.full((len(spec.columns), len(bars)), np.nan)  # as pandas keeps it
    for period in _periods(bars, spec):
        computed = _columns_of(columns, vix_closes, period, spec)
        kept = slice(period.first - period.anchor, None)
        for column, values in zip(table, computed, strict=True):
            column[period.first : period.stop] = values[kept]
    return pd.DataFrame(table.T, index=bars.index, columns=list(spec.columns))


def build_row(
    bars: pd.DataFrame, spec: FeatureSpec, interval: Interval, vix: pd.Series | None = None
) -> Array:
    """Return the newest row, (d,) float64; byte-identical to the last row of the table.

    ``bars`` must reach back to the row's anchor (``features.anchor.history_start``).
    """
    if bars.empty:
        raise NotEnoughData("no bars: a feature row needs at least one")
    period = newest_period(_clock(bars), spec.interval, spec.anchor)
    columns, vix_closes = _arrays(bars.iloc[period.anchor :], spec, interval, vix)
    length = period.stop - period.anchor
    if length < _SHORTEST:
        return np.full(len(spec.columns), np.nan)
    computed = _columns_of(columns, vix_closes, Period(0, length - 1, length), spec)
    return np.array([values[-1] for values in computed])


def risk_columns(bars: pd.DataFrame, spec: FeatureSpec, interval: Interval) -> pd.DataFrame:
    """Return ``RISK_COLUMNS``, float64 on the index of ``bars``; NaN in the warm-up.

    ``atr``: Wilder's average true range of 14 bars, in price units as traded on the row's day.
    ``volatility``: of simple returns over 20 bars, annualised. Anchored as the features are.
    """
    columns = {name: bars[name].to_numpy(np.float64) for name in BAR_COLUMNS}
    risk = np.full((len(bars), len(RISK_COLUMNS)), np.nan)
    for period in _periods(bars, spec):
        computed = _risk_of(_prices(columns, period), interval)
        risk[period.first : period.stop] = computed[period.first - period.anchor :]
    return pd.DataFrame(risk, index=bars.index, columns=list(RISK_COLUMNS))


def risk_row(bars: pd.DataFrame, spec: FeatureSpec, interval: Interval) -> Array:
    """Return the newest row of ``risk_columns``, (2,) float64, byte-identical.

    ``bars`` must reach back to the row's anchor (``features.anchor.history_start``).
    """
    period = newest_period(_clock(bars), spec.interval, spec.anchor)
    if period.stop - period.anchor < _SHORTEST:
        return np.full(len(RISK_COLUMNS), np.nan)
    columns = {name: bars[name].to_numpy(np.float64) for name in BAR_COLUMNS}
    return np.asarray(_risk_of(_prices(columns, period), interval)[-1])


def _risk_of(prices: Prices, interval: Interval) -> Array:
    volatility = ta.STDDEV(prices.returns, RISK_VOLATILITY_BARS) * np.sqrt(bars_per_year(interval))
    return np.column_stack([prices.average_true_range / prices.factor, volatility])


def _clock(bars: pd.DataFrame) -> pd.DatetimeIndex:
    if not isinstance(bars.index, pd.DatetimeIndex) or not bars.index.is_monotonic_increasing:
        raise BadBars("bars: expected an increasing DatetimeIndex `time`; validate them first")
    return bars.index


def _periods(bars: pd.DataFrame, spec: FeatureSpec) -> Iterator[Period]:
    """Yield the periods of ``bars`` without the rows too close to their anchor."""
    if bars.empty:
        return
    for period in periods(_clock(bars), spec.interval, spec.anchor):
        first = max(period.first, period.anchor + _SHORTEST - 1)
        if first < period.stop:
            yield replace(period, first=first)


def _arrays(
    bars: pd.DataFrame, spec: FeatureSpec, interval: Interval, vix: pd.Series | None
) -> tuple[dict[str, Array], Array | None]:
    """Return the bar columns as contiguous arrays and the VIX on their clock, if it is needed."""
    if interval != spec.interval:
        raise BadBars(f"bars of interval {interval}, the feature spec is for {spec.interval}")
    columns = {name: np.ascontiguousarray(bars[name], dtype=np.float64) for name in BAR_COLUMNS}
    if not spec.uses_vix:
        return columns, None
    if vix is None:
        raise NotEnoughData("the feature spec has VIX columns, but no VIX closes were given")
    # A day without a VIX of its own has the last one known.
    known = vix.reindex(bars.index, method="ffill", tolerance=VIX_AGE)
    return columns, np.ascontiguousarray(known, dtype=np.float64)


def _prices(columns: dict[str, Array], period: Period) -> Prices:
    history = slice(period.anchor, period.stop)
    return Prices.of(adjust_columns({name: values[history] for name, values in columns.items()}))


def _columns_of(
    columns: dict[str, Array], vix: Array | None, period: Period, spec: FeatureSpec
) -> list[Array]:
    """Compute every column over the history of one period, (stop - anchor,) each."""
    prices = _prices(columns, period)
    computed = []
    for name in spec.columns:
        if name in INDICATORS:
            computed.append(INDICATORS[name](prices))
        elif is_path(name):
            computed.append(own_indicator(name)(prices))
        elif vix is not None:
            computed.append(VIX_INDICATORS[name](vix[period.anchor : period.stop]))
    return computed
