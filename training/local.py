"""RLlib in this very process: an Algorithm with one learner, one batched runner and no cluster.

RLlib's own set-up starts a Ray cluster (ten seconds) to hold workers that are not wanted here. A
training *is* one worker: the study runs many of them, as Ray tasks. Owns the set-up; the
algorithms are in ``training/ppo.py`` and ``training/sac.py``.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from training.device import find_device
from training.environment import MarketBatch
from training.rollout import Explore, MarketRunner


class LocalRunners(EnvRunnerGroup):  # type: ignore[misc]
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

    def sync_env_runner_states(self, **_: Any) -> None:
        """There are no connectors whose state could differ."""


class LocalLearner(TorchLearner):  # type: ignore[misc]
    """A learner on the device its module's configuration names."""

    def _make_module(self) -> Any:
        spec = self._module_spec.rl_module_specs[DEFAULT_MODULE_ID]
        self._device = find_device(spec.model_config["device"])
        return super()._make_module()


class OneModeModule(TorchRLModule):  # type: ignore[misc]
    """A module without layers that behave otherwise while training (dropout …)."""

    def train(self, mode: bool = True) -> Self:
        """Note the mode; RLlib changes it around every single inference."""
        self.training = mode
        return self


class LocalAlgorithm(Algorithm):  # type: ignore[misc]
    """Set-up of an Algorithm whose environment is one ``MarketBatch``."""

    explore: Explore

    def __init__(self, config: Any, market: MarketBatch) -> None:
        self._market = market
        super().__init__(config=config)

    def setup(self, config: Any) -> None:
        """Build the learner and, around its module, the runner; called by RLlib, once."""
        self.config = config
        self.callbacks = [make() for make in _as_list(config.callbacks_class)]
        self.offline_data = None
        self.env_to_module_connector = self.module_to_env_connector = None
        self._aggregator_actor_manager = None
        self.evaluation_config = config.copy(copy_frozen=False)
        self.evaluation_config.freeze()
        spaces = (config.observation_space, config.action_space)
        self.spaces = dict.fromkeys((INPUT_ENV_SPACES, DEFAULT_MODULE_ID), spaces)
        spec = config.get_multi_rl_module_spec(spaces=self.spaces, inference_only=False)
        self.learner_group = config.build_learner_group(rl_module_spec=spec)
        runner = MarketRunner(
            config, self._market, self.learner.module[DEFAULT_MODULE_ID], type(self).explore
        )
        self.env_runner_group = LocalRunners(runner)
        self._set_up_metrics()

    @property
    def learner(self) -> Any:
        """The one learner of this process."""
        return self.learner_group._learner

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
