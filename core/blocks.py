"""Blocks: bars of accounts on markets of their own, side by side, some bars at a time.

Owns where the numbers lie: what one step of all accounts looks up is one piece of memory, which
the processor's cache still holds at the close. Knows neither accounts nor rules.
"""

from collections.abc import Sequence

import numpy as np

from core.arrays import Array
from core.bars import Bar, Market, MarketRows
from core.compiled import compiled, plain

BLOCK_BARS = 128


class BarBlocks:
    """The bars of one account on each of ``markets`` (T, 1), bar by bar, in order.

    Account i begins at row ``starts[i]`` of its market.
    """

    def __init__(self, markets: Sequence[Market], starts: Sequence[int], bars: int) -> None:
        self._columns = [
            [plain(getattr(market, name), np.float64) for name in Bar._fields] for market in markets
        ]
        self._starts, self._bars, self._stop = starts, bars, 0
        self._block = np.empty((min(BLOCK_BARS, bars), len(markets), len(Bar._fields)))
        self._table = self._block.reshape(-1, 1, len(Bar._fields))
        self._places = np.arange(len(markets))

    def at(self, bar: int) -> MarketRows:
        """Return bar ``bar`` of every account; good until a later one is asked for."""
        if bar == self._stop:
            self._make(bar)
        return MarketRows(self._table, self._places + bar % BLOCK_BARS * len(self._places))

    def _make(self, bar: int) -> None:
        bars = min(BLOCK_BARS, self._bars - bar)
        self._stop = bar + BLOCK_BARS
        for place, (columns, start) in enumerate(zip(self._columns, self._starts, strict=True)):
            pack_each(*columns, start + bar, bars, self._block, place)


@compiled
def pack_each(
    opens: Array,
    high: Array,
    low: Array,
    close: Array,
    volume: Array,
    dividend: Array,
    split_ratio: Array,
    atr: Array,
    volatility: Array,
    first: int,
    bars: int,
    block: Array,
    place: int,
) -> None:
    """Write rows ``first`` … of one market into ``block[:, place]``, in machine code.

    The columns (T, 1) are the fields of ``Bar``, in their order.
    """
    for at in range(bars):
        row, bar = first + at, block[at, place]
        bar[0], bar[1], bar[2], bar[3] = opens[row, 0], high[row, 0], low[row, 0], close[row, 0]
        bar[4], bar[5], bar[6] = volume[row, 0], dividend[row, 0], split_ratio[row, 0]
        bar[7], bar[8] = atr[row, 0], volatility[row, 0]
