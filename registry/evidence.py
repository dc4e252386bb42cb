"""Evidence: all that the gate may look at, as plain arrays.

Owns what belongs to it, and that the series cover the same bars. Knows no thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.errors import RegistryError
from registry.selection import Overfitting


@dataclass(frozen=True, slots=True, eq=False)
class Stress:
    """The candidate on the same bars, under conditions worse than it will meet."""

    costs: Mapping[int, np.ndarray]  # multiple of commission and slippage -> (T,)
    delayed: np.ndarray  # (T,) with every decision one bar late
    capital: Mapping[int, np.ndarray]  # multiple of the sleeve's capital -> (T,)
    capacity: float  # multiple of the capital that leaves half of the growth; 0: there is none


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Per-bar simple returns after costs on the same hold-out bars, and how they were found."""

    candidate: np.ndarray  # (T,) of the seed that would ship
    champion: np.ndarray | None  # (T,) of the present Production; None: there is none
    baselines: Mapping[str, np.ndarray]  # name -> (T,); `flat` means a Sharpe ratio above 0
    seeds: np.ndarray  # (S, T) of every seed of the candidate's configuration
    trials: int  # ever run for the agent, this study's included
    trial_sharpe_variance: float | None  # of their per-bar Sharpe ratios; None: unknown
    looks: int = 0  # earlier looks at any of these bars
    walk_forward: np.ndarray | None = None  # (W,) out-of-sample returns of all folds, joined
    bars_per_year: float = 252.0  # for the annualised figures in the sentences
    effective_trials: float | None = None  # independent ones among the trials; None: all are
    overfitting: Overfitting | None = None  # of the study that found the candidate
    stress: Stress | None = None
    market: np.ndarray | None = None  # (T,) of the traded symbol itself


def require_comparable(evidence: Evidence) -> None:
    """Raise ``RegistryError`` where the series do not cover the same bars."""
    bars = len(evidence.candidate)
    series = {"candidate": evidence.candidate, **evidence.baselines}
    if evidence.champion is not None:
        series["champion"] = evidence.champion
    if evidence.market is not None:
        series["the market"] = evidence.market
    if evidence.stress is not None:
        series |= {f"costs × {n}": returns for n, returns in evidence.stress.costs.items()}
        series["one bar later"] = evidence.stress.delayed
    for name, returns in series.items():
        if returns.shape != (bars,) or not np.isfinite(returns).all():
            raise RegistryError(
                f"gate: returns of {name} have shape {returns.shape}, expected {bars} finite "
                "numbers; all series must cover the same bars"
            )
    seeds = evidence.seeds
    if seeds.ndim != 2 or not len(seeds) or seeds.shape[1] != bars or not np.isfinite(seeds).all():
        raise RegistryError(
            f"gate: returns of the seeds have shape {seeds.shape}, expected (at least 1, {bars}) "
            "finite numbers"
        )
    if evidence.trials < 1 or evidence.looks < 0:
        raise RegistryError(
            f"gate: {evidence.trials} trials and {evidence.looks} looks; a candidate is at least "
            "one trial"
        )
