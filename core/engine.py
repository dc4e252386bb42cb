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
  ``max_leverage`` × equity, costs paid: at leverage 1, without shorts, cash is never negative
  (beyond rounding). What was scaled away is cancelled, not pending.
- A stop is the nearer of percent and ATR (of the decision's bar), set from the average entry
  price whenever the position grows. So is a target. Both work from the fill on, in that very bar.
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

from dataclasses import dataclass, replace
from typing import Any

from core import costs
from core.accounts import PEAK_BLOCKS, State
from core.arrays import Array, namespace, total
from core.bars import Bar, Market, bar_at
from core.risk import Rules, Verdict, assess

__all__ = ["Bar", "Fills", "Settlement", "Submission", "bar_at", "settle", "step", "submit"]

NO_EXIT, STOP_EXIT, TARGET_EXIT = 0, 1, 2
MONTH_BARS = 21


@dataclass(frozen=True, slots=True)
class Fills:
    """What traded in one bar; every array (n, k)."""

    open_shares: Array  # signed whole shares filled at the open
    open_price: Array  # slippage included
    exit_shares: Array  # signed whole shares filled by a stop or target
    exit_price: Array  # slippage included
    exit_reason: Array  # NO_EXIT, STOP_EXIT or TARGET_EXIT
    commission: Array  # account currency, of both
    slippage: Array  # account currency, of both, already inside the prices


@dataclass(frozen=True, slots=True)
class Settlement:
    """The books after a bar's close, and what traded in it."""

    state: State
    fills: Fills


@dataclass(frozen=True, slots=True)
class Submission:
    """The books with the new pending orders, and the verdict of risk."""

    state: State
    verdict: Verdict


def submit(state: State, target_weight: Array, bar: Bar, rules: Rules) -> Submission:
    """Turn target weights (n, k) at the close of ``bar`` into pending whole shares.

    NaN holds: shares and working orders stay. Anything else replaces what is still pending.
    """
    xp = namespace(state.cash)
    verdict = assess(state, target_weight, bar, rules)
    allowed = verdict.allowed
    wanted = xp.trunc(allowed * (state.equity * rules.fraction)[:, None] / bar.close)
    pending = xp.where(xp.isnan(allowed), state.pending_shares, wanted - state.shares)
    newest = xp.where(xp.isnan(target_weight), state.recent[0], target_weight)
    submitted = replace(
        state,
        pending_shares=pending,
        recent=(newest, *state.recent[:-1]),
        atr=bar.atr + xp.zeros_like(state.shares),
    )
    return Submission(submitted, verdict)


def settle(state: State, bar: Bar, rules: Rules) -> Settlement:
    """Live through ``bar``: actions, fills at the open, stops and targets, mark at the close."""
    if bar.has_actions:
        state = apply_actions(state, bar)
    capacity = costs.capacity(bar.volume, rules)
    state, opened = _fill_at_open(state, bar, capacity, rules)
    state, closed = _exit_inside(state, bar, capacity - opened.size, rules)
    traded = opened.size + closed.size > 0.0
    state = mark(state, bar, traded, rules)
    fills = Fills(
        open_shares=opened.shares,
        open_price=opened.price,
        exit_shares=closed.shares,
        exit_price=closed.price,
        exit_reason=closed.reason,
        commission=opened.commission + closed.commission,
        slippage=opened.slippage + closed.slippage,
    )
    return Settlement(state, fills)


def step(state: State, target_weight: Array, market: Market, row: int, rules: Rules) -> Settlement:
    """Decide at the close of ``row`` and live through ``row + 1``."""
    submitted = submit(state, target_weight, bar_at(market, row), rules).state
    return settle(submitted, bar_at(market, row + 1), rules)


def apply_actions(state: State, bar: Bar) -> State:
    """Apply the splits and dividends of ``bar`` to shares, prices, orders and cash."""
    ratio = bar.split_ratio
    exact = state.shares * ratio
    shares = whole_shares(exact)
    paid = (exact - shares) * bar.open + shares * bar.dividend
    return replace(
        state,
        cash=state.cash + total(paid),
        shares=shares,
        entry_price=state.entry_price / ratio,
        stop=state.stop / ratio,
        target=state.target / ratio,
        pending_shares=whole_shares(state.pending_shares * ratio),
        atr=state.atr / ratio,
    )


def whole_shares(shares: Array) -> Array:
    """Truncate toward zero, forgiving the rounding error of a ratio such as 1/3."""
    return namespace(shares).trunc(shares * (1.0 + 1e-9))


@dataclass(frozen=True, slots=True)
class _Trade:
    shares: Array  # signed
    size: Array  # |shares|
    price: Array
    commission: Array
    slippage: Array
    reason: Array


def _fill_at_open(state: State, bar: Bar, capacity: Array, rules: Rules) -> tuple[State, _Trade]:
    xp = namespace(state.cash)
    held = state.shares
    possible = xp.minimum(xp.maximum(state.pending_shares, -capacity), capacity)
    reduction = xp.maximum(xp.minimum(possible, xp.maximum(-held, 0.0)), xp.minimum(-held, 0.0))
    asked = possible - reduction
    increase = _affordable(state, bar, reduction, asked, rules)
    shares = reduction + increase
    size = xp.abs(shares)
    price = costs.fill_price(bar.open, xp.sign(shares), rules)
    commission = costs.commission(size, price, rules)
    after = held + shares
    grown = xp.abs(increase)
    kept = xp.abs(held + reduction)
    count = kept + grown
    entry = (state.entry_price * kept + price * grown) / xp.where(count > 0.0, count, 1.0)
    stop, target = _exit_prices(state, entry, after, grown > 0.0, rules)
    filled = replace(
        state,
        cash=state.cash - total(shares * price + commission),
        shares=after,
        entry_price=entry,
        stop=stop,
        target=target,
        # What the volume cap left stays; what buying power refused is cancelled.
        pending_shares=state.pending_shares - possible,
    )
    slippage = size * xp.abs(price - bar.open)
    return filled, _Trade(shares, size, price, commission, slippage, xp.zeros_like(shares))


def _affordable(state: State, bar: Bar, reduction: Array, asked: Array, rules: Rules) -> Array:
    """Scale ``asked`` (n, k) down to what the leverage limit leaves after the reductions.

    The cost of ``scale * asked`` is convex in ``scale`` (a minimum commission, then a rate), so
    the straight line between nothing and all never promises more than there is.
    """
    xp = namespace(state.cash)
    leverage = rules.max_leverage
    sold, bought = xp.abs(reduction), xp.abs(asked)
    sell_price = costs.fill_price(bar.open, xp.sign(reduction), rules)
    buy_price = costs.fill_price(bar.open, xp.sign(asked), rules)
    sell_fee = costs.commission(sold, sell_price, rules)
    buy_fee = costs.commission(sold + bought, buy_price, rules) - costs.commission(
        sold, buy_price, rules
    )
    lost = sold * xp.abs(sell_price - bar.open) + sell_fee
    equity = state.cash + total(state.shares * bar.open - lost)
    room = leverage * equity - total(xp.abs(state.shares + reduction) * bar.open)
    cost = bought * (bar.open + leverage * xp.abs(buy_price - bar.open)) + leverage * buy_fee
    ticket = xp.where((bought > 0.0) & (sold == 0.0), leverage * rules.commission_minimum, 0.0)
    need, least = total(cost), total(ticket)
    variable = need - least
    scale = (room - least) / xp.where(variable > 0.0, variable, 1.0)
    scale = xp.minimum(xp.maximum(scale, 0.0), 1.0)
    return xp.trunc(asked * scale[:, None])


def _exit_prices(
    state: State, entry: Array, shares: Array, grown: Array, rules: Rules
) -> tuple[Array, Array]:
    """Return stop and target (n, k): new where the position grew, NaN where there is none."""
    xp = namespace(state.cash)
    side = xp.sign(shares)
    levels = []
    for old, percent, multiple, sense in (
        (state.stop, rules.stop_loss, rules.stop_loss_atr, -1.0),
        (state.target, rules.take_profit, rules.take_profit_atr, 1.0),
    ):
        if percent is None and multiple is None:
            levels.append(old)
            continue
        distance = _nearer(xp, entry, state.atr, percent, multiple)
        level = xp.where(grown, entry + sense * side * distance, old)
        levels.append(xp.where(shares == 0.0, xp.nan, level))
    return levels[0], levels[1]


def _nearer(xp: Any, entry: Array, atr: Array, percent: Any, multiple: Any) -> Array:
    if multiple is None:
        return entry * percent
    by_atr = atr * multiple
    if percent is None:
        return by_atr
    by_percent = entry * percent
    # An unknown ATR (NaN) compares false and leaves the percentage.
    return xp.where(by_atr < by_percent, by_atr, by_percent)


def _exit_inside(state: State, bar: Bar, capacity: Array, rules: Rules) -> tuple[State, _Trade]:
    xp = namespace(state.cash)
    held = state.shares
    side = xp.sign(held)
    against = xp.where(side > 0.0, bar.low, bar.high)
    favour = xp.where(side > 0.0, bar.high, bar.low)
    alive = (held != 0.0) & (bar.volume > 0.0)
    stop_gap = side * (bar.open - state.stop) <= 0.0
    target_gap = side * (bar.open - state.target) >= 0.0
    stopped = alive & (side * (against - state.stop) <= 0.0) & ~target_gap
    reached = alive & (side * (favour - state.target) >= 0.0) & ~stopped
    leaving = stopped | reached
    size = xp.where(leaving, xp.minimum(xp.abs(held), capacity), 0.0)
    shares = -side * size
    level = xp.where(stopped, state.stop, state.target)
    level = xp.where(leaving & ~(stop_gap | target_gap), level, bar.open)
    price = xp.where(stopped, costs.fill_price(level, -side, rules), level)
    commission = costs.commission(size, price, rules)
    after = held + shares
    flat = after == 0.0
    closed = replace(
        state,
        cash=state.cash - total(shares * price + commission),
        shares=after,
        entry_price=xp.where(flat, 0.0, state.entry_price),
        stop=xp.where(flat, xp.nan, state.stop),
        target=xp.where(flat, xp.nan, state.target),
        # Out means out: what is left leaves at the next opens, and no entry stays in the market.
        pending_shares=xp.where(leaving, -after, state.pending_shares),
        cooldown=xp.where(
            stopped, float(rules.cooldown_bars), xp.maximum(state.cooldown - 1.0, 0.0)
        ),
    )
    reason = xp.where(stopped, STOP_EXIT, xp.where(reached, TARGET_EXIT, NO_EXIT))
    slippage = size * xp.abs(price - level)
    return closed, _Trade(shares, size, price, commission, slippage, reason)


def mark(state: State, bar: Bar, traded: Array, rules: Rules) -> State:
    """Value the accounts at the close and update peak, drawdown state and memory.

    ``traded`` (n, k) says where shares changed hands in this bar. The live gateway calls this
    after booking the broker's fills.
    """
    xp = namespace(state.cash)
    equity = state.cash + total(state.shares * bar.close)
    least = state.opening_equity * 1e-9
    log_return = xp.log(xp.maximum(equity, least) / xp.maximum(state.equity, least))
    block_bars = -(-rules.drawdown_window_bars // PEAK_BLOCKS)
    block_peak = xp.maximum(state.block_peak, equity)
    peak = xp.maximum(xp.max(state.past_peaks, axis=0), block_peak)
    age = state.block_age + 1.0
    full = age >= block_bars
    shifted = xp.concat([block_peak[None, :], state.past_peaks[:-1]], axis=0)
    drawdown = 1.0 - equity / peak
    ruined = state.ruined | (equity <= rules.ruin_fraction * state.opening_equity)
    halted = state.halted | ruined
    if rules.halt_drawdown is not None:
        halted = halted | (drawdown >= rules.halt_drawdown)
    reducing = began = state.reducing
    if rules.reduce_drawdown is not None:
        reducing = drawdown >= rules.reduce_drawdown
        began = reducing & ~state.reducing
    return replace(
        state,
        equity=equity,
        log_return=log_return,
        month_return=state.month_return * (1.0 - 1.0 / MONTH_BARS) + log_return,
        peak=peak,
        block_peak=xp.where(full, 0.0, block_peak),
        past_peaks=xp.where(full, shifted, state.past_peaks),
        block_age=xp.where(full, 0.0, age),
        bars_since_trade=xp.where(traded, 0.0, state.bars_since_trade + 1.0),
        atr=bar.atr + xp.zeros_like(state.shares),
        reducing=reducing,
        began_reducing=began,
        halted=halted,
        ruined=ruined,
    )
