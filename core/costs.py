"""Costs: what a fill pays for commission and slippage, and how much of a bar it may take.

The one fee rule of training, backtest, shadow and paper. Knows nothing of accounts.
"""

from core.arrays import Array, at_most, namespace
from core.rules import Rules


def commission(shares: Array, price: Array, rules: Rules) -> Array:
    """Return the commission of orders that traded ``shares`` at ``price``; whole shares ≥ 0.

    The larger of the minimum and the per-share rate, plus basis points of the value; an order
    that traded nothing pays nothing.
    """
    xp = namespace(shares)
    # 0 or 1 order: min(shares, 1). No `where`: guessing its branches costs more than arithmetic.
    least = at_most(shares, 1.0) * rules.commission_minimum
    fee = xp.maximum(shares * rules.commission_per_share, least)
    if rules.commission_rate is None:
        return fee
    return fee + shares * price * rules.commission_rate


def slippage(price: Array, rules: Rules) -> Array:
    """Return by how much a fill at ``price`` moves against the trader, price units."""
    return price * rules.slippage_rate


def entry_need(price: Array, rules: Rules) -> Array:
    """Return the buying power that one more share takes at an open of ``price``.

    Its value, and ``max_leverage`` times what it costs: costs shrink the equity that backs the
    whole position. The minimum commission comes on top, once per order.
    """
    rate = 0.0 if rules.commission_rate is None else rules.commission_rate
    lost = rules.slippage_rate + (1.0 + rules.slippage_rate) * rate
    return price * (1.0 + rules.max_leverage * lost) + (
        rules.max_leverage * rules.commission_per_share
    )


def capacity(volume: Array, rules: Rules) -> Array:
    """Return the whole shares that one account may trade in a bar of ``volume`` shares."""
    return namespace(volume).floor(volume * rules.volume_participation)
