"""Attribution: which features moved a decision, by hiding them.

Owns the search. A feature is hidden by setting all its numbers in the observation to 0, which the
scalers place at the training mean (z-score), the middle of the range (min-max) or the recent
mean (rolling); for account features 0 is the flat, undisturbed account. Knows policies only as
a function from observations to scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

TOP = 3
NEGLIGIBLE = 1e-7  # change of the score below which a feature moved nothing


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature did to the score, given that those named before it are hidden."""

    name: str
    value: float  # scaled, in the newest row
    effect: float  # score with it minus score without it


def explain(
    score: Callable[[np.ndarray], np.ndarray],
    observation: np.ndarray,
    columns: Sequence[str],
    top: int = TOP,
) -> tuple[Contribution, ...]:
    """Return up to ``top`` features whose hiding moves ``score`` most, found greedily.

    ``score`` maps observations (n, D) float32 to (n, k); ``observation`` is (D,) with names
    ``columns`` as ``features.observation.observation_columns`` gives them: the lags of one feature
    are hidden together. Fewer are returned where hiding more moves nothing further.
    """
    groups, masks = _masks(tuple(columns))
    hidden, full = observation, None
    found: list[Contribution] = []
    while len(found) < min(top, len(groups)):
        candidates = np.where(masks, np.float32(0.0), hidden)
        scores = score(candidates)
        full = scores[0] if full is None else full
        distances = np.abs(scores - full).sum(axis=1)
        best = int(np.argmax(distances))
        if not distances[best] > distances[0] + NEGLIGIBLE:
            break
        name, newest = groups[best - 1]
        effect = float((scores[0] - scores[best]).sum())
        found.append(Contribution(name, float(observation[newest]), effect))
        hidden = candidates[best]
    return tuple(found)


@lru_cache(maxsize=64)
def _masks(columns: tuple[str, ...]) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Return every feature with the place of its newest number, and what hiding it hides.

    The first mask hides nothing: what a feature does is seen beside it in one call of the policy.
    """
    groups = group_columns(columns)
    masks = np.zeros((1 + len(groups), len(columns)), dtype=bool)
    for row, places in enumerate(groups.values(), 1):
        masks[row, places] = True
    return [(name, places[-1]) for name, places in groups.items()], masks


def group_columns(columns: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of each feature, oldest lag first: ``rsi[-1]`` and ``rsi`` are one."""
    groups: dict[str, list[int]] = {}
    for position, column in enumerate(columns):
        groups.setdefault(column.split("[")[0], []).append(position)
    return groups


def in_words(contributions: Sequence[Contribution]) -> str:
    """Return the contributions as a phrase."""
    if not contributions:
        return "no feature moves this policy here"
    phrases = []
    for c in contributions:
        verb = "raises" if c.effect > 0 else "lowers"
        phrases.append(f"{c.name} {c.value:+.2f} {verb} it by {abs(c.effect):.3f}")
    return ", ".join(phrases)
