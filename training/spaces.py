"""Spaces: what an agent may do, and what that means as a target weight.

Discrete agents sell, hold or buy; continuous ones name a weight. Knows no market and no learner.
"""

from typing import Literal

import gymnasium as gym
import numpy as np

Actions = Literal["discrete", "continuous"]

SELL, HOLD, BUY = 0, 1, 2


def discrete_weights(allow_short: bool) -> np.ndarray:
    """Return the target weight of SELL, HOLD (NaN: keep the shares) and BUY, float64 (3,)."""
    return np.array([-1.0 if allow_short else 0.0, np.nan, 1.0])


def action_space(actions: Actions) -> gym.Space:
    """Return the Gymnasium space of one account's action."""
    if actions == "discrete":
        return gym.spaces.Discrete(3)
    return gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


def observation_space(width: int) -> gym.Space:
    """Return the Gymnasium space of one observation of ``width`` columns."""
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)


def target_weight(action: np.ndarray, actions: Actions, allow_short: bool) -> np.ndarray:
    """Turn actions (n,) of 0..2 or (n, 1) in [-1, 1] into target weights (n, 1), NaN: hold."""
    if actions == "discrete":
        return discrete_weights(allow_short)[np.asarray(action).reshape(-1)][:, None]
    lowest = -1.0 if allow_short else 0.0
    return np.clip(np.asarray(action, np.float64).reshape(-1, 1), lowest, 1.0)
