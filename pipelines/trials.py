"""Trials: what was ever tried for an agent, from study database and ledger together.

Owns how the two are held against each other. The database has the returns, by which trials are
clustered; it can be deleted. The ledger has the count, and cannot. So every trial is written into
the ledger when it is told, and whatever the database has that the ledger has not (studies of
another home that shares it, of an older Ratchet) before anything is counted.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime

from core.home import Home
from registry import attempts
from registry.trials import Trials
from training.study import Plan, Trial, open_study
from training.tried import studies_of


def count(home: Home, agent: str, now: datetime) -> Trials:
    """Return what was ever tried for ``agent``, after telling the ledger what it had not heard."""
    known, ledger = studies_of(home, agent), attempts.recorded(home, agent)
    for study in known:
        if study.study not in ledger or len(study.sharpes) > len(ledger[study.study].sharpes):
            attempts.record_trials(home, agent, study.study, study.sharpes, now)
    return attempts.trials(home, agent, known)


def lost(ever: Trials) -> frozenset[str]:
    """Return the names of the studies that are gone altogether."""
    return frozenset(study.study for study in ever.studies if study.lost == study.trials)


@dataclass(slots=True)
class Counter:
    """Writes each trial of a study into the ledger as it is told."""

    home: Home
    agent: str
    study: str
    bars_per_year: float
    now: datetime
    recorded: int  # trials of this study that the ledger has: an interrupted run told them
    heard: list[float | None] = field(default_factory=list)  # Sharpe ratios per bar

    def hear(self, trial: Trial) -> None:
        """Count one trial more."""
        year = math.sqrt(self.bars_per_year)
        self.heard.append(None if trial.score is None else trial.score / year)
        if len(self.heard) > self.recorded:
            attempts.record_trials(self.home, self.agent, self.study, self.heard, self.now)

    def end(self, effective: float) -> None:
        """Write down how many independent trials the whole study amounts to."""
        attempts.record_trials(self.home, self.agent, self.study, self.heard, self.now, effective)


def counter(home: Home, plan: Plan, ever: Trials, now: datetime) -> Counter:
    """Return what counts the trials of the study of ``plan``, which is opened."""
    study = open_study(home, plan).study_name
    recorded = {one.study: one.trials for one in ever.studies}.get(study, 0)
    return Counter(home, plan.agent, study, plan.bars_per_year, now, recorded)
