"""One training on RLlib as it comes: lesson in, policy out, as ``training.learn.train``.

Only what learns is RLlib's own (see ``bench.peers.rllib``); it is scored on the validation rows
and exported as a fast training is, which RLlib's own evaluation would take longer for.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.learning import steps
from bench.peers.rllib import module_of, stock
from core.calendar import bars_per_year
from core.metrics import sharpe
from features.account import ACCOUNT_COLUMNS
from features.observation import observation_columns
from training.algorithm import quiet
from training.export import pack, policy_onnx, weights_sha256
from training.learn import returns_of
from training.lesson import Lesson, Metrics, Report, Trained


def train(lesson: Lesson, report: Report) -> Trained:
    """Learn a lesson of discrete actions by RLlib's own PPO."""
    begun = time.perf_counter()
    with quiet():
        torch.manual_seed(lesson.seed)
        algorithm = stock(lesson)
        module = module_of(algorithm)
        try:
            curve, taken = [], 0.0
            for point in range(1, lesson.reports + 1):
                while taken < lesson.steps * point / lesson.reports:
                    taken = steps(algorithm.train())
                returns = returns_of(lesson, deciding(module))
                equity = np.exp(np.concatenate([[0.0], returns.cumsum()]))
                score = float(sharpe(equity, bars_per_year(lesson.dataset.interval)))
                metrics: Metrics = {"steps": taken, "validation_score": score}
                curve.append(metrics)
                report(int(taken), metrics)
            layers = layers_of(module)
        finally:
            algorithm.stop()
    weights = {f"actor.{kind}.{n}": array for n, layer in enumerate(layers)
               for kind, array in zip(("weights", "biases"), layer, strict=True)}  # fmt: skip
    return Trained(
        policy_onnx=exported(layers, lesson),
        weights=pack(weights),
        weights_sha256=weights_sha256(weights),
        curve=tuple(curve),
        validation_score=curve[-1]["validation_score"],
        steps=int(taken),
        seconds=time.perf_counter() - begun,
        validation_returns=tuple(np.expm1(returns).tolist()),
    )


def deciding(module: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return RLlib's likeliest action of observations (n, D)."""

    @torch.no_grad()
    def act(observation: np.ndarray) -> np.ndarray:
        outputs = module.forward_inference({"obs": torch.from_numpy(observation)})
        return np.asarray(outputs["action_dist_inputs"].argmax(-1).numpy())

    return act


def layers_of(module: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weight (inputs, outputs) and bias of every layer of RLlib's actor."""
    parts = (module.encoder.actor_encoder, module.pi)
    linear = [m for part in parts for m in part.modules() if isinstance(m, torch.nn.Linear)]
    return [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in linear]


def exported(layers: list[tuple[np.ndarray, np.ndarray]], lesson: Lesson) -> bytes:
    """Return the policy as ONNX."""
    width = len(observation_columns(lesson.dataset.spec))
    position = width - len(ACCOUNT_COLUMNS) + ACCOUNT_COLUMNS.index("position_weight")
    return policy_onnx(
        layers,
        actions=lesson.actions,
        allow_short=lesson.rules.allow_short,
        position_column=position,
    )
