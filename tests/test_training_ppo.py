"""PPO: the gradient in closed form, advantages by hand, exploration by its odds."""

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from training_kit import SMALL_PPO, small_batch

from training.algorithm import quiet
from training.ppo import MarketPpo, explore, ppo_config
from training.rollout import Trajectories, advantages, next_values
from training.spaces import Actions


def algorithm(actions: Actions) -> MarketPpo:
    market = small_batch(8, actions=actions)
    with quiet():
        return MarketPpo(ppo_config(SMALL_PPO, market, actions, 3, "cpu"), market)


def batch_for(module: Any, actions: Actions) -> dict[str, torch.Tensor]:
    """Return a batch whose ratios lie on both sides of the clip."""
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn((64, module.observation_space.shape[0]), generator=generator)
    inputs = module.forward_exploration({Columns.OBS: observation})[Columns.ACTION_DIST_INPUTS]
    action, log_probability = explore(inputs, generator)
    return {
        Columns.OBS: observation,
        Columns.ACTIONS: action,
        Columns.ACTION_LOGP: log_probability + 0.4 * torch.randn(64, generator=generator),
        Postprocessing.ADVANTAGES: torch.randn(64, generator=generator),
        Postprocessing.VALUE_TARGETS: torch.randn(64, generator=generator),
    }


def textbook_loss(module: Any, batch: dict[str, torch.Tensor], config: Any) -> torch.Tensor:
    inputs = module.forward_train({Columns.OBS: batch[Columns.OBS]})[Columns.ACTION_DIST_INPUTS]
    distribution: torch.distributions.Distribution
    if module.discrete:
        distribution = torch.distributions.Categorical(logits=inputs)
        log_probability = distribution.log_prob(batch[Columns.ACTIONS])
    else:
        distribution = torch.distributions.Normal(inputs[:, 0], inputs[:, 1].exp())
        log_probability = distribution.log_prob(batch[Columns.ACTIONS][:, 0])
    ratio = (log_probability - batch[Columns.ACTION_LOGP]).exp()
    advantage = batch[Postprocessing.ADVANTAGES]
    clipped = ratio.clamp(1 - config.clip_param, 1 + config.clip_param)
    value = module.compute_values({Columns.OBS: batch[Columns.OBS]})
    return (
        -torch.minimum(advantage * ratio, advantage * clipped).mean()
        + config.vf_loss_coeff * ((value - batch[Postprocessing.VALUE_TARGETS]) ** 2).mean()
        - config.entropy_coeff * distribution.entropy().mean()
    )


@pytest.mark.parametrize("actions", ["discrete", "continuous"])
def test_the_written_gradient_is_that_of_the_textbook_loss(actions: Actions) -> None:
    learner = algorithm(actions).learner
    module = learner.module[DEFAULT_MODULE_ID]
    for parameter in module.parameters():  # away from the all but uniform first policy
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    batch = batch_for(module, actions)

    learner.write_gradients(module, batch)
    written = learner._flat.grad.clone()
    learner._flat.grad.zero_()
    textbook_loss(module, batch, learner.config).backward()

    torch.testing.assert_close(written, learner._flat.grad, rtol=1e-4, atol=1e-6)


def test_an_iteration_takes_the_steps_it_should_and_learns() -> None:
    trained = algorithm("discrete")
    before = trained.learner._flat.detach().clone()
    result = trained.train()
    assert result["num_env_steps_sampled_lifetime"] == 8 * SMALL_PPO.rollout_bars
    assert result["learners"][DEFAULT_MODULE_ID]["entropy"] == pytest.approx(np.log(3), rel=0.01)
    assert not torch.equal(before, trained.learner._flat)


def trajectories(**columns: list[list[float]]) -> Trajectories:
    """Return three bars of one account; observations are their own number."""
    shape = (3, 1)
    blank = np.zeros(shape)
    return Trajectories(
        row=np.arange(3)[:, None],
        observation=np.arange(3.0, dtype=np.float32)[:, None, None],
        action=blank,
        log_probability=blank,
        reward=np.array(columns.get("reward", blank), np.float32),
        terminated=np.array(columns.get("terminated", blank), bool),
        truncated=np.array(columns.get("truncated", blank), bool),
        newest=np.array([[3.0]], np.float32),
        last=np.array(columns.get("last", np.empty((0, 1))), np.float32),
    )


def test_advantages_look_ahead_with_discount_and_lambda() -> None:
    lived = trajectories(reward=[[1.0], [0.0], [2.0]])
    value = np.array([[0.5], [1.0], [1.5]], np.float32)
    following = next_values(lived, value, np.array([2.0], np.float32), np.empty(0, np.float32))
    assert following[:, 0].tolist() == [1.0, 1.5, 2.0]
    got = advantages(lived, value, following, discount=0.5, gae_lambda=0.5)
    # δ = 1 + ½·1 − ½, ½·1.5 − 1, 2 + ½·2 − 1.5 = 1, −0.25, 1.5; then A = δ + ¼·A'
    np.testing.assert_allclose(got[:, 0], [1 + (-0.25 + 1.5 / 4) / 4, -0.25 + 1.5 / 4, 1.5])


def test_termination_is_worth_nothing_and_ends_the_sum() -> None:
    lived = trajectories(reward=[[1.0], [1.0], [1.0]], terminated=[[0], [1], [0]])
    value = np.array([[0.0], [0.5], [0.0]], np.float32)
    following = next_values(lived, value, np.array([8.0], np.float32), np.empty(0, np.float32))
    got = advantages(lived, value, following, discount=1.0, gae_lambda=1.0)
    # bar 1: 1 − ½; bar 0: 1 + ½ + (1 − ½); bar 2 is another episode.
    assert got[:, 0].tolist() == [2.0, 0.5, 9.0]


def test_truncation_is_worth_what_would_have_come() -> None:
    lived = trajectories(reward=[[1.0], [1.0], [1.0]], truncated=[[0], [1], [0]], last=[[9.0]])
    value = np.array([[0.0], [0.5], [0.0]], np.float32)
    following = next_values(lived, value, np.array([8.0], np.float32), np.array([4.0], np.float32))
    got = advantages(lived, value, following, discount=1.0, gae_lambda=1.0)
    assert got[:, 0].tolist() == [1 + 0.5 + 4.5, 4.5, 9.0]


def test_exploration_follows_the_odds() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]])).expand(20_000, 3)
    action, log_probability = explore(logits, torch.Generator().manual_seed(0))
    share = torch.bincount(action) / len(action)
    # Four standard deviations of a share of 20 000 draws are 0.014.
    np.testing.assert_allclose(share, [0.2, 0.3, 0.5], atol=0.014)
    np.testing.assert_allclose(log_probability.exp(), torch.tensor([0.2, 0.3, 0.5])[action])


def test_continuous_exploration_has_the_mean_and_deviation_asked_for() -> None:
    inputs = torch.tensor([[0.3, np.log(0.2)]]).expand(20_000, 2)
    action, log_probability = explore(inputs, torch.Generator().manual_seed(0))
    assert float(action.mean()) == pytest.approx(0.3, abs=0.006)
    assert float(action.std()) == pytest.approx(0.2, abs=0.004)
    expected = torch.distributions.Normal(0.3, 0.2).log_prob(action[:, 0])
    torch.testing.assert_close(log_probability, expected, rtol=1e-4, atol=1e-4)


def test_a_training_starts_no_cluster() -> None:
    import ray

    algorithm("discrete").train()
    assert not ray.is_initialized()
