"""PPO: RLlib's algorithm on whole batches of accounts, with its gradient written out.

RLlib owns configuration, learner life cycle, optimizer, checkpoints and metrics; here are the
network, the loss in closed form and the minibatch loop. Schulman et al. (2017).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, TIMERS
from torch import Tensor, nn

from core.arrays import Array, namespace
from core.errors import TrainingError
from core.settings import Ppo
from training.algorithm import MarketAlgorithm, MarketLearner, OneModeModule
from training.environment import MarketBatch
from training.network import FlatAdam, Perceptron, clip_norm, flatten, gradient_of
from training.rollout import Trajectories, advantages, next_values
from training.spaces import Actions, action_space, observation_space

LOG_TWO_PI = float(np.log(2.0 * np.pi))
START_LOG_DEVIATION = -0.5  # of a continuous policy's exploration


class PpoModule(OneModeModule, ValueFunctionAPI):  # type: ignore[misc]
    """Actor and critic of one shape.

    Discrete: the actor gives three logits. Continuous: the tanh of its output is the mean weight;
    the deviation is one learned number.
    """

    def setup(self) -> None:
        """Build the networks; called by RLlib, once."""
        hidden = tuple(self.model_config["hidden"])
        width = self.observation_space.shape[0]
        self.discrete = hasattr(self.action_space, "n")
        outputs = int(self.action_space.n) if self.discrete else 1
        self.actor = Perceptron((width, *hidden, outputs), last_gain=0.01)
        self.critic = Perceptron((width, *hidden, 1))
        if not self.discrete:
            self.log_deviation = nn.Parameter(torch.full((1,), START_LOG_DEVIATION))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.actor.weights[0].device
        return device

    def distribution(self, outputs: Tensor) -> Tensor:
        """Return logits (n, 3), or mean and log deviation (n, 2), from the actor's outputs."""
        if self.discrete:
            return outputs
        mean = torch.tanh(outputs)
        return torch.cat([mean, self.log_deviation.expand_as(mean)], -1)

    def deterministic(self, inputs: Tensor) -> Tensor:
        """Return the action without exploration: the likeliest (n,), or the mean (n, 1)."""
        return inputs.argmax(-1) if self.discrete else inputs[:, :1]

    def fixed_log_deviation(self) -> float | None:
        """Return the log deviation that all states share, for export."""
        return None if self.discrete else float(self.log_deviation.detach())

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.distribution(self.actor(batch[Columns.OBS])[0])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return the value of every observation, (n,)."""
        value: Tensor = self.critic(batch[Columns.OBS])
        return value[0, :, 0]


def explore(inputs: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw actions from distribution inputs: (n, 3) logits, or (n, 2) mean and log deviation."""
    if inputs.shape[-1] == 2:
        mean, log_deviation = inputs[:, :1], inputs[:, 1:]
        standard = torch.empty_like(mean).normal_(generator=noise)
        log_probability = -0.5 * standard**2 - log_deviation - 0.5 * LOG_TWO_PI
        return mean + standard * log_deviation.exp(), log_probability[:, 0]
    # The largest of logit + Gumbel noise is a draw from the softmax.
    gumbel = -torch.empty_like(inputs).exponential_(generator=noise).log()
    action = (inputs + gumbel).argmax(-1)
    return action, torch.log_softmax(inputs, -1).gather(1, action[:, None])[:, 0]


class PpoLearner(MarketLearner, PPOTorchLearner):  # type: ignore[misc]
    """Takes one ready batch, shuffles it into minibatches and applies closed-form gradients."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Move the module's weights into one vector, and give that vector to Adam."""
        self._flat = flatten(self.module[module_id].parameters())
        self._optimizer = FlatAdam(self._flat, config.lr, epsilon=1e-5)
        self.register_optimizer(
            module_id=module_id,
            optimizer=self._optimizer,
            params=[self._flat],
            lr_or_lr_schedule=config.lr,
        )
        self._shuffle = np.random.default_rng(self.own_seed())

    def update(self, *, training_data: Any, timesteps: Any = None, **_: Any) -> Any:
        """Run ``num_epochs`` over a ``MultiAgentBatch`` of ready columns; return the metrics."""
        self._weights_seq_no += 1
        module = self.module[DEFAULT_MODULE_ID]
        columns = self.columns_of(training_data)
        losses = [
            self._learn(
                module, {key: column.index_select(0, rows) for key, column in columns.items()}
            )
            for rows in self._minibatches(len(columns[Columns.OBS]))
        ]
        mean = torch.stack(losses).mean(0).tolist()
        if not np.isfinite(mean).all():
            raise TrainingError(
                f"PPO diverged (losses {mean}); lower the learning rate {self.config.lr}"
            )
        names = ("policy_loss", "value_loss", "entropy", "kl", "gradient_norm")
        for name, value in zip(names, mean, strict=True):
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        self._log_steps_trained_metrics(training_data.batch)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def chance(self) -> dict[str, Any]:
        """Return the state of what is drawn at random here."""
        return {"shuffle": self._shuffle.bit_generator.state}

    def set_chance(self, state: Mapping[str, Any]) -> None:
        """Draw on from ``chance()``."""
        self._shuffle.bit_generator.state = state["shuffle"]

    def _minibatches(self, count: int) -> Iterator[Tensor]:
        size = self.config.minibatch_size
        for _ in range(self.config.num_epochs):
            order = torch.from_numpy(self._shuffle.permutation(count)).to(self._device)
            yield from torch.split(order, size)

    def _learn(self, module: PpoModule, batch: dict[str, Tensor]) -> Tensor:
        figures = self.write_gradients(module, batch)
        norm = clip_norm(self.average(gradient_of(self._flat)), self.config.grad_clip)
        self._optimizer.step()
        return torch.cat([figures, norm[None]])

    @torch.no_grad()
    def write_gradients(self, module: PpoModule, batch: dict[str, Tensor]) -> Tensor:
        """Overwrite every ``.grad`` with that of the loss; return the loss's parts."""
        config = self.config
        actor = module.actor.record(batch[Columns.OBS])
        critic = module.critic.record(batch[Columns.OBS])
        outputs, value = actor[-1][0], critic[-1][0, :, 0]
        if module.discrete:
            step = _categorical(outputs, batch, config.clip_param, config.entropy_coeff)
        else:
            step = _gaussian(module, outputs, batch, config.clip_param, config.entropy_coeff)
        gradient, (policy_loss, entropy, kl) = step
        error = value - batch[Postprocessing.VALUE_TARGETS]
        scale = 2.0 * config.vf_loss_coeff / len(error)
        module.actor.backward(actor, gradient[None])
        module.critic.backward(critic, (error * scale)[None, :, None])
        return torch.stack([policy_loss, (error * error).mean(), entropy, kl])


def _surrogate(
    log_probability: Tensor, batch: dict[str, Tensor], clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the clipped objective (n,), its slope in the log probability (n,), and the KL."""
    log_ratio = log_probability - batch[Columns.ACTION_LOGP]
    ratio = log_ratio.exp()
    advantage = batch[Postprocessing.ADVANTAGES]
    free = advantage * ratio
    objective = torch.minimum(free, advantage * ratio.clamp(1.0 - clip, 1.0 + clip))
    slope = free * (free == objective)
    return objective, slope, (ratio - 1.0 - log_ratio).mean()


def _categorical(
    logits: Tensor, batch: dict[str, Tensor], clip: float, entropy_weight: float
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the loss's gradient at the logits (n, 3), and (policy loss, entropy, KL).

    loss = −objective − w·H;  ∂logπ(a)/∂z = 1ₐ − p;  ∂H/∂z = −p·(log p + H).
    """
    action = batch[Columns.ACTIONS][:, None]
    log_p = torch.log_softmax(logits, -1)
    p = log_p.exp()
    objective, slope, kl = _surrogate(log_p.gather(1, action)[:, 0], batch, clip)
    entropy = -(p * log_p).sum(-1, keepdim=True)
    gradient = p * (slope[:, None] + entropy_weight * (log_p + entropy))
    gradient.scatter_add_(1, action, -slope[:, None])
    return gradient / len(logits), (-objective.mean(), entropy.mean(), kl)


def _gaussian(
    module: PpoModule, outputs: Tensor, batch: dict[str, Tensor], clip: float, entropy_weight: float
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the gradient at the actor's outputs (n, 1); write that of the log deviation.

    With s = (a − μ)/σ:  ∂logπ/∂μ = s/σ,  ∂logπ/∂logσ = s² − 1,  ∂H/∂logσ = 1,  μ = tanh(output).
    """
    mean, log_deviation = torch.tanh(outputs), module.log_deviation
    deviation = log_deviation.exp()
    standard = (batch[Columns.ACTIONS] - mean) / deviation
    log_probability = -0.5 * standard**2 - log_deviation - 0.5 * LOG_TWO_PI
    objective, slope, kl = _surrogate(log_probability[:, 0], batch, clip)
    at_mean = -slope[:, None] * standard / deviation / len(outputs)
    gradient_of(module.log_deviation).copy_(
        -(slope * (standard[:, 0] ** 2 - 1.0)).mean() - entropy_weight
    )
    entropy = (log_deviation + 0.5 * (1.0 + LOG_TWO_PI))[0]
    gradient = torch.ops.aten.tanh_backward(at_mean, mean)
    return gradient, (-objective.mean(), entropy, kl)


class MarketPpo(MarketAlgorithm, PPO):  # type: ignore[misc]
    """RLlib's PPO whose step is: roll out, value, update."""

    explore = staticmethod(explore)

    def training_step(self) -> None:
        """Roll out one batch and learn from it; called by ``train()``."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            trajectories = self.sample()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            batch = self._ready(trajectories)
            self.update(batch, len(batch))

    def _ready(self, trajectories: Trajectories) -> SampleBatch:
        """Return flat columns with standardised advantages and value targets."""
        value = self._values(trajectories.observation)
        following = next_values(
            trajectories, value, self._values(trajectories.newest), self._values(trajectories.last)
        )
        advantage = advantages(
            trajectories, value, following, self.config.gamma, self.config.lambda_
        )
        xp = namespace(advantage)
        deviation = max(float(xp.std(advantage)), 1e-4)
        count = len(trajectories)
        return SampleBatch(
            {
                Columns.OBS: trajectories.observation.reshape(count, -1),
                Columns.ACTIONS: trajectories.action.reshape(count, *trajectories.action.shape[2:]),
                Columns.ACTION_LOGP: trajectories.log_probability.reshape(count),
                Postprocessing.ADVANTAGES: ((advantage - xp.mean(advantage)) / deviation).reshape(
                    -1
                ),
                Postprocessing.VALUE_TARGETS: (advantage + value).reshape(count),
            }
        )

    @torch.no_grad()
    def _values(self, observation: Array) -> Array:
        flat = torch.as_tensor(observation, device=self.module.device).flatten(0, -2)
        value = self.module.compute_values({Columns.OBS: flat}).reshape(observation.shape[:-1])
        return value.numpy() if isinstance(observation, np.ndarray) else value


def ppo_config(
    settings: Ppo, market: MarketBatch, actions: Actions, seed: int, device: str
) -> PPOConfig:
    """Return RLlib's configuration for learning in ``market``."""
    rollout = market.n * settings.rollout_bars
    return (
        PPOConfig(algo_class=MarketPpo)
        .environment(
            observation_space=observation_space(market.width, market.bound),
            action_space=action_space(actions),
        )
        .env_runners(num_env_runners=0, rollout_fragment_length=settings.rollout_bars)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=PpoModule,
                model_config={"hidden": settings.hidden, "device": device, "seed": seed},
            )
        )
        .training(
            lr=settings.learning_rate,
            gamma=settings.discount,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=0.5,
            use_kl_loss=False,
            grad_clip=0.5,
            num_epochs=settings.epochs,
            minibatch_size=min(settings.minibatch, rollout),
            train_batch_size_per_learner=rollout,
        )
        .learners(num_learners=0, learner_class=PpoLearner)
        # One step per iteration: RLlib's minimum times would make the result depend on the clock.
        .reporting(
            min_time_s_per_iteration=None,
            min_sample_timesteps_per_iteration=0,
            min_train_timesteps_per_iteration=0,
        )
        # Its thread that watches the machine would outlast each training by most of a second.
        .debugging(log_level="ERROR", log_sys_usage=False)
    )
