"""Actors: one training spread over several processes, by RLlib's own env runners and learners.

Owns what a Ray actor needs to become a runner, which accounts it steps, and how a batch is shared
among learners. The same numbers of actors give the same weights, other numbers give others. An
actor that is lost ends the training, which begins anew (``training/workers.py``).
"""

from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES

from core.errors import ConfigError
from core.settings import Ppo
from training.algorithm import module_of
from training.environment import MarketBatch
from training.lesson import Lesson
from training.rewards import find_reward
from training.rollout import Explore, MarketRunner, own_seed


class RunnerActor(MarketRunner):
    """A runner in a process of its own, with a part of the accounts and a copy of the network."""

    def __init__(self, *, config: Any, worker_index: int, **_: Any) -> None:
        torch.set_num_threads(1)
        spaces = (config.observation_space, config.action_space)
        named = dict.fromkeys((INPUT_ENV_SPACES, DEFAULT_MODULE_ID), spaces)
        module = module_of(config.get_multi_rl_module_spec(spaces=named, inference_only=False))
        given = config.env_config
        market = market_of(given["lesson"], worker_index)
        super().__init__(config, market, module, given["explore"], worker_index)

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the learners' weights, as RLlib hands them on; or go on from ``get_state()``."""
        if isinstance(state, ray.ObjectRef):
            state = ray.get(state)
        if COMPONENT_RL_MODULE in state:
            self.module.set_state(state[COMPONENT_RL_MODULE])
        else:
            super().set_state(state)


def market_of(lesson: Lesson, runner: int = 0) -> MarketBatch:
    """Return the market of a lesson with all its accounts, or with those of one runner from 1."""
    accounts = lesson.environment.accounts
    if runner:
        whole, rest = divmod(accounts, lesson.runners)
        accounts = whole + (runner <= rest)
    return MarketBatch(
        lesson.dataset,
        lesson.scaler,
        lesson.rules,
        lesson.environment,
        find_reward(lesson.reward),
        accounts,
        np.random.default_rng(own_seed(lesson.seed, runner)),
        rows=lesson.train_rows,
        actions=lesson.actions,
        cash=lesson.cash,
        device=lesson.device,
    )


def with_actors(config: Any, lesson: Lesson, explore: Explore) -> Any:
    """Return RLlib's ``config`` with the actors that ``lesson`` asks for; raise ``ConfigError``."""
    if lesson.processors == 1:
        return config
    if lesson.device not in ("cpu", "torch-cpu"):
        raise ConfigError(
            f"training.runners and training.learners share processors, RATCHET_DEVICE is "
            f"{lesson.device}; set both to 0: one training fills a device by itself"
        )
    if lesson.environment.accounts < lesson.runners:
        raise ConfigError(
            f"training.runners is {lesson.runners}, environment.accounts "
            f"{lesson.environment.accounts}: each runner steps at least one; lower the former"
        )
    settings, shares = lesson.hyperparameters, {}
    if isinstance(settings, Ppo):
        total = config.train_batch_size_per_learner
        shares["minibatch_size"] = _share(config.minibatch_size, lesson, "ppo.minibatch")
    else:
        total = settings.batch
    shares["train_batch_size_per_learner"] = _share(total, lesson, "the batch")
    return (
        config.environment(env_config={"lesson": lesson, "explore": explore})
        .env_runners(num_env_runners=lesson.runners, env_runner_cls=RunnerActor)
        .learners(num_learners=lesson.learners)
        .training(**shares)
        # A runner that came back would have other accounts: the same lesson, other weights.
        .fault_tolerance(restart_failed_env_runners=False, ignore_env_runner_failures=False)
    )


def _share(rows: int, lesson: Lesson, what: str) -> int:
    """Return how many of ``rows`` each learner gets: all the same, or a mean would be none."""
    share, rest = divmod(rows, max(1, lesson.learners))
    if rest or not share:
        raise ConfigError(
            f"{what} of {rows} rows cannot be shared evenly by {lesson.learners} learners; "
            "set training.learners to a divisor of it"
        )
    return share
