"""The gate: may this candidate become Production? Returns in, verdict and reasons out.

Owns which tests there are and how they join. Pure: no clock, no file, no model; the only
randomness is the bootstrap's, seeded by ``settings.seed``, so a verdict can be repeated.

A candidate has to pass *every* test, on bars that neither it nor the champion was trained or
tuned on, after costs:

    length       the hold-out is long enough, else nothing is decided
    difference   a higher Sharpe ratio than the champion and than each baseline, in
                 ``difference_confidence`` of the resamples of a paired stationary bootstrap
    deflated     a deflated Sharpe ratio of ``confidence``, counting every trial ever run for
                 the agent, and every earlier look at these bars as one trial more
    drawdown     no deeper than ``max_drawdown``
    median seed  the median of the seeds is better than the champion, and than nothing
    worst seed   no seed loses more than ``worst_seed_loss``
    walk-forward retrained on every fold, it does not lose over their joined out-of-sample bars

**Level and power.** Joined by *and*, the gate passes a candidate without edge at most as often as
its strictest test does (an intersection-union test), so the tests need no correction for being
several: the deflated ratio holds the level, and the differences can afford 0.90. Measured over 470
bars and nine trials of a simulated market: promoted without edge 0 of 400; with a true annual
Sharpe of 1.0: 2 %, 2.0: 55 %, 2.5: 82 %, 3.0: 95 %.

**The spread of luck.** The deflated ratio needs the variance of Sharpe ratios among skill-less
trials. The observed variance of the trials is that plus their differences in skill; chance
alone cannot give more than 1 / (T - 1) over T bars, so the smaller of the two is used. Without the
cap a study whose trials range from bad to excellent would refuse its excellent one.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from core.errors import RegistryError
from core.settings import Gate
from registry.significance import (
    deflated_sharpe,
    expected_maximum_sharpe,
    max_drawdown,
    share_better,
    sharpe_ratio,
    total_return,
)

Verdict = Literal["promote", "refuse", "insufficient evidence"]


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


@dataclass(frozen=True, slots=True)
class Reason:
    """One test and how it came out."""

    test: str  # as in the module's docstring
    subject: str  # against whom, or of what
    value: float
    threshold: float
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict, and every test that led to it."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    bars: int  # of the hold-out
    trials: int
    looks: int

    @property
    def passed(self) -> bool:
        return self.verdict == "promote"

    @property
    def summary(self) -> str:
        """The verdict in one sentence: what failed first, or what was weakest."""
        failed = [reason for reason in self.reasons if not reason.passed]
        if not failed:
            return f"{self.verdict}: passed all {len(self.reasons)} tests"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{self.verdict}: {failed[0].sentence}{more}"

    @property
    def sha256(self) -> str:
        """Hash of the report, by which a promotion names its evidence."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain data; ``from_json`` gives back an equal report."""
        return {**asdict(self), "reasons": [asdict(reason) for reason in self.reasons]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Build a report from plain data; raise ``RegistryError`` when it is none."""
        try:
            reasons = tuple(Reason(**reason) for reason in content["reasons"])
            report = cls(**{**content, "reasons": reasons})
        except (KeyError, TypeError) as error:
            raise RegistryError(f"not a gate report ({error})") from error
        if report.verdict not in get_args(Verdict):
            raise RegistryError(f"not a gate report: verdict {report.verdict!r}")
        return report


def judge(evidence: Evidence, settings: Gate) -> GateReport:
    """Judge a candidate; raise ``RegistryError`` when the series are not comparable."""
    _require_comparable(evidence)
    bars = len(evidence.candidate)
    reasons = [_length(bars, settings)]
    if not reasons[0].passed:
        return GateReport(
            "insufficient evidence", tuple(reasons), bars, evidence.trials, evidence.looks
        )
    reasons += _differences(evidence, settings)
    reasons.append(_deflated(evidence, settings))
    reasons.append(_drawdown(evidence, settings))
    reasons += _seeds(evidence, settings)
    if evidence.walk_forward is not None and len(evidence.walk_forward) > 1:
        reasons.append(_walk_forward(evidence.walk_forward, evidence))
    verdict: Verdict = "promote" if all(reason.passed for reason in reasons) else "refuse"
    return GateReport(verdict, tuple(reasons), bars, evidence.trials, evidence.looks)


def _require_comparable(evidence: Evidence) -> None:
    bars = len(evidence.candidate)
    series = {"candidate": evidence.candidate, **evidence.baselines}
    if evidence.champion is not None:
        series["champion"] = evidence.champion
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
        )
        for (name, returns), share in zip(references.items(), shares, strict=True)
    ]


def _deflated(evidence: Evidence, settings: Gate) -> Reason:
    bars = len(evidence.candidate)
    chance = 1.0 / (bars - 1)
    observed = evidence.trial_sharpe_variance
    counted = evidence.trials + evidence.looks
    luck = expected_maximum_sharpe(counted, chance if observed is None else min(observed, chance))
    value = deflated_sharpe(evidence.candidate, luck)
    looks = f" and {evidence.looks} earlier looks at these bars" if evidence.looks else ""
    return Reason(
        "deflated",
        "Sharpe ratio",
        value,
        settings.confidence,
        value >= settings.confidence,
        f"deflated Sharpe ratio {value:.3f}, needs {settings.confidence:.2f}; after "
        f"{evidence.trials} trials{looks} luck alone reaches "
        f"Sharpe {luck * math.sqrt(evidence.bars_per_year):.2f}",
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
        ),
        Reason(
            "worst seed",
            f"{count} seeds",
            worst,
            floor,
            worst >= floor,
            f"the worst of {count} seeds returns {worst:.1%}, must not lose more than {-floor:.0%}",
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
    )


def _annual(returns: np.ndarray, evidence: Evidence) -> float:
    return float(sharpe_ratio(returns)) * math.sqrt(evidence.bars_per_year)
