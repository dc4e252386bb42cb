"""Terms: what a bar offers under the rules, before any account is looked at.

Prices with slippage, the shares that may trade, the sizing factor. Knows no account.
"""

from typing import NamedTuple

from core.accounts import UNKNOWN_ATR
from core.arrays import Array, elementwise, is_nan, where
from core.bars import Bar
from core.costs import capacity, entry_need, slippage
from core.rules import OFF, Numbers


class Terms(NamedTuple):
    """One bar as the engine reads it; arrays (n, k)."""

    open: Array
    high: Array
    low: Array
    close: Array
    dividend: Array
    split_ratio: Array
    capacity: Array  # whole shares that one account may trade in this bar
    slippage: Array  # of a fill at the open, price units
    entry_need: Array  # buying power that one more share takes, costs included
    sizing: Array  # factor on a weight decided at this close, 0 to 1
    atr: Array  # at this close, price units, UNKNOWN_ATR: unknown


@elementwise
def terms_of(bar: Bar, rules: Numbers) -> Terms:
    """Return what ``bar`` offers under ``rules``."""
    return Terms(
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        dividend=bar.dividend,
        split_ratio=bar.split_ratio,
        capacity=capacity(bar.volume, rules),
        slippage=slippage(bar.open, rules),
        entry_need=entry_need(bar.open, rules),
        sizing=volatility_sizing(bar.volatility, rules),
        atr=where(bar.atr > 0.0, bar.atr, UNKNOWN_ATR),
    )


@elementwise
def volatility_sizing(volatility: Array, rules: Numbers) -> Array:
    """Return the factor, 0 to 1, that brings an annualised ``volatility`` down to its target.

    1 where the rule is off, 0 where the volatility is unknown (NaN): no position is sized on it.
    """
    target = rules.volatility_target
    sized = where(volatility > target, target / volatility, 1.0)
    return where(is_nan(volatility) & (target < OFF), 0.0, sized)
