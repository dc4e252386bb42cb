"""Stress: the candidate's policy under worse conditions than it will meet, all side by side.

Owns which conditions there are and what they do to the rules. The books are the engine's, one
account per condition. Capital is scaled by what it meets: ten times the capital is a tenth of
every bar's volume, at costs that stay in proportion. Knows no thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.metrics import bar_returns
from core.rules import Rules
from features.dataset import Dataset
from features.scaler import Scaler
from registry.evidence import Stress
from training.splits import Window
from training.trading import Decides, Seat, trade

COST_MULTIPLES = (1, 2, 5)
CAPITAL_MULTIPLES = (1, 10, 100, 1_000, 10_000, 100_000)
KEPT = 0.5  # of the growth: with less of it left, the capital is beyond the capacity


@dataclass(frozen=True, slots=True)
class Condition:
    """What one account meets."""

    costs: int = 1  # multiplies commission and slippage
    capital: int = 1  # multiplies the account's size relative to the market
    late: bool = False  # every decision arrives one bar late


CONDITIONS = (
    *(Condition(costs=n) for n in COST_MULTIPLES),
    *(Condition(capital=n) for n in CAPITAL_MULTIPLES[1:]),
    Condition(late=True),
)


def run(
    policy: Decides, dataset: Dataset, scaler: Scaler, rules: Rules, rows: Window, cash: float
) -> Stress:
    """Return the simple returns (T,) over ``rows``, as ``backtest.run`` has them, by condition.

    A late account acts on what its policy decided one bar before, on what it saw then.
    """
    late = np.array([[condition.late] for condition in CONDITIONS])
    seats = [Seat(policy, dataset, scaler, rows.start)] * len(CONDITIONS)
    equity = [np.full(len(CONDITIONS), cash)]
    for bar in trade(seats, len(rows), _worse(rules), cash, late):
        equity.append(bar.state.equity)
    returns = dict(zip(CONDITIONS, bar_returns(np.stack(equity)).T, strict=True))
    capital = {n: returns[Condition(capital=n)] for n in CAPITAL_MULTIPLES}
    return Stress(
        costs={n: returns[Condition(costs=n)] for n in COST_MULTIPLES},
        delayed=returns[Condition(late=True)],
        capital=capital,
        capacity=capacity({n: float(np.log1p(r).sum()) for n, r in capital.items()}),
    )


def capacity(growth: Mapping[int, float]) -> float:
    """Return at which multiple of the capital half of the growth is left; 0 without any.

    ``growth``: log growth by multiple, from 1 upwards. Between two of them by the logarithm of
    the capital; at most the largest.
    """
    sizes, grown = list(growth), np.array(list(growth.values()))
    if grown[0] <= 0.0:
        return 0.0
    left = grown / grown[0]
    beyond = np.flatnonzero(left < KEPT)
    if not len(beyond):
        return float(sizes[-1])
    last, first = int(beyond[0]) - 1, int(beyond[0])
    share = (left[last] - KEPT) / (left[last] - left[first])
    return float(sizes[last] * (sizes[first] / sizes[last]) ** share)


def _worse(rules: Rules) -> Rules:
    """Return the rules with a column of numbers, one per condition."""
    costs = np.array([[float(condition.costs)] for condition in CONDITIONS])
    capital = np.array([[float(condition.capital)] for condition in CONDITIONS])
    rate = rules.commission_rate
    return rules.but(
        commission_per_share=rules.commission_per_share * costs,
        commission_minimum=rules.commission_minimum * costs,
        commission_rate=None if rate is None else rate * costs,
        slippage_rate=rules.slippage_rate * costs,
        volume_participation=rules.volume_participation / capital,
    )
