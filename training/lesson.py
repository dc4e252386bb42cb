"""Lessons: what a training is told, and what it gives back; plain data that travels to workers.

Knows neither torch nor RLlib: whoever schedules trainings does not pay for importing them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.rules import Rules
from core.settings import Environment, Ppo, Sac
from features.dataset import Dataset
from features.scaler import Scaler
from training.environment import Rows
from training.spaces import Actions
from training.transitions import Transitions

Metrics = dict[str, float]
Report = Callable[[int, Metrics], None]


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that decides a policy's weights; picklable."""

    agent: str
    actions: Actions
    dataset: Dataset
    train_rows: Rows  # decisions and fills lie in these rows
    validation_rows: Rows
    scaler: Scaler  # fitted on the training rows
    rules: Rules
    environment: Environment
    reward: str  # name or import path
    hyperparameters: Ppo | Sac  # params.yaml overlaid by a trial's; also says which algorithm
    seed: int
    cash: float = 100_000.0  # opening cash of every episode, account currency
    effort: float = 1.0  # multiplies the steps or updates of the hyperparameters
    reports: int = 5  # validation points, evenly spaced, the last at the end
    device: str = "cpu"  # cpu, cuda, tpu or torch-cpu: see ``training/device.py``
    warm_start: bytes | None = None  # ``Trained.weights`` (or a policy.onnx: critics start anew)
    lived: Transitions | None = None  # within the training rows; where SAC's replay begins
    runners: int = 0  # Ray actors of this training: see ``core.settings.Training``
    learners: int = 0

    @property
    def algorithm(self) -> str:
        return "ppo" if isinstance(self.hyperparameters, Ppo) else "sac"

    @property
    def processors(self) -> int:
        """How many the training takes at once: its own, and one for each of its actors."""
        return 1 + self.runners + self.learners

    @property
    def steps(self) -> int:
        """Environment steps of the whole training."""
        settings = self.hyperparameters
        if isinstance(settings, Ppo):
            return max(1, round(settings.steps * self.effort))
        updates = max(1, round(settings.updates * self.effort))
        return settings.warmup + updates * settings.steps_per_update


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished policy and how it came about."""

    policy_onnx: bytes
    weights: bytes  # .npz of every network, critics too: what a warm start continues from
    weights_sha256: str
    curve: tuple[Metrics, ...]  # one entry per report; steps, reward, validation_score, losses …
    validation_score: float  # annualised Sharpe ratio on the validation rows, after costs
    steps: int  # environment steps taken
    seconds: float
    validation_returns: tuple[float, ...] = ()  # simple, per bar, of the finished policy


def ignore(steps: int, metrics: Metrics) -> None:
    """Report to nobody."""
