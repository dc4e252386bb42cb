"""Trials: what was ever tried for an agent, of two witnesses that may disagree.

Owns how the ledger's record of a study joins with the study database's. Knows neither of the two,
only what they say: the database has the returns, by which trials are clustered, and can be
deleted; the ledger has the number of trials, and cannot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registry.pooling import Series, independent_trials


@dataclass(frozen=True, slots=True)
class Recorded:
    """One study's trials as the ledger has them."""

    sharpes: tuple[float | None, ...]  # per bar, by trial; None for a trial that gave none
    effective: float  # independent ones among them


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """One study as the study database has it."""

    study: str
    sharpes: tuple[float | None, ...]  # per bar, by trial
    series: Series  # of the trials whose returns are known


@dataclass(frozen=True, slots=True)
class Counted:
    """One study among those an agent's trials are counted from."""

    study: str
    trials: int
    lost: int = 0  # of them known from the ledger alone: the database has them no more

    def __str__(self) -> str:
        gone = f", {self.lost} of them gone from the study database" if self.lost else ""
        return f"{self.study} ({self.trials}{gone})"


@dataclass(frozen=True, slots=True)
class Trials:
    """What was ever tried for an agent: what the gate counts against it."""

    effective: float  # independent ones among them
    sharpe_variance: float | None  # of the per-bar Sharpe ratios; None: fewer than two known
    studies: tuple[Counted, ...]  # in the order they were begun

    @property
    def count(self) -> int:
        return sum(study.trials for study in self.studies)

    def __str__(self) -> str:
        told = f"{self.count}, worth {self.effective:.1f} independent ones"
        return f"{told}: {', '.join(str(study) for study in self.studies) or 'no study'}"


def joined(ledger: Mapping[str, Recorded], known: Sequence[Tried] | None) -> Trials:
    """Return how many trials were ever run, and what they amount to.

    ``known``: the studies that the study database has; None: nobody asked it. The ledger's count
    of a study is the least there can be: where the database has fewer trials, or no such study,
    those missing are counted all the same and said to be lost. Trials whose returns are known are
    clustered across studies; of a study that is gone counts the effective number it had by
    itself, of any other trial without returns one.
    """
    database = {study.study: study for study in known or ()}
    studies: list[Counted] = []
    sharpes: list[float | None] = []
    effective = independent_trials([study.series for study in database.values()])
    for name in dict.fromkeys([*ledger, *database]):
        told, found = ledger.get(name, Recorded((), 0.0)), database.get(name)
        if found is None:
            lost = 0 if known is None else len(told.sharpes)
            studies.append(Counted(name, len(told.sharpes), lost))
            sharpes += told.sharpes
            effective += told.effective
            continue
        more = told.sharpes if len(told.sharpes) >= len(found.sharpes) else found.sharpes
        studies.append(Counted(name, len(more), len(more) - len(found.sharpes)))
        sharpes += more
        effective += len(more) - len(found.series.returns)
    values = [sharpe for sharpe in sharpes if sharpe is not None]
    spread = float(np.var(values, ddof=1)) if len(values) > 1 else None
    return Trials(effective, spread, tuple(studies))
