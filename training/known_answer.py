"""A market with a known answer: the proof that the learners learn.

A signal follows an autoregression, the next return is a multiple of it plus noise, and every
trade costs. The best policy is known from dynamic programming: enter above one level, leave below
another. Expressed as a dataset and rules, so that the very engine is used. Knows no learner.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from core.bars import Market
from core.risk import Rules
from core.settings import Account, Costs, RiskLimits
from features.dataset import Dataset
from features.spec import FeatureSpec

SYMBOL = "KNOWN"
CASH = 1e9  # account currency: so much that whole shares do not matter
DISTRACTIONS = 3  # columns of noise beside the signal
GRID = 241  # points of the dynamic programme
WIDTH = 5.0  # of the grid, in deviations of the signal


@dataclass(frozen=True, slots=True)
class KnownMarket:
    """Next log return = ``strength`` × signal + ``noise`` × ε; the signal has deviation 1."""

    persistence: float = 0.9  # of the signal, per bar
    strength: float = 0.004  # log return per unit of signal
    noise: float = 0.008  # standard deviation of the log return
    cost: float = 0.002  # fraction of the value, per trade


@dataclass(frozen=True, slots=True)
class Answer:
    """The best long-or-flat policy."""

    per_bar: float  # its mean log return
    enter: float  # go long, if flat, where the signal is above this
    leave: float  # go flat, if long, where the signal is below this

    def weight(self, signal: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Return the best target weight (n,) given the signal and whether shares are held."""
        return np.where(signal > np.where(held, self.leave, self.enter), 1.0, 0.0)


def known_answer(market: KnownMarket) -> Answer:
    """Solve for the largest mean log return by relative value iteration.

    The state is (signal, held or not), the action long or flat; Puterman (1994), §8.5.
    """
    signal = np.linspace(-WIDTH, WIDTH, GRID)
    edges = np.concatenate([[-np.inf], (signal[1:] + signal[:-1]) / 2.0, [np.inf]])
    spread = np.sqrt(1.0 - market.persistence**2)
    moves = np.diff(ndtr((edges - market.persistence * signal[:, None]) / spread), axis=1)
    buying, selling = np.log1p(market.cost), -np.log1p(-market.cost)
    flat, held = np.zeros(GRID), np.zeros(GRID)  # relative values
    for _ in range(10_000):
        stay_out, be_in = moves @ flat, market.strength * signal + moves @ held
        new_flat = np.maximum(stay_out, be_in - buying)
        new_held = np.maximum(stay_out - selling, be_in)
        gain = np.concatenate([new_flat - flat, new_held - held])
        flat, held = new_flat - new_flat[0], new_held - new_flat[0]
        if np.ptp(gain) < 1e-12:
            break
    advantage = be_in - stay_out
    enter = float(np.interp(buying, advantage, signal))
    leave = float(np.interp(-selling, advantage, signal))
    return Answer(per_bar=float(gain.mean()), enter=enter, leave=leave)


def known_dataset(market: KnownMarket, bars: int, rng: np.random.Generator) -> Dataset:
    """Generate ``bars`` rows; the open is the close before, so that a decision costs no gap."""
    signal = np.empty(bars)
    signal[0] = rng.standard_normal()
    shocks = np.sqrt(1.0 - market.persistence**2) * rng.standard_normal(bars)
    for bar in range(1, bars):
        signal[bar] = market.persistence * signal[bar - 1] + shocks[bar]
    returns = market.noise * rng.standard_normal(bars)
    returns[1:] += market.strength * signal[:-1]
    returns[0] = 0.0
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([close[:1], close[:-1]])
    table = np.column_stack([signal, rng.standard_normal((bars, DISTRACTIONS))])
    columns = ("signal", *(f"distraction_{i}" for i in range(DISTRACTIONS)))
    spec = FeatureSpec(columns, "1d", 0, 1, "zscore", 5.0, 0)
    day = np.datetime64("1900-01-01", "D") + np.arange(bars)
    whole = np.ones((bars, 1))
    prices = Market(
        symbols=(SYMBOL,),
        time=day.astype("datetime64[ns]"),
        open=opened[:, None],
        high=np.maximum(opened, close)[:, None],
        low=np.minimum(opened, close)[:, None],
        close=close[:, None],
        volume=1e15 * whole,
        dividend=0.0 * whole,
        split_ratio=whole,
        atr=market.noise * close[:, None],
        volatility=market.noise * np.sqrt(252.0) * whole,
    )
    return Dataset.of(SYMBOL, SYMBOL, prices, table, spec)


def known_rules(market: KnownMarket) -> Rules:
    """Return rules whose only cost is ``market.cost``, and that never interfere."""
    return Rules.of(
        Account(cash=CASH, fraction=1.0),
        Costs(
            commission_per_share=0.0,
            commission_minimum=0.0,
            slippage_bps=market.cost * 1e4,
            volume_participation=1.0,
        ),
        RiskLimits(reduce_drawdown=None, halt_drawdown=None),
    )
