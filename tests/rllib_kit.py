"""RLlib's own learners, with our networks' weights, fed with the episodes that we lived through."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.models.base import ENCODER_OUT
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


class JoinedEncoder(torch.nn.Module):
    """A critic's layers over observation and action side by side, as ours has them."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for width, outputs in pairwise([inputs, *hidden]):
            layers += [torch.nn.Linear(width, outputs), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        joined = torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], -1)
        return {ENCODER_OUT: self.layers(joined)}


class JoinedCatalog(SACCatalog):  # type: ignore[misc]
    """RLlib's own but for the critics' encoder, which would encode the action by itself first."""

    def _build_qf_encoder_continuous(self, framework: str) -> JoinedEncoder:
        inputs = self.observation_space.shape[0] + self.action_space.shape[0]
        return JoinedEncoder(inputs, self._model_config_dict["fcnet_hiddens"])


def linear_layers(*modules: torch.nn.Module) -> list[torch.nn.Linear]:
    return [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, torch.nn.Linear)
    ]


def copy_weights(network: Perceptron, member: int, layers: Sequence[torch.nn.Linear]) -> None:
    """Give RLlib's layers the weights of one member of ours."""
    for weight, bias, layer in zip(network.weights, network.biases, layers, strict=True):
        layer.weight.data.copy_(weight.data[member].T)
        layer.bias.data.copy_(bias.data[member, 0])


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
