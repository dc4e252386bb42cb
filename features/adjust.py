"""Forward adjustment: prices and volume as one continuous series, counted from an anchor.

Owns the factors. The factor is 1 at the first row and changes only on ex-dates after it, so an
action never alters a number before its own date: what was computed once stays as it was. Knows
nothing of indicators, nor of where an anchor lies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import BadBars

Array: TypeAlias = npt.NDArray[np.float64]
Value = TypeVar("Value")


class shared(Generic[Value]):
    """An attribute computed when first asked for: ``cached_property`` without its lock."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.__doc__, self._make, self._name = make.__doc__, make, make.__name__

    def __get__(self, owner: Any, kind: Any = None) -> Value:
        made = owner.__dict__[self._name] = self._make(owner)
        return made


@dataclass(frozen=True)
class AdjustedBars:
    """Contiguous float64 arrays (T,) of one symbol, adjusted forwards from row 0.

    ``factor`` turns a price as traded into an adjusted one: adjusted = traded x factor.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array  # in shares of row 0
    factor: Array

    def __len__(self) -> int:
        return len(self.close)

    @shared
    def previous_close(self) -> Array:
        """Close of the row before, NaN in row 0."""
        return shifted(self.close)

    @shared
    def returns(self) -> Array:
        """Simple total return of each row, NaN in row 0."""
        quotient = self.close / self.previous_close
        quotient -= 1.0
        return quotient


def shifted(values: Array) -> Array:
    """Return each row's predecessor, NaN in row 0."""
    before = np.empty_like(values)
    before[:1] = np.nan
    before[1:] = values[:-1]
    return before


def factors(close: Array, dividend: Array, split_ratio: Array) -> tuple[Array, Array]:
    """Return (price factor, share factor), each (T,), both 1 in row 0.

    On an ex-date the price factor is multiplied by s / (1 - d s / C): C the close before, s the
    new shares per old share, d the dividend per new share: the inverse of the vendors' backward
    factor, so an adjusted series earns what a holder who reinvests earns. The share factor is
    the product of the splits alone. Raises ``BadBars`` where a dividend reaches the price.
    """
    splits = split_ratio.copy()
    splits[:1] = 1.0
    kept = np.ones_like(close)
    kept[1:] -= dividend[1:] * split_ratio[1:] / close[:-1]
    if not bool(np.all(kept > 0.0)):
        row = int(np.argmin(kept > 0.0))
        raise BadBars(
            f"row {row}: dividend {dividend[row]:g} is not smaller than the close before it "
            f"({close[row - 1]:g}); correct the dividend or the split in the source"
        )
    return np.multiply.accumulate(splits / kept), np.multiply.accumulate(splits)


def adjust_forward(bars: pd.DataFrame) -> AdjustedBars:
    """Adjust a bar frame (as traded) from its first row; the frame is not changed."""
    return adjust_columns({name: bars[name].to_numpy(np.float64) for name in bars.columns})


def adjust_columns(columns: dict[str, Array]) -> AdjustedBars:
    """Adjust arrays (T,) named as ``core.bars.BAR_COLUMNS`` from row 0."""
    names = ("open", "high", "low", "close")
    prices = {name: columns[name] for name in names}
    volume = columns["volume"]
    if not columns["dividend"][1:].any() and bool((columns["split_ratio"][1:] == 1.0).all()):
        return AdjustedBars(**prices, volume=volume, factor=np.ones_like(volume))
    price, shares = factors(columns["close"], columns["dividend"], columns["split_ratio"])
    adjusted = {name: values * price for name, values in prices.items()}
    return AdjustedBars(**adjusted, volume=volume / shares, factor=price)
