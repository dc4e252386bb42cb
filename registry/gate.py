"""The gate: may this candidate become Production? Returns in, verdict and reasons out.

Owns which tests there are and how they join. Pure: no clock, no file, no model; the only
randomness is the bootstrap's, seeded by ``settings.seed``, so a verdict can be repeated.

A candidate has to pass *every* test, on bars that neither it nor the champion was trained or
tuned on, after costs:

    length       the hold-out is long enough, else nothing is decided
    difference   a higher Sharpe ratio than the champion and than each baseline, in
                 ``difference_confidence`` of the resamples of a paired stationary bootstrap
    superiority  Hansen's test of all seeds against each baseline, returns scaled to the same
                 deviation: p at most ``superiority_level``
    deflated     a deflated Sharpe ratio of ``confidence``, counting every trial ever run for
                 the agent (alike ones by their effective number), and every earlier look at
                 these bars as one trial more
    drawdown     no deeper than ``max_drawdown``
    median seed  the median of the seeds is better than the champion, and than nothing
    worst seed   no seed loses more than ``worst_seed_loss``
    walk-forward retrained on every fold, it does not lose over their joined out-of-sample bars
    overfitting  the trial that is best on some validation rows loses on the others in at most
                 ``max_loss_probability`` of the combinatorial splits
    costs        at twice the costs it does not lose; five times is shown
    delay        with every decision one bar late it does not lose
    regimes      in none of crash, calm and trend it loses more than ``worst_regime_loss``
    capacity     half of its growth is left at ``min_capacity`` times its capital

What the evidence does not hold is not tested: a study of one trial chose nothing.

**Level and power.** Joined by *and*, the gate passes a candidate without edge at most as often as
its strictest test does (an intersection-union test), so the tests need no correction for being
several: the deflated ratio holds the level, and the others can afford theirs. Measured by
``python -m bench.gate`` (simulated agents, 400 per edge, 470 bars, nine trials, five seeds):
promoted without edge 0 of 400; with a true annual Sharpe of 1.0: 3 %, 1.5: 16 %, 2.0: 46 %,
2.5: 74 %, 3.0: 94.5 %. What refuses most is the deflated ratio: 470 bars are few.

**The spread of luck.** The deflated ratio needs the variance of Sharpe ratios among skill-less
trials. The observed variance of the trials is that plus their differences in skill; chance
alone cannot give more than 1 / (T - 1) over T bars, so the smaller of the two is used. Without the
cap a study whose trials range from bad to excellent would refuse its excellent one.

**Why not the probability of overfitting itself.** Among trials that are equally good, the best on
some rows is by construction one of the worse on the others: the probability is about one half
whatever their skill. It is shown; what decides is whether the chosen trial *loses* there.
"""

import math

import numpy as np

from core.settings import Gate
from registry.evidence import Evidence, Stress, require_comparable
from registry.regimes import regimes
from registry.selection import Overfitting
from registry.significance import (
    STILL,
    deflated_sharpe,
    expected_maximum_sharpe,
    max_drawdown,
    share_better,
    sharpe_ratio,
    total_return,
)
from registry.superiority import superior_p_value
from registry.verdict import GateReport, Reason, Verdict

__all__ = ["Evidence", "GateReport", "Reason", "Stress", "Verdict", "judge"]

# Titles of the report's figures, by which a reason says what shows it.
EQUITY, SEEDS, LEARNED = "Equity and drawdown", "Seeds", "Walk-forward"
CHOICE, STRESS, REGIMES = "Choice among trials", "Stress", "Regimes"
LEAST_REGIME_BARS = 21  # a regime of fewer bars says nothing
DECISIVE_COSTS = 2  # times the usual


def judge(evidence: Evidence, settings: Gate) -> GateReport:
    """Judge a candidate; raise ``RegistryError`` when the series are not comparable."""
    require_comparable(evidence)
    bars = len(evidence.candidate)
    reasons = [_length(bars, settings)]
    if not reasons[0].passed:
        return GateReport(
            "insufficient evidence", tuple(reasons), bars, evidence.trials, evidence.looks
        )
    reasons += _differences(evidence, settings)
    if evidence.baselines:
        reasons.append(_superiority(evidence, settings))
    reasons.append(_deflated(evidence, settings))
    reasons.append(_drawdown(evidence, settings))
    reasons += _seeds(evidence, settings)
    if evidence.walk_forward is not None and len(evidence.walk_forward) > 1:
        reasons.append(_walk_forward(evidence.walk_forward, evidence))
    if evidence.overfitting is not None:
        reasons.append(_overfitting(evidence.overfitting, evidence, settings))
    if evidence.stress is not None:
        reasons += _stress(evidence.stress, evidence, settings)
    if evidence.market is not None:
        reasons += _regimes(evidence.candidate, evidence.market, settings)
    verdict: Verdict = "promote" if all(reason.passed for reason in reasons) else "refuse"
    return GateReport(verdict, tuple(reasons), bars, evidence.trials, evidence.looks)


def _length(bars: int, settings: Gate) -> Reason:
    needed = settings.min_holdout_bars
    return Reason(
        "length",
        "hold-out",
        float(bars),
        float(needed),
        bars >= needed,
        f"the hold-out has {bars} bars that nobody was trained or tuned on, needs {needed}",
    )


def _differences(evidence: Evidence, settings: Gate) -> list[Reason]:
    references = dict(evidence.baselines)
    if evidence.champion is not None:
        references = {"champion": evidence.champion, **references}
    shares = share_better(
        evidence.candidate,
        list(references.values()),
        settings.bootstrap_samples,
        settings.bootstrap_block_bars,
        np.random.default_rng(settings.seed),
    )
    needed = settings.difference_confidence
    own = _annual(evidence.candidate, evidence)
    return [
        Reason(
            "difference",
            name,
            share,
            needed,
            share >= needed,
            f"Sharpe {own:.2f} against {_annual(returns, evidence):.2f} of {name}, higher in "
            f"{share:.1%} of the resamples, needs {needed:.0%}",
            EQUITY,
        )
        for (name, returns), share in zip(references.items(), shares, strict=True)
    ]


def _superiority(evidence: Evidence, settings: Gate) -> Reason:
    """Test all seeds together against each baseline, and report the one that is hardest to beat.

    Scaled to the same deviation, means differ as Sharpe ratios do: half the exposure is no loss.
    """
    seeds = _scaled(evidence.seeds)
    p_values = {
        name: superior_p_value(
            seeds,
            _scaled(returns),
            settings.bootstrap_samples,
            settings.bootstrap_block_bars,
            np.random.default_rng(settings.seed),
        )
        for name, returns in evidence.baselines.items()
    }
    hardest = max(p_values, key=lambda name: p_values[name])
    p, level = p_values[hardest], settings.superiority_level
    return Reason(
        "superiority",
        hardest,
        p,
        level,
        p <= level,
        f"against {hardest}, the hardest of {len(p_values)} baselines, the best of "
        f"{len(seeds)} seeds has p = {p:.3f} (Hansen's test), needs at most {level:.2f}",
        EQUITY,
    )


def _scaled(returns: np.ndarray) -> np.ndarray:
    """Return the series with deviation 1 along the last axis; what does not move stays 0."""
    deviation = returns.std(axis=-1, ddof=1, keepdims=True)
    moves = deviation > STILL
    return np.where(moves, returns / np.where(moves, deviation, 1.0), 0.0)


def _deflated(evidence: Evidence, settings: Gate) -> Reason:
    bars = len(evidence.candidate)
    chance = 1.0 / (bars - 1)
    observed = evidence.trial_sharpe_variance
    effective = evidence.effective_trials
    independent = evidence.trials if effective is None else math.ceil(effective)
    counted = independent + evidence.looks
    luck = expected_maximum_sharpe(counted, chance if observed is None else min(observed, chance))
    value = deflated_sharpe(evidence.candidate, luck)
    worth = "" if independent == evidence.trials else f" (worth {independent} independent ones)"
    looks = f" and {evidence.looks} earlier looks at these bars" if evidence.looks else ""
    return Reason(
        "deflated",
        "Sharpe ratio",
        value,
        settings.confidence,
        value >= settings.confidence,
        f"deflated Sharpe ratio {value:.3f}, needs {settings.confidence:.2f}; after "
        f"{evidence.trials} trials{worth}{looks} luck alone reaches "
        f"Sharpe {luck * math.sqrt(evidence.bars_per_year):.2f}",
        CHOICE,
    )


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
    bar = 0.0 if evidence.champion is None else max(0.0, _annual(evidence.champion, evidence))
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
    value = _annual(returns, evidence)
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
    sharpes = {n: _annual(returns, evidence) for n, returns in stress.costs.items()}
    shown = ", ".join(f"{value:.2f} at {n} times" for n, value in sharpes.items())
    decisive = sharpes[DECISIVE_COSTS]
    delayed = _annual(stress.delayed, evidence)
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


def _annual(returns: np.ndarray, evidence: Evidence) -> float:
    return float(sharpe_ratio(returns)) * math.sqrt(evidence.bars_per_year)
