"""Replay: past transitions as arrays, handed out as ready batches.

An observation is a row of the shared feature table and the account's own few numbers, so that is
what is kept: a fifth of the memory, and every sample is one gather. Knows no loss.
"""

from collections.abc import Callable

import numpy as np

from training.rollout import Trajectories
from training.transitions import Transitions

Observe = Callable[[np.ndarray, np.ndarray], np.ndarray]
# rows (m,), account features (m, a) -> observations float32 (m, D)


class Replay:
    """The newest ``capacity`` transitions; the oldest make room."""

    def __init__(self, capacity: int, account_columns: int, observe: Observe) -> None:
        self._capacity, self._observe = capacity, observe
        self._row = np.zeros(capacity, np.int64)
        self._account = np.zeros((capacity, account_columns), np.float32)
        self._next_account = np.zeros((capacity, account_columns), np.float32)
        self._action = np.zeros((capacity, 1), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._alive = np.zeros(capacity, np.float32)
        self._newest = 0
        self.size = 0

    def add(self, trajectories: Trajectories) -> None:
        """Keep every transition of ``trajectories``; at most ``capacity`` at a time."""
        a = self._account.shape[1]
        account = trajectories.observation[..., -a:]
        following = np.concatenate([account[1:], trajectories.newest[None, :, -a:]])
        following[trajectories.truncated] = trajectories.last[:, -a:]
        count = len(trajectories)
        where = (self._newest + np.arange(count)) % self._capacity
        self._row[where] = trajectories.row.reshape(-1)
        self._account[where] = account.reshape(-1, a)
        self._next_account[where] = following.reshape(-1, a)
        self._action[where] = trajectories.action.reshape(-1, 1)
        self._reward[where] = trajectories.reward.reshape(-1)
        # What follows a termination is worth nothing and never looked at.
        self._alive[where] = 1.0 - trajectories.terminated.reshape(-1)
        self._newest = int((self._newest + count) % self._capacity)
        self.size = min(self.size + count, self._capacity)

    def begin(self, lived: Transitions, action: np.ndarray, reward: np.ndarray) -> None:
        """Start with the newest of ``lived``, their ``action`` (m, 1) and ``reward`` (m,)."""
        count = min(len(lived), self._capacity)
        if not count:
            return
        where, newest = slice(0, count), slice(len(lived) - count, None)
        self._row[where] = lived.row[newest]
        self._account[where] = lived.account[newest]
        self._next_account[where] = lived.next_account[newest]
        self._action[where] = action[newest]
        self._reward[where] = reward[newest]
        self._alive[where] = lived.alive[newest]
        self._newest, self.size = count % self._capacity, count

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return ``count`` transitions drawn with replacement, as float32 columns.

        ``obs`` and ``new_obs`` (count, D), ``actions`` (count, 1), ``rewards`` and ``alive``
        (count,): 0 where the account was terminated, else 1.
        """
        drawn = rng.integers(0, self.size, count)
        row = self._row[drawn]
        return {
            "obs": self._observe(row, self._account[drawn]),
            "new_obs": self._observe(row + 1, self._next_account[drawn]),
            "actions": self._action[drawn],
            "rewards": self._reward[drawn],
            "alive": self._alive[drawn],
        }
