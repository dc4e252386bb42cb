"""SAC: RLlib's algorithm with a lean module, an array replay buffer and closed-form gradients.

RLlib owns configuration, learner life cycle, optimizer, checkpoints and metrics; here are the
networks, the gradients and the update loop. Haarnoja et al. (2018), continuous actions.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.sac import SAC, SACConfig
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.apis import QNetAPI, TargetNetworkAPI
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_UPDATE_TIMER,
    REPLAY_BUFFER_SAMPLE_TIMER,
    TIMERS,
)
from torch import Tensor, nn

from core.errors import TrainingError
from core.settings import Sac
from features.account import ACCOUNT_COLUMNS
from training.algorithm import MarketAlgorithm, MarketLearner, OneModeModule
from training.environment import MarketBatch
from training.export import LOG_DEVIATION_LIMITS
from training.network import FlatAdam, Perceptron, flatten, gradient_of
from training.replay import Replay
from training.spaces import REACH, action_space, observation_space
from training.transitions import Transitions

LOG_TWO, LOG_TWO_PI = math.log(2.0), math.log(2.0 * math.pi)
BARS_PER_ITERATION = 8
START_ALPHA = 0.05
TARGET_ENTROPY = -2.0  # of the squashed action: a deviation of about 0.03


class SacModule(OneModeModule, QNetAPI, TargetNetworkAPI):  # type: ignore[misc]
    """A tanh-squashed Gaussian actor and twin critics held in one stack."""

    def setup(self) -> None:
        """Build the networks; called by RLlib, once."""
        hidden = tuple(self.model_config["hidden"])
        width = self.observation_space.shape[0]
        self.actor = Perceptron((width, *hidden, 2), last_gain=0.01)
        self.critics = Perceptron((width + 1, *hidden, 1), members=2)
        # One action beside many observations would hardly be heard at first: let it weigh as much
        # as all of them together, or the actor has little to follow for hundreds of updates.
        self.critics.weights[0].data[:, -1] *= math.sqrt(width)
        self.log_alpha = nn.Parameter(torch.tensor([math.log(START_ALPHA)]))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.actor.weights[0].device
        return device

    def deterministic(self, inputs: Tensor) -> Tensor:
        """Return the action without exploration, the tanh of the mean, (n, 1)."""
        return torch.tanh(inputs[:, :1])

    def fixed_log_deviation(self) -> float | None:
        """Return None: every state has its own deviation."""
        return None

    def make_target_networks(self) -> None:
        """Copy the critics; called by RLlib's learner."""
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return what follows what."""
        return [(self.critics, self.targets)]

    def forward_target(self, batch: dict[str, Any]) -> Tensor:
        """Return the smaller of both target values, (n,)."""
        values: Tensor = self.targets(_joined(batch))
        return values.amin(0)[:, 0]

    def compute_q_values(self, batch: dict[str, Any]) -> Tensor:
        """Return the smaller of both values, (n,)."""
        values: Tensor = self.critics(_joined(batch))
        return values.amin(0)[:, 0]

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(batch[Columns.OBS])[0]}


def _joined(batch: dict[str, Any]) -> Tensor:
    return torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], -1)


def squash(inputs: Tensor, standard: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return action (n, 1), its log probability (n, 1) and deviation, for noise ``standard``.

    a = tanh(u), u = μ + σ·ε;  log π = log N(ε) − log σ − log(1 − a²), the last term as
    2 (log 2 − u − softplus(−2u)), which does not overflow.
    """
    mean, log_deviation = inputs[:, :1], inputs[:, 1:].clamp(*LOG_DEVIATION_LIMITS)
    deviation = log_deviation.exp()
    before = mean + deviation * standard
    correction = 2.0 * (LOG_TWO - before - nn.functional.softplus(-2.0 * before))
    log_probability = -0.5 * (standard**2 + LOG_TWO_PI) - log_deviation - correction
    return torch.tanh(before), log_probability, deviation


def explore(inputs: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw actions (n, 1) from mean and log deviation (n, 2)."""
    standard = torch.empty_like(inputs[:, :1]).normal_(generator=noise)
    action, log_probability, _ = squash(inputs, standard)
    return action, log_probability[:, 0]


class SacLearner(MarketLearner, SACTorchLearner):  # type: ignore[misc]
    """One Adam over actor, critics and temperature; targets follow in one call."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Move what is learned into one vector, and give that vector to Adam."""
        module = self.module[module_id]
        critics, actor = list(module.critics.parameters()), list(module.actor.parameters())
        self._flat = flatten([*critics, *actor, module.log_alpha])
        self._critics = self._flat.data[: sum(weight.numel() for weight in critics)]
        self._optimizer = FlatAdam(self._flat, config.actor_lr)
        self.register_optimizer(
            module_id=module_id,
            optimizer=self._optimizer,
            params=[self._flat],
            lr_or_lr_schedule=config.actor_lr,
        )
        self.curr_log_alpha[module_id] = module.log_alpha
        self._noise = torch.Generator(self._device).manual_seed(self.own_seed())

    def build(self) -> None:
        """Build, then join the critics' copies into one vector too."""
        super().build()
        self._targets = flatten(self.module[DEFAULT_MODULE_ID].targets.parameters())

    def chance(self) -> dict[str, Any]:
        """Return the state of what is drawn at random here."""
        return {"noise": self._noise.get_state()}

    def set_chance(self, state: Mapping[str, Any]) -> None:
        """Draw on from ``chance()``."""
        self._noise.set_state(torch.as_tensor(state["noise"]))

    def update(self, *, training_data: Any, timesteps: Any = None, **_: Any) -> Any:
        """Make one update per ``train_batch_size`` rows of a ready ``MultiAgentBatch``."""
        self._weights_seq_no += 1
        module = self.module[DEFAULT_MODULE_ID]
        columns = self.columns_of(training_data)
        parts = {
            key: torch.split(column, self.config.train_batch_size_per_learner)
            for key, column in columns.items()
        }
        count = len(parts[Columns.OBS])
        losses = [
            self._learn(module, {key: part[i] for key, part in parts.items()}) for i in range(count)
        ]
        mean = torch.stack(losses).mean(0).tolist()
        if not np.isfinite(mean).all():
            raise TrainingError(
                f"SAC diverged (losses {mean}); lower the learning rate {self.config.actor_lr}"
            )
        names = ("policy_loss", "value_loss", "alpha", "entropy")
        for name, value in zip(names, mean, strict=True):
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        self._log_steps_trained_metrics(training_data.batch)
        return self.metrics.reduce()

    def _learn(self, module: SacModule, batch: dict[str, Tensor]) -> Tensor:
        count = 2 * len(batch[Columns.REWARDS])
        standard = torch.empty((count, 1), device=self._device).normal_(generator=self._noise)
        figures = self.write_gradients(module, batch, standard)
        self.average(gradient_of(self._flat))
        self._optimizer.step()
        self._targets.data.lerp_(self._critics, self.config.tau)
        return figures

    @torch.no_grad()
    def write_gradients(
        self, module: SacModule, batch: dict[str, Tensor], standard: Tensor
    ) -> Tensor:
        """Overwrite every ``.grad`` with that of its loss; return the losses.

        ``standard`` (2n, 1) is the noise of the actions imagined at ``obs``, then ``new_obs``.
        """
        count = len(batch[Columns.REWARDS])
        now, following = batch[Columns.OBS], batch[Columns.NEXT_OBS]
        alpha = module.log_alpha.exp()

        # Actions of the present policy, here and one bar on.
        tape = module.actor.record(torch.cat([now, following]))
        action, log_probability, deviation = squash(tape[-1][0], standard)
        target = self._target(module, batch, action[count:], log_probability[count:], alpha)

        # Critics: ½ (q − y)², both at once.
        critics = module.critics.record(torch.cat([now, batch[Columns.ACTIONS]], -1))
        error = critics[-1] - target
        module.critics.backward(critics, error / count)

        # Actor: α log π − min q, through the critics as they were; see ``_at_actor``.
        imagined = module.critics.record(torch.cat([now, action[:count]], -1))
        value = imagined[-1]
        smaller = value[0] <= value[1]
        chosen = torch.stack([smaller, ~smaller]).to(value.dtype)
        slope = module.critics.backward_to_inputs(imagined, chosen, 1).sum(0)
        here = [column[:, :count] for column in tape]
        gradient = _at_actor(
            here[-1][0], action[:count], deviation[:count], standard[:count], slope, alpha
        )
        module.actor.backward(here, gradient[None] / count)

        # Temperature: −log α (log π + H̄).
        entropy = -log_probability[:count].mean()
        gradient_of(module.log_alpha).fill_(entropy - TARGET_ENTROPY)
        policy_loss = -alpha[0] * entropy - (value * chosen).sum(0).mean()
        return torch.stack([policy_loss, 0.5 * (error * error).mean(), alpha[0], entropy])

    def _target(
        self,
        module: SacModule,
        batch: dict[str, Tensor],
        action: Tensor,
        log_probability: Tensor,
        alpha: Tensor,
    ) -> Tensor:
        """Return y = r + γ (min q̄(s', a') − α log π(a'|s')), (n, 1)."""
        joined = torch.cat([batch[Columns.NEXT_OBS], action], -1)
        value = module.targets.record(joined)[-1].amin(0) - alpha * log_probability
        following = batch["alive"][:, None] * value
        return torch.add(batch[Columns.REWARDS][:, None], following, alpha=self.config.gamma)


def _at_actor(
    inputs: Tensor,
    action: Tensor,
    deviation: Tensor,
    standard: Tensor,
    slope: Tensor,
    alpha: Tensor,
) -> Tensor:
    """Return the gradient of α log π − q at mean and log deviation, (n, 2).

    With u = μ + σε:  ∂(α log π − q)/∂u = 2αa − (1 − a²) ∂q/∂a =: g;  ∂/∂μ = g;
    ∂/∂log σ = g σ ε − α, nothing where the clamp holds it.
    """
    at_mean = 2.0 * alpha * action - (1.0 - action * action) * slope
    low, high = LOG_DEVIATION_LIMITS
    free = (inputs[:, 1:] > low) & (inputs[:, 1:] < high)
    at_deviation = (at_mean * deviation * standard - alpha) * free
    return torch.cat([at_mean, at_deviation], -1)


class MarketSac(MarketAlgorithm, SAC):  # type: ignore[misc]
    """RLlib's SAC whose step is: roll out, remember, update from memory."""

    explore = staticmethod(explore)

    def setup(self, config: Any) -> None:
        """Build learner, runner and replay; called by RLlib, once."""
        super().setup(config)
        self._replay = Replay(
            config.replay_buffer_config["capacity"],
            len(ACCOUNT_COLUMNS),
            self._market.observation,
            self._market.xp,
            self._market.device,
        )
        self._draw = np.random.default_rng(self.module.model_config["seed"])
        self._owed = 0.0  # updates earned by environment steps and not yet made

    def remember(self, lived: Transitions, reward: np.ndarray) -> None:
        """Begin the replay with what was lived through elsewhere, worth ``reward`` (m,)."""
        action = (lived.weight / REACH).astype(np.float32)[:, None]
        self._replay.begin(lived, action, reward)

    def memory(self) -> dict[str, Any]:
        """Return the replay, and how far its use has come."""
        return {
            "replay": self._replay.get_state(),
            "draw": self._draw.bit_generator.state,
            "owed": self._owed,
        }

    def set_memory(self, state: Mapping[str, Any]) -> None:
        """Go on from ``memory()``."""
        self._replay.set_state(state["replay"])
        self._draw.bit_generator.state = state["draw"]
        self._owed = state["owed"]

    def training_step(self) -> None:
        """Roll out a few bars, then make the updates they have earned; called by ``train()``."""
        config = self.config
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            trajectories = self.sample()
            self._replay.add(trajectories)
        if self.steps <= config.num_steps_sampled_before_learning_starts:
            return
        self._owed += len(trajectories) / config.training_intensity
        updates = int(self._owed)
        self._owed -= updates
        if not updates:
            return
        with self.metrics.log_time((TIMERS, REPLAY_BUFFER_SAMPLE_TIMER)):
            count = updates * config.total_train_batch_size
            batch = SampleBatch(self._replay.sample(count, self._draw))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self.update(batch, count)


def sac_config(settings: Sac, market: MarketBatch, seed: int, device: str) -> SACConfig:
    """Return RLlib's configuration; ``training_intensity`` is environment steps per update."""
    return (
        SACConfig(algo_class=MarketSac)
        .environment(
            observation_space=observation_space(market.width, market.bound),
            action_space=action_space("continuous"),
        )
        .env_runners(num_env_runners=0, rollout_fragment_length=BARS_PER_ITERATION)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=SacModule,
                model_config={"hidden": settings.hidden, "device": device, "seed": seed},
            )
        )
        .training(
            actor_lr=settings.learning_rate,
            critic_lr=settings.learning_rate,
            alpha_lr=settings.learning_rate,
            gamma=settings.discount,
            tau=settings.tau,
            train_batch_size_per_learner=settings.batch,
            training_intensity=settings.steps_per_update,
            num_steps_sampled_before_learning_starts=settings.warmup,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.replay},
        )
        .learners(num_learners=0, learner_class=SacLearner)
        # One step per iteration: RLlib's minimum times would make the result depend on the clock.
        .reporting(
            min_time_s_per_iteration=None,
            min_sample_timesteps_per_iteration=0,
            min_train_timesteps_per_iteration=0,
        )
        # Its thread that watches the machine would outlast each training by most of a second.
        .debugging(log_level="ERROR", log_sys_usage=False)
    )
