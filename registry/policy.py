"""A policy: an ONNX graph behind one function, observation in, decision out.

Owns the contract of the graph and how it is run. Must not know files, features or registries.

    observation (n, D) float32 -> weight (n, k), score (n, k), confidence (n,)  all float32

**A decision is defined on one row alone.** A matrix product over many rows may differ from the
product over one row in the last bits (another kernel, another summation order), and a threshold
turns a last bit into another order. So ``decide`` answers many rows in one call only where it has
seen, for that number of rows, that every bit is the one a row by itself gives; elsewhere it runs
each row by itself. Backtest (many rows) and worker (one row) agree, on every processor.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

import numpy as np

from core.errors import BadBundle, SpecMismatch

OUTPUTS = ("weight", "score", "confidence")
PROBE_ROWS = 8
CONFIDENCE_SLACK = 1e-6  # float32 rounding allowed around [0, 1]
_any = np.logical_or.reduce  # an array's own method comes to it through Python


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy answers, row by row; float64."""

    weight: np.ndarray  # (n, k) target weight, fraction of the sleeve's equity; NaN = hold
    score: np.ndarray  # (n, k) expected weight before any threshold; finite
    confidence: np.ndarray  # (n,) in [0, 1]


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """An ONNX Runtime session that is single-threaded, deterministic and proved by a probe."""

    name: str  # in messages
    observation_size: int  # D
    symbols: int  # k
    session: Any  # onnxruntime.InferenceSession
    proved: dict[int, bool] = field(default_factory=dict, repr=False)
    # number of rows -> whether one call gives every bit that the rows by themselves give

    @classmethod
    def open(cls, policy_onnx: bytes, symbols: int = 1, name: str = "policy.onnx") -> Self:
        """Open and probe a graph; raise ``BadBundle`` unless it keeps the contract."""
        session = _session(policy_onnx, name)
        inputs = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
        if inputs != [("observation", "tensor(float)", 2)]:
            raise BadBundle(f"{name}: inputs are {inputs}, expected `observation` (n, D) float32")
        outputs = tuple(o.name for o in session.get_outputs())
        if sorted(outputs) != sorted(OUTPUTS):
            raise BadBundle(f"{name}: outputs are {outputs}, expected {OUTPUTS}")
        size = session.get_inputs()[0].shape[1]
        if not isinstance(size, int):
            raise BadBundle(f"{name}: the length of `observation` is not fixed, found {size!r}")
        policy = cls(name, size, symbols, session)
        policy._probe()
        return policy

    def decide(self, observation: np.ndarray) -> Decision:
        """Decide on observations (n, D) float32, each row by itself (see the module docstring).

        Raises ``BadBundle`` when the policy answers infinity or a score that is not a number.
        """
        rows = self._checked(observation)
        if len(rows) < 2 or self._proved(rows):
            return self._decision(*self._together(rows))
        return self._decision(*self._one_by_one(rows))

    def scores(self, observation: np.ndarray) -> np.ndarray:
        """Return the scores (n, k) float64 that ``decide_batch`` has; for attribution alone."""
        (score,) = self.session.run(["score"], {"observation": self._checked(observation)})
        if score.shape != (len(observation), self.symbols) or not np.isfinite(score).all():
            raise BadBundle(
                f"{self.name}: answers scores {score.tolist()} of shape {score.shape}, expected "
                f"finite ones of shape ({len(observation)}, {self.symbols})"
            )
        return np.asarray(score, np.float64)

    def decide_batch(self, observation: np.ndarray) -> Decision:
        """Decide on all rows in one call, proved or not: the last bits may differ.

        For attribution and simulation; never for what is compared with trading.
        """
        return self._decision(*self._together(self._checked(observation)))

    def _together(self, rows: np.ndarray) -> list[np.ndarray]:
        answers: list[np.ndarray] = self.session.run(OUTPUTS, {"observation": rows})
        return answers

    def _one_by_one(self, rows: np.ndarray) -> list[np.ndarray]:
        answers = [self._together(rows[i : i + 1]) for i in range(len(rows))]
        return [np.concatenate(part) for part in zip(*answers, strict=True)]

    def _proved(self, rows: np.ndarray) -> bool:
        """Say whether so many rows may be asked together; found out when first asked.

        In which order a kernel adds depends on the shape, never on the numbers: another order
        shows on random ones. A graph that looks across rows shows on those, or on ``rows``.
        """
        found = self.proved.get(len(rows))
        if found is None:
            drawn = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
            found = self.proved[len(rows)] = all(
                together.tobytes() == alone.tobytes()
                for some in (drawn, rows)
                for together, alone in zip(
                    self._together(some), self._one_by_one(some), strict=True
                )
            )
        return found

    def _checked(self, observation: np.ndarray) -> np.ndarray:
        if observation.ndim != 2 or observation.shape[1] != self.observation_size:
            raise SpecMismatch(
                f"{self.name}: observation of shape {observation.shape}, the policy expects "
                f"(n, {self.observation_size}); build it with features.observation.observe"
            )
        return np.ascontiguousarray(observation, dtype=np.float32)

    def _decision(self, weight: np.ndarray, score: np.ndarray, confidence: np.ndarray) -> Decision:
        n, k = len(weight), self.symbols
        if weight.shape != (n, k) or score.shape != (n, k) or confidence.shape != (n,):
            raise BadBundle(
                f"{self.name}: answers of shapes {weight.shape}, {score.shape}, "
                f"{confidence.shape}; expected (n, {k}), (n, {k}), (n,)"
            )
        # Few passes: in a backtest over many histories these checks are asked at every bar. A sum
        # of squares of float32 is finite in float64 exactly where they all are.
        scored, sure = score.astype(np.float64), confidence.astype(np.float64)
        flat = scored.ravel()
        low, high = np.minimum.reduce(sure, initial=0.5), np.maximum.reduce(sure, initial=0.5)
        inside = low >= -CONFIDENCE_SLACK and high <= 1.0 + CONFIDENCE_SLACK  # not where NaN
        if not (inside and isfinite(flat @ flat)) or _any(np.isinf(weight), axis=None):
            raise BadBundle(
                f"{self.name}: answers weight {weight.tolist()}, score {score.tolist()}, "
                f"confidence {confidence.tolist()}; expected weights that are finite or NaN "
                "(hold), finite scores and confidence between 0 and 1"
            )
        if low < 0.0 or high > 1.0:
            sure = sure.clip(0.0, 1.0)
        return Decision(weight.astype(np.float64), scored, sure)

    def _probe(self) -> None:
        """Run a few observations: what a policy answers must be numbers of the right shape."""
        rows = np.random.default_rng(0).normal(size=(PROBE_ROWS, self.observation_size))
        rows[0] = 0.0
        try:
            self.decide(rows.astype(np.float32))
        except BadBundle:
            raise
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise BadBundle(f"{self.name}: does not run ({_first_line(error)})") from error


def _session(policy_onnx: bytes, name: str) -> Any:
    import onnx
    import onnxruntime

    try:
        graph = onnx.load_model_from_string(policy_onnx).graph
    except Exception as error:  # protobuf raises its own family, by backend
        raise BadBundle(f"{name}: not an ONNX model ({_first_line(error)})") from error
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BadBundle(f"{name}: weight `{tensor.name}` lies outside the file; export inline")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            policy_onnx, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise BadBundle(f"{name}: not a model that runs ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
