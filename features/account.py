"""What an agent sees of its own account: position, result, risk state, recent decisions.

Owns the columns and their scaling to about ±1. Array code for ``n`` accounts at once, NumPy or
torch, the same in training and trading. Knows nothing of the market beyond the newest close.
"""

from typing import Any

from core.accounts import RECENT_DECISIONS, State
from core.arrays import Array, namespace

SYMBOL_COLUMNS = (
    "position_weight",  # value of the shares / equity
    "pending_weight",  # value of shares ordered and not yet filled / equity
    "unrealised_return",  # of the position since its entry x 10, positive when it gains
    "bars_since_trade",  # b / (b + 20): 0 just traded, towards 1 long ago
    "cooldown",  # b / (b + 5) of the bars without entry left after a stop
    *(f"decision_{age}" for age in range(1, RECENT_DECISIONS + 1)),  # target weights, newest first
)
SLEEVE_COLUMNS = (
    "drawdown",  # from the rolling peak x 5
    "month_return",  # equity over its average of about a month, less 1, x 10
    "reducing",  # 1 while the drawdown rule reduces
)
ACCOUNT_COLUMNS = SYMBOL_COLUMNS + SLEEVE_COLUMNS  # of an account with one symbol
LIMIT = 5.0  # every column is clipped to ± this


def account_features(state: State, bar: Any) -> Array:
    """Return (n, a) float32 after ``settle`` at the close of ``bar``; always finite.

    ``a`` is ``len(ACCOUNT_COLUMNS)`` for one symbol; with ``k`` symbols each of
    ``SYMBOL_COLUMNS`` takes k columns. A decision to hold counts as the weight held.
    """
    xp = namespace(state.cash)
    equity = xp.where(state.equity > 0.0, state.equity, state.opening_equity)[:, None]
    weight = state.shares * bar.close / equity
    held = state.shares != 0.0
    entry = xp.where(held, state.entry_price, 1.0)
    gain = (bar.close / entry - 1.0) * xp.sign(state.shares)
    since, cooldown = state.bars_since_trade, state.cooldown
    columns = [
        weight,
        state.pending_shares * bar.close / equity,
        10.0 * gain,
        since / (since + 20.0),
        cooldown / (cooldown + 5.0),
        *(xp.where(xp.isnan(asked), weight, asked) for asked in state.recent),
        5.0 * state.drawdown[:, None],
        10.0 * state.month_return[:, None],
        xp.astype(state.reducing, xp.float64)[:, None],
    ]
    # minimum of maximum: array_api_compat's clip costs six times as much.
    bounded = xp.minimum(xp.maximum(xp.concat(columns, axis=1), -LIMIT), LIMIT)
    return xp.astype(bounded, xp.float32)
