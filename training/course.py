"""A course: everything a retraining may learn from, and the lessons made of it.

Owns which rows a lesson gets. A search, its seeds and its walk-forward folds receive datasets that
end where their validation ends: what comes later is cut off before a lesson leaves, so no learner
can see it by mistake. Knows neither the registry nor how lessons are scheduled.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from features.scaler import Scaler
from training.device import device_name
from training.lesson import Lesson, Trained
from training.space import Space, space_for
from training.splits import Fold, Timeline, Window
from training.transitions import Transitions

# Sections of params.yaml that a search does not depend on.
NO_MATTER = {"demo", "paper", "monitor", "gate", "shadow", "alerts"}


@dataclass(frozen=True, slots=True)
class Course:
    """One agent's retraining: data, rules and effort."""

    agent: str
    params: Params
    learned: Dataset  # signal symbol, whole; lessons get parts of it
    timeline: Timeline  # on the rows of ``learned``
    rules: Rules
    effort: float
    warm_start: bytes | None = None  # weights or policy.onnx of the Production version
    lived: Transitions | None = None  # what the agent lived through, on the rows of ``learned``

    @property
    def space(self) -> Space:
        """What the study searches; a warm start keeps the network it continues from."""
        from training.export import hidden_layers, unpack

        network = () if self.warm_start is None else hidden_layers(unpack(self.warm_start))
        return space_for(self.params, self.agent, network)

    @property
    def identity(self) -> str:
        """Hash of all that decides the result of a search, but its seed and size."""
        part = self.learned.rows(0, self.timeline.validation.stop)
        settings = self.params.model_dump(mode="json", exclude=NO_MATTER)
        settings["agents"] = settings["agents"][self.agent]
        rows = [(w.start, w.stop) for w in (self.timeline.train, self.timeline.validation)]
        warm = hashlib.sha256(self.warm_start or b"").hexdigest()
        inputs = [part.sha256, settings, rows, self.effort, warm]
        if (lived := self._lived(self.timeline.train)) is not None:
            inputs.append(lived.sha256)
        told = json.dumps(inputs, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def validation_times(self) -> tuple[int, ...]:
        """Times of the bars whose returns a trial is scored by, seconds since 1970.

        The first validation bar is a decision's; what it brought is the next bar's return.
        """
        rows, first = self.timeline.validation, self.learned.first_row
        time = self.learned.market.time[max(rows.start, first) + 1 : rows.stop]
        return tuple(time.astype("datetime64[s]").astype(np.int64).tolist())

    def _lived(self, train: Window) -> Transitions | None:
        """Return what was lived through inside a training window, for who may learn from it."""
        if self.lived is None or self.params.agent(self.agent).algorithm != "sac":
            return None  # PPO is on-policy: what other policies did would bias it
        inside = self.lived.within(train.start, train.stop)
        return inside if len(inside) else None

    @property
    def replayed(self) -> int:
        """How many live transitions SAC's replay begins with."""
        lived = self._lived(self.timeline.train)
        return 0 if lived is None else len(lived)

    def scaler(self, train: Window) -> Scaler:
        """Return the scaler fitted on the rows of one training window, and no others."""
        return Scaler.fit(self.learned.table[train.start : train.stop], self.learned.spec)

    def lesson(self, values: Mapping[str, Any], seed: int, fold: Fold | None = None) -> Lesson:
        """Return the lesson of a trial's ``values`` over the timeline, or over one fold."""
        train = self.timeline.train if fold is None else fold.train
        validation = self.timeline.validation if fold is None else fold.validation
        algorithm, environment = self.space.settings(values)
        entry = self.params.agent(self.agent)
        return Lesson(
            agent=self.agent,
            actions=entry.actions,
            dataset=self.learned.rows(0, validation.stop),
            train_rows=(train.start, train.stop),
            validation_rows=(validation.start, validation.stop),
            scaler=self.scaler(train),
            rules=self.rules,
            environment=environment,
            reward=entry.reward,
            hyperparameters=algorithm,
            seed=seed,
            cash=self.params.account.cash,
            effort=self.effort,
            reports=self.params.search.reports,
            warm_start=self.warm_start,
            lived=self._lived(train),
            device=device_name(),
            runners=self.params.training.runners,
            learners=self.params.training.learners,
        )


def median_seed(trained: Sequence[Trained]) -> int:
    """Return the position of the training with the median validation score, never the best.

    Of an even number the lower of the two in the middle.
    """
    order = sorted(range(len(trained)), key=lambda i: (trained[i].validation_score, i))
    return order[(len(order) - 1) // 2]
