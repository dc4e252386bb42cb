"""The sides of the benchmark do the same work: the same numbers, data, costs and counts."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

from bench import data, engine, learning, paths, retraining, sides
from bench.agreement import differences
from bench.peers import backtests, rllib
from bench.peers.rllib_training import deciding, exported, layers_of
from bench.rows import SAC
from bench.speak import Asked
from core.bars import PackedMarket
from core.home import PROJECT, Home
from core.settings import Environment, Ppo, Sac, load_params
from features.spec import spec_from
from registry.policy import Policy
from training import learn, workers
from training.environment import MarketBatch
from training.lesson import Lesson, Report, Trained
from training.ppo import ppo_config
from training.rewards import find_reward
from training.sac import sac_config


def market_of(task: Lesson) -> MarketBatch:
    """Return what the fast path steps."""
    return MarketBatch(
        task.dataset, task.scaler, task.rules, task.environment, find_reward(task.reward),
        task.environment.accounts, np.random.default_rng(0), rows=task.train_rows,
        actions=task.actions, cash=task.cash,
    )  # fmt: skip


def told(contender: str, folder: Path) -> Asked:
    return Asked(contender=contender, folder=folder, seconds=0.0, quick=True)


@pytest.fixture(scope="module")
def ppo_lesson() -> Lesson:
    return learning.lesson(Ppo())


def test_stock_ppo_is_told_the_numbers_of_the_fast_path(ppo_lesson: Lesson) -> None:
    fast = ppo_config(Ppo(), market_of(ppo_lesson), "discrete", 0, "cpu")
    stock = rllib.configured(ppo_lesson)
    for name in (
        "lr", "gamma", "lambda_", "clip_param", "entropy_coeff", "vf_loss_coeff", "use_kl_loss",
        "grad_clip", "num_epochs", "minibatch_size", "train_batch_size_per_learner",
    ):  # fmt: skip
        assert getattr(stock, name) == getattr(fast, name), name
    assert stock.train_batch_size_per_learner == 8_192  # 256 accounts × 32 bars
    ours = {**Ppo().model_dump(), "rollout_steps": 8_192}
    assert differences({"ratchet": ours, "stock": rllib.ppo_says(stock)}) == []
    assert stock.model_config["fcnet_hiddens"] == [64, 64]


def test_stock_sac_makes_an_update_for_as_many_steps_as_the_fast_path() -> None:
    task = learning.lesson(Sac())
    fast, stock = sac_config(Sac(), market_of(task), 0, "cpu"), rllib.configured(task)
    for name in ("actor_lr", "critic_lr", "alpha_lr", "gamma", "tau"):
        assert getattr(stock, name) == getattr(fast, name), name
    assert stock.train_batch_size_per_learner == fast.train_batch_size_per_learner == 256
    assert stock.replay_buffer_config == fast.replay_buffer_config
    # A round of stock RLlib is one step of every environment and one update.
    assert stock.num_envs_per_env_runner * stock.rollout_fragment_length == 32
    assert fast.training_intensity == 32
    assert stock.training_intensity is None
    assert differences({"ratchet": Sac().model_dump(), "stock": rllib.sac_says(stock)}) == []


def test_an_update_of_sac_is_counted_once_per_thirty_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = learning.lesson(Sac(hidden=(4,), batch=8))
    monkeypatch.setattr(learning, "lesson", lambda _: small)
    monkeypatch.setattr(learning, "updates", lambda batch: lambda result: _trained(result) / 8)
    work, notes = sides.sac(told("sac", tmp_path))
    assert [work(), work()] == [64.0, 64.0]  # 256 accounts × 8 bars
    assert (notes["accounts"], notes["steps_per_update"]) == (256, 32)
    assert "32 steps an update" in SAC.work


def _trained(result: dict[str, Any]) -> float:
    return float(result["learners"]["default_policy"]["num_module_steps_trained_lifetime"])


def test_peers_trade_the_very_bars_that_ratchet_trades(
    tmp_path: Path, ppo_lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.write_engine(tmp_path, True)
    ours = engine.random_market(np.random.default_rng(0))
    table = engine.Run(2).market.table
    assert np.array_equal(table, PackedMarket.of(ours).table)
    assert np.array_equal(np.load(tmp_path / "market.npz")["close"], ours.close[:, 0])
    data.write_learning(tmp_path, True)
    kept = np.load(tmp_path / "market.npz")
    assert np.array_equal(kept["close"], ppo_lesson.dataset.market.close[:, 0])
    # gym-trading-env adds two numbers of its own: as wide as Ratchet's observation.
    assert kept["table"].shape[1] + 2 == market_of(ppo_lesson).width == 93
    monkeypatch.setattr(sides, "PATHS", 2)
    data.write_paths(tmp_path, True)
    written = np.load(tmp_path / "paths.npz")["close"]
    one = paths.history(1, spec_from(load_params(PROJECT / "params.yaml"), "1d"))
    assert written.shape[1] == 2
    assert np.array_equal(written[:, 1], one.market.close[:, 0])


def test_backtests_of_peers_cost_what_their_notes_say() -> None:
    params = load_params(PROJECT / "params.yaml")
    assert round(backtests.SLIPPAGE * 1e4, 6) == params.costs.slippage_bps == 2.0
    assert params.account.cash == backtests.CASH
    assert backtests.BARS == sides.BARS
    assert backtests.FEE == 0.0001
    average = backtests.average(np.arange(1.0, 6.0)[:, None], 2)[:, 0]
    assert np.isnan(average[0])
    assert average[1:].tolist() == [1.5, 2.5, 3.5, 4.5]


def test_one_environment_of_a_peer_is_the_lessons_market(ppo_lesson: Lesson) -> None:
    env = rllib.market_env(ppo_lesson)
    first, _ = env.reset(seed=1)
    _, reward, ended, cut, told = env.step(2)
    assert (first.shape, env.action_space.n) == ((93,), 3)  # type: ignore[attr-defined]
    assert np.isfinite(reward)
    assert not ended
    assert not cut
    assert told["equity"] != ppo_lesson.cash  # it bought, and paid for it


def test_rllibs_own_network_is_exported_as_it_decides(ppo_lesson: Lesson) -> None:
    market = market_of(ppo_lesson)
    env = rllib.market_env(ppo_lesson)
    module = DefaultPPOTorchRLModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=rllib.configured(ppo_lesson).model_config,
        catalog_class=PPOCatalog,
    )
    seen = market.reset()[:64]
    seen[:, -11:] = 0.0  # nothing held
    layers = layers_of(module)
    assert [weight.shape for weight, _ in layers] == [(93, 64), (64, 64), (64, 3)]
    layers[-1][1][:] = module.pi.net.mlp[0].bias.data[:] = 0.0
    weight = Policy.open(exported(layers, ppo_lesson)).decide(seen).weight[:, 0]
    expected = np.array([0.0, np.nan, 1.0])[deciding(module)(seen)]
    assert np.array_equal(weight, expected, equal_nan=True)


def test_both_retrainings_train_as_often_and_as_long(
    tmp_path: Path, ppo_lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Lesson] = []

    def train(lesson: Lesson, report: Report) -> Trained:
        seen.append(lesson)
        return Trained(b"", b"", "", (), 0.0, lesson.steps, 0.0)

    def study(home: Home, params: Any, agent: str, **options: Any) -> Any:
        wide = Ppo(hidden=(128, 64), epochs=6, steps=params.ppo.steps, learning_rate=0.002)
        size = params.size(options["size"])
        tried = Lesson(**{**_fields(ppo_lesson), "hyperparameters": wide, "effort": size.effort})
        workers.train_all(home, [tried] * (size.trials + size.seeds + size.folds))
        assert retraining.validated_path(home, retraining.SYMBOL).exists()
        return SimpleNamespace(verdict="refuse")

    monkeypatch.setattr(workers, "_here", False)  # put back afterwards
    monkeypatch.setattr(learn, "train", learn.train)
    monkeypatch.setattr(retraining, "connect", lambda home: None)
    monkeypatch.setattr(retraining.studies, "check", lambda home: None)
    monkeypatch.setattr(retraining.featurize, "run", lambda *_: None)
    monkeypatch.setattr(retraining.retrain, "run", study)
    made = retraining.Retrainings(tmp_path, True, train)
    assert made.once() == "refuse"
    assert (made.trainings, made.steps) == (7, 7 * 16_384)
    assert {(one.hyperparameters.hidden, one.hyperparameters.learning_rate) for one in seen} == {
        ((64, 64), 0.002)
    }
    assert {one.hyperparameters.epochs for one in seen if isinstance(one.hyperparameters, Ppo)} == {
        4
    }


@pytest.mark.parametrize("quick", [True, False])
def test_no_trial_of_the_retraining_can_be_pruned(quick: bool) -> None:
    params = retraining.settings(quick)
    size = params.size(retraining.SIZE)
    assert params.search.generation == size.trials  # only earlier generations prune
    assert Environment().accounts * params.ppo.rollout_bars == retraining.BATCH == params.ppo.steps
    assert params.environment.accounts == Environment().accounts


def _fields(lesson: Lesson) -> dict[str, Any]:
    return {name: getattr(lesson, name) for name in Lesson.__slots__}


def test_every_side_named_by_a_row_is_there() -> None:
    from bench.rows import ROWS, Row

    named = {row.ratchet.name for row in ROWS if isinstance(row, Row)}
    assert named == set(sides.SIDES)
    assert isinstance(told("x", Path()), Namespace)
