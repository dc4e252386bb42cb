"""Soundness: does the candidate hold together, over seeds and folds and when things get worse?

Owns the tests of ``registry.gate`` that compare with nobody. Decides by thresholds it is given.
"""

import math

import numpy as np

from core.settings import Gate
from registry.evidence import Evidence, Stress
from registry.regimes import regimes
from registry.selection import Overfitting
from registry.significance import max_drawdown, sharpe_ratio, total_return
from registry.verdict import CHOICE, EQUITY, LEARNED, REGIMES, SEEDS, STRESS, Reason

LEAST_REGIME_BARS = 21  # a regime of fewer bars says nothing
DECISIVE_COSTS = 2  # times the usual


def reasons(evidence: Evidence, settings: Gate) -> list[Reason]:
    """Return what the evidence allows to ask."""
    made = [_drawdown(evidence, settings), *_seeds(evidence, settings)]
    if evidence.walk_forward is not None and len(evidence.walk_forward) > 1:
        made.append(_walk_forward(evidence.walk_forward, evidence))
    if evidence.overfitting is not None:
        made.append(_overfitting(evidence.overfitting, evidence, settings))
    if evidence.stress is not None:
        made += _stress(evidence.stress, evidence, settings)
    if evidence.market is not None:
        made += _regimes(evidence.candidate, evidence.market, settings)
    return made


def _drawdown(evidence: Evidence, settings: Gate) -> Reason:
    value = float(max_drawdown(evidence.candidate))
    limit = settings.max_drawdown
    return Reason(
        "drawdown",
        "candidate",
        value,
        limit,
        value <= limit,
        f"maximum drawdown {value:.1%}, limit {limit:.0%}",
        EQUITY,
    )


def _seeds(evidence: Evidence, settings: Gate) -> list[Reason]:
    year = math.sqrt(evidence.bars_per_year)
    median = float(np.median(sharpe_ratio(evidence.seeds))) * year
    bar = 0.0 if evidence.champion is None else max(0.0, evidence.annual(evidence.champion))
    worst = float(total_return(evidence.seeds).min())
    floor = -settings.worst_seed_loss
    count = len(evidence.seeds)
    return [
        Reason(
            "median seed",
            f"{count} seeds",
            median,
            bar,
            median > bar,
            f"the median of {count} seeds has Sharpe {median:.2f}, needs more than {bar:.2f}",
            SEEDS,
        ),
        Reason(
            "worst seed",
            f"{count} seeds",
            worst,
            floor,
            worst >= floor,
            f"the worst of {count} seeds returns {worst:.1%}, must not lose more than {-floor:.0%}",
            SEEDS,
        ),
    ]


def _walk_forward(returns: np.ndarray, evidence: Evidence) -> Reason:
    value = evidence.annual(returns)
    return Reason(
        "walk-forward",
        "all folds",
        value,
        0.0,
        value > 0.0,
        f"retrained on every fold it has Sharpe {value:.2f} over {len(returns)} out-of-sample "
        "bars, needs more than 0",
        LEARNED,
    )


def _overfitting(found: Overfitting, evidence: Evidence, settings: Gate) -> Reason:
    limit = settings.max_loss_probability
    year = math.sqrt(evidence.bars_per_year)
    return Reason(
        "overfitting",
        f"{found.trials} trials",
        found.loss_probability,
        limit,
        found.loss_probability <= limit,
        f"chosen on some validation rows the best of {found.trials} trials loses on the others in "
        f"{found.loss_probability:.0%} of {found.splits} splits, may in {limit:.0%} (Sharpe "
        f"{found.known_sharpe * year:.2f} where chosen, {found.tested_sharpe * year:.2f} where "
        f"not; probability of backtest overfitting {found.probability:.2f})",
        CHOICE,
    )


def _stress(stress: Stress, evidence: Evidence, settings: Gate) -> list[Reason]:
    sharpes = {n: evidence.annual(returns) for n, returns in stress.costs.items()}
    shown = ", ".join(f"{value:.2f} at {n} times" for n, value in sharpes.items())
    decisive = sharpes[DECISIVE_COSTS]
    delayed = evidence.annual(stress.delayed)
    needed = settings.min_capacity
    return [
        Reason(
            "costs",
            f"costs × {DECISIVE_COSTS}",
            decisive,
            0.0,
            decisive > 0.0,
            f"Sharpe {shown} the costs, needs more than 0 at {DECISIVE_COSTS} times",
            STRESS,
        ),
        Reason(
            "delay",
            "one bar later",
            delayed,
            0.0,
            delayed > 0.0,
            f"with every decision one bar late it has Sharpe {delayed:.2f}, needs more than 0",
            STRESS,
        ),
        Reason(
            "capacity",
            "capital",
            stress.capacity,
            needed,
            stress.capacity >= needed,
            f"half of its growth is left at {stress.capacity:,.1f} times its capital, needs "
            f"{needed:,.1f} times",
            STRESS,
        ),
    ]


def _regimes(candidate: np.ndarray, market: np.ndarray, settings: Gate) -> list[Reason]:
    """Judge the regime it did worst in; no reason where the hold-out has none of them."""
    results = {
        name: (float(total_return(candidate[mask])), float(total_return(market[mask])), mask.sum())
        for name, mask in regimes(market).items()
        if mask.sum() >= LEAST_REGIME_BARS
    }
    if not results:
        return []
    worst = min(results, key=lambda name: results[name][0])
    own, held, bars = results[worst]
    floor = -settings.worst_regime_loss
    return [
        Reason(
            "regimes",
            worst,
            own,
            floor,
            own >= floor,
            f"worst in {worst}: {own:+.1%} over {bars} bars in which the market made {held:+.1%}, "
            f"must not lose more than {-floor:.0%}; the hold-out has {', '.join(results)}",
            REGIMES,
        )
    ]
