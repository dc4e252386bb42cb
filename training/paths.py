"""Paths: one policy over many histories at once, a decision at every bar of each.

Owns what is kept of it: curves, no log. The loop is ``training/trading.py``'s, so a path comes out
as its backtest does, to the last bit. Knows neither where histories come from nor what the curves
decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.metrics import bar_returns, max_drawdown, sharpe
from core.rules import Rules
from features.dataset import Dataset
from features.scaler import Scaler
from training.splits import Window
from training.trading import Decides, Seat, trade


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """The curves of ``n`` paths."""

    opening_cash: float  # account currency
    equity: np.ndarray  # (T, n) at each close, account currency

    @property
    def curves(self) -> np.ndarray:
        """Return equity from the opening cash on, (T + 1, n)."""
        return np.concatenate([np.full((1, self.equity.shape[1]), self.opening_cash), self.equity])

    @property
    def returns(self) -> np.ndarray:
        """Return the simple return of each bar, (T, n)."""
        return bar_returns(self.curves)

    def sharpe(self, bars_per_year: float) -> np.ndarray:
        """Return the annualised Sharpe ratio of every path, (n,)."""
        return sharpe(self.curves, bars_per_year)

    def max_drawdown(self) -> np.ndarray:
        """Return the deepest fall of every path, (n,), a positive fraction."""
        return max_drawdown(self.curves)


def run(
    policy: Decides,
    datasets: Sequence[Dataset],
    scaler: Scaler,
    rules: Rules,
    rows: Window,
    cash: float,
) -> Paths:
    """Trade the rows ``rows`` of every dataset, each as an account of its own.

    Raises ``NotEnoughData`` where the rows lie in a warm-up or outside a dataset.
    """
    seats = [Seat(policy, dataset, scaler, rows.start) for dataset in datasets]
    equity = np.empty((len(rows), len(seats)))
    for bar, traded in enumerate(trade(seats, len(rows), rules, cash)):
        equity[bar] = traded.state.equity
    return Paths(cash, equity)
