"""Learning: one policy from one lesson, the same weights for the same lesson.

Owns the loop: build the learner, train, score on the validation rows, report, export. A lesson is
plain data and travels to a Ray task or a new process. Knows neither trials, folds nor the
registry.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ray.exceptions import RayActorError
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from core.calendar import bars_per_year
from core.metrics import sharpe
from core.settings import Ppo
from features.account import ACCOUNT_COLUMNS
from features.observation import observation_columns
from training.actors import market_of, with_actors
from training.algorithm import MarketAlgorithm, quiet
from training.checkpoint import EVERY_SECONDS, Keeper, Progress
from training.environment import MarketBatch, play
from training.export import check_compatible, pack, policy_onnx, unpack, weights_sha256
from training.lesson import Lesson, Metrics, Report, Trained, ignore
from training.ppo import MarketPpo, ppo_config
from training.rewards import find_reward
from training.sac import MarketSac, sac_config
from training.spaces import target_weight

__all__ = ["Lesson", "Metrics", "Report", "Trained", "ignore", "train"]

VALIDATION_STRETCHES = 8
LEAST_VALIDATION_BARS = 21


def train(
    lesson: Lesson,
    report: Report = ignore,
    checkpoints: Path | None = None,
    every_seconds: float = EVERY_SECONDS,
) -> Trained:
    """Learn ``lesson``; ``report(steps, metrics)`` is called ``lesson.reports`` times.

    Whatever ``report`` raises (a pruned trial) ends the training and comes through. The same
    lesson gives the same weights bit for bit on a CPU, in any process; also where one of them was
    killed and another goes on from what it left in ``checkpoints``. What was reported before is
    then reported again.
    """
    started = time.perf_counter()
    keeper = Keeper(lesson, checkpoints, every_seconds)
    with quiet(), _seeded(lesson.seed):
        algorithm = build(lesson)
        try:
            progress = _run(algorithm, lesson, report, keeper, started)
            weights = weights_of(algorithm)
            exported = export_policy(algorithm, lesson)
            returns = validation_returns(algorithm, lesson)
            keeper.end()
        except RayActorError:  # one of its own was lost: it goes on from its checkpoint
            raise
        except Exception:  # pruned or broken: nobody goes on with it; killed, it is none
            keeper.end()
            raise
        finally:
            algorithm.stop()
    curve = tuple(progress.curve)
    return Trained(
        policy_onnx=exported,
        weights=pack(weights),
        weights_sha256=weights_sha256(weights),
        curve=curve,
        validation_score=curve[-1]["validation_score"],
        steps=int(curve[-1]["steps"]),
        seconds=progress.seconds + time.perf_counter() - started,
        validation_returns=tuple(np.expm1(returns).tolist()),
    )


def build(lesson: Lesson) -> MarketAlgorithm:
    """Return RLlib's algorithm with its first weights, or those of a warm start."""
    market = market_of(lesson)
    settings = lesson.hyperparameters
    algorithm: MarketAlgorithm
    if isinstance(settings, Ppo):
        ppo = ppo_config(settings, market, lesson.actions, lesson.seed, lesson.device)
        algorithm = MarketPpo(with_actors(ppo, lesson, MarketPpo.explore), market)
    else:
        config = sac_config(settings, market, lesson.seed, lesson.device)
        sac = MarketSac(with_actors(config, lesson, MarketSac.explore), market)
        if lesson.lived is not None:
            sac.remember(lesson.lived, market.worth(lesson.lived))
        algorithm = sac
    if lesson.warm_start is not None:
        weights = unpack(lesson.warm_start)
        check_compatible(weights, weights_of(algorithm))
        algorithm.each_learner(lambda one: one.module[DEFAULT_MODULE_ID].set_state(weights))
        algorithm.spread_weights()
    return algorithm


def _run(
    algorithm: MarketAlgorithm, lesson: Lesson, report: Report, keeper: Keeper, started: float
) -> Progress:
    progress = keeper.take_up(algorithm)
    for metrics in progress.curve:
        report(int(metrics["steps"]), metrics)
    for point in range(len(progress.curve) + 1, lesson.reports + 1):
        goal = lesson.steps * point / lesson.reports
        while algorithm.steps < goal:
            progress.add(algorithm.train())
            keeper.keep(algorithm, progress)
        steps = algorithm.steps
        elapsed = progress.seconds + time.perf_counter() - started
        metrics = {
            "steps": float(steps),
            "validation_score": validation_score(algorithm, lesson),
            "steps_per_second": steps / elapsed,
            "seconds_left": elapsed / steps * max(lesson.steps - steps, 0),
            **({"reward": float(np.mean(progress.rewards))} if progress.rewards else {}),
            **progress.figures,
        }
        progress.reported(metrics)
        report(steps, metrics)
    return progress


def validation_score(algorithm: MarketAlgorithm, lesson: Lesson) -> float:
    """Return the annualised Sharpe ratio of ``validation_returns``."""
    returns = validation_returns(algorithm, lesson)
    equity = np.exp(np.concatenate([[0.0], returns.cumsum()]))
    return float(sharpe(equity, bars_per_year(lesson.dataset.interval)))


def validation_returns(algorithm: MarketAlgorithm, lesson: Lesson) -> np.ndarray:
    """Return ``returns_of`` the learner's own decisions, without exploration."""
    return returns_of(lesson, partial(decide, algorithm))


def returns_of(lesson: Lesson, act: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the log returns of ``act`` on the validation rows, after costs, in time order.

    The rows are cut into equal stretches that are traded side by side, each beginning flat:
    several times faster than one account after the other, and no single halt decides.
    """
    start = max(lesson.validation_rows[0], lesson.dataset.first_row)
    rows = (start, lesson.validation_rows[1])
    bars = rows[1] - rows[0]
    stretches = max(1, min(VALIDATION_STRETCHES, bars // LEAST_VALIDATION_BARS))
    market = MarketBatch(
        lesson.dataset,
        lesson.scaler,
        lesson.rules,
        lesson.environment.model_copy(update={"episode_bars": bars}),
        find_reward("log_return"),
        stretches,
        np.random.default_rng(0),
        rows=rows,
        actions=lesson.actions,
        cash=lesson.cash,
    )

    def weight(observation: np.ndarray) -> np.ndarray:
        weights = target_weight(act(observation), lesson.actions, lesson.rules.allow_short)
        return np.asarray(weights)

    return play(market, weight, rows, stretches)


def decide(algorithm: MarketAlgorithm, observation: np.ndarray) -> np.ndarray:
    """Return the learner's own decision without exploration: RLlib's inference."""
    module = algorithm.module
    tensor = torch.from_numpy(observation).to(module.device)
    inputs = module.forward_inference({Columns.OBS: tensor})[Columns.ACTION_DIST_INPUTS]
    return np.asarray(module.deterministic(inputs).cpu().numpy())


def weights_of(algorithm: MarketAlgorithm) -> dict[str, np.ndarray]:
    """Return every weight of every network by name."""
    return dict(algorithm.module.get_state())


def export_policy(algorithm: MarketAlgorithm, lesson: Lesson) -> bytes:
    """Return the policy as ONNX, deciding as ``decide`` does."""
    module = algorithm.module
    width = len(observation_columns(lesson.dataset.spec))
    position = width - len(ACCOUNT_COLUMNS) + ACCOUNT_COLUMNS.index("position_weight")
    return policy_onnx(
        module.actor.layers(),
        actions=lesson.actions,
        allow_short=lesson.rules.allow_short,
        position_column=position,
        log_deviation=module.fixed_log_deviation(),
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw torch's first weights from ``seed``, compute on one thread; afterwards as before.

    RLlib's own ``seed`` stays unset: it would seed every generator of the process for good, and
    spend seconds on importing torch's compiler.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
