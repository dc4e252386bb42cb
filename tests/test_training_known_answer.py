"""The learners against a market whose best policy is known from dynamic programming."""

from collections.abc import Callable

import numpy as np
import pytest
from training_kit import MARKET

from core.settings import Environment, Ppo, Sac
from features.scaler import Scaler
from registry.policy import Policy
from training.environment import MarketBatch, play
from training.known_answer import CASH, KnownMarket, known_answer, known_dataset, known_rules
from training.learn import Lesson, train
from training.rewards import find_reward

BARS, SPLIT, STRETCHES = 30_000, 18_000, 32
DATASET = known_dataset(MARKET, BARS, np.random.default_rng(0))
SCALER = Scaler.fit(DATASET.table[:SPLIT], DATASET.spec)
UNSEEN = (SPLIT, BARS)

Decide = Callable[[MarketBatch, np.ndarray], np.ndarray]


def mean_log_return(decide: Decide) -> float:
    """Return what a policy earns per bar in rows that nobody learned on."""
    market = MarketBatch(
        DATASET,
        SCALER,
        known_rules(MARKET),
        Environment(episode_bars=BARS),
        find_reward("log_return"),
        STRETCHES,
        np.random.default_rng(0),
        rows=UNSEEN,
        actions="continuous",
        cash=CASH,
    )
    return float(play(market, lambda seen: decide(market, seen), UNSEEN, STRETCHES).mean())


@pytest.fixture(scope="module")
def best() -> float:
    answer = known_answer(MARKET)

    def decide(market: MarketBatch, observation: np.ndarray) -> np.ndarray:
        held = market.state.shares[:, 0] > 0
        return answer.weight(DATASET.table[market.row, 0], held)[:, None]

    return mean_log_return(decide)


def test_without_costs_the_answer_is_the_positive_half_of_the_signal() -> None:
    answer = known_answer(KnownMarket(strength=0.01, cost=0.0))
    assert answer.enter == pytest.approx(0.0, abs=1e-6)
    assert answer.leave == pytest.approx(0.0, abs=1e-6)
    # 0.01 · E[max(x, 0)] = 0.01 / √(2π)
    assert answer.per_bar == pytest.approx(0.01 / np.sqrt(2 * np.pi), rel=1e-3)


def test_costs_open_a_band_in_which_nothing_is_done() -> None:
    cheap, dear = (known_answer(KnownMarket(cost=cost)) for cost in (0.001, 0.004))
    assert dear.leave < cheap.leave < 0 < cheap.enter < dear.enter
    assert dear.per_bar < cheap.per_bar


def test_the_engine_pays_what_dynamic_programming_promises(best: float) -> None:
    assert best == pytest.approx(known_answer(MARKET).per_bar, rel=0.05)


def test_random_and_buy_and_hold_are_far_from_the_answer(best: float) -> None:
    rng = np.random.default_rng(1)
    random = mean_log_return(lambda market, _: rng.choice([0.0, np.nan, 1.0], (STRETCHES, 1)))
    holding = mean_log_return(lambda market, _: np.ones((STRETCHES, 1)))
    assert random < 0.2 * best
    assert holding < 0.5 * best


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "actions"),
    [(Ppo(steps=120_000), "discrete"), (Sac(updates=1_200), "continuous")],
    ids=["ppo", "sac"],
)
def test_the_learner_reaches_nine_tenths_of_the_answer(
    settings: Ppo | Sac, actions: str, best: float
) -> None:
    lesson = Lesson(
        agent="known",
        actions=actions,  # type: ignore[arg-type]
        dataset=DATASET,
        train_rows=(0, SPLIT),
        validation_rows=(SPLIT - 2_000, SPLIT),
        scaler=SCALER,
        rules=known_rules(MARKET),
        environment=Environment(),
        reward="log_return",
        hyperparameters=settings,
        seed=1,
        cash=CASH,
        reports=2,
    )
    policy = Policy.open(train(lesson).policy_onnx, symbols=1)
    learned = mean_log_return(lambda market, observation: policy.decide_batch(observation).weight)
    assert learned >= 0.9 * best
