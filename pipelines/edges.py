"""Planted edges: made-up markets in which a rule is known to earn a stated Sharpe ratio.

Owns how the kinds are made, their rules, and how strong an edge must be to earn what is stated.
Knows no pipeline.

    trending   ``sources.planted``: a hidden drift lasts twenty days on average; the rule follows
               a short average. The moving-average crossover, a baseline of the gate, earns most
               of the same edge: it is there to show that the gate knows a baseline again
    swinging   the same with a drift that lasts six days on average, for which that crossover is
               mostly too slow
    reverting  the price strays from a random walk and comes back, half of the way each day; the
               rule buys below a short average. No baseline of the gate earns any of it
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from registry.significance import sharpe_ratio
from sources import planted

EdgeKind = Literal["trending", "swinging", "reverting"]

SESSIONS = 2_772  # eleven years: one for the features to warm up, ten to learn from and judge on
TEN_YEARS = 2_520  # of them
SHARPES = (
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
)  # net, of the rule, over the ten years; chance alone makes some 0.5
SLIPPAGE = 2e-4  # of the value traded: costs.slippage_bps of params.yaml; commissions are smaller
RETURN = 0.5  # share of the distance to the random walk that a day takes back
FAST = 5  # sessions of the reverting rule's exponential average
SWING_TURNS = 1 / 6  # probability per session


@dataclass(frozen=True, slots=True)
class Edge:
    """One kind of planted edge."""

    bars: Callable[[int, int, float], pd.DataFrame]  # seed, sessions, strength
    rule: Callable[[np.ndarray], np.ndarray]  # closes (T,) -> position (T,), 1 or 0
    most: float  # strength beyond any of interest
    owned: bool = False  # a baseline of the gate earns most of it


def reverting_bars(seed: int, sessions: int, strength: float) -> pd.DataFrame:
    """Generate a market that strays by ``strength`` a day, as a log return, and comes back."""
    rng = np.random.default_rng(seed)
    strays = lfilter([1.0], [1.0, RETURN - 1.0], strength * rng.standard_normal(sessions))
    return planted.made_bars(planted.GROWTH + np.diff(strays, prepend=0.0), rng)


def swinging_bars(seed: int, sessions: int, strength: float) -> pd.DataFrame:
    """Generate a market whose hidden drift turns about once a week."""
    return planted.planted_bars(seed, sessions, strength, SWING_TURNS)


def below_average(close: np.ndarray) -> np.ndarray:
    """Return the reverting rule's position (T,), 1 below the average of FAST sessions, else 0."""
    smooth = 2.0 / (FAST + 1)
    price = np.log(close / close[0])
    average = lfilter([smooth], [1.0, smooth - 1.0], price)
    return np.where(price < average, 1.0, 0.0)


EDGES: Mapping[EdgeKind, Edge] = MappingProxyType(
    {
        "trending": Edge(planted.planted_bars, planted.rule, 0.02, owned=True),
        "swinging": Edge(swinging_bars, planted.rule, 0.04),
        "reverting": Edge(reverting_bars, below_average, 0.08),
    }
)


def market(kind: EdgeKind, seed: int, sharpe: float) -> pd.DataFrame:
    """Return a market of a kind in which the rule earns ``sharpe`` over its ten years.

    Strength is found by bisection, chance held: the market is a function of the arguments alone.
    """
    edge, low, high = EDGES[kind], 0.0, EDGES[kind].most
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        earned = net_sharpe(edge.bars(seed, SESSIONS, middle), edge.rule)
        low, high = (middle, high) if earned < sharpe else (low, middle)
    return edge.bars(seed, SESSIONS, high)


def net_sharpe(bars: pd.DataFrame, rule: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the annual Sharpe ratio a rule earns over the ten years after SLIPPAGE."""
    opened = bars["open"].to_numpy()
    position = rule(bars["close"].to_numpy())[:-2]  # decided at a close, held from the next open on
    traded = np.abs(np.diff(position, prepend=0.0))
    returns = position * (opened[2:] / opened[1:-1] - 1.0) - SLIPPAGE * traded
    return float(sharpe_ratio(returns[-TEN_YEARS:])) * float(np.sqrt(252.0))
