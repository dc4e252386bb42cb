"""Agreement: whether those who take part in a row do the same work, by what each says of itself.

Owns which numbers must be equal. Every contender reads them off what it has made (the learner, not
the settings it was told) and says them when it is ready. Pure; knows no process.
"""

import math
from collections.abc import Mapping
from typing import Any

from bench.table import RATCHET

SAME = (
    "learning_rate",
    "discount",
    "gae_lambda",
    "clip",
    "entropy",
    "epochs",
    "minibatch",
    "rollout_steps",
    "tau",
    "batch",
    "replay",
    "warmup",
    "steps_per_update",
    "hidden",
    "bars",
    "size",
)


def differences(contenders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for every number in which a contender differs from Ratchet."""
    ours = contenders.get(RATCHET, {})
    found = []
    for label, theirs in contenders.items():
        for name in SAME:
            if name in ours and name in theirs and not _equal(ours[name], theirs[name]):
                found.append(f"{label}: {name} is {theirs[name]}, Ratchet's {ours[name]}")
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return list(one) == list(other)
    return bool(one == other)
