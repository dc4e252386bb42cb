"""What an agent sees of its own account: position, result, risk state, recent decisions.

Owns the columns and their scaling to about ±1. Array code for ``n`` accounts at once, NumPy or
torch, the same in training and trading. Knows nothing of the market beyond the newest close.
"""

from typing import NamedTuple

import numpy as np

from core.accounts import (
    ACCOUNT_NUMBERS,
    POSITION_NUMBERS,
    RECENT,
    RECENT_DECISIONS,
    Holding,
    Recent,
    Standing,
    State,
    open_accounts,
)
from core.arrays import (
    Array,
    elementwise,
    is_nan,
    maximum,
    minimum,
    namespace,
    record,
    sign,
    where,
)
from core.bars import Bar, MarketRows, gathered, packed
from core.compiled import compiled, runs_compiled
from core.engine import mark, settle, submit
from core.lanes import LANES, One, deliver, fetch, fetch_rows, keep, lane, scratch
from core.loops import BAR, HELD
from core.rules import Rules
from core.settings import Account, Costs, RiskLimits

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
COLUMNS = len(ACCOUNT_COLUMNS)
CLOSE = Bar._fields.index("close")
GIVEN = BAR + CLOSE + 1  # numbers of an account that the compiled loop is given
LIMIT = 5.0  # every column is clipped to ± this


class Seen(NamedTuple):
    """What an agent sees of one account and one symbol; the columns in their order."""

    position_weight: Array
    pending_weight: Array
    unrealised_return: Array
    bars_since_trade: Array
    cooldown: Array
    decision_1: Array
    decision_2: Array
    decision_3: Array
    drawdown: Array
    month_return: Array
    reducing: Array


def account_features(state: State, bar: Bar | MarketRows) -> Array:
    """Return (n, a) float32 after ``settle`` at the close of ``bar``; always finite.

    ``a`` is ``len(ACCOUNT_COLUMNS)`` for one symbol; with ``k`` symbols each of
    ``SYMBOL_COLUMNS`` takes k columns. A decision to hold counts as the weight held.
    """
    clock, account, position = float(state.clock), state.account, state.position
    if runs_compiled(position):
        features = np.empty((len(position), 1, COLUMNS), np.float32)
        see_each(clock, account, position, *packed(bar, len(position)), features)
        return features[:, 0]
    xp = namespace(position)
    columns = seen(
        clock,
        record(Standing, account),
        record(Holding, position),
        record(Recent, position, RECENT),
        record(Bar, gathered(bar)).close,
    )
    return xp.astype(xp.concat(columns, axis=1), xp.float32)


def warm_up() -> None:
    """Take one account through a bar, so that the code for it is there before it is needed.

    Half a second in a process, a few more the first time on a machine; see ``core/compiled.py``.
    """
    rules = Rules.of(Account(), Costs(), RiskLimits())
    bar = Bar(*(np.ones(1) for _ in Bar._fields))
    state = submit(open_accounts(1, 1, 1.0), np.zeros((1, 1)), bar, rules).state
    account_features(settle(state, bar, rules).state, bar)
    mark(state, bar, np.zeros((1, 1), bool), rules)


@compiled
def see_each(
    clock: float, account: Array, position: Array, table: Array, rows: Array, features: Array
) -> None:
    """Write what is ``seen`` of a few accounts at a time, in machine code."""
    given, made = scratch(GIVEN), scratch(COLUMNS)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, CLOSE + 1)
        for j in range(np.uint64(width)):
            columns = seen(
                clock,
                lane(Standing, given, 0, j),
                lane(Holding, given, HELD, j),
                lane(Recent, given, HELD + RECENT, j),
                lane(One, given, BAR + CLOSE, j).number,
            )
            keep(made, 0, j, columns)
        deliver(made, 0, features, begin, width, COLUMNS)


@elementwise
def seen(clock: float, standing: Standing, held: Holding, recent: Recent, close: Array) -> Seen:
    """Return the columns, each within ± LIMIT."""
    equity = where(standing.equity > 0.0, standing.equity, standing.opening_equity)
    weight = held.shares * close / equity
    entry = where(held.shares != 0.0, held.average_price, 1.0)
    since, cooldown = clock - held.last_trade, maximum(held.entry_from - clock, 0.0)
    return Seen(
        position_weight=bounded(weight),
        pending_weight=bounded(held.pending_shares * close / equity),
        unrealised_return=bounded(10.0 * ((close / entry - 1.0) * sign(held.shares))),
        bars_since_trade=bounded(since / (since + 20.0)),
        cooldown=bounded(cooldown / (cooldown + 5.0)),
        decision_1=bounded(where(is_nan(recent.newest), weight, recent.newest)),
        decision_2=bounded(where(is_nan(recent.second), weight, recent.second)),
        decision_3=bounded(where(is_nan(recent.third), weight, recent.third)),
        drawdown=bounded(5.0 * (1.0 - standing.equity / standing.peak)),
        month_return=bounded(10.0 * (standing.equity / standing.average_equity - 1.0)),
        reducing=standing.reducing,
    )


@elementwise
def bounded(number: Array) -> Array:
    """Keep a column within ± LIMIT."""
    return minimum(maximum(number, -LIMIT), LIMIT)
