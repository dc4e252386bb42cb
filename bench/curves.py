"""Does the fast path learn what RLlib's own path learns? Both on the market with a known answer.

    python -m bench.curves [--seeds 5] [--algorithm ppo|sac] [--points 6]

The slow path is stock RLlib: its environment runner on single environments, its connectors, replay
buffer and learners, with the same hyper-parameters. The networks are ours with our first weights,
differentiated by RLlib: what is compared is the path. Of SAC, RLlib learns with its own networks,
too, whose critics encode the action by itself first. All roll out as many accounts side by side,
so that their policies are as old when they act. Every point is the
mean log return per bar on rows that nobody learned on, without exploration, as a share of what the
best policy of dynamic programming earns there; mean and standard deviation over the seeds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module import RLModuleSpec

from bench.learning import STEPS
from bench.peers.alike import JoinedCatalog, begin_alike
from core.settings import Environment, Ppo, Sac
from features.scaler import Scaler
from training.algorithm import quiet
from training.environment import MarketBatch, MarketEnv, play
from training.known_answer import CASH, KnownMarket, known_answer, known_dataset, known_rules
from training.learn import Lesson, build, decide
from training.ppo import PpoModule
from training.rewards import find_reward
from training.sac import BARS_PER_ITERATION
from training.spaces import target_weight

BARS, SPLIT, STRETCHES = 20_000, 14_000, 32
ENVIRONMENTS = {"ppo": Environment(), "sac": Environment(accounts=32)}
MARKET = KnownMarket(strength=0.006)
DATASET = known_dataset(MARKET, BARS, np.random.default_rng(0))
SETTINGS: dict[str, Ppo | Sac] = {
    "ppo": Ppo(steps=98_304),
    "sac": Sac(updates=272, warmup=2_048, steps_per_update=32),
}
FAST, SLOW, OWN = "fast", "stock RLlib", "own networks"
PATHS = {"ppo": (FAST, SLOW), "sac": (FAST, SLOW, OWN)}


class SlowPpo(PpoModule):
    """Our networks, their first weights too, sampled and differentiated by RLlib."""

    def get_exploration_action_dist_cls(self) -> Any:
        return TorchCategorical

    get_train_action_dist_cls = get_inference_action_dist_cls = get_exploration_action_dist_cls

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(batch[Columns.OBS])[0]}


Act = Callable[[np.ndarray], np.ndarray]


def lesson(settings: Ppo | Sac, seed: int) -> Lesson:
    """Return what both paths learn."""
    return Lesson(
        agent="curves",
        actions="discrete" if isinstance(settings, Ppo) else "continuous",
        dataset=DATASET,
        train_rows=(0, SPLIT),
        validation_rows=(SPLIT - 1_000, SPLIT),
        scaler=Scaler.fit(DATASET.table[:SPLIT], DATASET.spec),
        rules=known_rules(MARKET),
        environment=ENVIRONMENTS["ppo" if isinstance(settings, Ppo) else "sac"],
        reward="log_return",
        hyperparameters=settings,
        seed=seed,
        cash=CASH,
    )


def unseen(task: Lesson) -> MarketBatch:
    """Return accounts on the rows that nobody learned on."""
    return MarketBatch(
        task.dataset,
        task.scaler,
        task.rules,
        task.environment.model_copy(update={"episode_bars": BARS}),
        find_reward(task.reward),
        STRETCHES,
        np.random.default_rng(0),
        rows=(SPLIT, BARS),
        actions=task.actions,
        cash=CASH,
    )


@cache
def best() -> float:
    """Return what the known best policy earns per bar on the unseen rows."""
    answer, market = known_answer(MARKET), unseen(lesson(SETTINGS["ppo"], 0))

    def weight(_: np.ndarray) -> np.ndarray:
        held = market.state.shares[:, 0] > 0
        return answer.weight(DATASET.table[market.row, 0], held)[:, None]

    return float(play(market, weight, (SPLIT, BARS), STRETCHES).mean())


def score(task: Lesson, act: Act) -> float:
    """Return the share of the best policy's earnings that ``act`` earns."""

    def weight(observation: np.ndarray) -> np.ndarray:
        return target_weight(act(observation), task.actions, task.rules.allow_short)

    return float(play(unseen(task), weight, (SPLIT, BARS), STRETCHES).mean()) / best()


def stock(task: Lesson, ours: Any = None) -> Any:
    """Return stock RLlib on the same market with the same hyper-parameters.

    ``ours`` is the fast path's module, with whose networks and weights it begins; None: SAC's
    networks are RLlib's own.
    """

    def make(_: Any = None) -> gym.Env[Any, Any]:
        return MarketEnv(
            task.dataset,
            task.scaler,
            task.rules,
            task.environment,
            find_reward(task.reward),
            rows=task.train_rows,
            actions=task.actions,
            cash=CASH,
        )

    gym.register("RatchetCurves-v0", make, order_enforce=False, disable_env_checker=True)
    settings = task.hyperparameters
    ppo = isinstance(settings, Ppo)
    config = stock_ppo(task, settings) if ppo else stock_sac(task, settings, ours is not None)
    algorithm = config.environment("RatchetCurves-v0").debugging(seed=task.seed).build_algo()
    if ours is not None:
        module = algorithm.learner_group._learner.module["default_policy"]
        if ppo:
            module.load_state_dict(ours.state_dict())
        else:
            begin_alike(module, ours)
        algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=algorithm.learner_group, inference_only=True
        )
    return algorithm


def stock_ppo(task: Lesson, settings: Ppo) -> Any:
    """Return RLlib's configuration of PPO with our networks."""
    from ray.rllib.algorithms.ppo import PPOConfig

    model = {"hidden": settings.hidden, "device": "cpu", "seed": task.seed}
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
            grad_clip_by="global_norm",
            train_batch_size_per_learner=task.environment.accounts * settings.rollout_bars,
            minibatch_size=settings.minibatch,
            num_epochs=settings.epochs,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=task.environment.accounts)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=SlowPpo, model_config=model))
    )


def stock_sac(task: Lesson, settings: Sac, joined: bool) -> Any:
    """Return RLlib's configuration of SAC; ``joined``: critics of our shape."""
    from ray.rllib.algorithms.sac import SACConfig
    from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule

    network = {"fcnet_hiddens": list(settings.hidden), "fcnet_activation": "tanh"}
    model = network | {"head_fcnet_hiddens": [], "twin_q": True}
    spec = RLModuleSpec(
        module_class=DefaultSACTorchRLModule,
        catalog_class=JoinedCatalog if joined else None,
        model_config=model,
    )
    return (
        SACConfig()
        .training(
            actor_lr=settings.learning_rate,
            critic_lr=settings.learning_rate,
            alpha_lr=settings.learning_rate,
            gamma=settings.discount,
            tau=settings.tau,
            initial_alpha=0.05,
            target_entropy=-2.0,
            train_batch_size_per_learner=settings.batch,
            training_intensity=settings.batch / settings.steps_per_update,
            # The fast path updates for steps after the warm-up; RLlib for the last of it, too.
            num_steps_sampled_before_learning_starts=settings.warmup + 1,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.replay},
        )
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=task.environment.accounts,
            rollout_fragment_length=BARS_PER_ITERATION,
        )
        .rl_module(rl_module_spec=spec)
        .reporting(
            min_time_s_per_iteration=None,
            min_sample_timesteps_per_iteration=0,
            min_train_timesteps_per_iteration=0,
        )
    )


def stock_act(algorithm: Any) -> Act:
    """Return RLlib's own decision without exploration."""
    module = algorithm.learner_group._learner.module["default_policy"]

    @torch.no_grad()
    def act(observation: np.ndarray) -> np.ndarray:
        inputs = module.forward_inference({"obs": torch.from_numpy(observation)})
        outputs = inputs["action_dist_inputs"]
        if outputs.shape[-1] == 3:
            return np.asarray(outputs.argmax(-1).numpy())
        return np.asarray(torch.tanh(outputs[:, :1]).numpy())

    return act


def curve(algorithm: Any, act: Act, task: Lesson, points: int) -> Iterator[tuple[int, float]]:
    """Train to the end of ``task``; yield steps and score, ``points`` times after the start."""
    yield 0, score(task, act)
    steps = 0
    for point in range(1, points + 1):
        while steps < task.steps * point / points:
            steps = int(algorithm.train()[f"{STEPS}"])
        yield steps, score(task, act)


def main() -> None:
    """Print one table per algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--algorithm", choices=tuple(SETTINGS), default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    for name in [arguments.algorithm] if arguments.algorithm else list(SETTINGS):
        curves: dict[str, list[list[float]]] = {path: [] for path in PATHS[name]}
        seconds = dict.fromkeys(curves, 0.0)
        for seed in range(arguments.seeds):
            for path, made, took in live(lesson(SETTINGS[name], seed), PATHS[name], arguments):
                curves[path].append([one for _, one in made])
                seconds[path] += took
                steps = [at for at, _ in made]
            sys.stderr.write(f"{name}: seed {seed + 1} of {arguments.seeds}\n")
        show(name, steps, curves, seconds)


def live(
    task: Lesson, paths: Sequence[str], arguments: argparse.Namespace
) -> Iterator[tuple[str, list[tuple[int, float]], float]]:
    """Train one seed on every path; yield its name, curve and processor seconds."""
    with quiet():
        for path in paths:
            torch.manual_seed(task.seed)
            fast = build(task)
            if path == FAST:
                algorithm, act = fast, partial(decide, fast)
            else:
                ours = None if path == OWN else fast.learner.module["default_policy"]
                algorithm = stock(task, ours)
                act = stock_act(algorithm)
            begun = time.process_time()
            made = list(curve(algorithm, act, task, arguments.points))
            yield path, made, time.process_time() - begun
            algorithm.stop()


def show(
    name: str, steps: list[int], curves: dict[str, list[list[float]]], seconds: dict[str, float]
) -> None:
    """Print the share of the best policy's earnings by steps, and how far from the fast path's."""
    fast, *others = (np.array(one) for one in curves.values())
    heads = [path for path in curves if path != FAST]
    columns = "".join(f"   {head:12}   fast - {head:12}" for head in heads)
    sys.stdout.write(f"{name.upper()}, {len(fast)} seeds; 1.00 is the best policy there is\n")
    sys.stdout.write(f"environment steps   fast        {columns}\n")
    for at, step in enumerate(steps):
        one = fast[:, at]
        text = f"{step:17,}   {one.mean():5.2f} ± {one.std():4.2f}"
        for other in (table[:, at] for table in others):
            both = (one.var(ddof=1) + other.var(ddof=1)) if len(one) > 1 else 0.0
            text += (
                f"   {other.mean():5.2f} ± {other.std():4.2f}   "
                f"{one.mean() - other.mean():+5.2f} ± {np.sqrt(both / len(one)):4.2f}       "
            )
        sys.stdout.write(text.rstrip() + "\n")
    took = ", ".join(f"{path} {one:.0f}" for path, one in seconds.items())
    sys.stdout.write(f"processor seconds: {took}\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
