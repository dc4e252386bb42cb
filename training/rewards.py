"""Rewards: what one bar was worth to an account.

A reward is a function of arrays, ``fn(outcome, penalty) -> (n,)``; the four built-in ones have
names, any other is given by import path, ``"package.module:function"``. All are in units of log
return, so that one ``reward_scale`` fits them. The built-in ones hold for NumPy and torch; others
are always given NumPy arrays, at the price of a copy where accounts live on a device. Knows
nothing of learners.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from core.arrays import Array, maximum, namespace, where
from core.errors import ConfigError

MEMORY_BARS = 50.0  # of the running moments
LEAST_DEVIATION = 0.002  # per bar; below this the Sharpe reward counts as noise
USUAL_DEVIATION = 0.01  # per bar; what one unit of Sharpe reward is worth
RISK_AVERSION = 20.0  # of a mean-variance trader at penalty 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one bar brought to ``n`` accounts; every array is float64 (n,)."""

    log_return: Array  # of equity, after costs
    drawdown: Array  # from the rolling peak, fraction, at this close
    drawdown_before: Array  # at the close before
    mean: Array  # running mean of log returns before this bar
    mean_square: Array  # running mean of their squares before this bar


Reward = Callable[[Outcome, float], Array]


def log_return(outcome: Outcome, penalty: float) -> Array:
    """Return the log return of equity."""
    return outcome.log_return


def sharpe(outcome: Outcome, penalty: float) -> Array:
    """Return the differential Sharpe ratio, in units of a usual daily deviation.

    Moody & Saffell (2001), eq. 14: D = (B·ΔA − ½·A·ΔB) / (B − A²)^{3/2}.
    """
    a, b = outcome.mean, outcome.mean_square
    deviation = maximum(b - a * a, LEAST_DEVIATION**2) ** 0.5
    gain_a, gain_b = outcome.log_return - a, outcome.log_return**2 - b
    return (b * gain_a - 0.5 * a * gain_b) / deviation**3 * USUAL_DEVIATION


def drawdown_penalty(outcome: Outcome, penalty: float) -> Array:
    """Return the log return less ``penalty`` × the growth of the drawdown."""
    growth = maximum(outcome.drawdown - outcome.drawdown_before, 0.0)
    return outcome.log_return - penalty * growth


def volatility_penalty(outcome: Outcome, penalty: float) -> Array:
    """Return the log return less a variance charge: ½ γ r², γ = ``RISK_AVERSION`` × penalty."""
    return outcome.log_return - 0.5 * RISK_AVERSION * penalty * outcome.log_return**2


BUILT_IN: dict[str, Reward] = {
    "log_return": log_return,
    "sharpe": sharpe,
    "drawdown_penalty": drawdown_penalty,
    "volatility_penalty": volatility_penalty,
}


def find_reward(name: str) -> Reward:
    """Return the reward called ``name``, or import ``"package.module:function"``.

    Raises ``ConfigError`` naming what was looked for when there is no such function.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    module_name, _, function_name = name.partition(":")
    if not function_name:
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"reward {name!r}: expected one of {known}, or package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"reward {name!r}: cannot import {module_name!r}: {error}") from error
    found = getattr(module, function_name, None)
    if not callable(found):
        raise ConfigError(f"reward {name!r}: {module_name!r} has no function {function_name!r}")
    return _checked(found, name)


def _checked(function: Reward, name: str) -> Reward:
    def checked(outcome: Outcome, penalty: float) -> Array:
        if isinstance(outcome.log_return, np.ndarray):
            return on_host(outcome, penalty)
        host = Outcome(*(getattr(outcome, field.name).cpu().numpy() for field in fields(outcome)))
        device: Any = outcome.log_return.device
        return namespace(outcome.log_return).asarray(on_host(host, penalty), device=device)

    def on_host(outcome: Outcome, penalty: float) -> np.ndarray:
        value = np.asarray(function(outcome, penalty), np.float64)
        if value.shape != outcome.log_return.shape:
            raise ConfigError(
                f"reward {name!r}: returned shape {value.shape}, expected "
                f"{outcome.log_return.shape}, one number per account"
            )
        if not np.isfinite(value).all():
            raise ConfigError(f"reward {name!r}: returned NaN or infinity, expected finite numbers")
        return value

    return checked


class Moments:
    """Running mean and mean square of each account's log returns."""

    def __init__(self, n: int, xp: Any = np, device: Any = None) -> None:
        self.mean = xp.zeros(n, dtype=xp.float64, device=device)
        self.mean_square = xp.full((n,), USUAL_DEVIATION**2, dtype=xp.float64, device=device)

    def update(self, returns: Array, ended: Array) -> None:
        """Take in one bar's returns (n,); accounts that ``ended`` (n,) start anew."""
        share = 1.0 / MEMORY_BARS
        self.mean = where(ended, 0.0, self.mean + share * (returns - self.mean))
        self.mean_square = where(
            ended, USUAL_DEVIATION**2, self.mean_square + share * (returns**2 - self.mean_square)
        )


def scaled(outcome: Outcome, reward: Reward, penalty: float, scale: float) -> Array:
    """Return ``scale`` × the reward as float32 (n,)."""
    value = reward(outcome, penalty) * scale
    xp = namespace(value)
    return xp.astype(value, xp.float32)
