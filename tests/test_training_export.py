"""Export: ONNX Runtime decides as RLlib's own inference does."""

import numpy as np
import pytest
from training_kit import SMALL_PPO, SMALL_SAC, small_lesson

from core.errors import BadBundle, TrainingError
from core.settings import Ppo, Sac
from registry.policy import Policy
from training.algorithm import quiet
from training.export import (
    check_compatible,
    hidden_layers,
    pack,
    policy_onnx,
    unpack,
    weights_sha256,
)
from training.learn import build, decide, export_policy, weights_of
from training.spaces import Actions, target_weight

Layers = list[tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("shorts", [False, True])
@pytest.mark.parametrize(
    ("settings", "actions"),
    [(SMALL_PPO, "discrete"), (SMALL_PPO, "continuous"), (SMALL_SAC, "continuous")],
)
def test_onnx_runtime_decides_as_rllib_does(
    settings: Ppo | Sac, actions: Actions, shorts: bool
) -> None:
    lesson = small_lesson(hyperparameters=settings, actions=actions)
    object.__setattr__(lesson, "rules", lesson.rules.but(allow_short=shorts))
    rng = np.random.default_rng(0)
    with quiet():
        algorithm = build(lesson)
        module = algorithm.learner.module["default_policy"]
        drawn = {
            name: 0.5 * rng.standard_normal(array.shape).astype(np.float32)
            for name, array in module.get_state().items()
        }
        module.set_state(drawn)
        width = module.observation_space.shape[0]
        observation = rng.standard_normal((200, width)).astype(np.float32)
        expected = target_weight(decide(algorithm, observation), actions, shorts)
        decision = Policy.open(export_policy(algorithm, lesson), symbols=1).decide(observation)
    np.testing.assert_allclose(decision.weight, expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(expected[~np.isnan(expected)])) >= 2


def linear(weight: list[list[float]], bias: list[float]) -> Layers:
    """Return a policy without hidden layers: its outputs can be worked out by hand."""
    return [(np.array(weight, np.float32), np.array(bias, np.float32))]


def test_a_likely_hold_is_exported_as_nan_and_scored_as_the_position() -> None:
    # Logits are log(0.2), log(0.5), log(0.3) whatever is seen; column 1 is the position.
    layers = linear([[0.0] * 3, [0.0] * 3], np.log([0.2, 0.5, 0.3]).tolist())
    content = policy_onnx(layers, actions="discrete", allow_short=False, position_column=1)
    decision = Policy.open(content, symbols=1).decide(np.array([[9.0, 0.4]], np.float32))
    assert np.isnan(decision.weight[0, 0])
    # 0.2 · 0 + 0.5 · 0.4 + 0.3 · 1
    assert decision.score[0, 0] == pytest.approx(0.5)
    assert decision.confidence[0] == pytest.approx(0.5)


def test_with_shorts_selling_scores_minus_one() -> None:
    layers = linear([[0.0] * 3, [0.0] * 3], np.log([0.6, 0.1, 0.3]).tolist())
    content = policy_onnx(layers, actions="discrete", allow_short=True, position_column=1)
    decision = Policy.open(content, symbols=1).decide(np.array([[0.0, -1.0]], np.float32))
    assert decision.weight[0, 0] == -1.0
    assert decision.score[0, 0] == pytest.approx(-0.6 - 0.1 + 0.3)
    assert decision.confidence[0] == pytest.approx(0.6)


def test_a_continuous_policy_is_confident_far_from_zero() -> None:
    # mean = x, log deviation = 0 for every state: Φ(1) = 0.8413, Φ(0) = ½.
    layers = linear([[1.0, 0.0]], [0.0, 0.0])
    content = policy_onnx(layers, actions="continuous", allow_short=False, position_column=0)
    decision = Policy.open(content, symbols=1).decide(np.array([[1.0], [0.0], [-1.0]], np.float32))
    np.testing.assert_allclose(decision.confidence, [0.8413, 0.5, 0.8413], atol=1e-4)
    # 1.5 · tanh(±1) = ±1.1424: in full, and not short.
    np.testing.assert_allclose(decision.weight[:, 0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(decision.score[:, 0], [1.1424, 0.0, -1.1424], atol=1e-4)


def test_weights_survive_packing_and_hash_alike() -> None:
    with quiet():
        weights = weights_of(build(small_lesson()))
    again = unpack(pack(weights))
    assert weights_sha256(again) == weights_sha256(weights)
    changed = dict(again) | {"actor.biases.0": again["actor.biases.0"] + 1e-7}
    assert weights_sha256(changed) != weights_sha256(weights)


def test_the_hidden_layers_of_a_version_are_read_from_its_weights() -> None:
    with quiet():
        algorithm = build(small_lesson())
        content = export_policy(algorithm, small_lesson())
    wanted = small_lesson().hyperparameters.hidden
    assert hidden_layers(weights_of(algorithm)) == wanted
    assert hidden_layers(unpack(content)) == wanted


def test_the_actor_comes_back_out_of_a_policy() -> None:
    with quiet():
        algorithm = build(small_lesson())
        content = export_policy(algorithm, small_lesson())
    weights = weights_of(algorithm)
    actor = unpack(content)
    assert set(actor) == {name for name in weights if name.startswith("actor.")}
    for name, array in actor.items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize("content", [b"PK no archive", b"", b"\x08\xff neither"])
def test_a_damaged_warm_start_is_refused(content: bytes) -> None:
    with pytest.raises(BadBundle, match="warm start"):
        unpack(content)


def test_a_warm_start_of_another_shape_is_refused() -> None:
    other = {"actor.biases.0": np.zeros((1, 1, 16))}
    with pytest.raises(TrainingError, match=r"has shape \(1, 1, 16\), .* expects \(1, 1, 8\)"):
        check_compatible(other, {"actor.biases.0": np.zeros((1, 1, 8))})
