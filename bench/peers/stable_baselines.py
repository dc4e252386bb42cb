"""Stable-Baselines3 on gym-anytrading, on gym-trading-env, and on Ratchet's own market.

    python -m bench.peers.stable_baselines ppo-gym-anytrading --folder DIR --seconds 5

Sixteen environments in a DummyVecEnv, as its documentation has it for cheap ones; the numbers of
Ratchet's lesson: batch, minibatch, epochs, rates, a tanh network 64×64 each for actor and critic.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from bench.learning import lesson
from bench.peers.gym_environments import MAKE, load
from bench.peers.rllib import market_env
from bench.speak import Asked, Work, serve
from core.settings import Environment, Ppo, Sac

ENVIRONMENTS = 16
UPDATES = 32  # of SAC, per piece of work


def ppo(make: Callable[[], gym.Env[Any, Any]]) -> tuple[Work, dict[str, object]]:
    """Return what rolls out and learns one batch of PPO."""
    settings = Ppo()
    batch = Environment().accounts * settings.rollout_bars
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * ENVIRONMENTS),
        learning_rate=settings.learning_rate,
        n_steps=batch // ENVIRONMENTS,
        batch_size=settings.minibatch,
        n_epochs=settings.epochs,
        gamma=settings.discount,
        gae_lambda=settings.gae_lambda,
        clip_range=settings.clip,
        ent_coef=settings.entropy,
        policy_kwargs={"net_arch": list(settings.hidden)},
        seed=0,
        device="cpu",
    )

    def work() -> float:
        before = model.num_timesteps
        model.learn(batch, log_interval=10**9, reset_num_timesteps=False)
        return float(model.num_timesteps - before)

    said = {
        "gae_lambda": model.gae_lambda,
        "clip": model.clip_range(1.0),  # type: ignore[operator]
        "entropy": model.ent_coef,
        "epochs": model.n_epochs,
        "minibatch": model.batch_size,
        "rollout_steps": model.n_steps * model.n_envs,
    }
    return work, said | _notes(model)


def sac(make: Callable[[], gym.Env[Any, Any]]) -> tuple[Work, dict[str, object]]:
    """Return what makes updates of SAC, with the environment steps that earn them."""
    settings = Sac()
    model = SAC(
        "MlpPolicy",
        # One step of every environment, then one update: the lesson's ratio.
        DummyVecEnv([make] * settings.steps_per_update),
        learning_rate=settings.learning_rate,
        buffer_size=settings.replay,
        learning_starts=settings.warmup,
        batch_size=settings.batch,
        tau=settings.tau,
        gamma=settings.discount,
        train_freq=(1, "step"),
        gradient_steps=1,
        policy_kwargs={"net_arch": list(settings.hidden), "activation_fn": torch.nn.Tanh},
        seed=0,
        device="cpu",
    )
    model.learn(settings.warmup, log_interval=10**9)

    def work() -> float:
        before = model._n_updates
        steps = UPDATES * settings.steps_per_update
        model.learn(steps, log_interval=10**9, reset_num_timesteps=False)
        return float(model._n_updates - before)

    said = {
        "tau": model.tau,
        "batch": model.batch_size,
        "replay": model.buffer_size,
        "warmup": model.learning_starts,
        "steps_per_update": model.n_envs * model.train_freq.frequency / model.gradient_steps,  # type: ignore[union-attr]
    }
    return work, said | _notes(model)


def _notes(model: Any) -> dict[str, object]:
    trained = {id(p): p.numel() for p in model.policy.parameters() if p.requires_grad}
    return {
        "parameters": sum(trained.values()),
        "observation": list(model.observation_space.shape),
        "environments": model.n_envs,
        "learning_rate": model.learning_rate,
        "discount": model.gamma,
        "hidden": list(model.policy.net_arch),
    }


def prepare(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return the work of ``ppo-`` or ``sac-`` and the environment's name."""
    torch.set_num_threads(1)
    algorithm, _, market = told.contender.partition("-")
    if market == "ratchet":
        task = lesson(Ppo() if algorithm == "ppo" else Sac())
        return {"ppo": ppo, "sac": sac}[algorithm](lambda: market_env(task))
    bars = load(told.folder, None if market == "gym-trading-env" else 1)
    return ppo(lambda: MAKE[market](bars))


if __name__ == "__main__":
    serve(prepare, ("stable-baselines3", "gym-anytrading", "gym-trading-env", "torch", "numpy"))
