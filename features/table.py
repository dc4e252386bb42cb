"""The feature table: indicators over anchored history, whole or only the newest row.

Owns how bars become rows, the one code for training and trading: ``build_table`` computes every
period (year or day) from its anchor, ``build_row`` only the newest row from the same anchor, and
their bytes agree. Knows nothing of scaling, files or who asks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS, RISK_COLUMNS
from core.calendar import bars_per_year
from core.errors import BadBars, NotEnoughData
from core.settings import Interval
from features.adjust import Array, adjust_columns
from features.anchor import Period, newest_period, periods
from features.indicators import (
    INDICATORS,
    VIX_INDICATORS,
    Indicator,
    Prices,
    as_is,
)
from features.live import LiveRow
from features.own import is_path, own_indicator
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
    columns = _arrays(bars, spec, interval, vix)
    recipe = _recipe(spec)
    table = np.full((len(recipe), len(bars)), np.nan)  # as pandas keeps it
    close, firsts = np.full(len(bars), np.nan), list(table)
    others: dict[int, list[Array]] = {}  # beside the first, of columns with several sources
    last = 0  # row after the last that could be computed
    for period in _periods(bars, spec):
        prices, last = _prices(columns, period), period.stop
        rows, kept = slice(period.first, period.stop), slice(period.first - period.anchor, None)
        close[rows] = prices.close[kept]
        for place, one in enumerate(recipe):
            made = one.along(prices)
            if isinstance(made, tuple):
                made, *more = made
                if place not in others:
                    others[place] = [np.full(len(bars), np.nan) for _ in more]
                for values, source in zip(others[place], more, strict=True):
                    values[rows] = source[kept]
            firsts[place][rows] = made[kept]
    for place, (column, one) in enumerate(zip(firsts, recipe, strict=True)):
        if one.finish is not as_is and last:
            column[:] = one.finish(close, column, *others.get(place, ()))
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
    columns = _arrays(bars.iloc[period.anchor :], spec, interval, vix)
    length = period.stop - period.anchor
    if length < _SHORTEST:
        return np.full(len(spec.columns), np.nan)
    return newest_row(_prices(columns, Period(0, length - 1, length)), spec)


def vix_before(vix: pd.Series | None, bar: datetime) -> pd.Series | None:
    """Return what is known of the VIX while ``bar`` still grows: the closes before it."""
    return None if vix is None else vix.loc[vix.index < pd.Timestamp(bar)]


@dataclass(frozen=True, slots=True)
class _RowRecipe:
    """The columns of a row, and which of them end in the same way: those are ended together."""

    columns: list[Indicator]
    endings: list[tuple[Callable[..., Array], list[int]]]  # of which places

    @classmethod
    def of(cls, spec: FeatureSpec) -> "_RowRecipe":
        columns, endings = _recipe(spec), dict[Callable[..., Array], list[int]]()
        for place, one in enumerate(columns):
            endings.setdefault(one.finish, []).append(place)
        return cls(columns, list(endings.items()))


def newest_row(prices: Prices, spec: FeatureSpec, recipe: _RowRecipe | None = None) -> Array:
    """Return the newest row, (d,) float64, of bars that begin at its anchor (``live_prices``)."""
    if len(prices) < _SHORTEST:
        return np.full(len(spec.columns), np.nan)
    recipe, newest = recipe or _RowRecipe.of(spec), prices.close[-1:]
    made = [one.sources(prices) for one in recipe.columns]
    row = np.empty(len(made))
    for finish, places in recipe.endings:
        sources = zip(*(made[place] for place in places), strict=True)
        row[places] = finish(newest, *(np.array([one.item(-1) for one in s]) for s in sources))
    return row


def live_row(spec: FeatureSpec) -> LiveRow | None:
    """Return what keeps ``newest_row`` going; None for columns that are no calls of TA-Lib's on
    the bars: a user's own, the VIX's."""
    if spec.uses_vix or any(map(is_path, spec.columns)):
        return None
    recipe = _RowRecipe.of(spec)
    return LiveRow(lambda prices: newest_row(prices, spec, recipe), spec.interval, spec.anchor)


def live_risk(spec: FeatureSpec) -> LiveRow:
    """Return what keeps ``newest_risk`` going."""
    return LiveRow(lambda prices: newest_risk(prices, spec.interval), spec.interval, spec.anchor)


def live_prices(columns: dict[str, Array]) -> Prices:
    """Return what rows are computed from; ``columns`` named as the bars', from the anchor on.

    Not for a spec with VIX columns. What columns and risk share is computed once.
    """
    return Prices.of(adjust_columns(columns))


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
    return newest_risk(_prices(columns, period), interval)


def newest_risk(prices: Prices, interval: Interval) -> Array:
    """Return the newest row of ``risk_columns`` of bars that begin at its anchor."""
    if len(prices) < _SHORTEST:
        return np.full(len(RISK_COLUMNS), np.nan)
    return np.asarray(_risk_of(prices, interval)[-1])


def _risk_of(prices: Prices, interval: Interval) -> Array:
    volatility = prices.ta.STDDEV(prices.returns, RISK_VOLATILITY_BARS) * np.sqrt(
        bars_per_year(interval)
    )
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
            yield Period(period.anchor, first, period.stop)


def _arrays(
    bars: pd.DataFrame, spec: FeatureSpec, interval: Interval, vix: pd.Series | None
) -> dict[str, Array]:
    """Return the bar columns as contiguous arrays, with `vix` on their clock if it is needed."""
    if interval != spec.interval:
        raise BadBars(f"bars of interval {interval}, the feature spec is for {spec.interval}")
    columns = {name: np.ascontiguousarray(bars[name], dtype=np.float64) for name in BAR_COLUMNS}
    if not spec.uses_vix:
        return columns
    if vix is None:
        raise NotEnoughData("the feature spec has VIX columns, but no VIX closes were given")
    # A day without a VIX of its own has the last one known.
    known = vix.reindex(bars.index, method="ffill", tolerance=VIX_AGE)
    return columns | {"vix": np.ascontiguousarray(known, dtype=np.float64)}


def _prices(columns: dict[str, Array], period: Period) -> Prices:
    history = slice(period.anchor, period.stop)
    known = {name: values[history] for name, values in columns.items()}
    return Prices.of(adjust_columns(known), known.get("vix"))


def _recipe(spec: FeatureSpec) -> list[Indicator]:
    return [INDICATORS.get(name) or _other(name) for name in spec.columns]


def _other(name: str) -> Indicator:
    if is_path(name):
        return Indicator(own_indicator(name), as_is)
    of_vix = VIX_INDICATORS[name]
    return Indicator(lambda prices: of_vix(prices.known_vix), as_is)
