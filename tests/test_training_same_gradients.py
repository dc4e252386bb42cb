"""The fast path against RLlib's own: the same data in, the same gradients out.

RLlib's side is its default learner with its connector pipeline, its module and its autograd, fed
with episodes, as its own runner hands them on; ours is what trains.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.evaluation.postprocessing import Postprocessing
from rllib_kit import (
    assert_same_gradients,
    batch_of,
    differentiate,
    episodes,
    stock_learner,
)
from training_kit import SMALL_PPO, SMALL_SAC, small_batch

from bench.peers.alike import JoinedCatalog, copy_weights, critics_of, linear_layers
from training.algorithm import quiet
from training.ppo import MarketPpo, ppo_config
from training.rollout import Trajectories
from training.sac import TARGET_ENTROPY, MarketSac, sac_config

HIDDEN = [16, 16]
MODEL = {"fcnet_hiddens": HIDDEN, "fcnet_activation": "tanh"}


def shaken(module: torch.nn.Module) -> None:
    """Take a module away from its all but uniform first policy."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def with_terminations(lived: Trajectories) -> Trajectories:
    """Let some accounts be ruined, where nothing else ended their episode."""
    ruined = np.random.default_rng(2).random(lived.reward.shape) < 0.05
    lived.terminated[:] |= ruined & ~lived.truncated
    return lived


def distribution_inputs(module: Any, lived: Trajectories) -> np.ndarray:
    """Return what the policy said at every step, (bars, n, m)."""
    shape = lived.reward.shape
    seen = torch.from_numpy(lived.observation.reshape(lived.reward.size, -1))
    said = module.forward_exploration({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    return np.asarray(said.detach().numpy().reshape(*shape, -1))


def in_the_order_of_episodes(column: np.ndarray) -> torch.Tensor:
    """Return (bars, accounts, …) as RLlib has it: account by account."""
    return torch.as_tensor(np.ascontiguousarray(column.swapaxes(0, 1)).reshape(-1))


@pytest.fixture(scope="module")
def ppo() -> tuple[MarketPpo, Trajectories]:
    """Return our PPO and what it lived through: some episodes end by time, some by ruin."""
    torch.manual_seed(0)
    market = small_batch(8)
    settings = SMALL_PPO.model_copy(update={"entropy": 0.02})
    with quiet():
        ours = MarketPpo(ppo_config(settings, market, "discrete", 3, "cpu"), market)
    shaken(ours.learner.module[DEFAULT_MODULE_ID])
    lived = with_terminations(ours.env_runner.sample(bars=60))
    assert lived.truncated.sum() > 5
    assert lived.terminated.sum() > 5
    return ours, lived


@pytest.fixture(scope="module")
def stock_ppo(ppo: tuple[MarketPpo, Trajectories]) -> tuple[Any, dict[str, Any]]:
    """Return RLlib's PPO learner with our weights and the batch its connectors make."""
    ours, lived = ppo
    same = ours.config
    config = PPOConfig().training(
        gamma=same.gamma,
        lambda_=same.lambda_,
        clip_param=same.clip_param,
        entropy_coeff=same.entropy_coeff,
        vf_loss_coeff=same.vf_loss_coeff,
        vf_clip_param=float("inf"),  # ours does not clip the value loss
        use_kl_loss=False,
    )
    config = config.rl_module(model_config=DefaultModelConfig(**MODEL, vf_share_layers=False))
    with quiet():
        learner = stock_learner(config, ours._market, "discrete")
    module, mine = learner.module[DEFAULT_MODULE_ID], ours.learner.module[DEFAULT_MODULE_ID]
    copy_weights(mine.actor, 0, linear_layers(module.encoder.actor_encoder, module.pi))
    copy_weights(mine.critic, 0, linear_layers(module.encoder.critic_encoder, module.vf))
    return learner, batch_of(learner, list(episodes(lived, distribution_inputs(mine, lived))))


def test_ppo_learns_towards_the_values_of_rllibs_connectors(
    ppo: tuple[MarketPpo, Trajectories], stock_ppo: tuple[Any, dict[str, Any]]
) -> None:
    ours, lived = ppo
    _, batch = stock_ppo
    real = batch[Columns.LOSS_MASK]
    ready = ours._ready(lived)
    shape = lived.reward.shape
    targets = in_the_order_of_episodes(ready[Postprocessing.VALUE_TARGETS].reshape(shape))
    torch.testing.assert_close(targets, batch[Postprocessing.VALUE_TARGETS][real])
    # RLlib takes mean and deviation over its steps of padding too; the shape is the same.
    mine = in_the_order_of_episodes(ready[Postprocessing.ADVANTAGES].reshape(shape))
    theirs = batch[Postprocessing.ADVANTAGES][real]
    theirs = (theirs - theirs.mean()) / theirs.std(correction=0)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_ppo_has_the_gradients_of_rllibs_learner(
    ppo: tuple[MarketPpo, Trajectories], stock_ppo: tuple[Any, dict[str, Any]]
) -> None:
    ours, lived = ppo
    learner, batch = stock_ppo
    real, advantage = batch[Columns.LOSS_MASK], batch[Postprocessing.ADVANTAGES].clone()
    advantage -= advantage[real].mean()
    advantage /= advantage[real].std(correction=0)
    # A policy that has moved since the rollout: ratios on both sides of the clip.
    drift = 0.3 * torch.randn(lived.reward.shape, generator=torch.Generator().manual_seed(1))
    moved = batch[Columns.ACTION_LOGP].clone()
    moved[real] += in_the_order_of_episodes(drift.numpy())
    differentiate(
        learner,
        batch | {Postprocessing.ADVANTAGES: advantage, Columns.ACTION_LOGP: moved},
    )
    ready = ours._ready(lived)
    columns = {name: torch.as_tensor(ready[name]) for name in ready}
    columns[Columns.ACTION_LOGP] = columns[Columns.ACTION_LOGP] + drift.reshape(-1)
    mine = ours.learner.module[DEFAULT_MODULE_ID]
    ours.learner.write_gradients(mine, columns)
    module = learner.module[DEFAULT_MODULE_ID]
    assert_same_gradients(mine.actor, 0, linear_layers(module.encoder.actor_encoder, module.pi))
    assert_same_gradients(mine.critic, 0, linear_layers(module.encoder.critic_encoder, module.vf))


def test_sac_has_the_gradients_of_rllibs_learner() -> None:
    torch.manual_seed(0)
    market = small_batch(8, actions="continuous")
    with quiet():
        ours = MarketSac(sac_config(SMALL_SAC, market, 3, "cpu"), market)
    mine = ours.learner.module[DEFAULT_MODULE_ID]
    shaken(mine)
    lived = with_terminations(ours.env_runner.sample(bars=60))
    lived.reward[:] *= 0.1  # RLlib's Huber loss is ours below an error of 1
    for network in (mine.critics, mine.targets):
        network.weights[-1].data.mul_(0.2)
    ours._replay.add(lived)
    batch = ours._replay.sample(256, np.random.default_rng(4))
    drawn = np.random.default_rng(4).integers(0, ours._replay.size, 256)
    assert (batch["alive"] == 0.0).sum() > 5

    config = SACConfig().training(
        gamma=ours.config.gamma, target_entropy=TARGET_ENTROPY, twin_q=True, tau=ours.config.tau
    )
    config = config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=DefaultSACTorchRLModule,
            catalog_class=JoinedCatalog,
            model_config=MODEL | {"head_fcnet_hiddens": [], "twin_q": True},
        )
    )
    with quiet():
        learner = stock_learner(config, market, "continuous")
    stock = learner.module[DEFAULT_MODULE_ID]
    actor = linear_layers(stock.pi_encoder, stock.pi)
    critics, targets = critics_of(stock)[:2], critics_of(stock)[2:]
    copy_weights(mine.actor, 0, actor)
    for member in range(2):
        copy_weights(mine.critics, member, critics[member])
        copy_weights(mine.targets, member, targets[member])
    learner.curr_log_alpha[DEFAULT_MODULE_ID].data.copy_(mine.log_alpha.data)

    # One step each, in the order of the replay: bar by bar, account by account.
    steps = list(episodes(lived, distribution_inputs(mine, lived), longest=1))
    accounts = lived.reward.shape[1]
    told = [copy.copy(steps[at % accounts * 60 + at // accounts]) for at in drawn]
    for number, episode in enumerate(told):  # RLlib would put two of one name together
        episode.id_ = f"{number}"
    torch.manual_seed(11)
    differentiate(learner, batch_of(learner, told))
    torch.manual_seed(11)  # the same noise: at the observation, then at the next
    noise = [torch.normal(torch.zeros(256, 1), torch.ones(256, 1)) for _ in range(2)]
    columns = {name: torch.as_tensor(column) for name, column in batch.items()}
    ours.learner.write_gradients(mine, columns, torch.cat(noise))

    for member in range(2):
        assert_same_gradients(mine.critics, member, critics[member])
    assert_same_gradients(mine.actor, 0, actor)
    torch.testing.assert_close(
        mine.log_alpha.grad, learner.curr_log_alpha[DEFAULT_MODULE_ID].grad, rtol=1e-4, atol=1e-5
    )


def test_ppo_walks_the_way_of_rllibs_learner_step_by_step(
    ppo: tuple[MarketPpo, Trajectories], stock_ppo: tuple[Any, dict[str, Any]]
) -> None:
    ours, lived = ppo
    learner, batch = stock_ppo
    ready = ours._ready(lived)
    columns = {name: torch.as_tensor(ready[name]) for name in ready}
    real, advantage = batch[Columns.LOSS_MASK], batch[Postprocessing.ADVANTAGES].clone()
    advantage -= advantage[real].mean()
    advantage /= advantage[real].std(correction=0)
    batch = batch | {Postprocessing.ADVANTAGES: advantage}
    mine, theirs = ours.learner.module[DEFAULT_MODULE_ID], learner.module[DEFAULT_MODULE_ID]
    actor = linear_layers(theirs.encoder.actor_encoder, theirs.pi)
    critic = linear_layers(theirs.encoder.critic_encoder, theirs.vf)
    weights = [*(layer.weight for layer in (*actor, *critic))]
    weights += [*(layer.bias for layer in (*actor, *critic))]
    adam = torch.optim.Adam(weights, lr=ours.config.lr, eps=1e-5)
    begun = mine.actor.weights[0].detach().clone()
    for _ in range(20):
        ours.learner._learn(mine, columns)
        differentiate(learner, batch)
        torch.nn.utils.clip_grad_norm_(weights, ours.config.grad_clip)
        adam.step()
    for network, layers in ((mine.actor, actor), (mine.critic, critic)):
        for weight, layer in zip(network.weights, layers, strict=True):
            torch.testing.assert_close(weight.data[0], layer.weight.data.T, rtol=1e-3, atol=1e-5)
    assert float((mine.actor.weights[0].detach() - begun).abs().max()) > 1e-3
