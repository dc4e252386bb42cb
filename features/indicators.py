"""The catalogue of indicators: column name -> function of adjusted bars.

Owns what each column means. Every column is scale-free (a return, a ratio, an oscillator),
needs at most ``LONGEST_LOOK_BACK`` earlier bars, and stays finite on constant prices and zero
volume. Only + - x / and square roots occur, in TA-Lib's loops or elementwise, never a NumPy
reduction: a row has the same bits however many rows are computed with it. Knows nothing of
anchors, frames or scaling.

A user's own column is called by its import path, ``package.module:function``: a function of
``Prices`` that returns one float64 number per bar. It must keep the same promises; what knows the
future is refused by the leak prover before a retraining.

``VERSION`` goes up with every change that alters a number: bundles of another one are refused.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import talib as ta

from core.errors import ConfigError
from features.adjust import AdjustedBars, Array, shifted

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


def mean_volume(volume: Array, bars: int) -> Array:
    """Mean volume of the last bars, exactly 0 where none of them traded.

    A running sum ends beside 0, on either side, by the rounding of what it once held.
    """
    mean = ta.SMA(volume, bars)
    mean[ta.MAX(volume, bars) == 0.0] = 0.0
    return mean


@dataclass(frozen=True)
class Prices(AdjustedBars):
    """Adjusted bars and what several columns share, each computed once."""

    @classmethod
    def of(cls, bars: AdjustedBars) -> "Prices":
        return cls(bars.open, bars.high, bars.low, bars.close, bars.volume, bars.factor)

    @cached_property
    def macd(self) -> tuple[Array, Array, Array]:
        """MACD line, signal, histogram (12, 26, 9), in price units."""
        return ta.MACD(self.close, 12, 26, 9)

    @cached_property
    def bands(self) -> tuple[Array, Array, Array]:
        """Bollinger bands (20 bars, 2 deviations): upper, middle, lower."""
        return ta.BBANDS(self.close, 20, 2.0, 2.0)

    @cached_property
    def stochastic(self) -> tuple[Array, Array]:
        """Slow %K and %D (14, 3, 3), 0..100."""
        return ta.STOCH(
            self.high, self.low, self.close, fastk_period=14, slowk_period=3, slowd_period=3
        )

    @cached_property
    def vortex(self) -> tuple[Array, Array]:
        """VI+ and VI- over 14 bars."""
        return ta.VORTEX(self.high, self.low, self.close, 14)

    @cached_property
    def directional(self) -> tuple[Array, Array]:
        """+DI and -DI over 14 bars, 0..100."""
        bars = (self.high, self.low, self.close)
        return ta.PLUS_DI(*bars, 14), ta.MINUS_DI(*bars, 14)

    @cached_property
    def average_true_range(self) -> Array:
        """Wilder's ATR over 14 bars, in adjusted price units."""
        return ta.ATR(self.high, self.low, self.close, 14)

    @cached_property
    def average_volume(self) -> Array:
        """Mean volume of the last 20 bars."""
        return mean_volume(self.volume, 20)

    @cached_property
    def on_balance_volume(self) -> Array:
        return ta.OBV(self.close, self.volume)


def _range_position(p: Prices, bars: int) -> Array:
    """Where the close lies between lowest low (-1) and highest high (1) of the last bars."""
    highest, lowest = ta.MAX(p.high, bars), ta.MIN(p.low, bars)
    return ratio(2.0 * p.close - highest - lowest, highest - lowest)


def _serial_correlation(p: Prices) -> Array:
    """Correlation of each return with the one before over 20 bars: trending or reverting."""
    before = shifted(p.returns)
    return bounded(ta.CORREL(p.returns, before, 20))


def _balance_change(p: Prices) -> Array:
    """Change of on-balance volume over 20 bars per share traded in them."""
    change = ta.MOM(p.on_balance_volume, 20)
    return bounded(ratio(change, 20.0 * p.average_volume))


def _volume_weighted(p: Prices) -> Array:
    """Close against the volume-weighted mean close of 20 bars; 0 where nothing traded."""
    paid = ta.SMA(p.close * p.volume, 20)
    paid[p.average_volume == 0.0] = 0.0
    return ratio(p.close * p.average_volume - paid, paid)


def _force(p: Prices) -> Array:
    """Elder's force index: mean (13 bars) of volume-weighted returns per mean volume."""
    volume = p.average_volume
    pushed = ratio(p.volume, volume) * p.returns
    return ta.EMA(pushed, 13)


INDICATORS: Mapping[str, Callable[[Prices], Array]] = MappingProxyType(
    {
        # returns
        "return_1": lambda p: p.returns,
        "return_2": lambda p: ta.ROCP(p.close, 2),
        "return_5": lambda p: ta.ROCP(p.close, 5),
        "return_10": lambda p: ta.ROCP(p.close, 10),
        "return_20": lambda p: ta.ROCP(p.close, 20),
        "return_60": lambda p: ta.ROCP(p.close, 60),
        "return_100": lambda p: ta.ROCP(p.close, 100),
        "return_overnight": lambda p: relative(p.open, p.previous_close),
        "return_inside": lambda p: relative(p.close, p.open),
        # distance of the close to averages and trend lines
        "sma_20": lambda p: relative(p.close, p.bands[1]),
        "sma_50": lambda p: relative(p.close, ta.SMA(p.close, 50)),
        "sma_100": lambda p: relative(p.close, ta.SMA(p.close, 100)),
        "ema_10": lambda p: relative(p.close, ta.EMA(p.close, 10)),
        "ema_50": lambda p: relative(p.close, ta.EMA(p.close, 50)),
        "wma_20": lambda p: relative(p.close, ta.WMA(p.close, 20)),
        "dema_20": lambda p: relative(p.close, ta.DEMA(p.close, 20)),
        "kama_20": lambda p: relative(p.close, ta.KAMA(p.close, 20)),
        "t3_10": lambda p: relative(p.close, ta.T3(p.close, 10)),
        "parabolic": lambda p: relative(p.close, ta.SAR(p.high, p.low)),
        "linear_forecast_20": lambda p: relative(p.close, ta.TSF(p.close, 20)),
        "linear_slope_20": lambda p: ta.LINEARREG_SLOPE(p.close, 20) / p.close,
        "midprice_50": lambda p: relative(p.close, ta.MIDPRICE(p.high, p.low, 50)),
        # momentum
        "macd": lambda p: p.macd[0] / p.close,
        "macd_signal": lambda p: p.macd[1] / p.close,
        "macd_histogram": lambda p: p.macd[2] / p.close,
        "trix_15": lambda p: ta.TRIX(p.close, 15) / 100.0,
        "rsi_2": lambda p: unit(ta.RSI(p.close, 2), 0.0, 100.0),
        "rsi_14": lambda p: unit(ta.RSI(p.close, 14), 0.0, 100.0),
        "cmo_20": lambda p: ta.CMO(p.close, 20) / 100.0,
        "tsi": lambda p: ta.TSI(p.close, 25, 13) / 100.0,
        "cci_20": lambda p: ta.CCI(p.high, p.low, p.close, 20) / 200.0,
        "stochastic_k": lambda p: unit(p.stochastic[0], 0.0, 100.0),
        "stochastic_d": lambda p: unit(p.stochastic[1], 0.0, 100.0),
        "stochastic_rsi": lambda p: unit(ta.STOCHRSI(p.close, 14, 14, 3)[1], 0.0, 100.0),
        "ultimate": lambda p: unit(ta.ULTOSC(p.high, p.low, p.close), 0.0, 100.0),
        "williams_14": lambda p: unit(ta.WILLR(p.high, p.low, p.close, 14), -100.0, 0.0),
        "range_position_60": lambda p: _range_position(p, 60),
        "balance_of_power": lambda p: ta.BOP(p.open, p.high, p.low, p.close),
        # trend strength
        "adx_14": lambda p: ta.ADX(p.high, p.low, p.close, 14) / 100.0,
        "directional_plus": lambda p: p.directional[0] / 100.0,
        "directional_minus": lambda p: p.directional[1] / 100.0,
        "aroon_25": lambda p: ta.AROONOSC(p.high, p.low, 25) / 100.0,
        "vortex_14": lambda p: p.vortex[0] - p.vortex[1],
        "efficiency_20": lambda p: ta.ER(p.close, 20),
        "serial_correlation_20": _serial_correlation,
        # volatility
        "volatility_10": lambda p: ta.STDDEV(p.returns, 10),
        "volatility_20": lambda p: ta.STDDEV(p.returns, 20),
        "volatility_60": lambda p: ta.STDDEV(p.returns, 60),
        "atr_14": lambda p: p.average_true_range / p.close,
        "atr_change": lambda p: contrast(
            ta.NATR(p.high, p.low, p.close, 5), ta.NATR(p.high, p.low, p.close, 50)
        ),
        "true_range": lambda p: ta.TRANGE(p.high, p.low, p.close) / p.close,
        "band_width": lambda p: (p.bands[0] - p.bands[2]) / p.bands[1],
        "band_position": lambda p: ratio(2.0 * (p.close - p.bands[1]), p.bands[0] - p.bands[2]),
        # extremes
        "below_high_20": lambda p: relative(p.close, ta.MAX(p.high, 20)),
        "above_low_20": lambda p: relative(p.close, ta.MIN(p.low, 20)),
        "below_high_100": lambda p: relative(p.close, ta.MAX(p.high, 100)),
        "above_low_100": lambda p: relative(p.close, ta.MIN(p.low, 100)),
        # volume
        "volume_20": lambda p: contrast(p.volume, p.average_volume),
        "volume_trend": lambda p: contrast(mean_volume(p.volume, 5), mean_volume(p.volume, 60)),
        "money_flow_14": lambda p: unit(ta.MFI(p.high, p.low, p.close, p.volume, 14), 0.0, 100.0),
        "chaikin_20": lambda p: ta.CMF(p.high, p.low, p.close, p.volume, 20),
        "balance_volume_20": _balance_change,
        "volume_weighted_20": _volume_weighted,
        "force_13": _force,
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


def is_path(name: str) -> bool:
    """Say whether a column is a user's own, called by its import path."""
    return ":" in name


def own_indicator(name: str) -> Callable[[Prices], Array]:
    """Import ``package.module:function``; raise ``ConfigError`` where there is no such function."""
    function = _imported(name)

    def checked(prices: Prices) -> Array:
        values = np.array(function(prices), dtype=np.float64)
        if values.shape != prices.close.shape:
            raise ConfigError(
                f"feature {name!r}: returned shape {values.shape}, expected {prices.close.shape}, "
                "one number per bar"
            )
        return values

    return checked


def own_sha256(name: str) -> str:
    """Return the hash of the module that holds a user's own column: its version."""
    try:
        source = inspect.getsource(inspect.getmodule(_imported(name)) or _imported(name))
    except (OSError, TypeError) as error:
        raise ConfigError(f"feature {name!r}: its source cannot be read ({error})") from error
    return hashlib.sha256(source.encode()).hexdigest()


def _imported(name: str) -> Callable[[Prices], Array]:
    module_name, _, function_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"feature {name!r}: cannot import {module_name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"feature {name!r}: {module_name!r} has no function {function_name!r}")
    imported: Callable[[Prices], Array] = found
    return imported
