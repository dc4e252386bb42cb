"""Terms: what a bar offers under the rules, before any account is looked at.

Prices with slippage, the shares that may trade, the sizing factor: they depend on bar and rules
alone, so a whole market of them is computed once (``PackedMarket``) and looked up row by row.
Knows no account.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from core import costs
from core.accounts import UNKNOWN_ATR
from core.arrays import Array, namespace
from core.bars import Bar, Market, bar_at
from core.errors import ConfigError
from core.rules import Rules


class Terms(NamedTuple):
    """One bar of ``k`` symbols as the engine reads it; arrays (n, k), or (k,) for all accounts."""

    open: Array
    high: Array
    low: Array
    close: Array
    capacity: Array  # whole shares that one account may trade in this bar
    slippage: Array  # of a fill at the open, price units
    entry_need: Array  # buying power that one more share takes, costs included
    sizing: Array  # factor on a weight decided at this close, 0 to 1
    atr: Array  # at this close, price units, UNKNOWN_ATR: unknown
    dividend: Array
    split_ratio: Array
    has_dividend: bool  # False promises that there is none in here
    has_split: bool

    def mapped(self, change: Callable[[Array], Array]) -> "Terms":
        """Return the terms with ``change`` applied to every array."""
        return Terms._make([change(array) for array in self[:ARRAYS]] + [*self[ARRAYS:]])


ARRAYS = len(Terms._fields) - 2


def terms_of(bar: Bar, rules: Rules) -> Terms:
    """Return what ``bar`` offers under ``rules``; shaped like the bar's arrays."""
    xp = namespace(bar.open)
    return Terms(
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        capacity=costs.capacity(bar.volume, rules),
        slippage=costs.slippage(bar.open, rules),
        entry_need=costs.entry_need(bar.open, rules),
        sizing=volatility_sizing(bar.volatility, rules),
        atr=xp.where(bar.atr > 0.0, bar.atr, UNKNOWN_ATR),
        dividend=bar.dividend,
        split_ratio=bar.split_ratio,
        has_dividend=bool(xp.any(bar.dividend != 0.0)),
        has_split=bool(xp.any(bar.split_ratio != 1.0)),
    )


def volatility_sizing(volatility: Array, rules: Rules) -> Array:
    """Return the factor, 0 to 1, that brings an annualised ``volatility`` down to its target.

    1 where the rule is off, 0 where the volatility is unknown (NaN): no position is sized on it.
    """
    xp = namespace(volatility)
    if rules.volatility_target is None:
        return xp.ones_like(volatility)
    above = xp.where(volatility > rules.volatility_target, volatility, rules.volatility_target)
    return xp.where(xp.isnan(volatility), 0.0, rules.volatility_target / above)


@dataclass(frozen=True, slots=True)
class PackedMarket:
    """The terms of every row of a market, side by side, for fast look-up."""

    columns: Array  # (fields of Terms, rows, k)
    splits: Array  # (rows,) bool
    has_dividend: bool
    has_split: bool

    @classmethod
    def of(cls, market: Market, rules: Rules, xp: Any = np, device: Any = None) -> "PackedMarket":
        """Compute the terms of all rows; raise ``ConfigError`` where rules differ by account."""
        if not rules.are_plain:
            raise ConfigError("a market can be packed only under rules that are plain numbers")
        terms = terms_of(bar_at(market, slice(None)), rules)
        return cls(
            columns=xp.asarray(np.stack(terms[:ARRAYS]), device=device),
            splits=xp.asarray(np.any(market.split_ratio != 1.0, axis=1), device=device),
            has_dividend=terms.has_dividend,
            has_split=terms.has_split,
        )

    def at(self, rows: Array) -> Terms:
        """Return the terms (n, k) of ``rows`` (n,)."""
        split = self.has_split
        if isinstance(rows, np.ndarray):
            # `clip` spares the check of every index; a row beyond the market is a caller's bug.
            picked = self.columns.take(rows, axis=1, mode="clip")
            split = split and bool(np.count_nonzero(self.splits.take(rows)))
        else:
            picked = self.columns[:, rows]
            split = split and bool(self.splits[rows].any())
        return Terms._make([*picked, self.has_dividend, split])
