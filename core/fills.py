"""Fills: what happens to orders, stops and targets inside one bar.

Owns the two moments at which shares change hands: the open, and the touch of a stop or target.
The rules of the book are stated in ``core/engine.py``. Knows neither targets nor drawdowns.
"""

from typing import Any, NamedTuple

from core.accounts import Holding
from core.arrays import (
    Array,
    copysign,
    elementwise,
    floor,
    magnitude,
    maximum,
    minimum,
    sign,
    total,
    trunc,
    where,
)
from core.costs import commission, slippage
from core.rules import OFF, Numbers
from core.terms import Terms

NO_EXIT, STOP_EXIT, TARGET_EXIT = 0, 1, 2


class Trade(NamedTuple):
    """What the open traded; every number but the price 0 where nothing did."""

    shares: Array  # signed
    price: Array  # slippage included
    commission: Array  # account currency
    slippage: Array  # account currency; it is inside the price


class Exit(NamedTuple):
    """What a stop or target traded; every number 0 where neither was touched."""

    shares: Array  # signed; 0 too where the open has used up the volume
    price: Array
    commission: Array
    slippage: Array
    reason: Array  # NO_EXIT, STOP_EXIT or TARGET_EXIT


EXITS = len(Trade._fields)  # where they begin in the numbers of ``Fills``
FILLED = EXITS + len(Exit._fields)


class _OfFills:
    """One number of ``Fills`` as an array (n, k)."""

    def __init__(self, of: type[Trade] | type[Exit], name: str) -> None:
        self._at = of._fields.index(name) + (EXITS if of is Exit else 0)

    def __get__(self, fills: Any, owner: Any = None) -> Array:
        return fills.block[:, :, self._at]


class _Filled(NamedTuple):
    block: Array  # float64 (n, k, FILLED): Trade, Exit


class Fills(_Filled):
    """What traded in one bar; every property is an array (n, k)."""

    __slots__ = ()

    open_shares = _OfFills(Trade, "shares")  # signed whole shares filled at the open
    open_price = _OfFills(Trade, "price")  # of that fill, slippage included
    open_commission = _OfFills(Trade, "commission")
    open_slippage = _OfFills(Trade, "slippage")
    exit_shares = _OfFills(Exit, "shares")  # signed whole shares filled by a stop or target
    exit_price = _OfFills(Exit, "price")  # of that fill, slippage included; 0 where there was none
    exit_commission = _OfFills(Exit, "commission")
    exit_slippage = _OfFills(Exit, "slippage")
    exit_reason = _OfFills(Exit, "reason")  # NO_EXIT, STOP_EXIT or TARGET_EXIT

    @property
    def commission(self) -> Array:
        """Commission of both, account currency."""
        return self.open_commission + self.exit_commission

    @property
    def slippage(self) -> Array:
        """What slippage cost in both, account currency; it is inside the prices."""
        return self.open_slippage + self.exit_slippage


@elementwise
def split(cash: Array, held: Holding, open_: Array, ratio: Array) -> tuple[Array, Holding]:
    """Apply a split to shares, prices and orders; pay fractions of shares at the open."""
    exact = held.shares * ratio
    shares = where(ratio != 1.0, whole_shares(exact), exact)
    pending = held.pending_shares * ratio
    return cash + total((exact - shares) * open_), Holding(
        shares=shares,
        average_price=held.average_price / ratio,
        stop_gap=held.stop_gap / ratio,
        target_gap=held.target_gap / ratio,
        pending_shares=where(ratio != 1.0, whole_shares(pending), pending),
        last_trade=held.last_trade,
        entry_from=held.entry_from,
        atr=held.atr / ratio,
    )


@elementwise
def whole_shares(shares: Array) -> Array:
    """Truncate toward zero, forgiving the rounding error of a ratio such as 1/3."""
    return trunc(shares * (1.0 + 1e-9))


@elementwise
def fill_at_open(
    cash: Array, held: Holding, clock: float, terms: Terms, rules: Numbers
) -> tuple[Array, Holding, Trade]:
    """Pay dividends, then fill what is pending, as far as volume and buying power allow.

    The bar ends at ``clock``.
    """
    pending = held.pending_shares
    cash = cash + total(held.shares * terms.dividend)  # a short pays it
    # What the volume cap leaves stays pending; what buying power refuses is cancelled.
    possible = minimum(maximum(pending, -terms.capacity), terms.capacity)
    filled, grown = within_means(cash, held.shares, possible, terms, rules)
    shares, size = held.shares + filled, magnitude(filled)
    price = terms.open + copysign(terms.slippage, filled)
    fee = commission(size, price, rules)
    # Average price and gaps move towards those of this fill by the part of the shares it brings.
    fresh = grown / maximum(magnitude(shares), 1.0)
    stale = 1.0 - fresh
    stop_gap = nearer_gap(price, held.atr, rules.stop_loss, rules.stop_loss_atr)
    target_gap = nearer_gap(price, held.atr, rules.take_profit, rules.take_profit_atr)
    after = Holding(
        shares=shares,
        average_price=held.average_price * stale + price * fresh,
        stop_gap=held.stop_gap * stale + stop_gap * fresh,
        target_gap=held.target_gap * stale + target_gap * fresh,
        pending_shares=pending - possible,
        last_trade=where(size > 0.0, clock, held.last_trade),
        entry_from=held.entry_from,
        atr=held.atr,
    )
    trade = Trade(filled, price, fee, size * magnitude(price - terms.open))
    return cash - total(filled * price + fee), after, trade


@elementwise
def within_means(
    cash: Array, held: Array, orders: Array, terms: Terms, rules: Numbers
) -> tuple[Array, Array]:
    """Return what fills of ``orders``, and the size of the part that grows a position.

    What shrinks a position fills in full, and first. What grows one shares the buying power
    that is then left in proportion to its need: ``max_leverage`` × equity, less the gross value
    kept, written so that at leverage 1, without shorts, it is the cash to the last bit.
    """
    leverage = rules.max_leverage
    shrinking = maximum(minimum(orders, maximum(-held, 0.0)), minimum(-held, 0.0))
    growing = orders - shrinking
    sold, wanted = magnitude(shrinking), magnitude(growing)
    price = terms.open + copysign(terms.slippage, shrinking)
    left = cash - total(shrinking * price + commission(sold, price, rules))
    kept = (held + shrinking) * terms.open
    room = left + (leverage - 1.0) * (left + total(kept)) + total(kept - magnitude(kept))
    # Priced as if the minimum and the rate were both due: at worst one share too few.
    tickets = total(where(wanted > 0.0, leverage * rules.commission_minimum, 0.0))
    room = maximum(room - tickets, 0.0)
    need = wanted * terms.entry_need
    needed = total(need)
    part = need / where(needed > 0.0, needed, 1.0)  # 1 where one symbol alone wants to grow
    grown = minimum(wanted, floor(room * part / terms.entry_need))
    return shrinking + copysign(grown, growing), grown


@elementwise
def nearer_gap(price: Array, atr: Array, percent: Array, multiple: Array) -> Array:
    """Return the nearer of a fraction of the price and a multiple of ATR; 0: both are off."""
    gap = minimum(price * percent, atr * multiple)
    return where(gap < OFF, gap, 0.0)


@elementwise
def exit_inside(
    cash: Array, held: Holding, opening: Trade, clock: float, terms: Terms, rules: Numbers
) -> tuple[Array, Holding, Exit]:
    """Close what a stop or target touches in the bar, which ends at ``clock``."""
    # A short is a long in a mirror: with the sign of prices turned, its stop is below too.
    side = sign(held.shares)
    start, average = side * terms.open, side * held.average_price
    worst = minimum(side * terms.low, side * terms.high)
    best = maximum(side * terms.low, side * terms.high)
    stop, target = average - held.stop_gap, average + held.target_gap
    stops = (held.stop_gap > 0.0) & (worst <= stop)
    profits = (held.target_gap > 0.0) & (best >= target)
    # A bar in which nothing can trade touches nothing.
    touched = (stops | profits) & (minimum(magnitude(held.shares), terms.capacity) > 0.0)
    # Which of two touches came first nobody knows: the stop, unless the open tells.
    stopped = stops & ((start < target) | (held.target_gap <= 0.0))
    level = where(stopped, minimum(start, stop), maximum(start, target))
    # A stop is a market order, a target a limit order, which pays no slippage.
    price = where(stopped, level - slippage(side * level, rules), level)
    level, price = side * level, side * price
    free = terms.capacity - magnitude(opening.shares)
    size = where(touched, minimum(magnitude(held.shares), free), 0.0)
    fee = commission(size, price, rules)
    sold = -side * size
    left = held.shares + sold
    after = Holding(
        shares=left,
        average_price=held.average_price,
        stop_gap=held.stop_gap,
        target_gap=held.target_gap,
        # Out means out: what is left leaves at the next opens, and no entry stays in the market.
        pending_shares=where(touched, -left, held.pending_shares),
        last_trade=where(size > 0.0, clock, held.last_trade),
        entry_from=where(touched & stopped, clock + rules.cooldown_bars, held.entry_from),
        atr=held.atr,
    )
    exits = Exit(
        shares=sold,
        price=where(touched, price, 0.0),
        commission=fee,
        slippage=size * magnitude(price - level),
        reason=where(touched, where(stopped, float(STOP_EXIT), float(TARGET_EXIT)), float(NO_EXIT)),
    )
    return cash + total(-sold * price - fee), after, exits
