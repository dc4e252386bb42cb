"""Rewards: hand-worked numbers, and errors that say what was expected."""

import numpy as np
import pytest

from core.errors import ConfigError
from training.rewards import Moments, Outcome, find_reward


def outcome(returns: list[float], **fields: list[float]) -> Outcome:
    zeros = [0.0] * len(returns)
    given = {name: np.array(fields.get(name, zeros)) for name in Outcome.__slots__[1:]}
    return Outcome(np.array(returns), **given)


def test_the_log_return_is_the_log_return() -> None:
    assert find_reward("log_return")(outcome([0.01, -0.02]), 0.1).tolist() == [0.01, -0.02]


def test_only_a_growing_drawdown_is_penalised() -> None:
    bars = outcome([-0.02, 0.01], drawdown=[0.05, 0.04], drawdown_before=[0.03, 0.05])
    # -0.02 - 0.5 * 0.02; the second drawdown shrank.
    np.testing.assert_allclose(find_reward("drawdown_penalty")(bars, 0.5), [-0.03, 0.01])


def test_the_volatility_penalty_charges_the_square() -> None:
    # ½ · 20 · 0.1 · r² = r²
    bars = outcome([0.1, -0.1])
    np.testing.assert_allclose(find_reward("volatility_penalty")(bars, 0.1), [0.09, -0.11])


def test_the_sharpe_reward_is_moody_and_saffells() -> None:
    bars = outcome([0.02], mean=[0.001], mean_square=[0.000101])
    # A = 0.001, B = 0.000101, B − A² = 1e-4, (…)^{3/2} = 1e-6
    # B·(0.02 − A) = 1.919e-6; ½·A·(0.0004 − B) = 1.495e-7; D = 1.7695, in units of 0.01
    np.testing.assert_allclose(find_reward("sharpe")(bars, 0.0), [0.017695])


def test_the_sharpe_reward_of_a_still_account_is_small() -> None:
    assert find_reward("sharpe")(outcome([0.0]), 0.0).tolist() == [0.0]


def test_running_moments_start_anew_where_an_episode_ended() -> None:
    moments = Moments(2)
    moments.update(np.array([0.05, 0.05]), np.array([False, True]))
    np.testing.assert_allclose(moments.mean, [0.001, 0.0])
    np.testing.assert_allclose(moments.mean_square, [0.0001 + 0.02 * 0.0024, 0.0001])


def half(bars: Outcome, penalty: float) -> np.ndarray:
    return bars.log_return * penalty


def one_number(bars: Outcome, penalty: float) -> float:
    return 1.0


def broken(bars: Outcome, penalty: float) -> np.ndarray:
    return bars.log_return / 0.0 if penalty else np.full(len(bars.log_return), np.nan)


def test_a_reward_of_ones_own_comes_by_import_path() -> None:
    reward = find_reward("test_training_rewards:half")
    assert reward(outcome([0.5, 1.0]), 0.5).tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sharp", "reward 'sharp': expected one of log_return, sharpe"),
        ("no.such.module:fn", "cannot import 'no.such.module'"),
        ("test_training_rewards:absent", "has no function 'absent'"),
    ],
)
def test_an_unknown_reward_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_reward(name)


def test_a_reward_must_give_one_number_per_account() -> None:
    with pytest.raises(ConfigError, match=r"returned shape \(\), expected \(2,\)"):
        find_reward("test_training_rewards:one_number")(outcome([0.1, 0.2]), 0.1)


def test_a_reward_that_is_not_a_number_stops_the_training() -> None:
    with pytest.raises(ConfigError, match="NaN or infinity"):
        find_reward("test_training_rewards:broken")(outcome([0.1, 0.2]), 0.0)
