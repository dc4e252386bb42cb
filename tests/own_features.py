"""A user's own features: an honest one, and each way of knowing the future."""

import numpy as np

from features.adjust import Array
from features.indicators import Prices


def honest(prices: Prices) -> Array:
    """Close against the open five bars ago."""
    before = np.full_like(prices.open, np.nan)
    before[5:] = prices.open[:-5]
    return prices.close / before - 1.0


def tomorrow(prices: Prices) -> Array:
    after = np.zeros_like(prices.close)
    after[:-1] = prices.returns[1:]
    return after


def centred(prices: Prices) -> Array:
    """Mean return of a window that ends two bars later."""
    padded = np.concatenate([np.nan_to_num(prices.returns), np.zeros(2)])
    return np.convolve(padded, np.ones(5) / 5.0)[2 : 2 + len(prices)]


def filled_from_the_future(prices: Prices) -> Array:
    """Weekly return, known on Friday, written on every day of its week."""
    weekly = np.arange(len(prices)) // 5
    last = np.minimum(weekly * 5 + 4, len(prices) - 1)
    return np.asarray(prices.close[last] / prices.close[weekly * 5] - 1.0)


def too_short(prices: Prices) -> Array:
    return prices.close[1:]


def tomorrows_body(prices: Prices) -> Array:
    """Close against open of the next bar: the same in any market that is only higher."""
    after = np.zeros_like(prices.close)
    after[:-1] = np.round(prices.close / prices.open, 6)[1:]
    return after


def how_long_it_lasts(prices: Prices) -> Array:
    """Bars until the last one: says of what survives how long it will."""
    return np.arange(len(prices), 0.0, -1.0)


def by_chance(prices: Prices) -> Array:
    """Another number each time."""
    return np.random.default_rng().normal(size=len(prices))
