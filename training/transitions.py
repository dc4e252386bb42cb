"""Transitions: what an account lived through outside training, as arrays that travel with a lesson.

Owns their selection by rows and their hash. Knows neither the ledger they come from nor torch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Transitions:
    """What accounts lived through outside training, decision by decision; arrays are (m, …)."""

    row: np.ndarray  # int64, of the dataset learned on, at the decision
    account: np.ndarray  # float32 (m, a), what the agent saw of its account
    next_account: np.ndarray  # float32 (m, a), one bar later
    weight: np.ndarray  # float64, target weight asked for
    log_return: np.ndarray  # float64, of the sleeve's equity over the following bar
    drawdown: np.ndarray  # float64, after it
    drawdown_before: np.ndarray  # float64
    mean: np.ndarray  # float64, running moments of log returns, as ``training.rewards.Moments``
    mean_square: np.ndarray  # float64
    alive: np.ndarray  # bool: False where the account was halted after it

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def joined(cls, parts: Sequence[Self], account_columns: int) -> Self:
        """Return all of ``parts`` in order; none of them makes none."""
        account = np.empty((0, account_columns), np.float32)
        whole: dict[str, Any] = {"row": np.empty(0, np.int64), "alive": np.empty(0, bool)}
        whole |= {"account": account, "next_account": account}
        return cls(
            **{
                field.name: np.concatenate(
                    [whole.get(field.name, np.empty(0)), *(getattr(p, field.name) for p in parts)]
                )
                for field in fields(cls)
            }
        )

    def within(self, start: int, stop: int) -> Self:
        """Return those whose decision and the bar after it lie in rows ``start`` to ``stop``."""
        inside = (self.row >= start) & (self.row + 1 < stop)
        return type(self)(**{f.name: getattr(self, f.name)[inside] for f in fields(self)})

    @property
    def sha256(self) -> str:
        """Hash of every number."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()
