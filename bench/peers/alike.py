"""RLlib's own modules with the fast path's networks: what is then compared is the path alone.

Owns a critic that takes observation and action side by side, and the copying of weights. Knows
neither markets nor what is compared.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT

from training.network import Perceptron
from training.sac import SacModule


class JoinedEncoder(torch.nn.Module):
    """A critic's layers over observation and action side by side, as ours has them."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for width, outputs in pairwise([inputs, *hidden]):
            layers += [torch.nn.Linear(width, outputs), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Encode a batch as RLlib's critics ask for it."""
        joined = torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], -1)
        return {ENCODER_OUT: self.layers(joined)}


class JoinedCatalog(SACCatalog):  # type: ignore[misc]
    """RLlib's own but for the critics' encoder, which would encode the action by itself first."""

    def _build_qf_encoder_continuous(self, framework: str) -> JoinedEncoder:
        inputs = self.observation_space.shape[0] + self.action_space.shape[0]
        return JoinedEncoder(inputs, self._model_config_dict["fcnet_hiddens"])


def linear_layers(*modules: torch.nn.Module) -> list[torch.nn.Linear]:
    """Return the linear layers of some modules, in order."""
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


def critics_of(module: Any) -> list[list[torch.nn.Linear]]:
    """Return the layers of RLlib's twin critics, then of their targets."""
    return [
        linear_layers(module.qf_encoder, module.qf),
        linear_layers(module.qf_twin_encoder, module.qf_twin),
        linear_layers(module.target_qf_encoder, module.target_qf),
        linear_layers(module.target_qf_twin_encoder, module.target_qf_twin),
    ]


def begin_alike(module: Any, ours: SacModule) -> None:
    """Give RLlib's SAC module, of a ``JoinedCatalog``, the weights of ours."""
    copy_weights(ours.actor, 0, linear_layers(module.pi_encoder, module.pi))
    for number, layers in enumerate(critics_of(module)):
        copy_weights(ours.critics, number % 2, layers)
