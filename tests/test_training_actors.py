"""Actors: a training spread over runners and learners learns what one in one process would."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from training_kit import SMALL_PPO, small_batch, small_lesson

from core.errors import ConfigError
from core.home import PROJECT, Home
from core.settings import Environment, Ppo
from training.actors import market_of, with_actors
from training.ppo import MarketPpo, ppo_config
from training.rollout import Trajectories, own_seed
from training.workers import temp_folder

# One process of its own, whose Ray has as many processors as one such training takes.
PLAY = """
import json
import sys
from pathlib import Path

import actors_play
import ray

for module in ("actors_play", "training_kit"):
    ray.cloudpickle.register_pickle_by_value(__import__(module))
ray.init(
    address="local", num_cpus=5, include_dashboard=False, log_to_driver=False,
    object_store_memory=256 * 1024**2, _temp_dir=sys.argv[1],
)
folder = Path(sys.argv[2])
plays = (actors_play.one_step, actors_play.repeat, actors_play.too_many)
print(json.dumps({play.__name__: play(folder) for play in plays}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return what the functions of ``actors_play`` give, beside a Ray of their own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    kept |= {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}", "RAY_AUTH_MODE": "disabled"}
    folder = tmp_path_factory.mktemp("actors")
    temp = temp_folder(Home(folder))
    try:
        done = subprocess.run(
            [sys.executable, "-c", PLAY, str(temp), str(folder)],
            env=kept, capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def test_a_step_of_two_learners_is_that_of_one_on_the_whole_batch(told: Any) -> None:
    step = told["one_step"]
    assert step["moved"] > 1e-4  # a step of nothing would equal anything
    assert step["apart"] < 1e-6  # the order of a sum
    assert step["learners_alike"]
    assert step["runners_alike"]


def test_a_runner_elsewhere_lives_through_what_one_here_does(told: Any) -> None:
    assert told["one_step"]["lived_alike"]


def test_trainings_with_actors_repeat_and_outlive_a_lost_one(told: Any) -> None:
    found = told["repeat"]
    assert found["killed"] == 1
    assert found["restored"] == ["256"]  # the first of two iterations was not lost with it
    assert found["problems"] == ["", ""]
    assert found["hashes"][0] == found["hashes"][1]
    assert found["hashes"][0] != found["alone"]  # other accounts, other weights


def test_a_training_of_more_processors_than_ray_has_says_both_numbers(told: Any) -> None:
    assert "a training of 9 processors, Ray has 5" in told["too_many"]


def test_accounts_are_shared_among_runners_each_with_its_own_chance() -> None:
    lesson = small_lesson(runners=3, environment=Environment(accounts=32, episode_bars=40))
    markets = [market_of(lesson, runner) for runner in (1, 2, 3)]
    assert [market.n for market in markets] == [11, 11, 10]
    assert market_of(lesson).n == 32
    starts = [market.reset()[:10].tobytes() for market in markets]
    assert len(set(starts)) == 3
    assert own_seed(7, 0) == 7
    assert len({own_seed(7, place) for place in range(4)} | {own_seed(8, 1)}) == 5


def lived(accounts: int, truncated: list[tuple[int, int]], first: float) -> Trajectories:
    """Return two bars in which each (bar, account) of ``truncated`` ended, numbered by both."""
    shape = (2, accounts)
    number = first + np.arange(2 * accounts, dtype=np.float32).reshape(shape)
    ends = np.zeros(shape, bool)
    for at in truncated:
        ends[at] = True
    return Trajectories(
        row=number.astype(int),
        observation=number[:, :, None],
        action=number,
        log_probability=number,
        reward=number,
        terminated=~ends,
        truncated=ends,
        newest=number[-1][:, None],
        last=number[ends][:, None],
    )


def test_accounts_side_by_side_keep_the_order_of_their_ends() -> None:
    # The first of two accounts ended in both bars, the third and fourth in the second and first.
    joined = Trajectories.joined(
        [lived(2, [(0, 0), (1, 0)], 0.0), lived(2, [(1, 0), (0, 1)], 10.0)]
    )
    assert len(joined) == 8
    assert joined.reward.tolist() == [[0.0, 1.0, 10.0, 11.0], [2.0, 3.0, 12.0, 13.0]]
    assert joined.newest[:, 0].tolist() == [2.0, 3.0, 12.0, 13.0]
    assert joined.last[:, 0].tolist() == [0.0, 11.0, 2.0, 12.0]  # by bar, then account
    assert joined.last[:, 0].tolist() == joined.reward[joined.truncated].tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learners": 5}, "ppo.minibatch of 24 rows cannot be shared evenly by 5 learners"),
        ({"runners": 33}, "training.runners is 33, environment.accounts 32"),
        ({"runners": 1, "device": "cuda"}, "RATCHET_DEVICE is cuda"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_sentence(
    changes: dict[str, Any], words: str
) -> None:
    lesson = replace(small_lesson(), **changes)
    config = ppo_config(SMALL_PPO, small_batch(), "discrete", 7, "cpu")
    with pytest.raises(ConfigError, match=words):
        with_actors(config, lesson, MarketPpo.explore)


def test_without_actors_the_configuration_stays_as_it_is() -> None:
    config = ppo_config(SMALL_PPO, small_batch(), "discrete", 7, "cpu")
    assert with_actors(config, small_lesson(), MarketPpo.explore) is config
    spread = with_actors(config, small_lesson(learners=2), MarketPpo.explore)
    assert spread.num_learners == 2
    assert spread.total_train_batch_size == 3 * SMALL_PPO.rollout_bars
    assert 2 * spread.minibatch_size == 24  # of a rollout of three accounts
    assert isinstance(small_lesson().hyperparameters, Ppo)
