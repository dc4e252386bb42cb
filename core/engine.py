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

from core.accounts import PEAK_BLOCKS, Holding, State
from core.arrays import Array, namespace, record, where
from core.bars import Bar, Market, MarketRows, PackedMarket, bar_at, gathered, packed
from core.compiled import plain, runs_compiled
from core.fills import FILLED, Fills, split
from core.loops import (
    VERDICT,
    mark_all,
    mark_each,
    settle_all,
    settle_each,
    submit_all,
    submit_each,
)
from core.risk import Verdict
from core.rules import Rules

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
        rules_beside = rules.beside(state.account)
        mark_all(state.account, position, gathered(bar), rules_beside, account)
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
