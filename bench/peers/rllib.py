"""RLlib as it comes: its own runner, connectors, replay buffer, modules and learners.

    python -m bench.peers.rllib ppo --folder DIR --seconds 5

Learns Ratchet's market through ``MarketEnv``, one Gymnasium environment after the other in RLlib's
default ``SingleAgentEnvRunner``, in this process. Hyperparameters are the lesson's.
"""

from typing import Any

import gymnasium as gym

from bench.learning import lesson, steps, updates
from bench.speak import Asked, Work, serve
from core.home import Home
from core.settings import Ppo, Sac
from training.algorithm import quiet
from training.environment import MarketEnv
from training.lesson import Lesson
from training.rewards import find_reward
from training.workers import start

PPO_ENVIRONMENTS = 64  # side by side in the runner; more do not make it faster
ENVIRONMENT = "RatchetBench-v0"
UPDATES_BETWEEN_RESULTS = 32


def market_env(task: Lesson) -> gym.Env[Any, Any]:
    """Return one account in the lesson's market."""
    return MarketEnv(
        task.dataset,
        task.scaler,
        task.rules,
        task.environment,
        find_reward(task.reward),
        rows=task.train_rows,
        actions=task.actions,
        cash=task.cash,
    )


def stock(task: Lesson) -> Any:
    """Return RLlib's algorithm for a lesson, all its parts the default ones."""
    gym.register(
        ENVIRONMENT,
        lambda **_: market_env(task),
        order_enforce=False,
        disable_env_checker=True,
    )
    return configured(task).environment(ENVIRONMENT).build_algo()


def configured(task: Lesson) -> Any:
    """Return RLlib's configuration with the numbers of a lesson."""
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    settings = task.hyperparameters
    config = _ppo(task, settings) if isinstance(settings, Ppo) else _sac(settings)
    model = DefaultModelConfig(
        fcnet_hiddens=list(settings.hidden),
        fcnet_activation="tanh",
        head_fcnet_hiddens=[],
        vf_share_layers=False,
    )
    return config.rl_module(model_config=model).debugging(
        seed=task.seed, log_level="ERROR", log_sys_usage=False
    )


def _ppo(task: Lesson, settings: Ppo) -> Any:
    from ray.rllib.algorithms.ppo import PPOConfig

    batch = task.environment.accounts * settings.rollout_bars
    return (
        PPOConfig()
        .training(
            lr=settings.learning_rate,
            gamma=settings.discount,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=0.5,
            train_batch_size_per_learner=batch,
            minibatch_size=min(settings.minibatch, batch),
            num_epochs=settings.epochs,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=min(PPO_ENVIRONMENTS, batch))
    )


def _sac(settings: Sac) -> Any:
    from ray.rllib.algorithms.sac import SACConfig

    return (
        SACConfig()
        .training(
            actor_lr=settings.learning_rate,
            critic_lr=settings.learning_rate,
            alpha_lr=settings.learning_rate,
            gamma=settings.discount,
            tau=settings.tau,
            train_batch_size_per_learner=settings.batch,
            num_steps_sampled_before_learning_starts=settings.warmup,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.replay},
        )
        # One step of every environment, then one update: the lesson's ratio.
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=settings.steps_per_update,
            rollout_fragment_length=1,
        )
        .reporting(
            min_time_s_per_iteration=None,
            min_sample_timesteps_per_iteration=UPDATES_BETWEEN_RESULTS * settings.steps_per_update,
        )
    )


def module_of(algorithm: Any) -> Any:
    """Return what RLlib's learner trains."""
    return algorithm.learner_group._learner.module["default_policy"]


def parameters_of(algorithm: Any) -> int:
    """Return how many numbers RLlib's learner trains."""
    return sum(p.numel() for p in module_of(algorithm).parameters() if p.requires_grad)


def prepare(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return what trains PPO (environment steps) or SAC (updates), or retrains a whole agent."""
    import torch

    torch.set_num_threads(1)
    if told.contender == "retraining":
        return retraining(told)
    settings: Ppo | Sac = Ppo() if told.contender == "ppo" else Sac()
    count = steps if isinstance(settings, Ppo) else updates(settings.batch)
    start(Home(told.folder))  # RLlib puts its configuration into a cluster's object store
    with quiet():
        algorithm = stock(lesson(settings))
    done, config = 0.0, algorithm.config
    while not done:  # SAC lives through its warm-up first
        done = count(algorithm.train())

    def work() -> float:
        nonlocal done
        before, done = done, count(algorithm.train())
        return done - before

    said = ppo_says(config) if isinstance(settings, Ppo) else sac_says(config)
    return work, {"parameters": parameters_of(algorithm), **said}


def ppo_says(config: Any) -> dict[str, object]:
    """Return what a configuration holds, in the words of ``bench.agreement``."""
    return {
        "learning_rate": config.lr,
        "discount": config.gamma,
        "gae_lambda": config.lambda_,
        "clip": config.clip_param,
        "entropy": config.entropy_coeff,
        "epochs": config.num_epochs,
        "minibatch": config.minibatch_size,
        "rollout_steps": config.train_batch_size_per_learner,
        "hidden": list(config.model_config["fcnet_hiddens"]),
        "environments": config.num_envs_per_env_runner,
    }


def sac_says(config: Any) -> dict[str, object]:
    """Return what a configuration holds, in the words of ``bench.agreement``."""
    # One round is a fragment of every environment, then one update.
    return {
        "learning_rate": config.critic_lr,
        "discount": config.gamma,
        "tau": config.tau,
        "batch": config.train_batch_size_per_learner,
        "replay": config.replay_buffer_config["capacity"],
        "warmup": config.num_steps_sampled_before_learning_starts,
        "steps_per_update": config.num_envs_per_env_runner * config.rollout_fragment_length,
        "hidden": list(config.model_config["fcnet_hiddens"]),
        "environments": config.num_envs_per_env_runner,
    }


def retraining(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return the work of a whole retraining whose trainings are RLlib's own."""
    from bench import retraining as both
    from bench.peers.rllib_training import train

    start(Home(told.folder / "rllib"))
    return both.prepare(told.folder / "rllib", told.quick, train)


if __name__ == "__main__":
    serve(prepare, ("ray", "torch", "numpy", "gymnasium"))
