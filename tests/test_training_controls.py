"""Controls: a feature that knows tomorrow is learned, and noise is refused by the gate."""

from dataclasses import replace

import numpy as np
from features_kit import daily_index, dataset_of, random_bars
from registry_kit import QUICK
from training_kit import small_lesson

from core.rules import Rules
from core.settings import Account, Costs, Environment, Ppo, RiskLimits
from features.dataset import Dataset
from features.scaler import Scaler
from features.spec import FeatureSpec
from registry.baselines import make_baseline
from registry.evidence import Evidence
from registry.gate import judge
from registry.policy import Policy
from training import backtest
from training.learn import train
from training.lesson import Trained
from training.splits import Window

RULES = Rules.of(Account(), Costs(), RiskLimits(reduce_drawdown=None, halt_drawdown=None))
SPEC = FeatureSpec(("return_1",), "1d", 1, 1, "zscore", 5.0, 0)
TRAIN, STOP = 800, 1_100
KINDS = ("flat", "buy_and_hold", "random")  # those that need no column
LEAST_SHARPE = 3.0  # of a policy that is told tomorrow's return, on bars it never saw


def taught(planted: np.ndarray, dataset: Dataset) -> tuple[Dataset, Scaler, Trained]:
    table = planted[:, None]
    told = Dataset.of("X", "X", dataset.market, table, SPEC)
    told = replace(told, first_row=max(told.first_row, 100))
    scaler = Scaler.fit(table[100:TRAIN], SPEC)
    lesson = small_lesson(
        dataset=told.rows(0, STOP - 300),
        train_rows=(100, TRAIN - 100),
        validation_rows=(TRAIN - 100, TRAIN),
        scaler=scaler,
        rules=RULES,
        environment=Environment(accounts=64, episode_bars=100),
        hyperparameters=Ppo(steps=200_000, rollout_bars=16, minibatch=512, hidden=(16, 16)),
    )
    return told, scaler, train(lesson)


def test_a_feature_that_knows_the_next_move_is_learned() -> None:
    market = dataset_of(random_bars(daily_index(STOP), seed=3, actions=False), SPEC, "X")
    opens = market.market.open[:, 0]
    move = np.zeros(STOP)  # of the bar in which a decision is filled and what follows it
    move[:-2] = opens[2:] / opens[1:-1] - 1.0
    told, scaler, trained = taught(move, market)
    policy = Policy.open(trained.policy_onnx, 1)
    result = backtest.run(policy, told, scaler, RULES, Window(TRAIN, STOP), 100_000.0)
    assert result.metrics["sharpe"] > LEAST_SHARPE


def test_what_is_learned_from_noise_is_refused() -> None:
    market = dataset_of(random_bars(daily_index(STOP), seed=4, actions=False), SPEC, "X")
    noise = np.random.default_rng(9).normal(0.0, 0.01, STOP)
    told, scaler, trained = taught(noise, market)
    rows = Window(TRAIN, STOP)

    def returns(onnx: bytes) -> np.ndarray:
        policy = Policy.open(onnx, 1)
        return backtest.run(policy, told, scaler, RULES, rows, 100_000.0).returns

    candidate = returns(trained.policy_onnx)
    others = {kind: returns(make_baseline(kind, SPEC, scaler, 0)) for kind in KINDS}
    evidence = Evidence(
        candidate=candidate,
        champion=None,
        baselines=others,
        seeds=np.stack([candidate]),
        trials=1,
        trial_sharpe_variance=None,
    )
    assert not judge(evidence, QUICK).passed
