"""The study: an Optuna search that can be killed, resumed, and comes out the same.

Owns which hyperparameters are tried, in which order, which trials end early, and the record. Knows
neither MLflow nor which rows a lesson holds.

Results must not depend on timing, on the number of cores or on an interruption. So:

- Trials are asked for in *generations* of a fixed size. A generation's proposals are a function
  of the seed, its number and what the generations before it were told; nothing else.
- A trial is pruned against the generations before its own, at the same report. What its
  neighbours do meanwhile does not matter, so nobody waits for anybody.
- Trials are told in order, each in one transaction that holds all of it. A killed study lacks
  its last trials; taken up again it proposes just these, and goes on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import StorageError, TrainingError
from core.home import Home
from core.progress import Progress, Report, silent
from core.settings import Search
from registry.selection import effective_trials
from training.lesson import Lesson, Metrics
from training.space import Space
from training.studies import answering, library, storage
from training.workers import Outcome, Train, train_all

LEAST_TO_PRUNE = 3  # trials that must have reached a report before it prunes
BARS = "bars"  # attribute of a study: times of its returns, and how many there are a year
FIRST_PRUNED_REPORT = 1  # counted from 0: the first report is too early to judge


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of hyperparameters, tried."""

    number: int
    hyperparameters: Mapping[str, Any]
    state: str  # complete, pruned or failed
    score: float | None  # validation Sharpe ratio, annualised; of the last report when pruned
    curve: tuple[Metrics, ...]
    problem: str = ""
    returns: tuple[float, ...] = ()  # simple, per validation bar; empty unless complete


@dataclass(frozen=True, slots=True)
class Searched:
    """A finished search."""

    study: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """Return the complete trial with the highest score; raise ``TrainingError`` without one."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        if not complete:
            problem = next((t.problem for t in self.trials if t.problem), "all were pruned")
            raise TrainingError(f"{self.study}: none of {len(self.trials)} trials ended: {problem}")
        return max(complete, key=lambda trial: (_comparable(trial.score), -trial.number))

    @property
    def returns(self) -> np.ndarray:
        """Return the validation returns (N, T) of the N complete trials."""
        known = [trial.returns for trial in self.trials if trial.returns]
        return np.array(known, np.float64) if known else np.empty((0, 0))

    @property
    def effective_trials(self) -> float:
        """Return how many independent trials these were; one each where no returns are known."""
        returns = self.returns
        alike = effective_trials(returns) if len(returns) else 0.0
        return alike + len(self.trials) - len(returns)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search does; equal plans give equal results."""

    agent: str
    identity: str  # hash of all that decides a result: data, settings, rows
    trials: int
    space: Space
    settings: Search
    seed: int
    times: tuple[int, ...] = ()  # of the bar of each validation return, seconds since 1970
    bars_per_year: float = 252.0
    lost: frozenset[str] = frozenset()  # studies that were, and are gone: no name is used twice


Listen = Callable[[Trial], None]


def hear_nothing(trial: Trial) -> None:
    """Listen to nothing."""


def search(
    home: Home,
    plan: Plan,
    teach: Callable[[Mapping[str, Any]], Lesson],
    *,
    listen: Listen = hear_nothing,
    report: Report = silent,
    train: Train | None = None,
) -> Searched:
    """Run or resume the study of ``plan``; ``teach`` turns hyperparameters into a lesson.

    ``listen`` hears every trial once, in order, those of an interrupted run included.
    """
    study = open_study(home, plan)
    with answering(home):
        told = trials_of(study)
    for trial in told:
        listen(trial)
    began, before = time.monotonic(), len(told)
    while len(told) < plan.trials:
        generation, part = divmod(len(told), plan.settings.generation)
        first = len(told) - part
        size = min(plan.settings.generation, plan.trials - first)
        proposals = propose(plan, told[:first], generation, size)[part:]
        floors = floors_of(told[:first], plan.settings)
        waiting: dict[int, Outcome] = {}

        def done(
            index: int,
            outcome: Outcome,
            proposals: Sequence[Mapping[str, Any]] = proposals,
            waiting: dict[int, Outcome] = waiting,
            start: int = len(told),
        ) -> None:
            waiting[index] = outcome
            while (number := len(told)) - start in waiting:
                ended = waiting.pop(number - start)
                trial = _trial(number, proposals[number - start], ended)
                with answering(home):
                    study.add_trial(_frozen(plan.space, trial))
                told.append(trial)
                listen(trial)
            report(_progress(plan, told, len(waiting), time.monotonic() - began, before))

        train_all(home, [teach(proposal) for proposal in proposals], floors, done, train)
    return Searched(study.study_name, tuple(told))


def propose(
    plan: Plan, history: Sequence[Trial], generation: int, size: int
) -> list[dict[str, Any]]:
    """Return the hyperparameters of a generation; the very first are those of params.yaml."""
    optuna = library()
    seed = int(np.random.SeedSequence([plan.seed, generation]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=plan.settings.generation)
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    memory.add_trials([_frozen(plan.space, trial) for trial in history])
    if generation == 0:
        memory.enqueue_trial(plan.space.usual)
    return [dict(memory.ask(plan.space.distributions()).params) for _ in range(size)]


def floors_of(history: Sequence[Trial], settings: Search) -> tuple[float, ...]:
    """Return, per report, the best-so-far score below which a trial is not worth finishing."""
    floors = [-math.inf] * settings.reports
    for point in range(FIRST_PRUNED_REPORT, settings.reports - 1):
        reached = [
            max(_comparable(metrics["validation_score"]) for metrics in trial.curve[: point + 1])
            for trial in history
            if len(trial.curve) > point
        ]
        if len(reached) >= LEAST_TO_PRUNE:
            floors[point] = float(np.quantile(reached, settings.prune_below_quantile))
    return tuple(floors)


def open_study(home: Home, plan: Plan) -> Any:
    """Return the unfinished study of this plan, or a new one.

    It carries the bars of its trials' returns, by which they are compared with other studies'.
    """
    prefix = f"{plan.agent}/{plan.identity[:12]}/"
    with answering(home):
        kept = storage(home)
        for name in (f"{prefix}{number}" for number in range(1, 1_000_000)):
            if name in plan.lost:
                continue
            study = library().create_study(
                study_name=name, storage=kept, direction="maximize", load_if_exists=True
            )
            if study.user_attrs.get("closed", False):
                continue
            if BARS not in study.user_attrs:
                bars = {"times": list(plan.times), "per_year": plan.bars_per_year}
                study.set_user_attr(BARS, bars)
            return study
    raise StorageError(f"{home.studies}: more studies named {prefix} than can be")


def close_study(home: Home, name: str) -> None:
    """Mark a study as used up: the next retraining, of equal inputs even, begins a new one."""
    with answering(home):
        study = library().load_study(study_name=name, storage=storage(home))
        study.set_user_attr("closed", True)


def trials_of(study: Any) -> list[Trial]:
    """Return the trials a study was told, in order."""
    return [
        Trial(
            number=frozen.number,
            hyperparameters=dict(frozen.params),
            state=frozen.user_attrs["state"],
            score=frozen.user_attrs["score"],
            curve=tuple(frozen.user_attrs["curve"]),
            problem=frozen.user_attrs["problem"],
            returns=tuple(frozen.user_attrs.get("returns", ())),  # absent from older studies
        )
        for frozen in study.get_trials(deepcopy=False)
    ]


def _trial(number: int, proposal: Mapping[str, Any], outcome: Outcome) -> Trial:
    score = outcome.curve[-1]["validation_score"] if outcome.curve else None
    if outcome.trained is not None:
        score = outcome.trained.validation_score
    if score is not None and not math.isfinite(score):
        return Trial(number, proposal, "failed", None, (), "the validation score is no number")
    curve = tuple(_plain(metrics) for metrics in outcome.curve)
    returns = outcome.trained.validation_returns if outcome.trained is not None else ()
    return Trial(number, proposal, outcome.state, score, curve, outcome.problem, returns)


def _plain(metrics: Metrics) -> Metrics:
    """Keep what JSON can hold: NaN marks a figure that a report did not have."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _frozen(space: Space, trial: Trial) -> Any:
    """Return Optuna's record of a trial; with scores by report, so that its own tools show them."""
    optuna = library()
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state={"complete": states.COMPLETE, "pruned": states.PRUNED}.get(trial.state, states.FAIL),
        value=trial.score if trial.state == "complete" else None,
        params=dict(trial.hyperparameters),
        distributions=space.distributions(),
        intermediate_values={
            index: metrics["validation_score"] for index, metrics in enumerate(trial.curve)
        },
        user_attrs={
            "state": trial.state,
            "score": trial.score,
            "curve": list(trial.curve),
            "problem": trial.problem,
            "returns": list(trial.returns),
        },
    )


def _progress(
    plan: Plan, told: Sequence[Trial], waiting: int, seconds: float, before: int
) -> Progress:
    ended = len(told) + waiting
    scores = [t.score for t in told if t.state == "complete" and t.score is not None]
    best = f"best validation Sharpe {max(scores):.2f}" if scores else "none finished yet"
    left = seconds / max(1, ended - before) * (plan.trials - ended)
    eta = f", about {left:.0f} s left" if ended < plan.trials else ""
    return Progress("search", ended / plan.trials, f"trial {ended} of {plan.trials}: {best}{eta}")


def _comparable(score: float | None) -> float:
    return -math.inf if score is None else score
