"""RLlib's own learners, with our networks' weights, fed with the episodes that we lived through."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from training.environment import MarketBatch
from training.network import Perceptron
from training.rollout import Trajectories
from training.spaces import Actions, action_space, observation_space


def stock_learner(config: AlgorithmConfig, market: MarketBatch, actions: Actions) -> Any:
    """Return RLlib's learner for ``config``: its connectors, module, loss and autograd."""
    spaces = observation_space(market.width, market.bound), action_space(actions)
    config = config.environment(observation_space=spaces[0], action_space=spaces[1]).learners(
        num_learners=0
    )
    learner = config.build_learner(env=None, spaces={DEFAULT_MODULE_ID: spaces})
    return learner


def assert_same_gradients(
    network: Perceptron, member: int, layers: Sequence[torch.nn.Linear]
) -> None:
    """Hold the gradients of one member of ours against RLlib's."""
    for weight, bias, layer in zip(network.weights, network.biases, layers, strict=True):
        largest = float(layer.weight.grad.abs().max())
        assert largest > 1e-4  # a gradient of nothing would equal anything
        tolerance = {"rtol": 1e-4, "atol": 1e-5 * largest}
        torch.testing.assert_close(weight.grad[member], layer.weight.grad.T, **tolerance)
        torch.testing.assert_close(bias.grad[member, 0], layer.bias.grad, **tolerance)


def episodes(
    trajectories: Trajectories, inputs: np.ndarray, longest: int | None = None
) -> Iterator[Any]:
    """Yield what was lived through as RLlib's runner would hand it on, account by account.

    An episode is cut where it ends, at the end of the rollout, and after ``longest`` steps.
    ``inputs`` (bars, accounts, m) are those of the distribution of the action.
    """
    bars, accounts = trajectories.reward.shape
    ends = {tuple(at): n for n, at in enumerate(np.argwhere(trajectories.truncated))}
    for account in range(accounts):
        first = 0
        for bar in range(bars):
            over = trajectories.terminated[bar, account] or trajectories.truncated[bar, account]
            if not (over or bar == bars - 1 or bar - first + 1 == longest):
                continue
            following = trajectories.newest[account]
            if (bar, account) in ends:
                following = trajectories.last[ends[bar, account]]
            elif bar < bars - 1:  # after a termination never looked at
                following = trajectories.observation[bar + 1, account]
            steps = slice(first, bar + 1)
            yield SingleAgentEpisode(
                observations=[*trajectories.observation[steps, account], following],
                actions=list(trajectories.action[steps, account]),
                rewards=[float(r) for r in trajectories.reward[steps, account]],
                terminated=bool(trajectories.terminated[bar, account]),
                truncated=bool(trajectories.truncated[bar, account]),
                extra_model_outputs={
                    Columns.ACTION_LOGP: list(trajectories.log_probability[steps, account]),
                    Columns.ACTION_DIST_INPUTS: list(inputs[steps, account]),
                    "weights": [1.0] * (bar + 1 - first),
                    "n_step": [1.0] * (bar + 1 - first),
                },
                len_lookback_buffer=0,
            )
            first = bar + 1


def batch_of(learner: Any, lived: Sequence[Any]) -> dict[str, Any]:
    """Return what RLlib's connectors make of episodes, for its loss."""
    made = learner._make_batch_if_necessary(TrainingData(episodes=list(lived)))
    return dict(made.policy_batches[DEFAULT_MODULE_ID])


def differentiate(learner: Any, batch: dict[str, Any]) -> None:
    """Let RLlib compute its loss and leave its gradients in its parameters."""
    batches = {DEFAULT_MODULE_ID: batch}
    outputs = learner.module.forward_train(batches)
    losses = learner.compute_losses(fwd_out=outputs, batch=batches)
    learner.compute_gradients(losses)
