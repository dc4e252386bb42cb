"""Blocks: what accounts on histories of their own observe, side by side, some bars at a time.

Owns where the numbers lie: all observations of one bar in one piece, made in place. The numbers
are those of ``Scaler.transform`` and ``features.observation.observe``, to the last bit. Knows
neither accounts' books nor who decides.
"""

from collections.abc import Sequence

import numpy as np

from core.arrays import Array, maximum, minimum
from core.compiled import compiled, plain
from features.account import COLUMNS
from features.dataset import Dataset
from features.scaler import Scaler

BLOCK_BARS = 128  # what the processor's cache holds of some hundred accounts


class ObservationBlocks:
    """Observations of one account on each of ``datasets``, bar by bar, in order.

    Account i begins at row ``starts[i]`` of its dataset; all share columns, window and scaler.
    """

    def __init__(
        self, datasets: Sequence[Dataset], starts: Sequence[int], scaler: Scaler, bars: int
    ) -> None:
        spec = datasets[0].spec
        self._tables, self._starts = [plain(d.table, np.float64) for d in datasets], starts
        self._scaler, self._window, self._bars = scaler, spec.window, bars
        self._centre, self._spread = np.array(scaler.centre), np.array(scaler.spread)
        self._width = spec.window * len(spec.columns)
        self._block, self._stop = np.empty((0, 0, 0), np.float32), 0

    def observe(self, bar: int, account: np.ndarray) -> np.ndarray:
        """Return the observations at the close of bar ``bar``, float32 (n, D).

        ``account`` (n, a): features of the accounts. The answer is the caller's to keep.
        """
        if bar == self._stop:
            self._make(bar)
        seen: np.ndarray = self._block[bar % BLOCK_BARS]
        seen[:, self._width :] = account
        return seen

    def _make(self, bar: int) -> None:
        bars = min(BLOCK_BARS, self._bars - bar)
        self._stop = bar + BLOCK_BARS
        # A new one each time: observations that were handed out are views of the last.
        block = np.empty((bars, len(self._tables), self._width + COLUMNS), np.float32)
        before = self._window - 1 + self._scaler.look_back_rows
        for place, (table, start) in enumerate(zip(self._tables, self._starts, strict=True)):
            first = start + bar - before
            if self._scaler.kind == "rolling":
                scaled = self._scaler.transform(table[first : start + bar + bars])
                self._lay(scaled[self._scaler.look_back_rows :], block, place)
            else:
                numbers = self._centre, self._spread, self._scaler.clip
                scale_each(table, first, *numbers, self._window, block, place)
        self._block = block

    def _lay(self, scaled: np.ndarray, block: np.ndarray, place: int) -> None:
        columns = scaled.shape[1]
        for lag in range(self._window):
            rows = scaled[lag : lag + len(block)]
            block[:, place, lag * columns : (lag + 1) * columns] = rows


@compiled
def scale_each(
    table: Array,
    first: int,
    centre: Array,
    spread: Array,
    clip: float,
    window: int,
    block: Array,
    place: int,
) -> None:
    """Write into ``block[:, place]`` the windows of scaled rows, oldest first, in machine code.

    ``table`` is float64 (T, d), ``block`` float32 (bars, n, D); the first window begins at row
    ``first``.
    """
    columns = table.shape[1]
    for bar in range(len(block)):
        for lag in range(window):
            row = table[first + bar + lag]
            seen = block[bar, place, lag * columns : (lag + 1) * columns]
            for column in range(columns):
                scaled = (row[column] - centre[column]) / spread[column]
                seen[column] = minimum(maximum(scaled, -clip), clip)
