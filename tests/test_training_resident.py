"""Engine, rollouts and learner on a device: what a GPU would run, run by torch on the processor."""

from typing import Any

import numpy as np
import pytest
import torch
from training_kit import SMALL_PPO, SMALL_SAC, small_batch, small_lesson

from core.settings import Environment
from training.algorithm import quiet
from training.environment import MarketBatch
from training.learn import build, train, weights_of
from training.rewards import BUILT_IN, find_reward

DEVICE = "torch-cpu"
SHORT = Environment(accounts=32, episode_bars=9)


def numpy_of(array: Any) -> np.ndarray:
    return array.numpy() if isinstance(array, torch.Tensor) else array  # type: ignore[no-any-return]


def both(**changes: Any) -> tuple[MarketBatch, MarketBatch]:
    here, there = (small_batch(32, **changes, device=device) for device in ("cpu", DEVICE))
    first, other = here.reset(), there.reset()
    assert isinstance(other, torch.Tensor)
    assert np.array_equal(first, other.numpy())
    return here, there


def steps_alike(here: MarketBatch, there: MarketBatch, actions: np.ndarray) -> int:
    """Hold every number of every step of both against one another; return the episodes ended."""
    ended = 0
    for action in actions:
        ours, theirs = here.step(action), there.step(torch.from_numpy(action))
        for name in ("observation", "last_observation", "terminated", "truncated", "row"):
            found = getattr(theirs, name)
            assert isinstance(found, torch.Tensor), name
            assert np.array_equal(getattr(ours, name), found.numpy()), name
        assert theirs.reward.dtype == torch.float32
        np.testing.assert_allclose(ours.reward, theirs.reward.numpy(), rtol=1e-6, atol=1e-9)
        assert np.array_equal(ours.state.equity, theirs.state.equity.numpy())
        ended += int((ours.terminated | ours.truncated).sum())
    return ended


@pytest.mark.parametrize("reward", sorted(BUILT_IN))
def test_accounts_on_a_device_live_through_the_same(reward: str) -> None:
    here, there = both(reward=find_reward(reward), environment=SHORT)
    actions = np.random.default_rng(4).integers(0, 3, (30, 32))
    assert steps_alike(here, there, actions) > 32  # every account began anew


def test_weights_are_the_same_on_a_device() -> None:
    here, there = both(actions="continuous", environment=SHORT)
    actions = np.random.default_rng(4).uniform(-1.0, 1.0, (20, 32, 1)).astype(np.float32)
    assert steps_alike(here, there, actions) > 32


def squared(outcome: Any, penalty: float) -> np.ndarray:
    """A user's reward, which knows NumPy only."""
    assert isinstance(outcome.log_return, np.ndarray)
    return np.square(outcome.log_return)


def test_a_users_reward_gets_numpy_arrays_whatever_the_device() -> None:
    here, there = both(reward=find_reward(f"{__name__}:squared"))
    assert steps_alike(here, there, np.full((3, 32), 2)) == 0  # every reward of three steps alike


@pytest.mark.parametrize(
    ("actions", "settings"), [("discrete", SMALL_PPO), ("continuous", SMALL_PPO),
                              ("continuous", SMALL_SAC)],
)  # fmt: skip
def test_a_learner_on_a_device_learns_what_the_one_on_numpy_learns(
    actions: str, settings: Any
) -> None:
    weights = []
    for device in ("cpu", DEVICE):
        lesson = small_lesson(actions=actions, hyperparameters=settings, device=device)
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(lesson.seed)
            algorithm = build(lesson)
            begun = {name: one.copy() for name, one in weights_of(algorithm).items()}
            for _ in range(2):  # SAC lives through its warm-up first
                algorithm.train()
            seen = algorithm.env_runner._observation
            assert isinstance(seen, torch.Tensor) == (device == DEVICE)
            weights.append({name: one.copy() for name, one in weights_of(algorithm).items()})
            algorithm.stop()
    here, there = weights
    assert any(not np.array_equal(here[name], begun[name]) for name in begun)  # it has learned
    for name, one in here.items():
        np.testing.assert_allclose(one, there[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_whole_training_runs_on_a_device() -> None:
    brief = SMALL_PPO.model_copy(update={"steps": 256})
    trained = train(small_lesson(device=DEVICE, hyperparameters=brief))
    assert trained.steps == 256
    assert np.isfinite(trained.validation_score)
