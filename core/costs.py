"""Costs: what a fill pays for commission and slippage, and how much of a bar it may take.

The one fee rule of training, backtest, shadow and paper. Knows nothing of accounts.
"""

from core.arrays import Array, elementwise, floor, maximum, minimum
from core.rules import Numbers


@elementwise
def commission(shares: Array, price: Array, rules: Numbers) -> Array:
    """Return the commission of orders that traded ``shares`` at ``price``; whole shares ≥ 0.

    The larger of the minimum and the per-share rate, plus basis points of the value; an order
    that traded nothing pays nothing.
    """
    orders = minimum(shares, 1.0)  # 0 or 1
    fee = maximum(shares * rules.commission_per_share, orders * rules.commission_minimum)
    return fee + shares * price * rules.commission_rate


@elementwise
def slippage(price: Array, rules: Numbers) -> Array:
    """Return by how much a fill at ``price`` moves against the trader, price units."""
    return price * rules.slippage_rate


@elementwise
def entry_need(price: Array, rules: Numbers) -> Array:
    """Return the buying power that one more share takes at an open of ``price``.

    Its value, and ``max_leverage`` times what it costs: costs shrink the equity that backs the
    whole position. The minimum commission comes on top, once per order.
    """
    lost = rules.slippage_rate + (1.0 + rules.slippage_rate) * rules.commission_rate
    return price * (1.0 + rules.max_leverage * lost) + (
        rules.max_leverage * rules.commission_per_share
    )


@elementwise
def capacity(volume: Array, rules: Numbers) -> Array:
    """Return the whole shares that one account may trade in a bar of ``volume`` shares."""
    return floor(volume * rules.volume_participation)
