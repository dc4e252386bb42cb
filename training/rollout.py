"""Rollouts: RLlib's EnvRunner for a batch of accounts, stepped and stored as whole arrays.

RLlib's own runner builds Python objects for every step of every account; this one writes one row
of (bars, accounts) arrays per step. Owns exploration and advantages; knows no loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)
from torch import Tensor

from training.environment import MarketBatch

REWARD_PER_BAR = "reward_per_bar"

Explore = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
# action distribution inputs (n, …), generator -> actions (n,) or (n, 1), their log probability (n,)


@dataclass(frozen=True, slots=True)
class Trajectories:
    """What ``n`` accounts lived through in ``bars`` bars; arrays are (bars, n, …)."""

    row: np.ndarray  # int (bars, n) of the dataset, at the decision
    observation: np.ndarray  # float32 (bars, n, D), at the decision
    action: np.ndarray  # (bars, n) or (bars, n, 1)
    log_probability: np.ndarray  # float32 (bars, n), of the action
    reward: np.ndarray  # float32 (bars, n)
    terminated: np.ndarray  # bool (bars, n)
    truncated: np.ndarray  # bool (bars, n)
    newest: np.ndarray  # float32 (n, D), the observation after the last bar
    last: np.ndarray  # float32 (m, D), where an episode was truncated, in order of (bar, account)

    def __len__(self) -> int:
        return int(self.reward.size)


class MarketRunner(EnvRunner):  # type: ignore[misc]
    """Steps a ``MarketBatch`` with the learner's own module: nothing to synchronise."""

    def __init__(self, config: Any, market: MarketBatch, module: Any, explore: Explore) -> None:
        super().__init__(config=config, worker_index=0)
        self.env = market
        self.module = module
        self._explore = explore
        self._noise = torch.Generator(module.device).manual_seed(module.model_config["seed"])
        self._observation = market.reset()
        self._returns = np.zeros(market.n)
        self._lengths = np.zeros(market.n, np.int64)

    def sample(self, *, bars: int | None = None, **_: Any) -> Trajectories:
        """Step every account ``bars`` times, exploring, and return what happened."""
        bars = bars or self.config.get_rollout_fragment_length()
        n, width = self._observation.shape
        observation = np.empty((bars, n, width), np.float32)
        reward = np.empty((bars, n), np.float32)
        terminated, truncated = np.empty((bars, n), bool), np.empty((bars, n), bool)
        log_probability = np.empty((bars, n), np.float32)
        rows, actions, last = [], [], []
        for bar in range(bars):
            observation[bar] = self._observation
            action, log_probability[bar] = self._act(self._observation)
            step = self.env.step(action)
            rows.append(step.row - 1)
            actions.append(action)
            reward[bar], terminated[bar], truncated[bar] = (
                step.reward,
                step.terminated,
                step.truncated,
            )
            if step.truncated.any():
                last.append(step.last_observation[step.truncated])
            self._observation = step.observation
            self._count(step.reward, step.terminated | step.truncated)
        self._log_env_steps(self._metrics_num_env_steps_sampled, bars * n)
        self.metrics.log_value(REWARD_PER_BAR, float(reward.mean()), window=1)
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, bars * n, reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, bars * n, reduce="lifetime_sum")
        return Trajectories(
            row=np.stack(rows),
            observation=observation,
            action=np.stack(actions),
            log_probability=log_probability,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            newest=self._observation,
            last=np.concatenate(last) if last else np.empty((0, width), np.float32),
        )

    def _act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = torch.from_numpy(observation).to(self.module.device)
        inputs = self.module.forward_exploration({Columns.OBS: tensor})[Columns.ACTION_DIST_INPUTS]
        action, log_probability = self._explore(inputs, self._noise)
        return action.cpu().numpy(), log_probability.cpu().numpy()

    def _count(self, reward: np.ndarray, ended: np.ndarray) -> None:
        self._returns += reward
        self._lengths += 1
        if not ended.any():
            return
        finished = int(ended.sum())
        self.metrics.log_value(EPISODE_RETURN_MEAN, float(self._returns[ended].mean()), window=20)
        self.metrics.log_value(EPISODE_LEN_MEAN, float(self._lengths[ended].mean()), window=20)
        self.metrics.log_value(NUM_EPISODES, finished, reduce="sum")
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def get_metrics(self) -> Any:
        """Return what was logged since the last call, reduced."""
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, Any]:
        """RLlib asks; the algorithm's configuration already has them."""
        return {}

    def assert_healthy(self) -> None:
        """RLlib asks; a batch of arrays in this process has nothing to lose."""

    def get_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return nothing: the weights are the learner's, the accounts are not checkpointed."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take nothing; see ``get_state``."""


def advantages(
    trajectories: Trajectories,
    value: np.ndarray,
    next_value: np.ndarray,
    discount: float,
    gae_lambda: float,
) -> np.ndarray:
    """Return generalised advantages, float32 (bars, n).

    Schulman et al. (2016), eq. 16, over all accounts at once. ``next_value`` (bars, n) is the
    value of the observation after the bar, before any new episode begins; termination is worth
    nothing, truncation is worth what it would have gone on to be.
    """
    alive = 1.0 - trajectories.terminated.astype(np.float32)
    going_on = alive * (1.0 - trajectories.truncated.astype(np.float32))
    delta = trajectories.reward + discount * alive * next_value - value
    advantage = np.empty_like(delta)
    carried = np.zeros(delta.shape[1], np.float32)
    for bar in range(len(delta) - 1, -1, -1):
        carried = delta[bar] + discount * gae_lambda * going_on[bar] * carried
        advantage[bar] = carried
    return np.asarray(advantage)


def next_values(
    trajectories: Trajectories, value: np.ndarray, newest: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Return the value (bars, n) after each bar, from those at decisions and at episode ends."""
    following = np.concatenate([value[1:], newest[None]])
    following[trajectories.truncated] = last
    return np.asarray(following)
