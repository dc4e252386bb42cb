"""Retrain: from a dataset to a judged, registered version, and to Production if the gate says so.

Owns the order of the steps and the lineage written into the card. Search, learning, backtests and
verdict are computed elsewhere. Killed at any point and called again, it takes up its study where
that was.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.calendar import bars_per_year
from core.errors import RegistryError
from core.home import Home
from core.progress import Progress, Report, silent
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from pipelines import contest, experience, lineage, record
from pipelines import trials as tried
from pipelines.chain import require_no_leak
from pipelines.contest import FIRST_CHAMPION, Champion
from pipelines.dataset import load_dataset, load_training_dataset
from pipelines.enrolment import register_baseline
from pipelines.judging import Retrained, conclude
from pipelines.record import Work
from registry import models, promotion, tracking
from training import studies
from training.course import Course
from training.lesson import Trained
from training.splits import Fold, divide, walk_forward
from training.study import Plan, Searched, Trial, close_study, search
from training.workers import require_trained, train_all, warm

__all__ = ["Retrained", "run"]


def run(
    home: Home,
    params: Params,
    agent: str,
    *,
    size: str = "default",
    trials: int | None = None,
    seeds: int | None = None,
    warm_start: bool = False,
    seed: int | None = None,
    reason: str = "by hand",
    now: datetime,
    report: Report = silent,
) -> Retrained:
    """Retrain one agent; ``trials``, ``seeds`` and ``seed`` override the size and params.yaml.

    Raises ``DataError`` where the datasets are not there, ``FutureLeak`` where a feature knows what
    comes after its bar, ``TrainingError``, ``RegistryError`` or
    ``ServiceUnavailable``; what was registered before stays as it is.
    """
    effort = params.size(size)
    trials, seeds = trials or effort.trials, seeds or effort.seeds
    first_seed = params.search.seed if seed is None else seed
    report(Progress("data", 0.0, f"{agent}: reading the datasets"))
    studies.check(home)
    traded = load_dataset(home, params, agent)
    learned = load_training_dataset(home, params, agent)
    warm(home)
    champion = contest.champion_of(home, agent) or _install(home, params, agent, traded, now)
    lived = experience.gather(home, params, agent, traded)
    course = replace(
        _course(home, params, agent, learned, champion, effort.effort, warm_start),
        lived=lived.transitions,
    )
    report(Progress("leaks", 0.0, f"{agent}: nothing may know what comes after its bar"))
    last = learned.market.time[course.timeline.train.stop - 1]
    require_no_leak(home, params, agent, traded.spec, last)
    tags = {
        "dataset_sha256": traded.sha256,
        "git_commit": lineage.git_commit(),
        "dvc_lock_sha256": lineage.dvc_lock_sha256(home) or "",
        "reason": reason,
        "size": size,
    }
    with tracking.start_run(home, agent, f"retrain {now:%Y-%m-%d %H:%M}", tags) as parent:
        work = Work(
            home, params, agent, course, traded, lived, champion, parent, now, reason, report
        )
        parent.log_params(record.config(work, trials, seeds, first_seed))
        if (home.workspace / "dvc.lock").exists():
            parent.log_file(home.workspace / "dvc.lock")
        record.log_experience(work)
        searched = _search(work, trials, first_seed)
        folds = walk_forward(course.timeline, effort.folds, params.split, params.environment.window)
        trained, walked = _train(work, searched, folds, first_seed, seeds)
        done = conclude(work, searched, folds, trained, walked, first_seed)
    close_study(home, searched.study)
    return done


def _install(home: Home, params: Params, agent: str, traded: Dataset, now: datetime) -> Champion:
    """Register the first champion, so that the registry is never empty."""
    version = register_baseline(home, params, agent, traded, FIRST_CHAMPION, now)
    promotion.install(home, agent, version.number, now)
    champion = contest.champion_of(home, agent)
    if champion is None:
        raise RegistryError(f"{agent}: version {version.number} was installed, yet none is there")
    return champion


def _course(
    home: Home,
    params: Params,
    agent: str,
    learned: Dataset,
    champion: Champion,
    effort: float,
    warm_start: bool,
) -> Course:
    timeline = divide(
        learned.first_row,
        len(learned),
        params.split,
        params.environment.window,
        champion.last_used_row(learned.market.time),
    )
    rules = Rules.of(params.account, params.costs, params.risk_for(agent))
    weights = None
    if warm_start and not champion.baseline:
        made = models.version(home, agent, champion.number)
        weights = models.run_file(home, made, record.WEIGHTS) or champion.bundle.policy_onnx
    return Course(agent, params, learned, timeline, rules, effort, weights)


def _search(work: Work, trials: int, seed: int) -> Searched:
    course, per_year = work.course, bars_per_year(work.course.learned.interval)
    ever = tried.count(work.home, work.agent, work.now)
    plan = Plan(
        work.agent,
        course.identity,
        trials,
        course.space,
        work.params.search,
        seed,
        course.validation_times,
        per_year,
        tried.lost(ever),
    )
    counter = tried.counter(work.home, plan, ever, work.now)

    def listen(trial: Trial) -> None:
        counter.hear(trial)
        record.log_trial(work.run, trial)

    searched = search(
        work.home,
        plan,
        lambda values: course.lesson(values, seed),
        listen=listen,
        report=work.report,
    )
    counter.end(searched.effective_trials)
    return searched


def _train(
    work: Work, searched: Searched, folds: Sequence[Fold], first_seed: int, seeds: int
) -> tuple[list[Trained], list[Trained]]:
    """Train the seeds on the whole window and one policy on each fold, side by side."""
    values = searched.best.hyperparameters
    lessons = [work.course.lesson(values, first_seed + n) for n in range(seeds)]
    lessons += [work.course.lesson(values, first_seed, fold) for fold in folds]
    ended = 0

    def done(index: int, outcome: Any) -> None:
        nonlocal ended
        ended += 1
        what = f"seed {index + 1} of {seeds}" if index < seeds else f"fold {index - seeds + 1}"
        work.say("train", ended / len(lessons), f"{what} {outcome.state}")

    work.say("train", 0.0, f"{seeds} seeds and {len(folds)} walk-forward folds")
    trained = require_trained(train_all(work.home, lessons, done=done), "training")
    for number, one in enumerate(trained):
        name = f"seed {first_seed + number}" if number < seeds else f"fold {number - seeds + 1}"
        with work.run.child(name, {"kind": name.split()[0]}) as child:
            record.log_curve(child, one.curve)
    return trained[:seeds], trained[seeds:]
