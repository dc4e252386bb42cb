"""A training that was killed goes on where it was and ends as one that was not."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_kit import SMALL_PPO, SMALL_SAC, small_lesson

from core.home import PROJECT
from core.settings import Ppo, Sac
from training import checkpoint
from training.algorithm import MarketAlgorithm
from training.checkpoint import Keeper, identity, packed, unpacked
from training.learn import train
from training.lesson import Lesson

# Nine iterations of 256 steps, each with five updates and a third.
LONGER_SAC = SMALL_SAC.model_copy(update={"updates": 40, "steps_per_update": 48, "replay": 1_000})
ALGORITHMS = [(SMALL_PPO, "discrete"), (SMALL_PPO, "continuous"), (LONGER_SAC, "continuous")]

KILLED_AFTER = 5  # iterations, of eight or nine

# Trains every lesson in a process of its own, which is killed after so many iterations.
VICTIMS = """
import os, pickle, signal, sys
from pathlib import Path
from training import learn
from training.algorithm import MarketAlgorithm
folder, iterations = Path(sys.argv[1]), int(sys.argv[2])
whole, done = MarketAlgorithm.train, 0
def counted(self):
    global done
    if done == iterations:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    return whole(self)
MarketAlgorithm.train = counted
for lesson in pickle.loads(sys.stdin.buffer.read()):
    if not (child := os.fork()):
        learn.train(lesson, checkpoints=folder, every_seconds=0.0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


class Stop(Exception):
    """Stands for whatever a study raises."""


def lesson_of(settings: Ppo | Sac, actions: str) -> Lesson:
    """Return a lesson whose reward remembers what came before."""
    return small_lesson(hyperparameters=settings, actions=actions, reward="sharpe")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which trainings of all algorithms, killed, left their checkpoints."""
    folder = tmp_path_factory.mktemp("killed") / "checkpoints"
    done = subprocess.run(
        [sys.executable, "-c", VICTIMS, str(folder), str(KILLED_AFTER)],
        input=pickle.dumps([lesson_of(*algorithm) for algorithm in ALGORITHMS]),
        env=os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "99"},
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert [int(word) for word in done.stdout.split()] == [signal.SIGKILL] * len(ALGORITHMS)
    return folder


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with every iteration run here."""
    run: list[int] = []
    whole = MarketAlgorithm.train

    def counted(self: MarketAlgorithm) -> Any:
        run.append(1)
        return whole(self)

    monkeypatch.setattr(MarketAlgorithm, "train", counted)
    return run


@pytest.mark.parametrize(("settings", "actions"), ALGORITHMS)
def test_a_training_killed_in_the_middle_goes_on_and_ends_with_equal_weights(
    settings: Ppo | Sac, actions: str, left_behind: Path, iterations: list[int]
) -> None:
    lesson = lesson_of(settings, actions)
    whole = train(lesson)
    needed = len(iterations)
    iterations.clear()
    checkpoint = left_behind / f"{identity(lesson)}.npz"
    assert checkpoint.exists()
    heard: list[int] = []
    resumed = train(lesson, lambda steps, _: heard.append(steps), left_behind)
    assert len(iterations) == needed - KILLED_AFTER
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.policy_onnx == whole.policy_onnx
    assert resumed.validation_returns == whole.validation_returns
    assert heard == [int(metrics["steps"]) for metrics in whole.curve]  # those before, too
    for one, other in zip(resumed.curve, whole.curve, strict=True):
        timed = ("steps_per_second", "seconds_left")
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
    assert not checkpoint.exists()


@pytest.mark.parametrize("ending", [Stop("pruned"), None])
def test_nothing_is_left_of_a_training_that_ended(tmp_path: Path, ending: Stop | None) -> None:
    def report(steps: int, metrics: dict[str, float]) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        if ending is not None:
            raise ending

    if ending is None:
        train(small_lesson(), report, tmp_path, 0.0)
    else:
        with pytest.raises(Stop):
            train(small_lesson(), report, tmp_path, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_read_is_passed_over(tmp_path: Path) -> None:
    lesson = small_lesson()
    path = tmp_path / f"{identity(lesson)}.npz"
    for content in (b"", b"PK no archive", packed({"progress": {}})):
        path.write_bytes(content)
        assert train(lesson, checkpoints=tmp_path).weights_sha256 == train(lesson).weights_sha256


def test_where_none_can_be_written_the_training_goes_on(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")
    whole = train(small_lesson())
    assert train(small_lesson(), checkpoints=nowhere, every_seconds=0.0) is not None
    assert whole.weights_sha256 == train(small_lesson()).weights_sha256


def test_another_lesson_or_other_code_is_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = identity(small_lesson())
    assert identity(small_lesson()) == usual
    others = [
        small_lesson(seed=8),
        small_lesson(effort=0.5),
        small_lesson(reports=3),
        small_lesson(reward="sharpe"),
        small_lesson(train_rows=(0, 299)),
        small_lesson(hyperparameters=SMALL_PPO.model_copy(update={"discount": 0.9})),
    ]
    assert len({usual, *map(identity, others)}) == 1 + len(others)
    monkeypatch.setattr(checkpoint, "code_sha256", lambda: "other")
    assert identity(small_lesson()) != usual


def test_short_trainings_write_nothing(tmp_path: Path) -> None:
    train(small_lesson(), lambda *_: None, tmp_path, every_seconds=3_600.0)
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_behind_for_weeks_goes(tmp_path: Path) -> None:
    left, young = tmp_path / f"{'a' * 64}.npz", tmp_path / f"{'b' * 64}.npz"
    for path in (left, young):
        path.write_bytes(b"")
    os.utime(left, (0, 0))
    Keeper(small_lesson(), tmp_path).end()
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_arrays_and_plain_values_come_back_as_they_were() -> None:
    state = {
        "rng": np.random.default_rng(1).bit_generator.state,
        "deep": {"numbers": np.array([1.5, np.nan]), "flags": np.array([True])},
        "steps": 7,
        "curve": [{"score": 0.1 + 0.2}],
    }
    again = unpacked(packed(state))
    assert again["rng"] == state["rng"]
    assert again["deep"]["numbers"].tobytes() == state["deep"]["numbers"].tobytes()  # type: ignore[index]
    assert again["deep"]["flags"].dtype == bool
    assert (again["steps"], again["curve"]) == (7, [{"score": 0.1 + 0.2}])
