"""Perceptrons whose gradient is written out: the networks of every learner.

A minibatch of a small network costs more in autograd's bookkeeping than in arithmetic, so each
perceptron differentiates itself: ``record`` runs it forward and keeps the activations,
``backward`` turns the gradient at its output into the gradients of its weights. Called like any
module it is plain differentiable torch. Owns layers and parameter vectors; knows no algorithm.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import TrainingError

BETA_MEAN, BETA_SQUARE = 0.9, 0.999

Tape = list[Tensor]  # input of every layer, then the output


class Perceptron(nn.Module):
    """``members`` tanh networks of one shape, evaluated by one batched product.

    Input (n, inputs), shared, or (members, n, inputs); output (members, n, outputs), linear.
    Weights start orthogonal (gain √2, the last layer ``last_gain``), biases at zero.
    """

    def __init__(self, sizes: Sequence[int], members: int = 1, last_gain: float = 1.0) -> None:
        super().__init__()
        self.members = members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        last = len(sizes) - 2
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            weight = torch.empty(members, inputs, outputs)
            for member in weight:
                nn.init.orthogonal_(member, last_gain if layer == last else math.sqrt(2.0))
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, outputs)))
        # The same parameters as a plain list: a ParameterList looks every one up by name.
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, differentiable by autograd."""
        value = self._stacked(inputs)
        for layer, (weight, bias) in enumerate(self._layers):
            value = torch.baddbmm(bias, value, weight)
            if layer < len(self._layers) - 1:
                value = torch.tanh(value)
        return value

    @torch.no_grad()
    def record(self, inputs: Tensor) -> Tape:
        """Return the inputs of all layers and, last, the outputs."""
        tape = [self._stacked(inputs)]
        last = len(self._layers) - 1
        for layer, (weight, bias) in enumerate(self._layers):
            value = torch.baddbmm(bias, tape[-1], weight)
            tape.append(value.tanh_() if layer < last else value)
        return tape

    @torch.no_grad()
    def backward(self, tape: Tape, gradient: Tensor) -> None:
        """Overwrite every ``.grad`` from ``gradient`` at the outputs (members, n, outputs)."""
        for layer in range(len(self._layers) - 1, -1, -1):
            weight, bias = self._layers[layer]
            torch.bmm(tape[layer].mT, gradient, out=weight.grad)
            torch.sum(gradient, 1, keepdim=True, out=bias.grad)
            if layer:
                gradient = torch.bmm(gradient, weight.mT)
                gradient = torch.ops.aten.tanh_backward(gradient, tape[layer])

    @torch.no_grad()
    def backward_to_inputs(self, tape: Tape, gradient: Tensor, newest: int) -> Tensor:
        """Return the gradient at the last ``newest`` inputs, (members, n, newest).

        The weights are left alone: how an actor learns through its critics.
        """
        for layer in range(len(self._layers) - 1, 0, -1):
            gradient = torch.bmm(gradient, self._layers[layer][0].mT)
            gradient = torch.ops.aten.tanh_backward(gradient, tape[layer])
        return torch.bmm(gradient, self._layers[0][0][:, -newest:].mT)

    def layers(self, member: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return weight (inputs, outputs) and bias (outputs,) of every layer of one member."""
        return [
            (weight[member].detach().cpu().numpy(), bias[member, 0].detach().cpu().numpy())
            for weight, bias in self._layers
        ]

    def _stacked(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.ndim == 3 else inputs.expand(self.members, *inputs.shape)


def flatten(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Move parameters, and their gradients, into one vector; return it.

    The parameters become views of it: an optimizer, a norm or an average touches one tensor
    instead of a dozen. Call it after the module has reached its device.
    """
    members = list(parameters)
    flat = nn.Parameter(torch.cat([member.data.reshape(-1) for member in members]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for member in members:
        stop = start + member.numel()
        member.data = flat.data[start:stop].view(member.shape)
        member.grad = flat.grad[start:stop].view(member.shape)
        start = stop
    return flat


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Return where ``flatten`` keeps the gradient of ``parameter``."""
    if parameter.grad is None:
        raise TrainingError(f"parameter of shape {tuple(parameter.shape)} was never flattened")
    return parameter.grad


def clip_norm(gradient: Tensor, limit: float) -> Tensor:
    """Scale ``gradient`` in place so that its norm is at most ``limit``; return the norm."""
    norm: Tensor = torch.linalg.vector_norm(gradient)
    gradient.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


class FlatAdam(torch.optim.Optimizer):
    """Adam for one parameter vector (Kingma & Ba 2015, algorithm 1).

    torch's own imports torch's compiler when it is made, seconds in every worker, and takes
    longer for its bookkeeping than for the arithmetic. So ``super().__init__`` is not called, and
    what RLlib asks of an optimizer is here.
    """

    def __init__(self, vector: nn.Parameter, learning_rate: float, epsilon: float = 1e-8) -> None:
        self.param_groups = [{"params": [vector], "lr": learning_rate}]
        self._epsilon = epsilon
        self._steps = 0
        self._mean = torch.zeros_like(vector.data)
        self._square = torch.zeros_like(vector.data)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the vector against its gradient."""
        vector, rate = self.param_groups[0]["params"][0], self.param_groups[0]["lr"]
        gradient = gradient_of(vector)
        self._steps += 1
        self._mean.lerp_(gradient, 1.0 - BETA_MEAN)
        self._square.mul_(BETA_SQUARE).addcmul_(gradient, gradient, value=1.0 - BETA_SQUARE)
        root = self._square.sqrt().mul_((1.0 - BETA_SQUARE**self._steps) ** -0.5)
        vector.addcdiv_(
            self._mean, root.add_(self._epsilon), value=-rate / (1.0 - BETA_MEAN**self._steps)
        )

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fill the gradient with zeros; it stays where it is, the parameters' are views of it."""
        self.param_groups[0]["params"][0].grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs to go on."""
        state = {"steps": self._steps, "mean": self._mean, "square": self._square}
        return {"state": state, "param_groups": [{"lr": self.param_groups[0]["lr"]}]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        state = state_dict["state"]
        self._steps = int(state["steps"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self.param_groups[0]["lr"] = state_dict["param_groups"][0]["lr"]
