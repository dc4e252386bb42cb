"""Evidence: all that the gate may look at, as plain arrays.

Owns what belongs to it, that the series cover the same bars, and how walk-forward and hold-out
join into one record. Knows no thresholds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.errors import RegistryError
from registry.selection import Overfitting
from registry.significance import sharpe_ratio
from registry.trials import Counted


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
    studies: tuple[Counted, ...] = ()  # that the trials belong to; (): nobody said
    overfitting: Overfitting | None = None  # of the study that found the candidate
    stress: Stress | None = None
    market: np.ndarray | None = None  # (T,) of the traded symbol itself
    # name -> (W,): the baselines over the walk-forward rows; {}: the hold-out is all there is
    walk_baselines: Mapping[str, np.ndarray] = field(default_factory=dict)

    def annual(self, returns: np.ndarray) -> float:
        """Return the annual Sharpe ratio of a series (T,)."""
        return float(sharpe_ratio(returns)) * math.sqrt(self.bars_per_year)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """All bars on which the candidate's method traded without having learned from them.

    First the walk-forward, retrained before every fold, then the hold-out. What the choice among
    the trials saw of the walk-forward (its last part is the validation) is what the deflated
    ratio pays for.
    """

    candidate: np.ndarray  # (R,)
    baselines: Mapping[str, np.ndarray]  # name -> (R,)
    seeds: np.ndarray  # (S, R): the same walk-forward before every seed's hold-out
    walked: int  # bars of it that are walk-forward

    @classmethod
    def of(cls, evidence: Evidence) -> "Record":
        walk = evidence.walk_forward
        if walk is None or not evidence.walk_baselines:
            return cls(evidence.candidate, evidence.baselines, evidence.seeds, 0)
        before = evidence.walk_baselines
        return cls(
            np.append(walk, evidence.candidate),
            {name: np.append(before[name], r) for name, r in evidence.baselines.items()},
            np.stack([np.append(walk, seed) for seed in evidence.seeds]),
            len(walk),
        )

    @property
    def told(self) -> str:
        """The bars in words."""
        bars = len(self.candidate)
        if not self.walked:
            return f"{bars:,} hold-out bars"
        return f"{bars:,} out-of-sample bars ({self.walked:,} of them walk-forward)"


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
    _require_same_walk(evidence)
    if evidence.trials < 1 or evidence.looks < 0:
        raise RegistryError(
            f"gate: {evidence.trials} trials and {evidence.looks} looks; a candidate is at least "
            "one trial"
        )


def _require_same_walk(evidence: Evidence) -> None:
    """Raise ``RegistryError`` where a baseline did not walk the candidate's folds."""
    if not evidence.walk_baselines:
        return
    if evidence.walk_forward is None or set(evidence.walk_baselines) != set(evidence.baselines):
        raise RegistryError(
            f"gate: {', '.join(evidence.walk_baselines)} walked the folds, expected the candidate "
            f"and {', '.join(evidence.baselines)}"
        )
    bars = len(evidence.walk_forward)
    for name, returns in {"candidate": evidence.walk_forward, **evidence.walk_baselines}.items():
        if returns.shape != (bars,) or not np.isfinite(returns).all():
            raise RegistryError(
                f"gate: walk-forward returns of {name} have shape {returns.shape}, expected {bars} "
                "finite numbers; all must cover the same folds"
            )
