"""Costs: what a fill pays for commission and slippage, and how much of a bar it may take.

The one fee rule of training, backtest, shadow and paper. Knows nothing of accounts.
"""

from core.arrays import Array, namespace
from core.risk import Rules


def commission(shares: Array, price: Array, rules: Rules) -> Array:
    """Return the commission (n, k) of orders that traded ``shares`` ≥ 0 at ``price``.

    The larger of the minimum and the per-share rate, plus basis points of the value; an order
    that traded nothing pays nothing.
    """
    xp = namespace(shares)
    ticket = xp.maximum(shares * rules.commission_per_share, rules.commission_minimum)
    return xp.where(shares > 0.0, ticket, 0.0) + shares * price * rules.commission_rate


def fill_price(price: Array, side: Array, rules: Rules) -> Array:
    """Return ``price`` moved against the trader; ``side`` is +1 buying, −1 selling, 0 neither."""
    return price * (1.0 + side * rules.slippage_rate)


def capacity(volume: Array, rules: Rules) -> Array:
    """Return the whole shares that one order may trade in a bar of ``volume`` shares."""
    return namespace(volume).floor(volume * rules.volume_participation)
