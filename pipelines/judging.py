"""Judging: the hold-out is looked at, the gate speaks, the registry and the report are told.

Owns the last part of a retraining, from trained policies to a registered version. The verdict is
the gate's; nothing here bends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.calendar import bars_per_year
from features.dataset import Dataset
from features.scaler import Scaler
from pipelines import contest, record
from pipelines import trials as tried
from pipelines.contest import CANDIDATE, CHAMPION, FIRST_CHAMPION
from pipelines.record import Work
from registry import attempts, models, promotion
from registry.baselines import BASELINES
from registry.card import Card
from registry.evidence import Evidence, Stress
from registry.gate import judge
from registry.policy import Policy
from registry.selection import Overfitting, overfitting
from registry.trials import Trials
from registry.verdict import GateReport
from training import report as reports
from training import stress
from training.backtest import BacktestResult
from training.course import median_seed
from training.lesson import Trained
from training.splits import CRASH, Fold, Window, combinatorial, gap_bars, paths
from training.study import Searched

GROUPS = 8  # of validation rows, half of them tested: 70 splits, 35 paths


@dataclass(frozen=True, slots=True)
class Retrained:
    """What a retraining came to."""

    agent: str
    version: int
    bundle_sha256: str
    verdict: str  # promote, refuse, insufficient evidence
    summary: str  # the verdict in one sentence
    reasons: tuple[str, ...]  # every test, in sentences
    promoted: bool
    aliases: tuple[str, ...]  # that the version holds now
    champion: int | None  # the version it was judged against
    contenders: Mapping[str, Mapping[str, float]]  # name -> measures on the hold-out
    trials: int
    seeds: int
    run_id: str  # of MLflow
    reports: Mapping[str, Path]
    evidence: Evidence  # what the gate looked at


def conclude(
    work: Work,
    searched: Searched,
    folds: Sequence[Fold],
    trained: Sequence[Trained],
    walked: Sequence[Trained],
    first_seed: int,
) -> Retrained:
    """Let the gate decide on the hold-out, register the version, promote it if it may."""
    course, chosen = work.course, median_seed(trained)
    scaler = course.scaler(course.timeline.train)
    holdout = contest.same_rows(course.learned, work.traded, course.timeline.holdout)
    work.say("gate", 0.0, f"backtests over {len(holdout)} unseen bars, after costs")
    looks = _look(work, holdout, searched.study)
    results, seeds = _over_holdout(work, trained, chosen, scaler, holdout)
    walk = _over_folds(work, folds, walked)
    choice = _choice(work, searched)
    ever = tried.count(work.home, work.agent, work.now)
    evidence = _evidence(work, results, seeds, walk, looks, ever)
    evidence = replace(
        evidence,
        overfitting=None if choice is None else choice.overfitting,
        stress=_stress(work, trained[chosen], scaler, holdout),
    )
    gate = judge(evidence, work.params.gate)
    card = replace(
        _card(work, searched, len(trained), first_seed, first_seed + chosen), gate=gate.to_json()
    )
    version = record.register(work, trained[chosen], scaler, card, gate)
    attempts.record_verdict(work.home, version, gate, work.champion.number, work.now)
    promotion.challenge(work.home, work.agent, version.number, work.now)
    if gate.passed:
        promotion.promote(work.home, work.agent, version.number, work.now)
    page = reports.Report(
        title=f"{work.agent}: version {version.number}",
        subtitle=_subtitle(work, holdout),
        contenders=results or walk[-1],
        bars_per_year=bars_per_year(work.traded.interval),
        gate=gate,
        choice=None if choice is None else choice.walks,
        evidence=evidence,
        folds=walk,
        fold_note=_crash_note(work, walk),
        curves={f"seed {first_seed + n}": one.curve for n, one in enumerate(trained)},
        trials=[(t.number, t.score, t.state == "pruned") for t in searched.trials],
        facts=record.facts(work, version, card, searched.study, ever),
    )
    written = record.write(work, version, page, gate)
    work.say("gate", 1.0, gate.summary)
    return _outcome(work, searched, trained, version, gate, results, evidence, written)


def _card(work: Work, searched: Searched, seeds: int, first_seed: int, shipped: int) -> Card:
    """Return the card of what ships, but for the gate's word."""
    course, settings = work.course, work.params.agent(work.agent)
    time = course.learned.market.time
    return replace(
        record.card(work, settings.algorithm, shipped),
        trial=searched.best.number,
        train_first=str(time[course.timeline.train.start]),
        train_last=str(time[course.timeline.validation.stop - 1]),
        parent=work.champion.bundle.sha256 if course.warm_start else None,
        params=record.config(work, len(searched.trials), seeds, first_seed),
    )


def _outcome(
    work: Work,
    searched: Searched,
    trained: Sequence[Trained],
    version: models.Version,
    gate: GateReport,
    results: Mapping[str, BacktestResult],
    evidence: Evidence,
    written: Mapping[str, Path],
) -> Retrained:
    held = models.aliases(work.home, work.agent)
    return Retrained(
        agent=work.agent,
        version=version.number,
        bundle_sha256=version.bundle_sha256,
        verdict=gate.verdict,
        summary=gate.summary,
        reasons=tuple(reason.sentence for reason in gate.reasons),
        promoted=gate.passed,
        aliases=tuple(alias for alias, number in held.items() if number == version.number),
        champion=work.champion.number,
        contenders={name: dict(result.metrics) for name, result in results.items()},
        trials=len(searched.trials),
        seeds=len(trained),
        run_id=work.run.run_id,
        reports=written,
        evidence=evidence,
    )


def _look(work: Work, holdout: Window, study: str) -> int:
    """Write down that these bars are looked at, and return how often they were before."""
    if not len(holdout):
        return 0
    first, last = time_of(work.traded, holdout.start), time_of(work.traded, holdout.stop - 1)
    attempts.record_look(work.home, work.agent, first, last, study, work.now)
    return attempts.earlier_looks(work.home, work.agent, first, last, study)


def time_of(dataset: Dataset, row: int) -> datetime:
    """Return the time of a row as aware UTC."""
    time: datetime = dataset.market.time[row].astype("datetime64[s]").item()
    return time.replace(tzinfo=UTC)


def _over_holdout(
    work: Work, trained: Sequence[Trained], chosen: int, scaler: Scaler, holdout: Window
) -> tuple[dict[str, BacktestResult], list[BacktestResult]]:
    """Return the contenders' results, candidate first, and the result of every seed."""
    traded, champion = work.traded, work.champion
    seeds = contest.over(
        {
            str(number): (Policy.open(one.policy_onnx, 1), scaler, traded)
            for number, one in enumerate(trained)
        },
        holdout,
        work.course.rules,
        work.params.account.cash,
    )
    if not seeds:
        return {}, []
    others = contest.baselines(traded, scaler, work.params.gate.seed)
    seen = contest.as_seen_by(work.home, work.params, work.agent, champion, traded)
    if seen is not None and not champion.baseline:
        bundle = champion.bundle
        others = {CHAMPION: (bundle, bundle.scaler, seen), **others}
    fought = contest.over(others, holdout, work.course.rules, work.params.account.cash)
    return {CANDIDATE: seeds[str(chosen)], **fought}, list(seeds.values())


def _over_folds(
    work: Work, folds: Sequence[Fold], walked: Sequence[Trained]
) -> list[dict[str, BacktestResult]]:
    """Return candidate and baselines over each fold's out-of-sample rows."""
    course, traded = work.course, work.traded
    results = []
    for fold, one in zip(folds, walked, strict=True):
        scaler = course.scaler(fold.train)
        contenders = {
            CANDIDATE: (Policy.open(one.policy_onnx, 1), scaler, traded),
            **contest.baselines(traded, scaler, work.params.gate.seed),
        }
        rows = contest.same_rows(course.learned, traded, fold.out_of_sample)
        results.append(contest.over(contenders, rows, course.rules, work.params.account.cash))
    return results


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """How choosing among the trials does on rows it did not choose on."""

    overfitting: Overfitting
    walks: np.ndarray  # (paths, T) returns of the chosen trials, each path over all rows


def _choice(work: Work, searched: Searched) -> Choice | None:
    """Cross-validate the choice among the trials; None where nothing could be chosen.

    The rows are those on which the trials were compared and nobody learned, less what the equal
    stretches of the validation leave over.
    """
    returns = searched.returns
    gap = gap_bars(work.params.split, work.params.environment.window)
    rows = Window(0, returns.shape[1])
    if len(returns) < 2 or len(rows) // GROUPS <= 2 * gap:
        return None
    splits = combinatorial(rows, GROUPS, GROUPS // 2, gap)
    known = [(split.known_rows, split.tested_rows) for split in splits]
    found = overfitting(returns, known)
    walks = [
        np.concatenate(
            [
                returns[found.chosen[n]][group]
                for n, group in zip(path, np.array_split(np.arange(len(rows)), GROUPS), strict=True)
            ]
        )
        for path in paths(splits, GROUPS)
    ]
    return Choice(found, np.array(walks))


def _stress(work: Work, trained: Trained, scaler: Scaler, holdout: Window) -> Stress | None:
    """Return the shipped seed under worse conditions; None without a hold-out."""
    if len(holdout) < 2:
        return None
    policy = Policy.open(trained.policy_onnx, 1)
    cash = work.params.account.cash
    return stress.run(policy, work.traded, scaler, work.course.rules, holdout, cash)


def _evidence(
    work: Work,
    results: Mapping[str, BacktestResult],
    seeds: Sequence[BacktestResult],
    walk: Sequence[Mapping[str, BacktestResult]],
    looks: int,
    ever: Trials,
) -> Evidence:
    none = np.zeros(0)
    champion = results.get(CHAMPION)
    return Evidence(
        candidate=results[CANDIDATE].returns if results else none,
        champion=champion.returns if champion else None,
        baselines={name: results[name].returns for name in BASELINES if name in results},
        seeds=np.stack([seed.returns for seed in seeds]) if seeds else none[None],
        trials=ever.count,
        effective_trials=ever.effective,
        trial_sharpe_variance=ever.sharpe_variance,
        studies=ever.studies,
        looks=looks,
        walk_forward=_joined(walk, CANDIDATE),
        walk_baselines={name: _joined(walk, name) for name in BASELINES if name in results},
        market=contest.market_returns(results[CANDIDATE].market) if results else None,
        bars_per_year=bars_per_year(work.traded.interval),
    )


def _joined(walk: Sequence[Mapping[str, BacktestResult]], name: str) -> np.ndarray:
    return np.concatenate([fold[name].returns for fold in walk])


def _subtitle(work: Work, holdout: Window) -> str:
    if len(holdout) < 2:
        return "no unseen bars to decide on: the figures are those of the last walk-forward fold"
    first, last = (work.traded.market.time[row] for row in (holdout.start, holdout.stop - 1))
    return (
        f"{work.traded.symbol}, hold-out of {len(holdout)} bars, {str(first)[:10]} to "
        f"{str(last)[:10]}: after everything the candidate and version {work.champion.number}, "
        "the champion, were trained or tuned on"
    )


def _crash_note(work: Work, walk: Sequence[Mapping[str, BacktestResult]]) -> str:
    fall = contest.worst_fall([fold[FIRST_CHAMPION].market for fold in walk])
    note = (
        f"{len(walk)} folds, every one retrained; inside their out-of-sample windows "
        f"{work.traded.symbol} itself fell by up to {fall:.0%}"
    )
    return note if fall >= CRASH else f"{note}: no crash among them, so they say nothing about one"
