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

from typing import Any, NamedTuple

from core.accounts import PEAK_BLOCKS, State
from core.arrays import Array, namespace, total, where_true
from core.bars import Bar, Market, bar_at
from core.fills import Book, Fills, exit_inside, fill_at_open, whole_shares
from core.risk import Verdict, assess
from core.rules import Rules
from core.terms import PackedMarket, Terms, terms_of

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


class Settlement(NamedTuple):
    """The books after a bar's close, and what traded in it."""

    state: State
    fills: Fills


class Submission(NamedTuple):
    """The books with the new pending orders, and the verdict of risk."""

    state: State
    verdict: Verdict


def submit(state: State, target_weight: Array, bar: Bar | Terms, rules: Rules) -> Submission:
    """Turn target weights (n, k) at the close of ``bar`` into pending whole shares.

    NaN holds: shares and working orders stay. Anything else replaces what is still pending.
    """
    xp = namespace(state.cash)
    terms = _per_account(bar if isinstance(bar, Terms) else terms_of(bar, rules), state)
    verdict = assess(state, target_weight, terms, rules)
    order = xp.trunc(verdict.shares) - state.shares
    pending = xp.where(verdict.moves, order, state.pending_shares)
    submitted = state._replace(
        pending_shares=pending,
        recent=(target_weight, *state.recent[:-1]),
        atr=terms.atr,
    )
    return Submission(submitted, verdict)


def settle(state: State, bar: Bar | Terms, rules: Rules) -> Settlement:
    """Live through ``bar``: actions, fills at the open, stops and targets, mark at the close."""
    terms = _per_account(bar if isinstance(bar, Terms) else terms_of(bar, rules), state)
    if terms.has_split:
        state = apply_split(state, terms)
    book, opening = fill_at_open(state, terms, rules)
    book, exits = exit_inside(book, opening, state.clock + 1, terms, rules)
    state = _marked(state, book, terms.close, rules)
    return Settlement(state, Fills(opening, exits))


def step(state: State, target_weight: Array, market: Market, row: int, rules: Rules) -> Settlement:
    """Decide at the close of ``row`` and live through ``row + 1``."""
    submitted = submit(state, target_weight, bar_at(market, row), rules).state
    return settle(submitted, bar_at(market, row + 1), rules)


def apply_split(state: State, bar: Bar | Terms) -> State:
    """Apply the splits of ``bar`` to shares, prices and orders; pay fractions at the open."""
    ratio = bar.split_ratio
    exact = state.shares * ratio
    shares = whole_shares(exact)
    return state._replace(
        cash=state.cash + total((exact - shares) * bar.open)[:, 0],
        shares=shares,
        average_price=state.average_price / ratio,
        stop_gap=state.stop_gap / ratio,
        target_gap=state.target_gap / ratio,
        pending_shares=whole_shares(state.pending_shares * ratio),
        atr=state.atr / ratio,
    )


def mark(state: State, bar: Bar | Terms, traded: Array, rules: Rules) -> State:
    """Value the accounts at the close and update peak, risk state and memory.

    ``traded`` (n, k) says where shares changed hands in this bar. The live gateway calls this
    after booking the broker's fills; ``settle`` ends with it.
    """
    last_trade = namespace(state.cash).where(traded, state.clock + 1.0, state.last_trade)
    book = Book(
        cash=state.cash[:, None],
        shares=state.shares,
        average_price=state.average_price,
        stop_gap=state.stop_gap,
        target_gap=state.target_gap,
        pending_shares=state.pending_shares,
        last_trade=last_trade,
        entry_from=state.entry_from,
    )
    return _marked(state, book, bar.close, rules)


def _marked(state: State, book: Book, close: Array, rules: Rules) -> State:
    xp = namespace(state.cash)
    clock = state.clock + 1
    equity = (book.cash + total(book.shares * close))[:, 0]
    average = state.average_equity + (equity - state.average_equity) * (1.0 / MONTH_BARS)
    block_peak = xp.maximum(state.block_peak, equity)
    peak = xp.maximum(state.past_peak, block_peak)
    past_peak, past_peaks = state.past_peak, state.past_peaks
    if clock % -(-rules.drawdown_window_bars // PEAK_BLOCKS) == 0:
        past_peaks = xp.concat([block_peak[None, :], past_peaks[:-1]], axis=0)
        past_peak, block_peak = xp.max(past_peaks, axis=0), equity
    # Below this equity an account halts: ruined, or too far below its peak.
    least = ruin = _by_account(rules.ruin_fraction) * state.opening_equity
    if rules.halt_drawdown is not None:
        least = xp.maximum(ruin, (1.0 - _by_account(rules.halt_drawdown)) * peak)
    halted = state.halted | (equity <= least)
    reducing, began, scale = state.reducing, state.began_reducing, state.weight_scale
    if rules.reduce_drawdown is not None:
        reducing = equity <= (1.0 - _by_account(rules.reduce_drawdown)) * peak
        began = reducing > state.reducing
        scale = xp.where(reducing, _by_account(rules.reduce_factor), 1.0)
    pending, ruined = book.pending_shares, state.ruined
    if len(where_true(halted)):
        pending = xp.where(halted[:, None], -book.shares, pending)
        ruined = ruined | (equity <= ruin)
    return State(
        clock=clock,
        cash=book.cash[:, 0],
        shares=book.shares,
        average_price=book.average_price,
        stop_gap=book.stop_gap,
        target_gap=book.target_gap,
        pending_shares=pending,
        atr=state.atr,
        equity=equity,
        previous_equity=state.equity,
        opening_equity=state.opening_equity,
        average_equity=average,
        peak=peak,
        block_peak=block_peak,
        past_peak=past_peak,
        past_peaks=past_peaks,
        last_trade=book.last_trade,
        entry_from=book.entry_from,
        recent=state.recent,
        weight_scale=scale,
        reducing=reducing,
        began_reducing=began,
        halted=halted,
        ruined=ruined,
    )


def _by_account(number: Any) -> Any:
    """Return a rule's number, or its array (n, 1), so that it meets arrays (n,)."""
    return number[:, 0] if hasattr(number, "ndim") else number


def _per_account(terms: Terms, state: State) -> Terms:
    shape = state.shares.shape
    if terms.open.shape == shape:
        return terms
    xp = namespace(state.cash)
    return terms.mapped(lambda array: xp.broadcast_to(array, shape))
