"""Export: a trained policy as an ONNX graph, and the weights of a learner as plain arrays.

The graph is the contract of the bundle: ``observation`` (n, D) in; ``weight`` (n, 1) with NaN for
hold, ``score`` (n, 1) and ``confidence`` (n,) out. Decides as the learner's own inference does,
without exploration. Knows no algorithm: an actor is a stack of layers and a head.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.errors import BadBundle, TrainingError
from training.spaces import REACH, Actions, discrete_weights

OPSET, IR_VERSION = 18, 10  # ONNX Runtime 1.18 and later read these
LOG_DEVIATION_LIMITS = (-5.0, 2.0)  # of a state-dependent deviation

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # weight (inputs, outputs) and bias (outputs,)


class _Graph:
    """Nodes and constants under construction; ``add`` returns the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def floats(self, *values: float) -> str:
        return self.constant(f"constant{len(self.constants)}", np.array(values, np.float32))

    def scalar(self, value: float) -> str:
        return self.constant(f"constant{len(self.constants)}", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(f"constant{len(self.constants)}", np.array(values, np.int64))


def policy_onnx(
    layers: Layers,
    *,
    actions: Actions,
    allow_short: bool,
    position_column: int,
    log_deviation: float | None = None,
) -> bytes:
    """Return the policy as ONNX.

    discrete     the likeliest of sell, hold, buy; ``score`` is the expected weight, a hold
                 counting as the position held now (column ``position_column`` of the
                 observation); ``confidence`` the probability of the action
    continuous   ``REACH`` times the tanh of the mean, within ±1, at least 0 without shorts;
                 ``score`` the same before those bounds; ``confidence`` the probability that a
                 draw takes the same side
    """
    graph = _Graph()
    outputs = _layers(graph, layers)
    if actions == "discrete":
        _discrete(graph, outputs, allow_short, position_column)
    else:
        _continuous(graph, outputs, allow_short, log_deviation)
    width = layers[0][0].shape[0]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", width])],
            [
                helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["n", 1]),
                helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1]),
                helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["n"]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ratchet",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _layers(graph: _Graph, layers: Layers) -> str:
    value = "observation"
    for number, (weight, bias) in enumerate(layers):
        names = (
            graph.constant(f"actor.weights.{number}", weight.astype(np.float32)),
            graph.constant(f"actor.biases.{number}", bias.astype(np.float32)),
        )
        value = graph.add("Gemm", value, *names)
        if number < len(layers) - 1:
            value = graph.add("Tanh", value)
    return value


def _discrete(graph: _Graph, logits: str, allow_short: bool, position_column: int) -> None:
    weights = discrete_weights(allow_short).astype(np.float32)
    choice = graph.add("ArgMax", logits, axis=1, keepdims=0)
    table = graph.constant("action_weights", weights[:, None])
    graph.add("Gather", table, choice, axis=0, name="weight")
    probability = graph.add("Softmax", logits, axis=1)
    graph.add("ReduceMax", probability, graph.integers(1), keepdims=0, name="confidence")
    moved = graph.add(
        "MatMul",
        probability,
        graph.constant("moved_weights", np.nan_to_num(weights)[:, None]),
    )
    held = graph.add(
        "MatMul",
        probability,
        graph.constant("is_hold", np.isnan(weights).astype(np.float32)[:, None]),
    )
    position = graph.add("Gather", "observation", graph.integers(position_column), axis=1)
    graph.add("Add", moved, graph.add("Mul", held, position), name="score")


def _continuous(
    graph: _Graph, outputs: str, allow_short: bool, log_deviation: float | None
) -> None:
    mean = graph.add("Gather", outputs, graph.integers(0), axis=1)
    if log_deviation is None:
        raw = graph.add("Gather", outputs, graph.integers(1), axis=1)
        low, high = LOG_DEVIATION_LIMITS
        log_of = graph.add("Clip", raw, graph.scalar(low), graph.scalar(high))
        centre = mean
    else:
        log_of = graph.floats(log_deviation)
        centre = graph.add("Tanh", mean)
    graph.add("Mul", graph.add("Tanh", mean), graph.floats(REACH), name="score")
    graph.add(
        "Clip",
        "score",
        graph.scalar(-1.0 if allow_short else 0.0),
        graph.scalar(1.0),
        name="weight",
    )
    # Φ(|μ|/σ) = ½ (1 + erf(|μ| / (σ √2)))
    sigmas = graph.add("Div", graph.add("Abs", centre), graph.add("Exp", log_of))
    error = graph.add("Erf", graph.add("Mul", sigmas, graph.floats(float(np.sqrt(0.5)))))
    side = graph.add("Mul", graph.add("Add", error, graph.floats(1.0)), graph.floats(0.5))
    graph.add("Squeeze", side, graph.integers(1), name="confidence")


def pack(weights: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays by name as an .npz file without pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: weights[name] for name in sorted(weights)})
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of ``pack``, or the actor's of an ONNX policy; raise ``BadBundle``.

    From ONNX the critics are not known: they start anew.
    """
    try:
        if content[:2] == b"PK":
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:
        raise BadBundle(
            f"warm start: neither learner weights nor an ONNX policy: {error}"
        ) from error
    arrays = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    actor = {
        name: array[None] if "weights" in name else array[None, None]
        for name, array in arrays.items()
        if name.startswith("actor.")
    }
    if not actor:
        raise BadBundle("warm start: the ONNX policy holds no actor; only a trained one can go on")
    return actor


def hidden_layers(weights: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Return the widths of an actor's hidden layers, from ``unpack``."""
    biases = {int(n.rsplit(".", 1)[1]): a for n, a in weights.items() if "actor.biases." in n}
    return tuple(biases[number].shape[-1] for number in sorted(biases)[:-1])


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """Return the hash of names, shapes and bytes: equal exactly when the weights are."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_compatible(weights: Mapping[str, np.ndarray], current: Mapping[str, np.ndarray]) -> None:
    """Raise ``TrainingError`` when ``weights`` do not fit the network they should start."""
    for name, array in weights.items():
        expected = current[name].shape if name in current else None
        if array.shape != expected:
            raise TrainingError(
                f"warm start: {name} has shape {array.shape}, the network expects {expected}; "
                "features, hidden layers and action space must be those of the starting version"
            )
