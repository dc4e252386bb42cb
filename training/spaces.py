"""Spaces: what an agent may do, and what that means as a target weight.

Discrete agents sell, hold or buy; continuous ones name a weight. Knows no market and no learner.
"""

from typing import Any, Literal

import gymnasium as gym
import numpy as np

from core.arrays import Array, namespace

Actions = Literal["discrete", "continuous"]

SELL, HOLD, BUY = 0, 1, 2
REACH = 1.5  # weight per unit of a continuous action: all in and all out lie within easy reach


def discrete_weights(allow_short: bool) -> np.ndarray:
    """Return the target weight of SELL, HOLD (NaN: keep the shares) and BUY, float64 (3,)."""
    return np.array([-1.0 if allow_short else 0.0, np.nan, 1.0])


def action_space(actions: Actions) -> gym.Space[Any]:
    """Return the Gymnasium space of one account's action."""
    if actions == "discrete":
        return gym.spaces.Discrete(3)
    return gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


def observation_space(width: int, bound: float) -> gym.Space[Any]:
    """Return the Gymnasium space of one observation of ``width`` columns within ± ``bound``."""
    return gym.spaces.Box(-bound, bound, (width,), np.float32)


def target_weight(action: Array, actions: Actions, allow_short: bool) -> Array:
    """Turn actions (n,) of 0..2, or (n, 1) in [-1, 1], into target weights (n, 1), NaN: hold.

    NumPy or torch.

    A continuous action is ``REACH`` times a weight, cut at ±1, and at 0 without shorts: a squashed
    policy would have to go to its limits, where it no longer learns, to be fully invested.
    """
    xp, lowest = namespace(action), -1.0 if allow_short else 0.0
    if actions == "discrete":
        weights = xp.asarray(discrete_weights(allow_short), device=action.device)
        return weights[xp.reshape(action, (-1,))][:, None]
    weight = REACH * xp.reshape(xp.astype(action, xp.float64), (-1, 1))
    return xp.clip(weight, lowest, 1.0)
