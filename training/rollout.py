"""Rollouts: RLlib's EnvRunner for a batch of accounts, stepped and stored as whole arrays.

RLlib's own runner builds Python objects for every step of every account; this one writes one row
of (bars, accounts) arrays per step, NumPy's or tensors on the device the accounts live on. Owns
exploration and advantages; knows no loss.
"""

from collections.abc import Callable, Sequence
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

from core.arrays import Array, namespace
from training.environment import MarketBatch

REWARD_PER_BAR = "reward_per_bar"

Explore = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
# action distribution inputs (n, …), generator -> actions (n,) or (n, 1), their log probability (n,)


@dataclass(frozen=True, slots=True)
class Trajectories:
    """What ``n`` accounts lived through in ``bars`` bars; arrays are (bars, n, …)."""

    row: Array  # int (bars, n) of the dataset, at the decision
    observation: Array  # float32 (bars, n, D), at the decision
    action: Array  # (bars, n) or (bars, n, 1)
    log_probability: Array  # float32 (bars, n), of the action
    reward: Array  # float32 (bars, n)
    terminated: Array  # bool (bars, n)
    truncated: Array  # bool (bars, n)
    newest: Array  # float32 (n, D), the observation after the last bar
    last: Array  # float32 (m, D), where an episode was truncated, in order of (bar, account)

    def __len__(self) -> int:
        bars, accounts = self.reward.shape
        return int(bars * accounts)

    @classmethod
    def joined(cls, parts: "Sequence[Trajectories]") -> "Trajectories":
        """Return what all accounts of ``parts``, side by side, lived through."""
        if len(parts) == 1:
            return parts[0]
        xp = namespace(parts[0].reward)
        truncated = xp.concat([part.truncated for part in parts], axis=1)
        whole = xp.empty((*truncated.shape, parts[0].last.shape[-1]), dtype=xp.float32)
        first = 0
        for part in parts:
            accounts = part.reward.shape[1]
            whole[:, first : first + accounts][part.truncated] = part.last
            first += accounts
        sides = {
            name: xp.concat([getattr(part, name) for part in parts], axis=1)
            for name in ("row", "observation", "action", "log_probability", "reward", "terminated")
        }
        newest = xp.concat([part.newest for part in parts], axis=0)
        return cls(truncated=truncated, newest=newest, last=whole[truncated], **sides)


class MarketRunner(EnvRunner):  # type: ignore[misc]
    """Steps a ``MarketBatch``, in the training's process with the learner's very module."""

    def __init__(
        self,
        config: Any,
        market: MarketBatch,
        module: Any,
        explore: Explore,
        worker_index: int = 0,
    ) -> None:
        super().__init__(config=config, worker_index=worker_index)
        self.env = market
        self.module = module
        self._explore = explore
        seed = own_seed(module.model_config["seed"], worker_index)
        self._noise = torch.Generator(module.device).manual_seed(seed)
        self._observation = market.reset()
        xp, device = market.xp, market.device
        self._returns = xp.zeros(market.n, dtype=xp.float64, device=device)
        self._lengths = xp.zeros(market.n, dtype=xp.int64, device=device)

    def sample(self, *, bars: int | None = None, **_: Any) -> Trajectories:
        """Step every account ``bars`` times, exploring, and return what happened."""
        bars = bars or self.config.get_rollout_fragment_length()
        n, width = self._observation.shape
        xp = self.env.xp

        def empty(dtype: Any, *more: int) -> Array:
            return xp.empty((bars, n, *more), dtype=dtype, device=self.env.device)

        observation = empty(xp.float32, width)
        reward, log_probability = empty(xp.float32), empty(xp.float32)
        terminated, truncated = empty(xp.bool), empty(xp.bool)
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
            row=xp.stack(rows),
            observation=observation,
            action=xp.stack(actions),
            log_probability=log_probability,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            newest=self._observation,
            last=xp.concat([observation[0, :0], *last], axis=0),
        )

    def _act(self, observation: Array) -> tuple[Array, Array]:
        tensor = torch.as_tensor(observation, device=self.module.device)
        inputs = self.module.forward_exploration({Columns.OBS: tensor})[Columns.ACTION_DIST_INPUTS]
        action, log_probability = self._explore(inputs, self._noise)
        if self.env.device is not None:  # where the accounts live, too
            return action, log_probability
        return action.numpy(), log_probability.numpy()

    def _count(self, reward: Array, ended: Array) -> None:
        self._returns += reward
        self._lengths += 1
        if not ended.any():
            return
        finished = int(ended.sum())
        returns, lengths = float(self._returns[ended].sum()), float(self._lengths[ended].sum())
        self.metrics.log_value(EPISODE_RETURN_MEAN, returns / finished, window=20)
        self.metrics.log_value(EPISODE_LEN_MEAN, lengths / finished, window=20)
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
        """Return where every account stands, and the noise to come; weights are the learner's."""
        return {
            "market": self.env.get_state(),
            "observation": self._observation,
            "returns": self._returns,
            "lengths": self._lengths,
            "noise": self._noise.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from ``get_state()``."""
        xp, device = self.env.xp, self.env.device
        self.env.set_state(state["market"])
        self._observation = xp.asarray(state["observation"], device=device)
        self._returns = xp.asarray(state["returns"], device=device)
        self._lengths = xp.asarray(state["lengths"], device=device)
        self._noise.set_state(torch.as_tensor(state["noise"]))


def own_seed(seed: int, worker_index: int) -> int:
    """Return the seed of one of several actors of a training; that of number 0 is ``seed``."""
    if not worker_index:
        return seed
    return int(np.random.SeedSequence([seed, worker_index]).generate_state(1)[0])


def advantages(
    trajectories: Trajectories,
    value: Array,
    next_value: Array,
    discount: float,
    gae_lambda: float,
) -> Array:
    """Return generalised advantages, float32 (bars, n).

    Schulman et al. (2016), eq. 16, over all accounts at once. ``next_value`` (bars, n) is the
    value of the observation after the bar, before any new episode begins; termination is worth
    nothing, truncation is worth what it would have gone on to be.
    """
    xp = namespace(value)
    alive = 1.0 - xp.astype(trajectories.terminated, xp.float32)
    going_on = alive * (1.0 - xp.astype(trajectories.truncated, xp.float32))
    delta = trajectories.reward + discount * alive * next_value - value
    advantage = xp.empty_like(delta)
    carried = xp.zeros_like(delta[0])
    for bar in range(len(delta) - 1, -1, -1):
        carried = delta[bar] + discount * gae_lambda * going_on[bar] * carried
        advantage[bar] = carried
    return advantage


def next_values(trajectories: Trajectories, value: Array, newest: Array, last: Array) -> Array:
    """Return the value (bars, n) after each bar, from those at decisions and at episode ends."""
    following = namespace(value).concat([value[1:], newest[None]], axis=0)
    following[trajectories.truncated] = last
    return following
