"""Replay: what was lived through comes back, whole and in its own episode."""

import numpy as np
from training_kit import SMALL_SAC, small_batch

from features.account import ACCOUNT_COLUMNS
from training.algorithm import quiet
from training.replay import Replay
from training.rollout import Trajectories
from training.sac import MarketSac, sac_config

A = len(ACCOUNT_COLUMNS)


def lived(bars: int) -> tuple[Trajectories, Replay]:
    """Return real trajectories, episodes ending inside, and a replay made for them."""
    market = small_batch(4, actions="continuous", rows=(0, 60))
    with quiet():
        algorithm = MarketSac(sac_config(SMALL_SAC, market, 3, "cpu"), market)
    return algorithm.env_runner.sample(bars=bars), Replay(500, A, market.observation)


def test_a_transition_comes_back_as_it_was_seen() -> None:
    trajectories, replay = lived(30)
    assert trajectories.truncated.any()
    replay.add(trajectories)
    batch = replay.sample(400, np.random.default_rng(0))
    seen = {row.tobytes(): at for at, row in enumerate(trajectories.observation.reshape(120, -1))}
    ends = iter(trajectories.last)
    following = np.concatenate([trajectories.observation[1:], trajectories.newest[None]])
    for bar, account in zip(*np.nonzero(trajectories.truncated), strict=True):
        following[bar, account] = next(ends)
    flat = following.reshape(120, -1)
    for number in range(400):
        at = seen[batch["obs"][number].tobytes()]
        np.testing.assert_array_equal(batch["new_obs"][number], flat[at])
        assert batch["rewards"][number] == trajectories.reward.reshape(-1)[at]
        assert batch["actions"][number, 0] == trajectories.action.reshape(-1)[at]
        assert batch["alive"][number] == 1.0


def numbered(first: int, count: int) -> Trajectories:
    """Return ``count`` bars of one account whose reward is the number of the bar."""
    blank = np.zeros((count, 1))
    return Trajectories(
        row=blank.astype(np.int64),
        observation=np.zeros((count, 1, A), np.float32),
        action=blank[..., None],
        log_probability=blank,
        reward=np.arange(first, first + count, dtype=np.float32)[:, None],
        terminated=blank.astype(bool),
        truncated=blank.astype(bool),
        newest=np.zeros((1, A), np.float32),
        last=np.empty((0, A), np.float32),
    )


def test_the_oldest_transitions_make_room() -> None:
    replay = Replay(10, A, lambda rows, account: account)
    for first in (0, 6, 12):
        replay.add(numbered(first, 6))
    assert replay.size == 10
    rewards = set(replay.sample(500, np.random.default_rng(0))["rewards"].tolist())
    assert rewards == set(map(float, range(8, 18)))


def test_what_follows_a_termination_counts_for_nothing() -> None:
    trajectories = numbered(0, 3)
    trajectories.terminated[1] = True
    replay = Replay(10, A, lambda rows, account: account)
    replay.add(trajectories)
    batch = replay.sample(100, np.random.default_rng(0))
    alive = {float(r): float(a) for r, a in zip(batch["rewards"], batch["alive"], strict=True)}
    assert alive == {0.0: 1.0, 1.0: 0.0, 2.0: 1.0}
