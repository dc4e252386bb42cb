"""Attribution: what each action's result was due to: market, timing, costs, risk interventions.

Owns the split of every bar's profit or loss, which the parts add up to. An action is what was
decided at a close; its result is that of the bar that follows. Knows nothing of reports.

    market   what the account's average exposure over the run earned in that bar
    costs    commission and slippage, as booked
    risk     the weight that risk added or took away, at the bar's return; and what leaving by a
             stop or target gained against holding to the close
    timing   the rest: holding more or less than on average in that bar, as the policy asked
"""

import numpy as np
import pandas as pd

from training.backtest import BacktestResult

PARTS = ("market", "timing", "costs", "risk")


def attribute(result: BacktestResult) -> pd.DataFrame:
    """Return one row per action: ``asked``, ``allowed``, ``profit`` and its ``PARTS``.

    Index ``time``: the close at which it was decided. Account currency; of one symbol. The parts
    add up to the profit, and the profits to the run's, up to the rounding of floats.
    """
    market, log = result.market, result.fills
    close, equity = market.close[:, 0], result.equity
    value = market.split_ratio[1:, 0] * (close[1:] + market.dividend[1:, 0])
    move = value / close[:-1] - 1.0  # total return of each bar but the first
    before, held = equity[:-1], result.position[:-1]
    asked, allowed = result.asked[:-1], result.allowed[:-1]
    profit = np.diff(equity)
    costs = -(log.commission + log.slippage)[1:, 0]
    average = float(np.mean(result.position[:-1]))
    # A hold, and a change too small to be ordered, keep the weight that is held.
    wanted = np.where(np.isnan(asked), held, asked)
    granted = np.where(np.isnan(allowed), held, allowed)
    intervened = result.interventions[:-1]
    clipped = np.where(intervened, granted - wanted, 0.0) * before * move
    left = log.exit_shares[1:, 0] * (close[1:] - log.exit_price[1:, 0])
    market_part, risk = average * before * move, clipped + left
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
