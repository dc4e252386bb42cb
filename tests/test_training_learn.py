"""Learning: the same lesson gives the same weights, reports on time, and goes on from others."""

import hashlib
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_kit import SMALL_PPO, SMALL_SAC, small_lesson

from core.errors import ConfigError, MissingDependency, TrainingError
from core.settings import Ppo, Sac
from registry.policy import Policy
from training.algorithm import quiet
from training.device import device_name, find_device
from training.export import unpack, weights_sha256
from training.learn import Lesson, Metrics, build, train, weights_of

ALGORITHMS = [(SMALL_PPO, "discrete"), (SMALL_PPO, "continuous"), (SMALL_SAC, "continuous")]


@pytest.mark.parametrize(("settings", "actions"), ALGORITHMS)
def test_the_same_lesson_gives_the_same_weights(settings: Ppo | Sac, actions: str) -> None:
    lesson = small_lesson(hyperparameters=settings, actions=actions)
    first, second = train(lesson), train(pickle.loads(pickle.dumps(lesson)))
    assert first.weights_sha256 == second.weights_sha256
    assert first.policy_onnx == second.policy_onnx
    assert first.validation_score == second.validation_score


def test_other_seeds_give_other_weights() -> None:
    hashes = {train(small_lesson(seed=seed)).weights_sha256 for seed in (1, 2)}
    assert len(hashes) == 2


def test_a_new_process_learns_the_same_weights_after_one_that_was_killed() -> None:
    code = (
        "import os, signal\n"
        "from training_kit import SMALL_SAC, small_lesson\n"
        "from training.learn import train\n"
        "first = os.fork()\n"
        "if not first:\n"
        "    train(small_lesson(), lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "print(os.WTERMSIG(os.waitpid(first, 0)[1]))\n"
        "print(train(small_lesson()).weights_sha256)\n"
        "print(train(small_lesson(hyperparameters=SMALL_SAC, actions='continuous'))"
        ".weights_sha256)\n"
    )
    here = Path(__file__).parent
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here.parent,
        env={"PYTHONPATH": f"{here.parent}:{here}", "PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    sac = small_lesson(hyperparameters=SMALL_SAC, actions="continuous")
    assert int(printed[0]) == signal.SIGKILL  # in the middle: after its first report of two
    assert printed[1:] == [train(small_lesson()).weights_sha256, train(sac).weights_sha256]


def test_training_leaves_the_random_numbers_of_the_process_alone() -> None:
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    expected = torch.rand(1), np.random.random()  # noqa: NPY002
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    threads = torch.get_num_threads()
    train(small_lesson())
    assert (torch.rand(1), np.random.random()) == expected  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_reports_come_evenly_and_carry_what_a_study_needs() -> None:
    heard: list[tuple[int, Metrics]] = []
    trained = train(small_lesson(reports=4), lambda steps, figures: heard.append((steps, figures)))
    # 2048 steps in batches of 32 accounts × 8 bars.
    assert [steps for steps, _ in heard] == [512, 1024, 1536, 2048]
    assert trained.steps == 2048
    assert [figures for _, figures in heard] == list(trained.curve)
    assert heard[-1][1]["seconds_left"] == 0.0
    for _, figures in heard:
        assert {"validation_score", "reward", "policy_loss", "steps_per_second"} <= set(figures)
        assert all(np.isfinite(value) for value in figures.values())


def test_effort_scales_steps_and_updates() -> None:
    assert small_lesson(effort=0.5).steps == 1024
    sac = small_lesson(hyperparameters=SMALL_SAC, actions="continuous", effort=2.0)
    assert sac.steps == 256 + 16 * 32


class Pruned(Exception):
    """Stands for whatever a study raises."""


def test_a_report_that_raises_ends_the_training() -> None:
    def prune(steps: int, figures: Metrics) -> None:
        raise Pruned(f"at {steps}")

    with pytest.raises(Pruned, match="at 1024"):
        train(small_lesson(), prune)


@pytest.mark.parametrize(("settings", "actions"), ALGORITHMS)
def test_a_warm_start_goes_on_where_the_other_ended(settings: Ppo | Sac, actions: str) -> None:
    lesson = small_lesson(hyperparameters=settings, actions=actions)
    first = train(lesson)
    still = settings.model_copy(update={"learning_rate": 1e-12})
    warm = train(
        small_lesson(hyperparameters=still, actions=actions, warm_start=first.weights, seed=99)
    )
    before, after = unpack(first.weights), unpack(warm.weights)
    for name in (name for name in before if not name.startswith("targets.")):
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)
    assert warm.validation_score == pytest.approx(first.validation_score, abs=1e-3)


@pytest.mark.parametrize(("settings", "actions"), ALGORITHMS)
def test_a_checkpoint_of_rllib_brings_back_weights_and_optimizer(
    settings: Ppo | Sac, actions: str, tmp_path: Path
) -> None:
    lesson = small_lesson(hyperparameters=settings, actions=actions)
    with quiet():
        saved, restored = build(lesson), build(lesson)
        saved.train()
        saved.train()
        saved.save_to_path(tmp_path / "checkpoint")
        restored.restore_from_path(tmp_path / "checkpoint")
    assert weights_sha256(weights_of(restored)) == weights_sha256(weights_of(saved))
    before, after = (a.learner.get_optimizer().state_dict()["state"] for a in (saved, restored))
    assert after["steps"] == before["steps"] > 0
    assert torch.equal(after["mean"], before["mean"])


def test_a_warm_start_from_a_bundle_takes_over_the_actor() -> None:
    first = train(small_lesson())
    still = SMALL_PPO.model_copy(update={"learning_rate": 1e-12})
    warm = train(small_lesson(hyperparameters=still, warm_start=first.policy_onnx, seed=99))
    observation = np.random.default_rng(0).standard_normal((50, 15)).astype(np.float32)
    was, now = (
        Policy.open(t.policy_onnx, symbols=1).decide(observation).score for t in (first, warm)
    )
    np.testing.assert_allclose(now, was, atol=1e-5)


def test_a_warm_start_from_another_network_is_refused() -> None:
    wide = SMALL_PPO.model_copy(update={"hidden": (24, 16)})
    weights = train(small_lesson(hyperparameters=wide)).weights
    with pytest.raises(TrainingError, match="warm start: actor"):
        train(small_lesson(warm_start=weights))


def test_a_training_that_diverges_says_so() -> None:
    wild = SMALL_PPO.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"PPO diverged .* learning rate 1e\+30"):
        train(small_lesson(hyperparameters=wild))


@pytest.mark.parametrize("reward", ["sharpe", "drawdown_penalty", "volatility_penalty"])
def test_every_reward_trains(reward: str) -> None:
    brief = SMALL_PPO.model_copy(update={"steps": 256})
    trained = train(small_lesson(reward=reward, hyperparameters=brief, reports=2))
    assert np.isfinite(trained.validation_score)


def test_the_device_comes_from_the_environment() -> None:
    assert device_name({}) == "cpu"
    assert device_name({"RATCHET_DEVICE": "CUDA"}) == "cuda"
    with pytest.raises(
        ConfigError, match="RATCHET_DEVICE='gpu': expected one of cpu, cuda, tpu, torch"
    ):
        device_name({"RATCHET_DEVICE": "gpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(MissingDependency, match="sees no NVIDIA GPU"):
        train(small_lesson(device="cuda"))


def test_a_missing_tpu_library_is_named() -> None:
    with pytest.raises(MissingDependency, match="torch-xla is not installed"):
        find_device("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_learns_too() -> None:
    assert np.isfinite(train(small_lesson(device="cuda")).validation_score)


def test_a_policy_is_a_graph_and_not_code() -> None:
    trained = train(small_lesson())
    assert len(hashlib.sha256(trained.policy_onnx).hexdigest()) == 64
    assert Policy.open(trained.policy_onnx, symbols=1).observation_size == 15
    assert isinstance(small_lesson(), Lesson)
