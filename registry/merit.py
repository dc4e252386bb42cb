"""Merit: is the candidate better than luck, than the champion and than what needs no model?

Owns the tests of ``registry.gate`` that compare. Decides by thresholds it is given.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from core.settings import Gate
from registry.evidence import Evidence, Record
from registry.significance import STILL, deflated_sharpe, expected_maximum_sharpe, share_better
from registry.superiority import superior_p_values
from registry.trials import Counted
from registry.verdict import CHOICE, EQUITY, Reason

NAMED_STUDIES = 3  # in a sentence; the report names them all


def reasons(evidence: Evidence, settings: Gate) -> list[Reason]:
    """Return difference, superiority and the deflated ratio."""
    record = Record.of(evidence)
    made = _differences(evidence, record, settings)
    if record.baselines:
        made.append(_superiority(record, settings))
    return [*made, _deflated(evidence, record, settings)]


def _differences(evidence: Evidence, record: Record, settings: Gate) -> list[Reason]:
    """Compare with every baseline over the record, with the champion over the hold-out alone."""
    reasons = []
    if evidence.champion is not None:
        reasons += _better(
            evidence.candidate,
            {"champion": evidence.champion},
            f"{len(evidence.champion):,} hold-out bars",
            settings.champion_confidence,
            evidence,
            settings,
        )
    return reasons + _better(
        record.candidate,
        record.baselines,
        record.told,
        settings.difference_confidence,
        evidence,
        settings,
    )


def _better(
    own: np.ndarray,
    references: Mapping[str, np.ndarray],
    told: str,
    needed: float,
    evidence: Evidence,
    settings: Gate,
) -> list[Reason]:
    """Return a reason per reference; ``needed``: in which share of resamples it is beaten."""
    shares = share_better(
        own,
        list(references.values()),
        settings.bootstrap_samples,
        settings.bootstrap_block_bars,
        np.random.default_rng(settings.seed),
    )
    sharpe = evidence.annual(own)
    return [
        Reason(
            "difference",
            name,
            share,
            needed,
            share >= needed,
            f"Sharpe {sharpe:.2f} against {evidence.annual(returns):.2f} of {name} over {told}, "
            f"higher in {share:.1%} of the resamples, needs {needed:.0%}",
            EQUITY,
        )
        for (name, returns), share in zip(references.items(), shares, strict=True)
    ]


def _superiority(record: Record, settings: Gate) -> Reason:
    """Test all seeds together against each baseline, and report the one that is hardest to beat.

    Scaled to the same deviation, means differ as Sharpe ratios do: half the exposure is no loss.
    """
    seeds = _scaled(record.seeds)
    found = superior_p_values(
        seeds,
        _scaled(np.stack(list(record.baselines.values()))),
        settings.bootstrap_samples,
        settings.bootstrap_block_bars,
        np.random.default_rng(settings.seed),
    )
    p_values = dict(zip(record.baselines, found.tolist(), strict=True))
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


def _deflated(evidence: Evidence, record: Record, settings: Gate) -> Reason:
    chance = 1.0 / (len(record.candidate) - 1)
    observed = evidence.trial_sharpe_variance
    effective = evidence.effective_trials
    independent = evidence.trials if effective is None else math.ceil(effective)
    counted = independent + evidence.looks
    luck = expected_maximum_sharpe(counted, chance if observed is None else min(observed, chance))
    value = deflated_sharpe(record.candidate, luck)
    worth = "" if independent == evidence.trials else f" (worth {independent} independent ones)"
    came = _origin(evidence.studies)
    looks = f" and {evidence.looks} earlier looks at these bars" if evidence.looks else ""
    return Reason(
        "deflated",
        "Sharpe ratio",
        value,
        settings.confidence,
        value >= settings.confidence,
        f"deflated Sharpe ratio {value:.3f} over {record.told}, needs {settings.confidence:.2f}; "
        f"after {evidence.trials} trials{worth}{came}{looks} luck alone reaches "
        f"Sharpe {luck * math.sqrt(evidence.bars_per_year):.2f}",
        CHOICE,
    )


def _origin(studies: Sequence[Counted]) -> str:
    """Say which studies the trials are of; of many the newest, the report has them all."""
    if not studies:
        return ""
    named = ", ".join(str(study) for study in studies[-NAMED_STUDIES:])
    if len(studies) == 1:
        return f" of study {named}"
    newest = "the newest " if len(studies) > NAMED_STUDIES else ""
    return f" of {len(studies)} studies, {newest}{named},"
