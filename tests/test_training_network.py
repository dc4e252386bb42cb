"""Perceptrons that differentiate themselves, and the optimizer of one vector."""

import numpy as np
import pytest
import torch

from training.network import FlatAdam, Perceptron, clip_norm, flatten


@pytest.mark.parametrize("members", [1, 2])
def test_the_written_gradient_equals_autograd(members: int) -> None:
    torch.manual_seed(0)
    network = Perceptron((5, 8, 7, 2), members=members).double()
    flat = flatten(network.parameters())
    inputs = torch.randn(11, 5, dtype=torch.float64)
    at_output = torch.randn(members, 11, 2, dtype=torch.float64)

    network.backward(network.record(inputs), at_output)
    written = flat.grad.clone()
    flat.grad.zero_()
    network(inputs).backward(at_output)

    torch.testing.assert_close(written, flat.grad, rtol=1e-10, atol=1e-12)


def test_the_gradient_at_the_inputs_equals_autograd() -> None:
    torch.manual_seed(0)
    network = Perceptron((5, 8, 1), members=2).double()
    inputs = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    at_output = torch.randn(2, 11, 1, dtype=torch.float64)

    tape = network.record(inputs.detach())
    through = network.backward_to_inputs(tape, at_output, newest=2).sum(0)
    network(inputs).backward(at_output)

    torch.testing.assert_close(through, inputs.grad[:, -2:], rtol=1e-10, atol=1e-12)


def test_recording_gives_what_calling_gives() -> None:
    torch.manual_seed(0)
    network = Perceptron((4, 6, 3))
    inputs = torch.randn(9, 4)
    assert torch.equal(network.record(inputs)[-1], network(inputs).detach())


def test_a_flattened_module_keeps_its_values_and_follows_its_vector() -> None:
    torch.manual_seed(0)
    network = Perceptron((2, 3, 1))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    flat = flatten(network.parameters())
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
    flat.data.zero_()
    assert all(parameter.abs().sum() == 0 for parameter in network.parameters())


def test_adam_moves_by_hand_worked_steps() -> None:
    vector = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    vector.grad = torch.tensor([4.0, -0.5])
    adam = FlatAdam(vector, 0.1)
    # Bias correction makes the first step the sign of the gradient, whatever its size.
    adam.step()
    np.testing.assert_allclose(vector.detach(), [0.9, -1.9], rtol=1e-5)
    # g = (4, 0): m = 0.1·4·(0.9 + 1)/0.19 = 4 and v̂ = 16 for the first; for the second
    # m̂ = 0.9·0.1·(−0.5)/0.19 = −0.23684, v̂ = 0.999·0.001·0.25/0.001999 = 0.12494.
    vector.grad = torch.tensor([4.0, 0.0])
    adam.step()
    np.testing.assert_allclose(vector.detach(), [0.8, -1.9 + 0.1 * 0.23684 / 0.35347], rtol=1e-4)


def test_adam_goes_on_from_its_state() -> None:
    first = torch.nn.Parameter(torch.ones(3))
    first.grad = torch.tensor([1.0, 2.0, 3.0])
    adam = FlatAdam(first, 0.1)
    adam.step()
    second = torch.nn.Parameter(first.detach().clone())
    second.grad = first.grad.clone()
    resumed = FlatAdam(second, 0.5)
    resumed.load_state_dict(adam.state_dict())
    adam.step()
    resumed.step()
    assert torch.equal(first, second)


def test_a_long_gradient_is_cut_to_the_limit_and_a_short_one_left() -> None:
    long = torch.tensor([3.0, 4.0])
    assert float(clip_norm(long, 0.5)) == 5.0
    np.testing.assert_allclose(long, [0.3, 0.4], rtol=1e-5)
    short = torch.tensor([0.03, 0.04])
    clip_norm(short, 0.5)
    np.testing.assert_allclose(short, [0.03, 0.04], rtol=1e-6)
