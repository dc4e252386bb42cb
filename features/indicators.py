"""The catalogue of indicators: column name -> function of adjusted bars.

Owns what each column means. Every column is scale-free (a return, a ratio, an oscillator),
needs at most ``LONGEST_LOOK_BACK`` earlier bars, and stays finite on constant prices and zero
volume. Only + - x / and square roots occur, in TA-Lib's loops or elementwise, never a NumPy
reduction: a row has the same bits however many rows are computed with it. Knows nothing of
anchors, frames or scaling.

A user's own column (``features/own.py``) must keep the same promises.

``VERSION`` goes up with every change that alters a number: bundles of another one are refused.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import talib

from core.errors import NotEnoughData
from features.adjust import AdjustedBars, Array, shared, shifted

if TYPE_CHECKING:
    import talib as ta
else:
    # TA-Lib itself: the functions that talib exports look for pandas in every argument first,
    # which takes as long as many an indicator.
    ta = SimpleNamespace(
        **{name: inspect.unwrap(getattr(talib, name)) for name in talib.get_functions()}
    )

VERSION = 1
LONGEST_LOOK_BACK = 100


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide elementwise; 0 where the denominator is 0 (nothing moved, nothing traded)."""
    return np.divide(
        numerator, denominator, out=np.zeros(denominator.shape), where=denominator != 0.0
    )


def relative(level: Array, reference: Array) -> Array:
    """Return level / reference - 1 for prices, which are never 0."""
    quotient = level / reference
    quotient -= 1.0
    return quotient


def contrast(level: Array, reference: Array) -> Array:
    """Return (a - b) / (a + b), in [-1, 1]; 0 where both are 0.

    Equals tanh(ln(a / b) / 2): the log-ratio of two volumes, defined at zero volume too and with
    the same bits on every machine, which logarithms do not promise.
    """
    return ratio(level - reference, level + reference)


def unit(oscillator: Array, low: float, high: float) -> Array:
    """Map [low, high] to [-1, 1]."""
    scaled = oscillator * (2.0 / (high - low))
    scaled -= (high + low) / (high - low)
    return scaled


def bounded(value: Array) -> Array:
    """Clip to [-1, 1] what only rounding takes beyond; np.clip costs three times as much."""
    return np.minimum(np.maximum(value, -1.0), 1.0)


@dataclass(frozen=True)
class Prices(AdjustedBars):
    """Adjusted bars and what several columns share, each computed once.

    ``ta`` is TA-Lib, or what gives its numbers while trading (``features.live``); whatever looks at
    earlier bars asks it, but for the two bars before that elementwise steps may look at.
    """

    vix: Array | None = None  # closes of the VIX on the clock of the bars
    ta: Any = None  # ``of`` sets it

    @classmethod
    def of(cls, bars: AdjustedBars, vix: Array | None = None, by: Any = None) -> "Prices":
        prices = (bars.open, bars.high, bars.low, bars.close, bars.volume)
        return cls(*prices, bars.factor, vix, by or ta)

    def mean_volume(self, bars: int) -> Array:
        """Mean volume of the last bars, exactly 0 where none of them traded.

        A running sum ends beside 0, on either side, by the rounding of what it once held.
        """
        mean: Array = self.ta.SMA(self.volume, bars)
        mean[self.ta.MAX(self.volume, bars) == 0.0] = 0.0
        return mean

    @property
    def known_vix(self) -> Array:
        """Closes of the VIX; raises ``NotEnoughData`` where none were given."""
        if self.vix is None:
            raise NotEnoughData("a VIX column was asked for, but no VIX closes were given")
        return self.vix

    @shared
    def macd(self) -> tuple[Array, Array, Array]:
        """MACD line, signal, histogram (12, 26, 9), in price units."""
        made: tuple[Array, Array, Array] = self.ta.MACD(self.close, 12, 26, 9)
        return made

    @shared
    def bands(self) -> tuple[Array, Array, Array]:
        """Bollinger bands (20 bars, 2 deviations): upper, middle, lower."""
        made: tuple[Array, Array, Array] = self.ta.BBANDS(self.close, 20, 2.0, 2.0)
        return made

    @shared
    def stochastic(self) -> tuple[Array, Array]:
        """Slow %K and %D (14, 3, 3), 0..100."""
        made: tuple[Array, Array] = self.ta.STOCH(
            self.high, self.low, self.close, fastk_period=14, slowk_period=3, slowd_period=3
        )
        return made

    @shared
    def vortex(self) -> tuple[Array, Array]:
        """VI+ and VI- over 14 bars."""
        made: tuple[Array, Array] = self.ta.VORTEX(self.high, self.low, self.close, 14)
        return made

    @shared
    def directional(self) -> tuple[Array, Array]:
        """+DI and -DI over 14 bars, 0..100."""
        bars = (self.high, self.low, self.close)
        return self.ta.PLUS_DI(*bars, 14), self.ta.MINUS_DI(*bars, 14)

    @shared
    def average_true_range(self) -> Array:
        """Wilder's ATR over 14 bars, in adjusted price units."""
        made: Array = self.ta.ATR(self.high, self.low, self.close, 14)
        return made

    @shared
    def average_volume(self) -> Array:
        """Mean volume of the last 20 bars."""
        return self.mean_volume(20)

    @shared
    def on_balance_volume(self) -> Array:
        made: Array = self.ta.OBV(self.close, self.volume)
        return made


@dataclass(frozen=True, slots=True)
class Indicator:
    """One column, in two halves: along the bars from their anchor, then row by row.

    Only the second half may look at the close alone; it is computed for all rows of a table at
    once, whatever their anchors.
    """

    along: Callable[[Prices], Array | tuple[Array, ...]]  # what needs earlier bars
    finish: Callable[..., Array]  # of the close and what ``along`` gave, elementwise

    def sources(self, prices: Prices) -> tuple[Array, ...]:
        """Return what ``finish`` takes after the close, one number per bar each."""
        made = self.along(prices)
        return made if isinstance(made, tuple) else (made,)

    def __call__(self, prices: Prices) -> Array:
        """Return the column over the bars of ``prices``."""
        return self.finish(prices.close, *self.sources(prices))


# How columns end: functions of the close and what was computed along the bars.


def as_is(_: Array, values: Array) -> Array:
    return values


def close_over(close: Array, reference: Array) -> Array:
    return relative(close, reference)


def per_close(close: Array, level: Array) -> Array:
    return level / close


def percent(_: Array, values: Array) -> Array:
    return values / 100.0


def of_hundred(_: Array, oscillator: Array) -> Array:
    return unit(oscillator, 0.0, 100.0)


def below_zero(_: Array, oscillator: Array) -> Array:
    return unit(oscillator, -100.0, 0.0)


def contrasted(_: Array, level: Array, reference: Array) -> Array:
    return contrast(level, reference)


def in_range(close: Array, highest: Array, lowest: Array) -> Array:
    """Where the close lies between lowest low (-1) and highest high (1)."""
    return ratio(2.0 * close - highest - lowest, highest - lowest)


def _serial_correlation(p: Prices) -> Array:
    """Correlation of each return with the one before over 20 bars: trending or reverting."""
    made: Array = p.ta.CORREL(p.returns, shifted(p.returns), 20)
    return made


def _volume_weighted(close: Array, paid: Array, volume: Array) -> Array:
    """Close against the volume-weighted mean close; 0 where nothing traded."""
    paid = np.where(volume == 0.0, 0.0, paid)
    return ratio(close * volume - paid, paid)


def _force(p: Prices) -> Array:
    """Elder's force index: mean (13 bars) of volume-weighted returns per mean volume."""
    volume = p.average_volume
    pushed = ratio(p.volume, volume) * p.returns
    made: Array = p.ta.EMA(pushed, 13)
    return made


INDICATORS: Mapping[str, Indicator] = MappingProxyType(
    {
        # returns
        "return_1": Indicator(lambda p: p.returns, as_is),
        "return_2": Indicator(lambda p: p.ta.ROCP(p.close, 2), as_is),
        "return_5": Indicator(lambda p: p.ta.ROCP(p.close, 5), as_is),
        "return_10": Indicator(lambda p: p.ta.ROCP(p.close, 10), as_is),
        "return_20": Indicator(lambda p: p.ta.ROCP(p.close, 20), as_is),
        "return_60": Indicator(lambda p: p.ta.ROCP(p.close, 60), as_is),
        "return_100": Indicator(lambda p: p.ta.ROCP(p.close, 100), as_is),
        "return_overnight": Indicator(
            lambda p: (p.open, p.previous_close),
            lambda _, level, reference: relative(level, reference),
        ),
        "return_inside": Indicator(lambda p: p.open, close_over),
        # distance of the close to averages and trend lines
        "sma_20": Indicator(lambda p: p.bands[1], close_over),
        "sma_50": Indicator(lambda p: p.ta.SMA(p.close, 50), close_over),
        "sma_100": Indicator(lambda p: p.ta.SMA(p.close, 100), close_over),
        "ema_10": Indicator(lambda p: p.ta.EMA(p.close, 10), close_over),
        "ema_50": Indicator(lambda p: p.ta.EMA(p.close, 50), close_over),
        "wma_20": Indicator(lambda p: p.ta.WMA(p.close, 20), close_over),
        "dema_20": Indicator(lambda p: p.ta.DEMA(p.close, 20), close_over),
        "kama_20": Indicator(lambda p: p.ta.KAMA(p.close, 20), close_over),
        "t3_10": Indicator(lambda p: p.ta.T3(p.close, 10), close_over),
        "parabolic": Indicator(lambda p: p.ta.SAR(p.high, p.low), close_over),
        "linear_forecast_20": Indicator(lambda p: p.ta.TSF(p.close, 20), close_over),
        "linear_slope_20": Indicator(lambda p: p.ta.LINEARREG_SLOPE(p.close, 20), per_close),
        "midprice_50": Indicator(lambda p: p.ta.MIDPRICE(p.high, p.low, 50), close_over),
        # momentum
        "macd": Indicator(lambda p: p.macd[0], per_close),
        "macd_signal": Indicator(lambda p: p.macd[1], per_close),
        "macd_histogram": Indicator(lambda p: p.macd[2], per_close),
        "trix_15": Indicator(lambda p: p.ta.TRIX(p.close, 15), percent),
        "rsi_2": Indicator(lambda p: p.ta.RSI(p.close, 2), of_hundred),
        "rsi_14": Indicator(lambda p: p.ta.RSI(p.close, 14), of_hundred),
        "cmo_20": Indicator(lambda p: p.ta.CMO(p.close, 20), percent),
        "tsi": Indicator(lambda p: p.ta.TSI(p.close, 25, 13), percent),
        "cci_20": Indicator(
            lambda p: p.ta.CCI(p.high, p.low, p.close, 20), lambda _, value: value / 200.0
        ),
        "stochastic_k": Indicator(lambda p: p.stochastic[0], of_hundred),
        "stochastic_d": Indicator(lambda p: p.stochastic[1], of_hundred),
        "stochastic_rsi": Indicator(lambda p: p.ta.STOCHRSI(p.close, 14, 14, 3)[1], of_hundred),
        "ultimate": Indicator(lambda p: p.ta.ULTOSC(p.high, p.low, p.close), of_hundred),
        "williams_14": Indicator(lambda p: p.ta.WILLR(p.high, p.low, p.close, 14), below_zero),
        "range_position_60": Indicator(
            lambda p: (p.ta.MAX(p.high, 60), p.ta.MIN(p.low, 60)), in_range
        ),
        "balance_of_power": Indicator(lambda p: p.ta.BOP(p.open, p.high, p.low, p.close), as_is),
        # trend strength
        "adx_14": Indicator(lambda p: p.ta.ADX(p.high, p.low, p.close, 14), percent),
        "directional_plus": Indicator(lambda p: p.directional[0], percent),
        "directional_minus": Indicator(lambda p: p.directional[1], percent),
        "aroon_25": Indicator(lambda p: p.ta.AROONOSC(p.high, p.low, 25), percent),
        "vortex_14": Indicator(lambda p: p.vortex, lambda _, up, down: up - down),
        "efficiency_20": Indicator(lambda p: p.ta.ER(p.close, 20), as_is),
        "serial_correlation_20": Indicator(_serial_correlation, lambda _, value: bounded(value)),
        # volatility
        "volatility_10": Indicator(lambda p: p.ta.STDDEV(p.returns, 10), as_is),
        "volatility_20": Indicator(lambda p: p.ta.STDDEV(p.returns, 20), as_is),
        "volatility_60": Indicator(lambda p: p.ta.STDDEV(p.returns, 60), as_is),
        "atr_14": Indicator(lambda p: p.average_true_range, per_close),
        "atr_change": Indicator(
            lambda p: (p.ta.NATR(p.high, p.low, p.close, 5), p.ta.NATR(p.high, p.low, p.close, 50)),
            contrasted,
        ),
        "true_range": Indicator(lambda p: p.ta.TRANGE(p.high, p.low, p.close), per_close),
        "band_width": Indicator(
            lambda p: p.bands, lambda _, upper, middle, lower: (upper - lower) / middle
        ),
        "band_position": Indicator(
            lambda p: p.bands,
            lambda close, upper, middle, lower: ratio(2.0 * (close - middle), upper - lower),
        ),
        # extremes
        "below_high_20": Indicator(lambda p: p.ta.MAX(p.high, 20), close_over),
        "above_low_20": Indicator(lambda p: p.ta.MIN(p.low, 20), close_over),
        "below_high_100": Indicator(lambda p: p.ta.MAX(p.high, 100), close_over),
        "above_low_100": Indicator(lambda p: p.ta.MIN(p.low, 100), close_over),
        # volume
        "volume_20": Indicator(lambda p: (p.volume, p.average_volume), contrasted),
        "volume_trend": Indicator(lambda p: (p.mean_volume(5), p.mean_volume(60)), contrasted),
        "money_flow_14": Indicator(
            lambda p: p.ta.MFI(p.high, p.low, p.close, p.volume, 14), of_hundred
        ),
        "chaikin_20": Indicator(lambda p: p.ta.CMF(p.high, p.low, p.close, p.volume, 20), as_is),
        # change of on-balance volume over 20 bars per share traded in them
        "balance_volume_20": Indicator(
            lambda p: (p.ta.MOM(p.on_balance_volume, 20), p.average_volume),
            lambda _, change, volume: bounded(ratio(change, 20.0 * volume)),
        ),
        "volume_weighted_20": Indicator(
            lambda p: (p.ta.SMA(p.close * p.volume, 20), p.average_volume), _volume_weighted
        ),
        "force_13": Indicator(_force, as_is),
    }
)

VIX_INDICATORS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {  # of VIX closes (T,) on the clock of the bars
        "vix_level": lambda vix: vix / 100.0,
        "vix_change_5": lambda vix: ta.ROCP(vix, 5),
        "vix_sma_20": lambda vix: vix / ta.SMA(vix, 20) - 1.0,
        "vix_sma_100": lambda vix: vix / ta.SMA(vix, 100) - 1.0,
    }
)
