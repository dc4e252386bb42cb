"""The search space: which hyperparameters a study tries, and what they mean for a lesson.

Owns ranges and the way from a trial's plain values to settings. Knows neither Optuna's studies
nor rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.settings import Environment, Params, Ppo, Sac

PENALISED = ("drawdown_penalty", "volatility_penalty")
NETWORKS = ("32-32", "64-64", "128-64")  # widths of the hidden layers


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``; on a logarithmic scale, or whole."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holding(self, value: float) -> "Range":
        """Return the range, widened to hold ``value``."""
        return Range(min(self.low, value), max(self.high, value), self.log, self.whole)


PPO_RANGES = {
    "learning_rate": Range(1e-4, 3e-3, log=True),
    "discount": Range(0.90, 0.995),
    "gae_lambda": Range(0.80, 0.99),
    "entropy": Range(1e-4, 3e-2, log=True),
    "epochs": Range(2, 6, whole=True),
}
SAC_RANGES = {
    "learning_rate": Range(1e-4, 3e-3, log=True),
    "discount": Range(0.80, 0.99),
    "tau": Range(0.002, 0.02, log=True),
}
PENALTY = Range(0.02, 1.0, log=True)


@dataclass(frozen=True, slots=True)
class Space:
    """Ranges around the settings of params.yaml, and those settings themselves."""

    algorithm: Ppo | Sac
    environment: Environment
    ranges: Mapping[str, Range]
    networks: tuple[str, ...]

    @property
    def usual(self) -> dict[str, Any]:
        """Return the values that params.yaml gives: the first trial of every study."""
        settings = {**self.algorithm.model_dump(), "penalty": self.environment.penalty}
        values: dict[str, Any] = {name: settings[name] for name in self.ranges}
        return values | {"hidden": _network(self.algorithm.hidden)}

    def distributions(self) -> dict[str, Any]:
        """Return the space in Optuna's words."""
        from optuna import distributions

        made: dict[str, Any] = {"hidden": distributions.CategoricalDistribution(self.networks)}
        for name, span in self.ranges.items():
            if span.whole:
                made[name] = distributions.IntDistribution(int(span.low), int(span.high))
            else:
                made[name] = distributions.FloatDistribution(span.low, span.high, log=span.log)
        return made

    def settings(self, values: Mapping[str, Any]) -> tuple[Ppo | Sac, Environment]:
        """Return the settings of params.yaml overlaid by a trial's values."""
        own = {name: value for name, value in values.items() if name != "penalty"}
        own["hidden"] = tuple(int(width) for width in values["hidden"].split("-"))
        algorithm = type(self.algorithm).model_validate(self.algorithm.model_dump() | own)
        penalty = values.get("penalty", self.environment.penalty)
        return algorithm, self.environment.model_copy(update={"penalty": penalty})


def space_for(params: Params, agent: str, network: tuple[int, ...] = ()) -> Space:
    """Return what a study of ``agent`` searches.

    ``network``: widths of the hidden layers a warm start goes on with; no others are tried then.
    """
    entry = params.agent(agent)
    algorithm: Ppo | Sac = params.ppo if entry.algorithm == "ppo" else params.sac
    if network:
        algorithm = algorithm.model_copy(update={"hidden": network})
    ranges = dict(PPO_RANGES if entry.algorithm == "ppo" else SAC_RANGES)
    if entry.reward in PENALISED or ":" in entry.reward:
        ranges["penalty"] = PENALTY
    present = algorithm.model_dump() | {"penalty": params.environment.penalty}
    ranges = {name: span.holding(present[name]) for name, span in ranges.items()}
    own = _network(algorithm.hidden)
    networks = (own,) if network else tuple(dict.fromkeys((*NETWORKS, own)))
    return Space(algorithm, params.environment, ranges, networks)


def _network(hidden: tuple[int, ...]) -> str:
    return "-".join(str(width) for width in hidden)
