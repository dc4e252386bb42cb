"""Replay: past transitions as arrays, on the accounts' device, handed out as ready batches.

An observation is a row of the shared feature table and the account's own few numbers, so that is
what is kept: a fifth of the memory, and every sample is one gather. Knows no loss.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.arrays import Array
from training.rollout import Trajectories
from training.transitions import Transitions

Observe = Callable[[Array, Array], Array]
# rows (m,), account features (m, a) -> observations float32 (m, D)

COLUMNS = ("row", "account", "next_account", "action", "reward", "alive")


class Replay:
    """The newest ``capacity`` transitions; the oldest make room."""

    def __init__(
        self,
        capacity: int,
        account_columns: int,
        observe: Observe,
        xp: Any = np,
        device: Any = None,
    ) -> None:
        self._capacity, self._observe = capacity, observe
        self._xp, self._device = xp, device

        def zeros(dtype: Any, *more: int) -> Array:
            return xp.zeros((capacity, *more), dtype=dtype, device=device)

        self._row = zeros(xp.int64)
        self._account = zeros(xp.float32, account_columns)
        self._next_account = zeros(xp.float32, account_columns)
        self._action = zeros(xp.float32, 1)
        self._reward, self._alive = zeros(xp.float32), zeros(xp.float32)
        self._newest = 0
        self.size = 0

    def add(self, trajectories: Trajectories) -> None:
        """Keep every transition of ``trajectories``; at most ``capacity`` at a time."""
        xp, a = self._xp, self._account.shape[1]
        account = trajectories.observation[..., -a:]
        following = xp.concat([account[1:], trajectories.newest[None, :, -a:]], axis=0)
        following[trajectories.truncated] = trajectories.last[:, -a:]
        count = len(trajectories)
        where = self._here((self._newest + np.arange(count)) % self._capacity)
        self._row[where] = trajectories.row.reshape(-1)
        self._account[where] = account.reshape(-1, a)
        self._next_account[where] = following.reshape(-1, a)
        self._action[where] = trajectories.action.reshape(-1, 1)
        self._reward[where] = trajectories.reward.reshape(-1)
        # What follows a termination is worth nothing and never looked at.
        self._alive[where] = 1.0 - xp.astype(trajectories.terminated.reshape(-1), xp.float32)
        self._newest = int((self._newest + count) % self._capacity)
        self.size = min(self.size + count, self._capacity)

    def begin(self, lived: Transitions, action: np.ndarray, reward: np.ndarray) -> None:
        """Start with the newest of ``lived``, their ``action`` (m, 1) and ``reward`` (m,)."""
        count = min(len(lived), self._capacity)
        if not count:
            return
        where, newest = slice(0, count), slice(len(lived) - count, None)
        self._row[where] = self._here(lived.row[newest])
        self._account[where] = self._here(lived.account[newest])
        self._next_account[where] = self._here(lived.next_account[newest])
        self._action[where] = self._here(action[newest])
        self._reward[where] = self._here(reward[newest])
        self._alive[where] = self._here(lived.alive[newest].astype(np.float32))
        self._newest, self.size = count % self._capacity, count

    def get_state(self) -> dict[str, Any]:
        """Return what is remembered, without the room that is still free."""
        columns = {name: getattr(self, f"_{name}")[: self.size] for name in COLUMNS}
        return columns | {"newest": self._newest, "size": self.size}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remember what ``get_state()`` of a replay of the same capacity gave."""
        self._newest, self.size = state["newest"], state["size"]
        for name in COLUMNS:
            getattr(self, f"_{name}")[: self.size] = self._here(state[name])

    def _here(self, numbers: np.ndarray) -> Array:
        return self._xp.asarray(numbers, device=self._device)

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, Array]:
        """Return ``count`` transitions drawn with replacement, as float32 columns.

        ``obs`` and ``new_obs`` (count, D), ``actions`` (count, 1), ``rewards`` and ``alive``
        (count,): 0 where the account was terminated, else 1.
        """
        drawn = self._here(rng.integers(0, self.size, count))
        row = self._row[drawn]
        return {
            "obs": self._observe(row, self._account[drawn]),
            "new_obs": self._observe(row + 1, self._next_account[drawn]),
            "actions": self._action[drawn],
            "rewards": self._reward[drawn],
            "alive": self._alive[drawn],
        }
