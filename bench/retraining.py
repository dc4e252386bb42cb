"""A whole retraining as a benchmark: all that both of its sides do, but for the training itself.

Owns the market, the settings and what is held equal. `ratchet retrain`'s own steps run in a home
of their own, in this process: study, seeds, folds, backtests, gate, registry, MLflow, reports.
Knows no learner: whoever takes part brings a function that trains a lesson.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import training.learn
from bench.speak import Work
from core.home import PROJECT, Home
from core.settings import Params, Ppo, load_params, parse_params
from pipelines import featurize, retrain
from pipelines.featurize import validated_path
from pipelines.histories import History
from registry.connection import connect
from sources.files import parquet_bytes, write_whole
from training import studies, workers
from training.lesson import Lesson, Report, Trained

AGENT, SYMBOL = "history", "HISTORY"
SIZE, WARM_UP = "bench", "warm-up"
NOW = datetime(2025, 1, 2, tzinfo=UTC)  # after every made-up bar
BATCH = 8_192  # steps of a rollout: 256 accounts, 32 bars
FULL: dict[str, Any] = {"trials": 20, "seeds": 3, "folds": 2, "effort": 2.0}  # × BATCH
QUICK: dict[str, Any] = {"trials": 4, "seeds": 2, "folds": 1, "effort": 2.0}
LEAST: dict[str, Any] = {"trials": 1, "seeds": 1, "folds": 1, "effort": 1.0}
PER_HOUR = 3_600.0

Train = Callable[[Lesson, Report], Trained]


def settings(quick: bool) -> Params:
    """Return the shipped settings for one made-up market, and the sizes of this benchmark."""
    content = load_params(PROJECT / "params.yaml").model_dump(mode="json")
    size = QUICK if quick else FULL
    content |= {"agents": {AGENT: {"symbol": SYMBOL, "schedule": "none"}}, "demo": {"agents": []}}
    content["features"] |= {"include_vix": False, "anchor_years": 1}
    content["split"] |= {"paper_bars": 0}
    content["ppo"] |= {"steps": BATCH}
    # One generation: a trial is pruned against earlier generations only.
    content["search"] |= {
        "generation": size["trials"],
        "reports": 2,
        "sizes": {SIZE: size, WARM_UP: LEAST},
    }
    return parse_params(content, "bench")


def alike(lesson: Lesson) -> Lesson:
    """Return a lesson of as much arithmetic as every other: the shipped networks and epochs."""
    usual = Ppo()
    held = {"hidden": usual.hidden, "epochs": usual.epochs}
    return replace(lesson, hyperparameters=lesson.hyperparameters.model_copy(update=held))


class Retrainings:
    """Retrains from the same beginning, again and again; counts what was trained."""

    def __init__(self, folder: Path, quick: bool, train: Train) -> None:
        self.trainings = self.steps = 0
        self._params, self._train = settings(quick), train
        self._template = Home(folder / "template")
        connect(self._template)  # the migrations of its databases take seconds; once is enough
        studies.check(self._template)
        bars = History("bootstrapped", 100).bars()
        write_whole(validated_path(self._template, SYMBOL), parquet_bytes(bars))
        featurize.run(self._template, self._params, SYMBOL)
        workers.train_here()
        training.learn.train = self._one

    def once(self, size: str = SIZE) -> str:
        """Retrain in a fresh home; return the verdict."""
        with TemporaryDirectory(prefix="ratchet-bench-") as place:
            home = Home(Path(place) / "home")
            shutil.copytree(self._template.root, home.root)
            done = retrain.run(home, self._params, AGENT, size=size, seed=0, now=NOW)
        return done.verdict

    def _one(self, lesson: Lesson, report: Report, checkpoints: Path | None = None) -> Trained:
        del checkpoints  # RLlib's own path writes none
        done = self._train(alike(lesson), report)
        self.trainings += 1
        self.steps += done.steps
        return done


def prepare(folder: Path, quick: bool, train: Train) -> tuple[Work, dict[str, object]]:
    """Return the work of one retraining, after one of the least size."""
    made = Retrainings(folder, quick, train)
    made.once(WARM_UP)

    def work() -> float:
        made.once()
        return PER_HOUR

    return work, {"size": QUICK if quick else FULL, "steps_a_training_unit": BATCH}
