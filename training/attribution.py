"""Attribution: what each action's result was due to: market, timing, costs, risk interventions.

Owns the split of every bar's profit or loss, which the parts add up to. An action is what was
decided at a close; its result is that of the bar that follows. Knows nothing of reports.

    market   what the account's average exposure over the run earned in that bar
    costs    commission and slippage, as booked
    risk     the weight that risk added or took away, at the bar's return; and what leaving by a
             stop or target gained, before its slippage, against holding to the close
    timing   the rest: holding more or less than on average in that bar, as the policy asked

Every amount is a whole number of units, ``unit``, a millionth of the account's currency: so the
parts add up to the profit, and the profits to the run's, exactly and in any order. What that
leaves out of the books' own equity is less than half a unit at each close.
"""

import numpy as np
import pandas as pd

from training.backtest import BacktestResult

PARTS = ("market", "timing", "costs", "risk")
UNIT = 2.0**-20  # of the account's currency, about a millionth


def attribute(result: BacktestResult) -> pd.DataFrame:
    """Return one row per action: ``asked``, ``allowed``, ``profit`` and its ``PARTS``.

    Index ``time``: the close at which it was decided. Account currency; of one symbol. The parts
    add up to the profit, and the profits to the run's, to the last bit.
    """
    market, log = result.market, result.fills
    close, equity = market.close[:, 0], result.equity
    value = market.split_ratio[1:, 0] * (close[1:] + market.dividend[1:, 0])
    move = value / close[:-1] - 1.0  # total return of each bar but the first
    before, held = equity[:-1], result.position[:-1]
    asked, allowed = result.asked[:-1], result.allowed[:-1]
    # A hold, and a change too small to be ordered, keep the weight that is held.
    wanted = np.where(np.isnan(asked), held, asked)
    granted = np.where(np.isnan(allowed), held, allowed)
    clipped = np.where(result.interventions[:-1], granted - wanted, 0.0) * before * move
    costs = -(log.commission + log.slippage)[1:, 0]
    amounts = np.stack([float(np.mean(held)) * before * move, costs, clipped + _left(result)])
    size = unit(equity, amounts)
    profit = np.diff(_whole(equity, size))
    market_part, costs, risk = _whole(amounts, size)
    parts = {
        "market": market_part,
        "timing": profit - market_part - costs - risk,
        "costs": costs,
        "risk": risk,
    }
    index = pd.DatetimeIndex(result.time[:-1], name="time")
    return pd.DataFrame({"asked": asked, "allowed": allowed, "profit": profit} | parts, index=index)


def totals(result: BacktestResult) -> dict[str, float]:
    """Return the sum of each part over the run, and of the profit, account currency."""
    split = attribute(result)
    return {name: float(split[name].sum()) for name in ("profit", *PARTS)}


def unit(equity: np.ndarray, amounts: np.ndarray) -> float:
    """Return the unit of a run with these equities and parts: ``UNIT``, but for billions.

    A float holds 2^53 whole units, and so do all sums of amounts that come to fewer together: of
    more than that the unit is larger. A timing is at most as large as the rest of its row.
    """
    together = 4.0 * (np.abs(np.diff(equity)).sum() + np.abs(amounts).sum() + np.abs(equity).max())
    return max(UNIT, float(np.spacing(together)))


def _left(result: BacktestResult) -> np.ndarray:
    """Return what stops and targets gained against holding to the close, (T - 1,)."""
    market, log = result.market, result.fills
    at_open = np.abs(log.open_shares) * np.abs(log.open_price - market.open)
    slipped = np.where(log.open_shares != 0.0, log.slippage - at_open, log.slippage)
    gained = log.exit_shares * (market.close - log.exit_price) + slipped
    return np.asarray(np.where(log.exit_shares != 0.0, gained, 0.0)[1:, 0])


def _whole(amounts: np.ndarray, size: float) -> np.ndarray:
    """Round to whole units; a power of two, so that nothing else is rounded."""
    return np.asarray(np.rint(amounts / size) * size)
