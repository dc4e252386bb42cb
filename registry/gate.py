"""The gate: may this candidate become Production? Returns in, verdict and reasons out.

Owns which tests there are and how they join. Pure: no clock, no file, no model; the only
randomness is the bootstrap's, seeded by ``settings.seed``, so a verdict can be repeated.

A candidate has to pass *every* test, after costs, on bars from which it had not learned when it
traded them. The *hold-out* is what neither candidate nor champion was trained or tuned on; the
*record* is the walk-forward, retrained before every fold, and the hold-out after it.

    length       the hold-out is long enough, else nothing is decided
    difference   a higher Sharpe ratio than the champion's over the hold-out, in
                 ``champion_confidence`` of the resamples of a paired stationary bootstrap, and
                 than each baseline's over the record, in ``difference_confidence`` of them
    superiority  Hansen's test of all seeds against each baseline over the record, returns scaled
                 to the same deviation: p at most ``superiority_level``
    deflated     a deflated Sharpe ratio of ``confidence`` over the record, counting every trial
                 ever run for the agent (alike ones by their effective number), and every earlier
                 look at the hold-out as one trial more
    drawdown     no deeper than ``max_drawdown`` over the hold-out
    median seed  over the hold-out, the median of the seeds is better than the champion, and
                 than nothing
    worst seed   no seed loses more than ``worst_seed_loss``
    walk-forward retrained on every fold, it does not lose over their joined out-of-sample bars
    overfitting  the trial that is best on some validation rows loses on the others in at most
                 ``max_loss_probability`` of the combinatorial splits
    costs        at twice the costs it does not lose; five times is shown
    delay        with every decision one bar late it does not lose
    regimes      in none of crash, calm and trend it loses more than ``worst_regime_loss``
    capacity     half of its growth is left at ``min_capacity`` times its capital

What the evidence does not hold is not tested: a study of one trial chose nothing.

**Level.** Joined by *and*, the gate passes a candidate that is no better than one of the baselines
at most as often as the tests against that baseline do, 5 % (an intersection-union test), so the
tests need no correction for being several.

**Power.** The hold-out of ten years of bars is two to four years long, and a true Sharpe ratio of 2
is then hardly told from luck. The walk-forward doubles the bars, and is as unseen: each fold was
learned before it. Only the configuration was chosen with a view of some of its rows, the
validation; the best that luck allows on those rows is less, spread over the whole record, than
what the deflated ratio takes off. `python -m bench.gate` measures both on simulated agents,
`make evidence` on the whole pipeline.

**The spread of luck.** The deflated ratio needs the variance of Sharpe ratios among skill-less
trials. The observed variance of the trials is that plus their differences in skill; chance
alone cannot give more than 1 / (T - 1) over T bars, so the smaller of the two is used. Without the
cap a study whose trials range from bad to excellent would refuse its excellent one.

**Why not the probability of overfitting itself.** Among trials that are equally good, the best on
some rows is by construction one of the worse on the others: the probability is about one half
whatever their skill. It is shown; what decides is whether the chosen trial *loses* there.
"""

from core.settings import Gate
from registry import merit, soundness
from registry.evidence import Evidence, require_comparable
from registry.verdict import GateReport, Reason, Verdict


def judge(evidence: Evidence, settings: Gate) -> GateReport:
    """Judge a candidate; raise ``RegistryError`` when the series are not comparable."""
    require_comparable(evidence)
    bars = len(evidence.candidate)
    reasons = [_length(bars, settings)]
    if not reasons[0].passed:
        return GateReport(
            "insufficient evidence", tuple(reasons), bars, evidence.trials, evidence.looks
        )
    reasons += merit.reasons(evidence, settings) + soundness.reasons(evidence, settings)
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
