"""Fills: what happens to orders, stops and targets inside one bar.

Owns the two moments at which shares change hands: the open, and the touch of a stop or target.
The rules of the book are stated in ``core/engine.py``. Knows neither targets nor drawdowns.
"""

from typing import Any, NamedTuple

from core.accounts import State
from core.arrays import Array, at_least, at_most, namespace, put, total, where_true
from core.costs import commission, slippage
from core.rules import Rules
from core.terms import Terms

NO_EXIT, STOP_EXIT, TARGET_EXIT = 0, 1, 2


class Book(NamedTuple):
    """The part of a state that fills change."""

    cash: Array  # (n, 1)
    shares: Array  # (n, k)
    average_price: Array  # (n, k)
    stop_gap: Array  # (n, k)
    target_gap: Array  # (n, k)
    pending_shares: Array  # (n, k)
    last_trade: Array  # (n, k)
    entry_from: Array  # (n, k)


class Opening(NamedTuple):
    """What filled at the open; every array (n, k)."""

    shares: Array  # signed
    size: Array  # |shares|
    price: Array  # slippage included
    commission: Array
    open: Array  # the price before slippage


class Exits(NamedTuple):
    """What left by a stop or target; arrays (m,), one per exit."""

    positions: Array  # flat positions among accounts × symbols
    shares: Array  # signed
    price: Array  # slippage included
    level: Array  # the price before slippage
    commission: Array
    stopped: Array  # bool: by the stop, else by the target


class Fills(NamedTuple):
    """What traded in one bar; every property is an array (n, k), made when asked for."""

    opening: Opening
    exits: Exits

    @property
    def open_shares(self) -> Array:
        """Signed whole shares filled at the open."""
        return self.opening.shares

    @property
    def open_price(self) -> Array:
        """Price of the fill at the open, slippage included."""
        return self.opening.price

    @property
    def exit_shares(self) -> Array:
        """Signed whole shares filled by a stop or target."""
        return self._spread(self.exits.shares)

    @property
    def exit_price(self) -> Array:
        """Price of that fill, slippage included; 0 where there was none."""
        return self._spread(self.exits.price)

    @property
    def exit_reason(self) -> Array:
        """NO_EXIT, STOP_EXIT or TARGET_EXIT."""
        xp = namespace(self.opening.shares)
        return self._spread(xp.where(self.exits.stopped, float(STOP_EXIT), float(TARGET_EXIT)))

    @property
    def commission(self) -> Array:
        """Commission of both, account currency."""
        return self.opening.commission + self._spread(self.exits.commission)

    @property
    def slippage(self) -> Array:
        """What slippage cost in both, account currency; it is inside the prices."""
        xp = namespace(self.opening.shares)
        opening, exits = self.opening, self.exits
        at_open = opening.size * xp.abs(opening.price - opening.open)
        return at_open + self._spread(xp.abs(exits.shares) * xp.abs(exits.price - exits.level))

    def _spread(self, values: Array) -> Array:
        xp = namespace(self.opening.shares)
        return put(xp.zeros_like(self.opening.shares), self.exits.positions, values)


def fill_at_open(state: State, terms: Terms, rules: Rules) -> tuple[Book, Opening]:
    """Pay dividends, then fill what is pending, as far as volume and buying power allow."""
    xp = namespace(state.cash)
    held, cash, pending = state.shares, state.cash[:, None], state.pending_shares
    if terms.has_dividend:
        cash = cash + total(held * terms.dividend)  # a short pays it
    # What the volume cap leaves stays pending; what buying power refuses is cancelled.
    possible = xp.minimum(xp.maximum(pending, -terms.capacity), terms.capacity)
    if rules.allow_short:
        filled, grown = _within_means_both_ways(xp, cash, held, possible, terms, rules)
    else:
        filled = _within_means(xp, cash, held, possible, terms, rules)
        grown = at_least(filled, 0.0)
    shares = held + filled
    size = xp.abs(filled)
    price = terms.open + xp.copysign(terms.slippage, filled)
    fee = commission(size, price, rules)
    # Average price and gaps move towards those of this fill by the part of the shares it brings.
    fresh = grown / at_least(xp.abs(shares) if rules.allow_short else shares, 1.0)
    stale = 1.0 - fresh
    stop_gap, target_gap = state.stop_gap, state.target_gap
    gap = _gap(xp, price, state.atr, rules.stop_loss, rules.stop_loss_atr)
    if gap is not None:
        stop_gap = stop_gap * stale + gap * fresh
    gap = _gap(xp, price, state.atr, rules.take_profit, rules.take_profit_atr)
    if gap is not None:
        target_gap = target_gap * stale + gap * fresh
    book = Book(
        cash=cash - total(filled * price + fee),
        shares=shares,
        average_price=state.average_price * stale + price * fresh,
        stop_gap=stop_gap,
        target_gap=target_gap,
        pending_shares=pending - possible,
        # The clock is beyond every earlier trade: the larger is the newer.
        last_trade=xp.maximum(state.last_trade, at_most(size, 1.0) * (state.clock + 1.0)),
        entry_from=state.entry_from,
    )
    return book, Opening(filled, size, price, fee, terms.open)


def exit_inside(
    book: Book, opening: Opening, clock: int, terms: Terms, rules: Rules
) -> tuple[Book, Exits]:
    """Close what a stop or target of ``book`` touches in the bar, which ends at ``clock``."""
    xp = namespace(book.cash)
    at = where_true(_touched(xp, book, terms, rules))
    if len(at) == 0:
        none = book.shares.reshape(-1)[at]
        return book, Exits(at, none, none, none, none, none > 0.0)
    few = rules.at(at, book.shares.shape)
    held, open_, average, stop_gap, target_gap, capacity = _picked(
        at,
        book.shares,
        terms.open,
        book.average_price,
        book.stop_gap,
        book.target_gap,
        terms.capacity - opening.size,
    )
    if rules.allow_short:
        # A short is a long in a mirror: with the sign of prices turned, its stop is below too.
        side = xp.sign(held)
        start, average = side * open_, side * average
        low, high = _picked(at, terms.low, terms.high)
        worst = xp.minimum(side * low, side * high)
    else:
        side, start = 1.0, open_
        (worst,) = _picked(at, terms.low)
    stop, target = average - stop_gap, average + target_gap
    # Which of two touches came first nobody knows: the stop, unless the open tells.
    if not rules.has_stop:
        stopped = xp.zeros_like(held, dtype=xp.bool)
    elif rules.has_target:
        stopped = (worst <= stop) & (start < target)
    else:
        stopped = worst <= stop
    level = xp.where(stopped, xp.minimum(start, stop), xp.maximum(start, target))
    # A stop is a market order, a target a limit order, which pays no slippage.
    price = xp.where(stopped, level - slippage(side * level, few), level)
    if rules.allow_short:
        level, price = side * level, side * price
    size = xp.minimum(xp.abs(held), capacity)
    fee = commission(size, price, few)
    sold = -side * size
    left = held + sold
    closed = Book(
        cash=_paid_in(xp, book, at, -sold * price - fee),
        shares=put(book.shares, at, left),
        average_price=book.average_price,
        stop_gap=book.stop_gap,
        target_gap=book.target_gap,
        # Out means out: what is left leaves at the next opens, and no entry stays in the market.
        pending_shares=put(book.pending_shares, at, -left),
        last_trade=put(book.last_trade, at[size > 0.0], float(clock)),
        entry_from=put(book.entry_from, at[stopped], float(clock + rules.cooldown_bars)),
    )
    return closed, Exits(at, sold, price, level, fee, stopped)


def _touched(xp: Any, book: Book, terms: Terms, rules: Rules) -> Array:
    """Say which positions (n, k) meet their stop or target between low and high."""
    below, above = book.stop_gap, book.target_gap
    touched = None
    if rules.allow_short:
        long = book.shares > 0.0
        side = xp.sign(book.shares)
        if rules.has_stop:
            stop = book.average_price - side * below
            touched = xp.where(long, terms.low <= stop, terms.high >= stop)
        if rules.has_target:
            target = book.average_price + side * above
            reached = xp.where(long, terms.high >= target, terms.low <= target)
            touched = reached if touched is None else touched | reached
        alive = xp.abs(book.shares)
    else:
        if rules.has_stop:
            touched = terms.low <= book.average_price - below
        if rules.has_target:
            reached = terms.high >= book.average_price + above
            touched = reached if touched is None else touched | reached
        alive = book.shares
    if touched is None:
        return xp.zeros_like(book.shares, dtype=xp.bool)
    # A bar in which nothing can trade touches nothing.
    return touched & (xp.minimum(alive, terms.capacity) > 0.0)


def _picked(at: Array, *arrays: Array) -> list[Array]:
    return [array.reshape(-1)[at] for array in arrays]


def _paid_in(xp: Any, book: Book, at: Array, proceeds: Array) -> Array:
    """Return cash (n, 1) with the ``proceeds`` (m,) of flat positions ``at``."""
    if book.shares.shape[1] == 1:
        return put(book.cash, at, book.cash.reshape(-1)[at] + proceeds)
    return book.cash + total(put(xp.zeros_like(book.shares), at, proceeds))


def whole_shares(shares: Array) -> Array:
    """Truncate toward zero, forgiving the rounding error of a ratio such as 1/3."""
    return namespace(shares).trunc(shares * (1.0 + 1e-9))


def _within_means(
    xp: Any, cash: Array, held: Array, orders: Array, terms: Terms, rules: Rules
) -> Array:
    """Return the part of ``orders`` (n, k) that long-only accounts can pay for."""
    if orders.shape[1] > 1:
        return _within_means_both_ways(xp, cash, held, orders, terms, rules)[0]
    leverage = rules.max_leverage
    room = cash
    if not (rules.are_plain and leverage == 1.0):
        value = held * terms.open
        room = leverage * (cash + value) - value
    # Priced as if the minimum and the rate were both due: at worst one share too few.
    most = xp.floor((room - leverage * rules.commission_minimum) / terms.entry_need)
    return xp.minimum(orders, at_least(most, 0.0))


def _within_means_both_ways(
    xp: Any, cash: Array, held: Array, orders: Array, terms: Terms, rules: Rules
) -> tuple[Array, Array]:
    """Return what fills of ``orders`` (n, k), and the size of the part that grows a position.

    What shrinks a position fills in full, and first. What grows one shares the buying power
    that is then left in proportion to its need.
    """
    leverage = rules.max_leverage
    shrinking = xp.maximum(xp.minimum(orders, xp.maximum(-held, 0.0)), xp.minimum(-held, 0.0))
    growing = orders - shrinking
    sold, wanted = xp.abs(shrinking), xp.abs(growing)
    price = terms.open + xp.copysign(terms.slippage, shrinking)
    lost = sold * terms.slippage + commission(sold, price, rules)
    equity = cash + total(held * terms.open - lost)
    room = leverage * equity - total(xp.abs(held + shrinking) * terms.open)
    tickets = total(xp.where(wanted > 0.0, leverage * rules.commission_minimum, 0.0))
    room = xp.maximum(room - tickets, 0.0)
    if orders.shape[1] == 1:
        grown = xp.minimum(wanted, xp.floor(room / terms.entry_need))
    else:
        need = total(wanted * terms.entry_need)
        scale = xp.where(need > room, room / xp.where(need > 0.0, need, 1.0), 1.0)
        grown = xp.floor(wanted * scale)
    return shrinking + xp.sign(growing) * grown, grown


def _gap(xp: Any, price: Array, atr: Array, percent: Any, multiple: Any) -> Array | None:
    """Return the nearer of a fraction of the price and a multiple of ATR (n, k); None: no rule."""
    if percent is None:
        return None if multiple is None else atr * multiple
    by_percent = price * percent
    return by_percent if multiple is None else xp.minimum(by_percent, atr * multiple)
