"""Fills: what happens to orders, stops and targets inside one bar.

Owns the two moments at which shares change hands: the open, and the touch of a stop or target.
The rules of the book are stated in ``core/engine.py``. Knows neither targets nor drawdowns.
"""

from typing import Any, NamedTuple

from core.accounts import State
from core.arrays import Array, namespace, put, total, where_true
from core.costs import commission, fill_price
from core.rules import Rules
from core.terms import Terms

NO_EXIT, STOP_EXIT, TARGET_EXIT = 0, 1, 2


class Book(NamedTuple):
    """The part of a state that fills change."""

    cash: Array  # (n, 1)
    shares: Array  # (n, k)
    entry_price: Array  # (n, k)
    stop: Array  # (n, k)
    target: Array  # (n, k)
    pending_shares: Array  # (n, k)
    entry_from: Array  # (n, k)


class Opening(NamedTuple):
    """What filled at the open; every array (n, k)."""

    shares: Array  # signed
    size: Array  # |shares|
    price: Array  # slippage included
    commission: Array
    traded: Array  # bool
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
    """Fill what is pending at the open, as far as volume and buying power allow."""
    xp = namespace(state.cash)
    held, cash, pending = state.shares, state.cash[:, None], state.pending_shares
    # What the volume cap leaves stays pending; what buying power refuses is cancelled.
    possible = xp.minimum(xp.maximum(pending, -terms.capacity), terms.capacity)
    if rules.allow_short:
        filled, grown = _within_means_both_ways(xp, cash, held, possible, terms, rules)
    else:
        filled = _within_means(xp, cash, held, possible, terms, rules)
        grown = xp.maximum(filled, 0.0)
    shares = held + filled
    price = xp.where(filled > 0.0, terms.buy_price, terms.sell_price)
    size = xp.abs(filled)
    traded = size > 0.0
    fee = commission(size, price, rules)
    # The average price: the old one moves towards this fill by the part of the shares it brings.
    fresh = grown / xp.maximum(xp.abs(shares) if rules.allow_short else shares, 1.0)
    entry = state.entry_price + (price - state.entry_price) * fresh
    stop, target = _exit_prices(xp, state, entry, shares, grown > 0.0, rules)
    closed = where_true(traded & (shares == 0.0))
    if len(closed):
        entry, stop, target = _flattened(xp, closed, entry, stop, target)
    book = Book(
        cash=cash - total(filled * price + fee),
        shares=shares,
        entry_price=entry,
        stop=stop,
        target=target,
        pending_shares=pending - possible,
        entry_from=state.entry_from,
    )
    return book, Opening(filled, size, price, fee, traded, terms.open)


def exit_inside(
    book: Book, opening: Opening, clock: int, terms: Terms, rules: Rules
) -> tuple[Book, Exits]:
    """Close what a stop or target of ``book`` touches in the bar; ``clock`` is the bar's start."""
    xp = namespace(book.cash)
    if rules.allow_short:
        long = book.shares > 0.0
        against, favour = (
            xp.where(long, terms.low, terms.high),
            xp.where(long, terms.high, terms.low),
        )
        side = xp.sign(book.shares)
        touched = (side * (against - book.stop) <= 0.0) | (side * (favour - book.target) >= 0.0)
    else:
        touched = (terms.low <= book.stop) | (terms.high >= book.target)
    at = where_true(touched & (terms.capacity > 0.0))
    if len(at) == 0:
        none = book.shares.reshape(-1)[at]
        return book, Exits(at, none, none, none, none, none > 0.0)

    def pick(array: Array) -> Array:
        return array.reshape(-1)[at]

    few = rules.at(at, book.shares.shape)
    held, open_, stop, target = map(pick, (book.shares, terms.open, book.stop, book.target))
    side = xp.sign(held)
    against = xp.where(side > 0.0, pick(terms.low), pick(terms.high))
    # Which of two touches came first nobody knows: assume the worse, unless the open tells.
    opens_beyond_target = side * (open_ - target) >= 0.0
    stopped = (side * (against - stop) <= 0.0) & ~opens_beyond_target
    gap = opens_beyond_target | (side * (open_ - stop) <= 0.0)
    level = xp.where(gap, open_, xp.where(stopped, stop, target))
    price = xp.where(stopped, fill_price(level, -side, few), level)
    size = xp.minimum(xp.abs(held), pick(terms.capacity) - pick(opening.size))
    sold = -side * size
    fee = commission(size, price, few)
    left = held + sold
    proceeds = put(xp.zeros_like(book.shares), at, -sold * price - fee)
    gone = at[left == 0.0]
    entry, stops, targets = _flattened(xp, gone, book.entry_price, book.stop, book.target)
    cooling = at[stopped]
    closed = Book(
        cash=book.cash + total(proceeds),
        shares=put(book.shares, at, left),
        entry_price=entry,
        stop=stops,
        target=targets,
        # Out means out: what is left leaves at the next opens, and no entry stays in the market.
        pending_shares=put(book.pending_shares, at, -left),
        entry_from=put(book.entry_from, cooling, float(clock + 1 + rules.cooldown_bars)),
    )
    return closed, Exits(at, sold, price, level, fee, stopped)


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
    return xp.minimum(orders, xp.maximum(most, 0.0))


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
    price = xp.where(shrinking > 0.0, terms.buy_price, terms.sell_price)
    lost = sold * xp.abs(price - terms.open) + commission(sold, price, rules)
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


def _exit_prices(
    xp: Any, state: State, entry: Array, shares: Array, grown: Array, rules: Rules
) -> tuple[Array, Array]:
    """Return stop and target (n, k), set anew from the average entry where a position grew."""
    below = _distance(xp, entry, state.atr, rules.stop_loss, rules.stop_loss_atr)
    above = _distance(xp, entry, state.atr, rules.take_profit, rules.take_profit_atr)
    if rules.allow_short:
        side = xp.where(shares < 0.0, -1.0, 1.0)
        below = None if below is None else side * below
        above = None if above is None else side * above
    stop = state.stop if below is None else xp.where(grown, entry - below, state.stop)
    target = state.target if above is None else xp.where(grown, entry + above, state.target)
    return stop, target


def _distance(xp: Any, entry: Array, atr: Array, percent: Any, multiple: Any) -> Array | None:
    """Return the nearer of a fraction of the entry price and a multiple of ATR (n, k)."""
    if percent is None:
        return None if multiple is None else atr * multiple
    by_percent = entry * percent
    return by_percent if multiple is None else xp.minimum(by_percent, atr * multiple)


def _flattened(
    xp: Any, positions: Array, entry: Array, stop: Array, target: Array
) -> tuple[Array, Array, Array]:
    return put(entry, positions, 0.0), put(stop, positions, xp.nan), put(target, positions, xp.nan)
