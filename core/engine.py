"""The engine: one bar in the life of ``n`` accounts that trade ``k`` symbols each.

**Timing rule: decide on the close of bar t, fill at the open of bar t+1.**

    submit(state, target_weight, bar t)   risk verdict, whole shares, pending     close of t
    settle(state, bar t+1)                actions, fills, stops, mark             open to close

Pure functions over a frozen state; training, backtest, shadow and paper are these two calls.
Live trading calls the same ``assess`` and ``mark``; only its fills come from the broker.

Rules of the book, in the order in which ``settle`` applies them:

- Corporate actions before the open, on shares, entry, stop, target and pending orders. Shares are
  truncated toward zero, the fraction is paid in cash at the open. Shorts pay the dividend.
- Orders fill at the open, moved by slippage, at most ``volume_participation`` of the bar's
  volume; the rest stays pending. A bar without volume fills nothing.
- Reductions first. Then what increases a position is scaled down until the gross value is within
  ``max_leverage`` × equity, costs paid: at leverage 1, without shorts, no purchase makes cash
  negative. (A sale that brings in less than its commission can, by that commission.) What was
  scaled away is cancelled, not pending.
- Every fill that grows a position brings a stop: at the nearer of percent and ATR (that of the
  decision's bar) from its price. The stop of the position is the average by shares, as its entry
  price is. So is the target. Both work from the fill on, in that very bar.
- An open beyond a stop or target fills there, at the open. Otherwise, of the two touched in one
  bar, the stop wins. A stop pays slippage, a target is a limit order and does not. Both are
  orders of their own (commission) and share the bar's volume cap; what the cap leaves is sold
  at the next opens.
- Marked at the close. The rolling peak is kept in PEAK_BLOCKS blocks: it looks back at least
  ``drawdown_window_bars`` and at most one block (an eighth of that) more.
- REDUCING while the drawdown is beyond ``reduce_drawdown``; HALTED once it was beyond
  ``halt_drawdown``, or the account is ruined, and for good. That is *termination*; the end of the
  data is *truncation*, which the engine does not know.
"""

from typing import NamedTuple

import numpy as np

from core.accounts import (
    ACCOUNT_NUMBERS,
    PEAK_BLOCKS,
    POSITION_NUMBERS,
    RECENT,
    Holding,
    Recent,
    Standing,
    State,
)
from core.arrays import (
    Array,
    elementwise,
    maximum,
    namespace,
    quietly,
    record,
    store,
    total,
    trunc,
    where,
)
from core.bars import Bar, Market, MarketRows, PackedMarket, bar_at, gathered, packed
from core.compiled import compiled, plain, runs_compiled
from core.fills import EXITS, FILLED, Exit, Fills, Trade, exit_inside, fill_at_open, split
from core.lanes import LANES, One, deliver, fetch, fetch_rows, fill, keep, lane, scratch
from core.risk import Judgement, Verdict, judge
from core.rules import OFF, Numbers, Rules
from core.terms import terms_of

__all__ = [
    "Bar",
    "Fills",
    "PackedMarket",
    "Settlement",
    "Submission",
    "bar_at",
    "mark",
    "settle",
    "step",
    "submit",
]

MONTH_BARS = 21

# How many numbers there are, and where the compiled loops keep them (``core/lanes.py``).
PRICES, RULES, VERDICT = len(Bar._fields), len(Numbers._fields), len(Judgement._fields)
HELD = ACCOUNT_NUMBERS
BAR = FILLS = HELD + POSITION_NUMBERS
NUMBERS = BAR + PRICES
ASKED = NUMBERS + RULES
GIVEN = ASKED + 1
JUDGED = POSITION_NUMBERS + VERDICT
SETTLED = FILLS + FILLED


class Settlement(NamedTuple):
    """The books after a bar's close, and what traded in it."""

    state: State
    fills: Fills


class Submission(NamedTuple):
    """The books with the new pending orders, and the verdict of risk."""

    state: State
    verdict: Verdict


def submit(state: State, target_weight: Array, bar: Bar | MarketRows, rules: Rules) -> Submission:
    """Turn target weights (n, k) at the close of ``bar`` into pending whole shares.

    NaN holds: shares and working orders stay. Anything else replaces what is still pending.
    """
    position = namespace(state.position).empty_like(state.position)
    verdict = _empty(state, VERDICT)
    before = (float(state.clock), state.account, state.position)
    if runs_compiled(position):
        n = len(position)
        if target_weight.shape != (n, 1):
            raise ValueError(f"weights of shape {target_weight.shape}, expected ({n}, 1)")
        weight = plain(target_weight, np.float64)[:, None]
        submit_each(*before, weight, *packed(bar, n), rules.of_each(n), position, verdict)
    else:
        submit_all(*before, target_weight, gathered(bar), rules.beside(position), position, verdict)
    after = State(state.clock, state.account, position, state.past_peaks)
    return Submission(after, Verdict(target_weight, verdict))


def recall(state: State, flatten: bool = False) -> State:
    """Take back what is pending after a close; ``flatten`` orders the shares sold in its place.

    For whoever stops an agent between two closes: no risk rule is asked, for none may forbid it.
    """
    return state.but(pending_shares=-state.shares if flatten else 0.0 * state.shares)


def settle(state: State, bar: Bar | MarketRows, rules: Rules) -> Settlement:
    """Live through ``bar``: actions, fills at the open, stops and targets, mark at the close."""
    xp = namespace(state.account)
    clock = state.clock + 1
    account, position = xp.empty_like(state.account), xp.empty_like(state.position)
    fills = _empty(state, FILLED)
    before = (float(clock), state.account, state.position)
    after = (account, position, fills)
    if runs_compiled(position):
        n = len(position)
        settle_each(*before, *packed(bar, n), rules.of_each(n), *after)
    else:
        settle_all(*before, gathered(bar), rules.beside(position), *after)
    settled = State(clock, account, position, state.past_peaks)
    return Settlement(_turned(settled, rules), Fills(fills))


def step(state: State, target_weight: Array, market: Market, row: int, rules: Rules) -> Settlement:
    """Decide at the close of ``row`` and live through ``row + 1``."""
    submitted = submit(state, target_weight, bar_at(market, row), rules).state
    return settle(submitted, bar_at(market, row + 1), rules)


def apply_split(state: State, bar: Bar | MarketRows) -> State:
    """Apply the splits of ``bar`` to shares, prices and orders; pay fractions at the open."""
    here, held = record(Bar, gathered(bar)), record(Holding, state.position)
    cash, after = split(state.cash[:, None], held, here.open, here.split_ratio)
    return state.but(cash=cash[:, 0], **after._asdict())


def mark(state: State, bar: Bar | MarketRows, traded: Array, rules: Rules) -> State:
    """Value the accounts at the close and update peak, risk state and memory.

    ``traded`` (n, k) says where shares changed hands in this bar. The live gateway calls this
    after booking the broker's fills; ``settle`` ends with it.
    """
    xp, clock = namespace(state.account), state.clock + 1
    account, position = xp.empty_like(state.account), xp.asarray(state.position, copy=True)
    traded_at = where(traded, float(clock), state.last_trade)
    position[:, :, Holding._fields.index("last_trade")] = traded_at
    if runs_compiled(position):
        n = len(position)
        mark_each(state.account, position, *packed(bar, n), rules.of_each(n), account)
    else:
        with quietly():
            standing, held = close_books(
                record(Standing, state.account),
                state.cash[:, None],
                record(Holding, position),
                record(Bar, gathered(bar)).close,
                record(Numbers, rules.beside(state.account)),
            )
        store(account, standing)
        store(position, held)
    return _turned(State(clock, account, position, state.past_peaks), rules)


def _turned(state: State, rules: Rules) -> State:
    """Begin a new block of the rolling peak where the bar has filled one; seldom."""
    if state.clock % -(-rules.drawdown_window_bars // PEAK_BLOCKS):
        return state
    xp = namespace(state.account)
    past_peaks = xp.concat([state.block_peak[None, :], state.past_peaks[:-1]], axis=0)
    highest = xp.max(past_peaks, axis=0)
    return state.but(past_peaks=past_peaks, past_peak=highest, block_peak=state.equity)


def _empty(state: State, numbers: int) -> Array:
    position = state.position
    xp = namespace(position)
    shape = (*position.shape[:2], numbers)
    if xp is np:
        return np.empty(shape)
    return xp.empty(shape, dtype=xp.float64, device=position.device)


@compiled
def submit_each(
    clock: float,
    account: Array,
    position: Array,
    weight: Array,
    table: Array,
    rows: Array,
    rules: Array,
    position_after: Array,
    verdict: Array,
) -> None:
    """Do for a few accounts at a time, in machine code, what ``submit_all`` does for all."""
    given, made = scratch(GIVEN), scratch(JUDGED)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        fetch(given, ASKED, weight, begin, width, 1)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            held, recent, judged = submitted(
                clock,
                lane(Standing, given, 0, j),
                lane(Holding, given, HELD, j),
                lane(Recent, given, HELD + RECENT, j),
                lane(One, given, ASKED, j).number,
                lane(Bar, given, BAR, j),
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, held)
            keep(made, RECENT, j, recent)
            keep(made, POSITION_NUMBERS, j, judged)
        deliver(made, 0, position_after, begin, width, POSITION_NUMBERS)
        deliver(made, POSITION_NUMBERS, verdict, begin, width, VERDICT)


def submit_all(
    clock: float,
    account: Array,
    position: Array,
    weight: Array,
    bars: Array,
    rules: Array,
    position_after: Array,
    verdict: Array,
) -> None:
    """Do for all accounts at once, operation by operation, what ``submit_each`` does."""
    with quietly():
        held, recent, judged = submitted(
            clock,
            record(Standing, account),
            record(Holding, position),
            record(Recent, position, RECENT),
            weight,
            record(Bar, bars),
            record(Numbers, rules),
        )
    store(position_after, held)
    store(position_after, recent, RECENT)
    store(verdict, judged)


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


@compiled
def settle_each(
    clock: float,
    account: Array,
    position: Array,
    table: Array,
    rows: Array,
    rules: Array,
    account_after: Array,
    position_after: Array,
    fills: Array,
) -> None:
    """Do for a few accounts at a time, in machine code, what ``settle_all`` does for all."""
    given, made = scratch(GIVEN), scratch(SETTLED)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            standing, held, opening, exits = settled(
                clock,
                lane(Standing, given, 0, j),
                lane(Holding, given, HELD, j),
                lane(Bar, given, BAR, j),
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, standing)
            keep(made, HELD, j, held)
            keep(made, HELD + RECENT, j, lane(Recent, given, HELD + RECENT, j))
            keep(made, FILLS, j, opening)
            keep(made, FILLS + EXITS, j, exits)
        deliver(made, 0, account_after, begin, width, ACCOUNT_NUMBERS)
        deliver(made, HELD, position_after, begin, width, POSITION_NUMBERS)
        deliver(made, FILLS, fills, begin, width, FILLED)


def settle_all(
    clock: float,
    account: Array,
    position: Array,
    bars: Array,
    rules: Array,
    account_after: Array,
    position_after: Array,
    fills: Array,
) -> None:
    """Do for all accounts at once, operation by operation, what ``settle_each`` does."""
    with quietly():
        standing, held, opening, exits = settled(
            clock,
            record(Standing, account),
            record(Holding, position),
            record(Bar, bars),
            record(Numbers, rules),
        )
    store(account_after, standing)
    store(position_after, held)
    store(position_after, record(Recent, position, RECENT), RECENT)
    store(fills, opening)
    store(fills, exits, EXITS)


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


@compiled
def mark_each(
    account: Array, position: Array, table: Array, rows: Array, rules: Array, account_after: Array
) -> None:
    """Let a few accounts at a time ``close_books``, in machine code; ``position`` is changed."""
    given, made = scratch(GIVEN), scratch(HELD + RECENT)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            before = lane(Standing, given, 0, j)
            standing, held = close_books(
                before,
                before.cash,
                lane(Holding, given, HELD, j),
                lane(Bar, given, BAR, j).close,
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, standing)
            keep(made, HELD, j, held)
        deliver(made, 0, account_after, begin, width, ACCOUNT_NUMBERS)
        deliver(made, HELD, position, begin, width, RECENT)


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
