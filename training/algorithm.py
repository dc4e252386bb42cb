"""RLlib's Algorithm on batches of accounts: in this very process, or with actors of Ray's.

RLlib's own set-up starts a Ray cluster (ten seconds) to hold workers that are not wanted where a
training *is* one worker: the study runs many of them, as Ray tasks. Then one learner and one
runner live here and share one network. With ``training.runners`` or ``training.learners`` they
are RLlib's actors (``training/actors.py``), and the network here follows the learners'. Owns the
set-up; the algorithms are in ``training/ppo.py`` and ``training/sac.py``.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.apis.target_network_api import TargetNetworkAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from torch import Tensor

from training.device import find_device
from training.environment import MarketBatch
from training.rollout import Explore, MarketRunner, Trajectories, own_seed


class Runners(EnvRunnerGroup):  # type: ignore[misc]
    """RLlib's group of runners that have no connectors."""

    def sync_env_runner_states(self, **_: Any) -> None:
        """There are no connectors whose state could differ."""


class LocalRunners(Runners):
    """The group RLlib expects, holding one runner of this process and no actors."""

    def __init__(self, runner: MarketRunner) -> None:
        # Not super().__init__: it puts the configuration into a cluster's object store.
        self._local_env_runner = runner
        self._worker_manager = FaultTolerantActorManager(init_id=1)
        self._remote_config = runner.config
        self._ignore_ray_errors_on_env_runners = False
        self._num_env_runners_dropped_lifetime = 0
        self.env_runner_cls = MarketRunner

    def sync_weights(self, **_: Any) -> None:
        """The runner steps the learner's own module."""


class MarketLearner(TorchLearner):  # type: ignore[misc]
    """A learner on the device its module's configuration names, alone or one of several."""

    @property
    def place(self) -> int:
        """Which of several learners this is; 0 where it is the only one."""
        return self._learner_index or 0

    def own_seed(self) -> int:
        """Return the seed of what this learner draws."""
        return own_seed(self.module[DEFAULT_MODULE_ID].model_config["seed"], self.place)

    def _make_module(self) -> Any:
        settings = self._module_spec.rl_module_specs[DEFAULT_MODULE_ID].model_config
        self._device = find_device(settings["device"])
        if self.config.num_learners:  # in a process of its own: all begin with the same weights
            torch.set_num_threads(1)
            torch.manual_seed(settings["seed"])
        return super()._make_module()

    def _make_modules_ddp_if_necessary(self) -> None:
        """Leave the modules as they are: torch joins autograd's gradients, these are written."""

    def columns_of(self, training_data: Any) -> dict[str, Tensor]:
        """Return the columns of a ready batch on this learner's device."""
        ready = training_data.batch.policy_batches[DEFAULT_MODULE_ID]
        if self.config.num_learners:  # it lies in memory that nobody may write to
            ready = {key: np.require(ready[key], requirements="W") for key in ready}
        return {key: torch.as_tensor(ready[key]).to(self._device) for key in ready}

    def average(self, gradient: Tensor) -> Tensor:
        """Make ``gradient`` the mean of all learners', in place; the same bits in each of them."""
        if self.distributed:
            torch.distributed.all_reduce(gradient)
            gradient /= self.config.num_learners
        return gradient


class OneModeModule(TorchRLModule):  # type: ignore[misc]
    """A module without layers that behave otherwise while training (dropout …)."""

    def train(self, mode: bool = True) -> Self:
        """Note the mode; RLlib changes it around every single inference."""
        self.training = mode
        return self


class MarketAlgorithm(Algorithm):  # type: ignore[misc]
    """Set-up of an Algorithm whose environment is a ``MarketBatch``, or a part of it per actor."""

    explore: Explore

    def __init__(self, config: Any, market: MarketBatch) -> None:
        self._market = market
        self.steps = 0  # of all accounts, those before a resumption included
        super().__init__(config=config)

    def setup(self, config: Any) -> None:
        """Build learners and runners; called by RLlib, once."""
        self.config = config
        self.callbacks = [make() for make in _as_list(config.callbacks_class)]
        self.offline_data = None
        self.env_to_module_connector = self.module_to_env_connector = None
        self._aggregator_actor_manager = None
        self.evaluation_config = config.copy(copy_frozen=False)
        self.evaluation_config.freeze()
        spaces = (config.observation_space, config.action_space)
        self.spaces = dict.fromkeys((INPUT_ENV_SPACES, DEFAULT_MODULE_ID), spaces)
        if config.num_env_runners:  # first: they have fixed places among a training's processors
            self.env_runner_group = Runners(config=config, local_env_runner=False)
        spec = config.get_multi_rl_module_spec(spaces=self.spaces, inference_only=False)
        self.learner_group = config.build_learner_group(rl_module_spec=spec)
        self.module = module_of(spec) if config.num_learners else self._own_module()
        if not config.num_env_runners:
            runner = MarketRunner(config, self._market, self.module, type(self).explore)
            self.env_runner_group = LocalRunners(runner)
        self.spread_weights()
        self._set_up_metrics()

    @property
    def learner(self) -> Any:
        """The learner of this process; None where learners are actors."""
        return self.learner_group._learner

    def _own_module(self) -> Any:
        return self.learner.module[DEFAULT_MODULE_ID]

    def sample(self) -> Trajectories:
        """Let every runner live through a fragment; return all accounts side by side."""
        found = sorted(self.env_runner_group.foreach_env_runner(_lived), key=lambda one: one[0])
        self.metrics.aggregate([metrics for _, _, metrics in found], key=ENV_RUNNER_RESULTS)
        lived = Trajectories.joined([trajectories for _, trajectories, _ in found])
        self.steps += len(lived)
        return lived

    def update(self, batch: SampleBatch, steps: int) -> None:
        """Let the learners learn from a ready batch that is worth so many environment steps."""
        results = self.learner_group.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=steps),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.steps},
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.spread_weights()

    def spread_weights(self) -> None:
        """Give the learners' weights to the networks of other processes, this one included."""
        if self.learner is None:
            self.module.set_state(self.learner_group.get_weights()[DEFAULT_MODULE_ID])
        if self.config.num_env_runners:
            weights = ray.put({COMPONENT_RL_MODULE: self.module.get_state()})
            self.env_runner_group.foreach_env_runner(
                "set_state", kwargs={"state": weights}, local_env_runner=False
            )

    def each_learner(self, work: Callable[[Any], Any]) -> list[Any]:
        """Return what ``work`` makes of every learner, in their order."""
        found = [one.get() for one in self.learner_group.foreach_learner(partial(_placed, work))]
        return [result for _, result in sorted(found, key=lambda one: one[0])]

    def each_runner(self, work: Callable[[Any], Any]) -> list[Any]:
        """Return what ``work`` makes of every runner, in their order."""
        found = self.env_runner_group.foreach_env_runner(partial(_indexed, work))
        return [result for _, result in sorted(found, key=lambda one: one[0])]

    def memory(self) -> dict[str, Any]:
        """Return what an algorithm keeps beside learner and runner: here nothing."""
        return {}

    def set_memory(self, state: Mapping[str, Any]) -> None:
        """Take back ``memory()``."""

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the learner: RLlib's checkpoint is a policy, ours a training (checkpoint.py)."""
        return [(COMPONENT_LEARNER_GROUP, self.learner_group)]

    def _setup_logdir(self) -> None:
        # RLlib would leave a folder in ~/ray_results for every training.
        self._logdir = tempfile.gettempdir()


def module_of(spec: Any) -> Any:
    """Build the network of ``spec``, as a learner has it, in a process without learner."""
    module = spec.build()[DEFAULT_MODULE_ID]
    if isinstance(module, TargetNetworkAPI):
        module.make_target_networks()
    return module


def _lived(runner: Any) -> tuple[int, Trajectories, Any]:
    return runner.worker_index, runner.sample(), runner.get_metrics()


def _placed(work: Callable[[Any], Any], learner: Any) -> tuple[int, Any]:
    return learner.place, work(learner)


def _indexed(work: Callable[[Any], Any], runner: Any) -> tuple[int, Any]:
    return runner.worker_index, work(runner)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence RLlib's hints about its own API while a training runs; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.rllib", "ray.tune")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
