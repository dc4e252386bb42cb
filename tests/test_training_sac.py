"""SAC: gradients in closed form, squashed actions, targets that follow."""

from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from training_kit import SMALL_SAC, small_batch

from training.algorithm import quiet
from training.sac import TARGET_ENTROPY, MarketSac, explore, sac_config, squash


def algorithm(**changes: Any) -> MarketSac:
    market = small_batch(8, actions="continuous")
    settings = SMALL_SAC.model_copy(update=changes)
    with quiet():
        return MarketSac(sac_config(settings, market, 3, "cpu"), market)


def test_the_written_gradients_are_those_of_the_textbook_losses() -> None:
    learner = algorithm().learner
    module = learner.module[DEFAULT_MODULE_ID]
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    width = module.observation_space.shape[0]
    batch = {
        "obs": torch.randn((16, width), generator=generator),
        "new_obs": torch.randn((16, width), generator=generator),
        "actions": torch.rand((16, 1), generator=generator) * 2 - 1,
        "rewards": torch.randn(16, generator=generator),
        "alive": (torch.rand(16, generator=generator) > 0.3).float(),
    }
    standard = torch.randn((32, 1), generator=generator)

    learner.write_gradients(module, batch, standard)
    written = learner._flat.grad.clone()

    alpha = module.log_alpha.exp().detach()
    with torch.no_grad():
        following, log_following, _ = squash(module.actor(batch["new_obs"])[0], standard[16:])
        joined = torch.cat([batch["new_obs"], following], -1)
        value = module.targets(joined).amin(0) - alpha * log_following
        target = batch["rewards"][:, None] + learner.config.gamma * batch["alive"][:, None] * value
    q = module.critics(torch.cat([batch["obs"], batch["actions"]], -1))
    critic_loss = 0.5 * ((q - target) ** 2).mean(1).sum()
    action, log_probability, _ = squash(module.actor(batch["obs"])[0], standard[:16])
    imagined = module.critics(torch.cat([batch["obs"], action], -1)).amin(0)
    actor_loss = (alpha * log_probability - imagined).mean()
    alpha_loss = -(module.log_alpha * (log_probability.detach() + TARGET_ENTROPY)).mean()
    learner._flat.grad.zero_()
    (alpha_loss + critic_loss).backward()
    actor = list(module.actor.parameters())
    for parameter, gradient in zip(actor, torch.autograd.grad(actor_loss, actor), strict=True):
        parameter.grad.copy_(gradient)

    torch.testing.assert_close(written, learner._flat.grad, rtol=1e-4, atol=1e-6)


def test_an_action_weighs_as_much_in_a_new_critic_as_all_that_is_seen() -> None:
    module = algorithm(hidden=(64, 64)).learner.module[DEFAULT_MODULE_ID]
    for critics in (module.critics, module.targets):
        for member in critics.weights[0].detach():
            seen, action = float((member[:-1] ** 2).sum()), float((member[-1] ** 2).sum())
            assert action == pytest.approx(seen, rel=1e-4)


def test_the_log_probability_of_a_squashed_action_is_that_of_the_change_of_variables() -> None:
    inputs = torch.tensor([[0.4, -1.0], [-2.0, 0.5]], dtype=torch.float64)
    standard = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    action, log_probability, deviation = squash(inputs, standard)
    normal = torch.distributions.Normal(inputs[:, :1], inputs[:, 1:].exp())
    before = inputs[:, :1] + deviation * standard
    torch.testing.assert_close(action, torch.tanh(before))
    expected = normal.log_prob(before) - torch.log(1 - action**2)
    torch.testing.assert_close(log_probability, expected)


def test_actions_stay_within_their_space() -> None:
    inputs = torch.tensor([[50.0, 2.0], [-50.0, 2.0]])
    action, log_probability = explore(inputs, torch.Generator().manual_seed(0))
    assert action.abs().max() <= 1.0
    assert torch.isfinite(log_probability).all()


def test_updates_wait_for_the_warm_up_and_then_follow_the_steps() -> None:
    trained = algorithm(warmup=100, steps_per_update=16)
    with quiet():
        first = trained.train()  # 64 steps
        second = trained.train()  # 128 steps: 64 of them earn 4 updates of 32 rows
    assert DEFAULT_MODULE_ID not in first.get("learners", {})
    learned = second["learners"][DEFAULT_MODULE_ID]
    assert learned["num_module_steps_trained"] == 4 * 32


def test_targets_follow_slowly() -> None:
    trained = algorithm(warmup=0, tau=0.25, steps_per_update=64)
    learner = trained.learner
    before = learner._targets.detach().clone()
    torch.testing.assert_close(before, learner._critics)
    with quiet():
        trained.train()  # one update
    torch.testing.assert_close(
        learner._targets.detach(), torch.lerp(before, learner._critics, 0.25)
    )


def test_the_smaller_of_both_critics_is_believed() -> None:
    module = algorithm().learner.module[DEFAULT_MODULE_ID]
    module.critics.biases[-1].data[:, 0, 0] = torch.tensor([5.0, -5.0])
    batch = {"obs": torch.zeros(2, module.observation_space.shape[0]), "actions": torch.zeros(2, 1)}
    assert (module.compute_q_values(batch) < 0).all()
    assert module.forward_target(batch).shape == (2,)


def test_an_actor_out_of_bounds_is_not_pushed_further() -> None:
    learner = algorithm().learner
    module = learner.module[DEFAULT_MODULE_ID]
    module.actor.biases[-1].data[0, 0, 1] = -9.0  # below the least log deviation
    batch = {
        "obs": torch.zeros(4, module.observation_space.shape[0]),
        "new_obs": torch.zeros(4, module.observation_space.shape[0]),
        "actions": torch.zeros(4, 1),
        "rewards": torch.ones(4),
        "alive": torch.ones(4),
    }
    learner.write_gradients(module, batch, torch.ones(8, 1))
    assert module.actor.biases[-1].grad[0, 0, 1] == pytest.approx(0.0)
