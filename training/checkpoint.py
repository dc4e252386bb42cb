"""Checkpoints: a training under way, kept so that one that was killed goes on where it was.

Owns what a training is at the end of an iteration (weights, optimizer, every generator, every
account, SAC's replay, what was reported so far), its file and how often that is written. A
training that goes on takes the same steps as one nobody interrupted and ends with the same bits.
Knows no trial, fold or study.

A file bears the hash of the lesson and of the code: another lesson, other code or another version
of a library begins anew, which ends alike, only later. A file that does not read is passed over.
Written at most once in ``every_seconds`` and at most as often as costs SHARE of the time; whole or
not at all. It goes when the training ends, pruned or broken included; left behind by one that was
never taken up again, after STALE_DAYS.
"""

import copy
import hashlib
import importlib.metadata
import io
import json
import logging
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS

from core.errors import StorageError
from core.home import PROJECT
from features.own import own_sha256
from sources.files import write_whole
from training.algorithm import MarketAlgorithm
from training.lesson import Lesson, Metrics
from training.rewards import BUILT_IN
from training.rollout import REWARD_PER_BAR

EVERY_SECONDS = 20.0
SHARE = 0.02  # of the time, at most
STALE_DAYS = 14.0
PACKAGES = ("core", "features", "training")  # whose code decides what a training does
LIBRARIES = ("numpy", "numba", "ray", "torch")
FIGURES = ("policy_loss", "value_loss", "entropy", "kl", "gradient_norm", "alpha")
SCALARS = "scalars"  # the member of the file that holds what is no array, as JSON
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """How far a training has come."""

    curve: list[Metrics] = field(default_factory=list)  # what was reported
    rewards: list[float] = field(default_factory=list)  # by iteration, since the newest report
    figures: Metrics = field(default_factory=dict)  # newest losses since then
    seconds: float = 0.0  # of the processes that were killed

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in RLlib's result of one iteration."""
        self.rewards.append(float(result[ENV_RUNNER_RESULTS][REWARD_PER_BAR]))
        for name, value in result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {}).items():
            if name in FIGURES:
                self.figures[name] = float(value)

    def reported(self, metrics: Metrics) -> None:
        """Begin the next part."""
        self.curve.append(metrics)
        self.rewards, self.figures = [], {}


class Keeper:
    """Keeps one training in ``folder``; None: nowhere."""

    def __init__(
        self, lesson: Lesson, folder: Path | None, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._path = None if folder is None else folder / f"{identity(lesson)}.npz"
        self._every, self._began = every_seconds, time.monotonic()
        self._next = self._began + every_seconds

    def take_up(self, algorithm: MarketAlgorithm) -> Progress:
        """Bring a new ``algorithm`` to where the training was; return how far that is."""
        if self._path is None or not self._path.exists():
            return Progress()
        try:
            state = unpacked(self._path.read_bytes())
            kept, progress = state["algorithm"], Progress(**state["progress"])
        except UNREADABLE as error:
            log.warning("checkpoint %s does not read (%s): beginning anew", self._path, error)
            return Progress()
        restore(algorithm, kept)
        log.info("training goes on at step %d", algorithm.steps)
        return progress

    def keep(self, algorithm: MarketAlgorithm, progress: Progress) -> None:
        """Write the training down where it is time to."""
        now = time.monotonic()
        if self._path is None or now < self._next:
            return
        told = {
            "curve": progress.curve,
            "rewards": progress.rewards,
            "figures": progress.figures,
            "seconds": progress.seconds + now - self._began,
        }
        try:
            write_whole(self._path, packed({"algorithm": captured(algorithm), "progress": told}))
        except (StorageError, OSError) as error:  # a training needs none
            log.warning("no checkpoints from here on: %s", error)
            self._path = None
        ended = time.monotonic()
        self._next = ended + max(self._every, (ended - now) / SHARE if self._every else 0.0)

    def end(self) -> None:
        """Forget the training: it has ended; so have those long left behind."""
        if self._path is None:
            return
        oldest = time.time() - STALE_DAYS * 86_400.0
        with suppress(OSError):  # others clean up here, too
            self._path.unlink(missing_ok=True)
            for left in self._path.parent.glob("*.npz"):
                if left.stat().st_mtime < oldest:
                    left.unlink(missing_ok=True)


def captured(algorithm: MarketAlgorithm) -> dict[str, Any]:
    """Return all that decides how ``algorithm`` goes on."""
    return {
        "learners": _numbered(algorithm.each_learner(_of_learner)),
        "runners": _numbered(algorithm.each_runner(lambda runner: runner.get_state())),
        "memory": algorithm.memory(),
        "steps": algorithm.steps,
        "torch": torch.get_rng_state(),
    }


def restore(algorithm: MarketAlgorithm, state: Mapping[str, Any]) -> None:
    """Let a new ``algorithm`` of the same lesson go on from ``captured()``."""
    learners = list(state["learners"].values())
    # Copies: what comes to another process lies in memory that nobody may write to.
    algorithm.each_learner(lambda one: _restore_learner(one, copy.deepcopy(learners[one.place])))
    algorithm.spread_weights()
    runners = list(state["runners"].values())
    algorithm.each_runner(
        lambda one: one.set_state(copy.deepcopy(runners[max(one.worker_index - 1, 0)]))
    )
    algorithm.set_memory(state["memory"])
    algorithm.steps = state["steps"]
    torch.set_rng_state(torch.as_tensor(state["torch"]))


def _numbered(states: Sequence[Any]) -> dict[str, Any]:
    return {str(number): state for number, state in enumerate(states)}


def _of_learner(learner: Any) -> dict[str, Any]:
    return {
        "weights": learner.module[DEFAULT_MODULE_ID].get_state(),
        "optimizer": learner.get_optimizer().state_dict()["state"],
        "chance": learner.chance(),
    }


def _restore_learner(learner: Any, state: Mapping[str, Any]) -> None:
    learner.module[DEFAULT_MODULE_ID].set_state(state["weights"])
    optimizer = learner.get_optimizer()
    kept = {
        name: torch.as_tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in state["optimizer"].items()
    }
    optimizer.load_state_dict(optimizer.state_dict() | {"state": kept})
    learner.set_chance(state["chance"])


def packed(state: Mapping[str, Any]) -> bytes:
    """Return nested dictionaries of arrays, tensors and plain values as one .npz; no pickle."""
    arrays: dict[str, Any] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            name = f"array{len(arrays)}"
            arrays[name] = value
            return {"array": name}
        if isinstance(value, Mapping):
            return {key: plain(part) for key, part in value.items()}
        return value

    scalars = json.dumps(plain(state)).encode()
    arrays[SCALARS] = np.frombuffer(scalars, np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Return what ``packed`` was given, arrays for tensors."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:

        def whole(value: Any) -> Any:
            if isinstance(value, dict):
                if value.keys() == {"array"}:
                    return file[value["array"]]
                return {key: whole(part) for key, part in value.items()}
            return value

        state: dict[str, Any] = whole(json.loads(file[SCALARS].tobytes()))
    return state


def identity(lesson: Lesson) -> str:
    """Return the hash of all that decides a training's weights, the code included."""
    settings = lesson.hyperparameters
    reward = "" if lesson.reward in BUILT_IN else own_sha256(lesson.reward)
    told = [
        *(lesson.agent, lesson.actions, lesson.dataset.sha256, lesson.scaler.to_json()),
        *(list(lesson.train_rows), list(lesson.validation_rows), repr(lesson.rules)),
        *(lesson.environment.model_dump(mode="json"), lesson.reward, reward),
        *(lesson.algorithm, settings.model_dump(mode="json"), lesson.seed, lesson.cash),
        *(lesson.effort, lesson.reports, lesson.device, lesson.runners, lesson.learners),
        hashlib.sha256(lesson.warm_start or b"").hexdigest(),
        "" if lesson.lived is None else lesson.lived.sha256,
        code_sha256(),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Return the hash of what computes a training: these packages, and the libraries' versions."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((PROJECT / package).glob("**/*.py")):
            digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()
