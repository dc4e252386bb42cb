"""What test_training_actors lets happen beside a Ray of its own; results are plain data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray.rllib.core import DEFAULT_MODULE_ID
from training_kit import SMALL_PPO, SMALL_SAC, small_lesson

from core.errors import ConfigError
from core.home import Home
from training import checkpoint
from training.actors import market_of
from training.algorithm import MarketAlgorithm
from training.learn import Lesson, _seeded, build, train, weights_of
from training.lesson import Report, Trained
from training.ppo import MarketPpo
from training.rollout import MarketRunner
from training.workers import train_all

ONE_UPDATE = SMALL_PPO.model_copy(update={"epochs": 1, "minibatch": 256})  # the whole rollout


def flat(weights: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([value.reshape(-1) for _, value in sorted(weights.items())])


def one_step(_: Path) -> dict[str, Any]:
    """Take one step with two runners and learners, and the same with none."""
    lesson = small_lesson(hyperparameters=ONE_UPDATE, runners=2, learners=2)
    with _seeded(lesson.seed):
        alone = build(small_lesson(hyperparameters=ONE_UPDATE))
    spread = build(lesson)
    before = flat(weights_of(spread))
    same = bool((before == flat(weights_of(alone))).all())

    sampled = spread.sample()
    here = [
        MarketRunner(alone.config, market_of(lesson, place), alone.module, MarketPpo.explore, place)
        for place in (1, 2)
    ]
    expected = [runner.sample().observation for runner in here]
    lived_alike = bool((sampled.observation == np.concatenate(expected, axis=1)).all())

    batch = alone._ready(sampled)
    spread.update(batch, len(batch))
    alone.update(batch, len(batch))
    after = flat(weights_of(spread))
    state = lambda one: flat(one.module[DEFAULT_MODULE_ID].get_state()).tobytes()  # noqa: E731
    told = {
        "moved": float(np.abs(after - before).max()),
        "apart": float(np.abs(after - flat(weights_of(alone))).max()),
        "learners_alike": len(set(spread.each_learner(state))) == 1,
        "runners_alike": spread.each_runner(lambda one: flat(one.module.get_state()).tobytes())
        == [after.tobytes()] * 2,
        "lived_alike": lived_alike and same,
    }
    spread.stop()
    alone.stop()
    return told


def repeat(folder: Path) -> dict[str, Any]:
    """Train the same SAC lesson twice with actors; one of the first's runners is killed.

    What its checkpoint holds is then gone on from; the other has nobody's.
    """
    lesson = small_lesson(hyperparameters=SMALL_SAC, actions="continuous", runners=2, learners=2)
    marker = folder / "killed"

    def stumbling(lesson: Lesson, report: Report) -> Trained:
        def told(steps: int, metrics: dict[str, float]) -> None:
            if not marker.exists():
                others = psutil.Process().parent().children()
                runner = next(one for one in others if "RunnerActor" in one.name())
                runner.kill()
                marker.touch()
            report(steps, metrics)

        whole = checkpoint.restore

        def noted(algorithm: MarketAlgorithm, state: Mapping[str, Any]) -> None:
            with (folder / "restored").open("a") as file:
                file.write(f"{state['steps']} ")
            whole(algorithm, state)

        checkpoint.restore = noted
        try:
            return train(lesson, told, folder / "checkpoints", every_seconds=0.0)
        finally:
            checkpoint.restore = whole

    found = train_all(Home(folder), [lesson, lesson], train=stumbling)
    alone = train(small_lesson(hyperparameters=SMALL_SAC, actions="continuous"))
    return {
        "restored": (folder / "restored").read_text().split(),
        "killed": int(marker.exists()),
        "problems": [one.problem for one in found],
        "hashes": [one.trained.weights_sha256 for one in found if one.trained],
        "alone": alone.weights_sha256,
    }


def too_many(folder: Path) -> str:
    """Ask for more than there is."""
    try:
        train_all(Home(folder), [small_lesson(runners=4, learners=4)])
    except ConfigError as error:
        return str(error)
    return "nothing was said"
