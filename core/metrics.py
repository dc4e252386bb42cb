"""Metrics: what an equity curve was worth.

Owns the definitions; every number in a report, a gate or a dashboard comes from here. Knows
nothing of models. Curves are (T,) for one account or (T, n) for many, one value per close; a
measure of (T,) is a float, of (T, n) an array (n,). Risk-free rate 0, returns are simple.
NaN in a curve gives NaN; NaN as a result means *undefined*, as each docstring says.
"""

from collections.abc import Sequence

import numpy as np

from core.errors import NotEnoughData
from core.trades import Trade

MEASURES = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "calmar",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "trades",
    "turnover",
    "exposure",
)


def performance(
    equity: np.ndarray,
    bars_per_year: float,
    trades: Sequence[Trade] = (),
    traded_value: np.ndarray | None = None,
    gross_weight: np.ndarray | None = None,
) -> dict[str, float]:
    """Return every one of ``MEASURES`` for one equity curve (T,), T ≥ 2.

    ``trades`` are round trips (open ones do not count); ``traded_value`` (T,) is the value bought
    and sold in each bar; ``gross_weight`` (T,) the gross position over equity at each close. What
    rests on an argument that is not given is NaN. Raises ``NotEnoughData`` below two values.
    """
    closed = [trade.profit for trade in trades if trade.closed]
    years = (len(equity) - 1) / bars_per_year
    turnover = exposure = float("nan")
    if traded_value is not None:
        turnover = float(np.sum(traded_value) / np.mean(equity) / years)
    if gross_weight is not None:
        exposure = float(np.mean(gross_weight))
    return {
        "total_return": float(total_return(equity)),
        "cagr": float(cagr(equity, bars_per_year)),
        "volatility": float(volatility(equity, bars_per_year)),
        "sharpe": float(sharpe(equity, bars_per_year)),
        "sortino": float(sortino(equity, bars_per_year)),
        "calmar": float(calmar(equity, bars_per_year)),
        "max_drawdown": float(max_drawdown(equity)),
        "win_rate": win_rate(closed),
        "profit_factor": profit_factor(closed),
        "trades": float(len(closed)),
        "turnover": turnover,
        "exposure": exposure,
    }


def bar_returns(equity: np.ndarray) -> np.ndarray:
    """Return simple returns (T-1,) or (T-1, n) from one close to the next.

    0 once the equity is gone (≤ 0): a lost account neither gains nor loses any more.
    """
    curve = np.asarray(equity, dtype=np.float64)
    if len(curve) < 2:
        raise NotEnoughData(f"an equity curve needs 2 closes to have a return, found {len(curve)}")
    before, after = curve[:-1], curve[1:]
    gone = before <= 0.0
    return np.where(gone, 0.0, after / np.where(gone, 1.0, before) - 1.0)


def total_return(equity: np.ndarray) -> np.ndarray:
    """Return last over first value, less 1; a fraction."""
    return np.asarray(equity[-1] / equity[0] - 1.0)


def cagr(equity: np.ndarray, bars_per_year: float) -> np.ndarray:
    """Return the compound growth per year, a fraction; −1 where the equity is gone."""
    growth = np.maximum(np.asarray(equity[-1] / equity[0]), 0.0)
    return np.asarray(growth ** (bars_per_year / (len(equity) - 1)) - 1.0)


def volatility(equity: np.ndarray, bars_per_year: float) -> np.ndarray:
    """Return the annualised standard deviation (T-2 degrees of freedom) of bar returns.

    NaN for a single return.
    """
    returns = bar_returns(equity)
    if len(returns) < 2:
        return np.full(returns.shape[1:], np.nan)
    return np.asarray(np.std(returns, axis=0, ddof=1) * np.sqrt(bars_per_year))


def sharpe(equity: np.ndarray, bars_per_year: float) -> np.ndarray:
    """Return the annualised mean of bar returns over their deviation (Sharpe 1994).

    0 for a curve that never moves: who does nothing has earned nothing for no risk.
    """
    yearly = np.mean(bar_returns(equity), axis=0) * bars_per_year
    return _ratio(yearly, volatility(equity, bars_per_year), when_still=0.0)


def sortino(equity: np.ndarray, bars_per_year: float) -> np.ndarray:
    """Return the annualised mean of bar returns over their downside deviation (Sortino 1991).

    The deviation is the root of the mean squared loss over *all* bars. 0 for a curve that never
    moves, NaN for one that never falls.
    """
    returns = bar_returns(equity)
    yearly = np.mean(returns, axis=0) * bars_per_year
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=0) * bars_per_year)
    return _ratio(yearly, downside, when_still=0.0)


def drawdowns(equity: np.ndarray) -> np.ndarray:
    """Return the fall from the highest close so far as a positive fraction, shaped as given."""
    curve = np.asarray(equity, dtype=np.float64)
    return np.asarray(1.0 - curve / np.maximum.accumulate(curve, axis=0))


def max_drawdown(equity: np.ndarray) -> np.ndarray:
    """Return the deepest fall from a peak as a positive fraction."""
    return np.asarray(np.max(drawdowns(equity), axis=0))


def calmar(equity: np.ndarray, bars_per_year: float) -> np.ndarray:
    """Return CAGR over maximum drawdown (Young 1991); 0 for a curve that never moves.

    NaN for one that never falls.
    """
    return _ratio(cagr(equity, bars_per_year), max_drawdown(equity), when_still=0.0)


def win_rate(profits: Sequence[float]) -> float:
    """Return the share of trades with a profit above 0; NaN without trades."""
    return float(np.mean(np.asarray(profits) > 0.0)) if len(profits) else float("nan")


def profit_factor(profits: Sequence[float]) -> float:
    """Return gross profit over gross loss; NaN without a losing trade."""
    array = np.asarray(profits, dtype=np.float64)
    lost = -float(np.sum(array[array < 0.0]))
    return float(np.sum(array[array > 0.0])) / lost if lost > 0.0 else float("nan")


def _ratio(reward: np.ndarray, risk: np.ndarray, when_still: float) -> np.ndarray:
    """Return reward / risk; without risk, ``when_still`` if there is no reward, else NaN."""
    # Equal returns leave a deviation of rounding errors, not of risk.
    none = risk <= 1e-12
    still = np.where(np.abs(reward) <= 1e-12, when_still, np.nan)
    return np.asarray(np.where(none, still, reward / np.where(none, 1.0, risk)))
