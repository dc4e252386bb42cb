"""The market environment: timing, episodes, and one account like many."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from training_kit import MARKET, small_batch, small_dataset

from core.errors import NotEnoughData
from core.settings import Environment
from features.dataset import Dataset
from features.scaler import Scaler
from training.environment import MarketEnv, play
from training.known_answer import CASH, known_rules
from training.rewards import find_reward
from training.spaces import BUY, HOLD, SELL, Actions


def environment(actions: Actions = "discrete") -> MarketEnv:
    dataset = small_dataset()
    return MarketEnv(
        dataset,
        Scaler.fit(dataset.table, dataset.spec),
        known_rules(MARKET),
        Environment(episode_bars=40),
        find_reward("log_return"),
        rows=(0, 400),
        actions=actions,
        cash=CASH,
    )


@pytest.mark.parametrize("actions", ["discrete", "continuous"])
def test_gymnasium_finds_nothing_wrong_with_the_environment(actions: Actions) -> None:
    env = environment(actions)
    check_env(env, skip_render_check=True)  # raises for what is wrong
    assert env.observation_space.contains(env.reset(seed=1)[0])


def test_the_same_seed_gives_the_same_episode() -> None:
    env = environment()
    episodes = []
    for _ in range(2):
        observation, info = env.reset(seed=3)
        rows, rewards = [info["row"]], []
        for action in (BUY, HOLD, SELL):
            observation, reward, *_, info = env.step(action)
            rows.append(info["row"])
            rewards.append(reward)
        episodes.append((rows, rewards, observation.tolist()))
    assert episodes[0] == episodes[1]


def test_other_seeds_begin_at_other_rows() -> None:
    env = environment()
    assert len({env.reset(seed=seed)[1]["row"] for seed in range(8)}) > 4


def priced(closes: list[float]) -> Dataset:
    """Return the small dataset with hand-made closes; every open is the close before."""
    dataset = small_dataset(bars=len(closes))
    close = np.array(closes)[:, None]
    opened = np.concatenate([close[:1], close[:-1]])
    market = replace(
        dataset.market,
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
    )
    return replace(dataset, market=market)


def test_a_decision_earns_the_bar_after_it_less_the_cost() -> None:
    batch = small_batch(1, dataset=priced([100.0, 100.0, 110.0, 99.0, 99.0]))
    batch.begin(np.array([1]))
    bought = batch.step(np.array([BUY]))
    # Filled at the open 100 plus 20 bps: all cash becomes shares worth 110/100.2 of it.
    assert bought.reward[0] == pytest.approx(100 * np.log(110 / 100.2), rel=1e-5)
    held = batch.step(np.array([HOLD]))
    assert held.reward[0] == pytest.approx(100 * np.log(99 / 110), rel=1e-5)
    sold = batch.step(np.array([SELL]))
    assert sold.reward[0] == pytest.approx(100 * np.log(1 - 0.002), rel=1e-4)
    assert sold.state.shares[0, 0] == 0.0


def test_the_end_of_the_data_truncates_and_a_new_episode_begins() -> None:
    batch = small_batch(1, dataset=priced([100.0, 100.0, 101.0, 102.0]))
    batch.begin(np.array([1]))
    assert not batch.step(np.array([BUY])).truncated[0]
    last = batch.step(np.array([HOLD]))
    assert last.truncated[0]
    assert not last.terminated[0]
    assert last.row[0] == 3
    assert last.state.shares[0, 0] > 0
    assert batch.state.shares[0, 0] == 0
    assert batch.row[0] < 3
    assert not np.array_equal(last.observation, last.last_observation)


def test_the_length_of_an_episode_truncates() -> None:
    batch = small_batch(2, environment=Environment(episode_bars=3))
    batch.begin(np.array([0, 50]))
    ends = [batch.step(np.array([HOLD, HOLD])).truncated.tolist() for _ in range(4)]
    assert ends == [[False, False], [False, False], [True, True], [False, False]]


def test_ruin_terminates_and_does_not_truncate() -> None:
    closes = [100.0, 100.0, 2.0, 2.0, 2.0]
    batch = small_batch(1, dataset=priced(closes))
    batch.begin(np.array([1]))
    step = batch.step(np.array([BUY]))
    assert step.terminated[0]
    assert not step.truncated[0]
    assert step.state.ruined[0]


def test_many_accounts_live_as_each_would_alone() -> None:
    rng = np.random.default_rng(5)
    actions = rng.integers(0, 3, (20, 4))
    starts = np.array([0, 33, 120, 300])
    together = small_batch(4)
    together.begin(starts)
    many = [together.step(row) for row in actions]
    for account, start in enumerate(starts):
        alone = small_batch(1)
        alone.begin(np.array([start]))
        for row, step in zip(actions, many, strict=True):
            single = alone.step(row[account : account + 1])
            assert single.reward[0] == step.reward[account]
            np.testing.assert_array_equal(single.observation[0], step.observation[account])


def test_a_continuous_action_is_a_weight_within_easy_reach() -> None:
    batch = small_batch(4, actions="continuous")
    batch.begin(np.zeros(4, np.int64))
    asked = batch.step(np.array([[-1.0], [0.0], [0.2], [0.9]])).verdict.asked[:, 0]
    np.testing.assert_allclose(asked, [0.0, 0.0, 0.3, 1.0])


def test_selling_goes_short_only_where_shorts_are_allowed() -> None:
    batch = small_batch(1, rules=known_rules(MARKET).but(allow_short=True))
    batch.begin(np.array([0]))
    assert batch.step(np.array([SELL])).verdict.asked[0, 0] == -1.0


def test_stretches_come_back_in_the_order_of_time() -> None:
    market = small_batch(2, dataset=priced([100.0 * 1.01**i for i in range(9)]))
    returns = play(market, lambda observation: np.ones((2, 1)), (0, 9), 2)
    assert len(returns) == 8
    # Each stretch of four bars buys first and then earns 1 % a bar.
    np.testing.assert_allclose(returns[[1, 2, 3, 5, 6, 7]], np.log(1.01), rtol=1e-6)
    # (Sized at the close, filled 20 bps higher: all cash either way.)
    np.testing.assert_allclose(returns[[0, 4]], np.log(1.01 / 1.002), rtol=1e-4)


def test_rows_without_room_for_a_decision_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="rows 5 to 6 leave 1"):
        small_batch(1, rows=(5, 6))


def test_the_environment_is_a_gymnasium_environment() -> None:
    assert isinstance(environment(), gym.Env)
