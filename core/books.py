"""The books of one account: what a decision, a bar and its close do to them, in one place each.

Owns the order in which risk, corporate actions, fills, stops and the mark follow one another; the
rules themselves are stated in ``core/engine.py``. Elementwise: numbers of one account, or arrays of
all. Knows no market and no loop.
"""

from core.accounts import Holding, Recent, Standing
from core.arrays import Array, elementwise, maximum, total, trunc, where
from core.bars import Bar
from core.fills import Exit, Trade, exit_inside, fill_at_open, split
from core.risk import Judgement, judge
from core.rules import OFF, Numbers
from core.terms import terms_of

MONTH_BARS = 21


@elementwise
def submitted(
    clock: float,
    standing: Standing,
    held: Holding,
    recent: Recent,
    weight: Array,
    bar: Bar,
    rules: Numbers,
) -> tuple[Holding, Recent, Judgement]:
    """Return the position with its pending order, and the judgement on ``weight``."""
    terms = terms_of(bar, rules)
    judged = judge(clock, standing, held, weight, terms, rules)
    order = trunc(judged.shares) - held.shares
    after = Holding(
        shares=held.shares,
        average_price=held.average_price,
        stop_gap=held.stop_gap,
        target_gap=held.target_gap,
        pending_shares=where(judged.moves > 0.0, order, held.pending_shares),
        last_trade=held.last_trade,
        entry_from=held.entry_from,
        atr=terms.atr,
    )
    return after, Recent(weight, recent.newest, recent.second), judged


@elementwise
def settled(
    clock: float,
    before: Standing,
    held: Holding,
    bar: Bar,
    rules: Numbers,
) -> tuple[Standing, Holding, Trade, Exit]:
    """Return the books after ``bar``, which ends at ``clock``, and what traded in it."""
    terms = terms_of(bar, rules)
    cash, held = split(before.cash, held, bar.open, bar.split_ratio)
    cash, held, opening = fill_at_open(cash, held, clock, terms, rules)
    cash, held, exits = exit_inside(cash, held, opening, clock, terms, rules)
    standing, held = close_books(before, cash, held, bar.close, rules)
    return standing, held, opening, exits


@elementwise
def close_books(
    before: Standing, cash: Array, held: Holding, close: Array, rules: Numbers
) -> tuple[Standing, Holding]:
    """Mark ``cash`` and ``held`` at the close."""
    equity = cash + total(held.shares * close)
    average = before.average_equity + (equity - before.average_equity) * (1.0 / MONTH_BARS)
    block_peak = maximum(before.block_peak, equity)
    peak = maximum(before.past_peak, block_peak)
    # Below this equity an account halts: ruined, or too far below its peak.
    ruin = rules.ruin_fraction * before.opening_equity
    halt = where(rules.halt_drawdown < OFF, (1.0 - rules.halt_drawdown) * peak, ruin)
    halted = (before.halted > 0.0) | (equity <= maximum(ruin, halt))
    reduce = where(rules.reduce_drawdown < OFF, (1.0 - rules.reduce_drawdown) * peak, -OFF)
    reducing = equity <= reduce
    standing = Standing(
        cash=cash,
        equity=equity,
        previous_equity=before.equity,
        opening_equity=before.opening_equity,
        average_equity=average,
        peak=peak,
        block_peak=block_peak,
        past_peak=before.past_peak,
        weight_scale=where(reducing, rules.reduce_factor, 1.0),
        reducing=where(reducing, 1.0, 0.0),
        began_reducing=where(reducing & (before.reducing <= 0.0), 1.0, 0.0),
        halted=where(halted, 1.0, 0.0),
        ruined=where((before.ruined > 0.0) | (equity <= ruin), 1.0, 0.0),
    )
    after = Holding(
        shares=held.shares,
        average_price=held.average_price,
        stop_gap=held.stop_gap,
        target_gap=held.target_gap,
        pending_shares=where(halted, -held.shares, held.pending_shares),
        last_trade=held.last_trade,
        entry_from=held.entry_from,
        atr=held.atr,
    )
    return standing, after
