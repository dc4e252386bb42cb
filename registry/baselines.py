"""Baselines as policies of the same contract: what a trained candidate has to beat.

Owns five graphs. Each answers like a trained policy, so that the registry, the gate, the backtest
and the worker need no second path for them.

    flat          weight 0
    buy_and_hold  weight 1 until nine tenths are invested or ordered, else hold: shares are bought
                  once and kept, and bought back where a risk rule had cut the position
    ma_crossover  weight 1 where EMA 12 of the close lies above EMA 26 (the MACD line is positive),
                  else 0; the rolling scaler shows no level, there: above the line's own mean
    volatility_target  weight 1 at the usual volatility (the centre of the scaler's training rows)
                  or below, else the usual over the present one: risk control without a view; of
                  the rolling scaler, a deviation counts as ROLLING_SPREAD of the usual
    random        weight 0 or 1 by a hash of the observation and the seed, evenly
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from core.errors import ConfigError
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec

BaselineKind = Literal["flat", "buy_and_hold", "ma_crossover", "volatility_target", "random"]
BASELINES: tuple[BaselineKind, ...] = get_args(BaselineKind)

OPSET, IR_VERSION = 17, 8  # read by every ONNX Runtime since 1.13
CROSSOVER_COLUMN = "macd"
VOLATILITY_COLUMN = "volatility_20"
ROLLING_SPREAD = 0.5  # spread over centre of the volatility where the scaler knows neither
POSITION_COLUMNS = ("position_weight", "pending_weight")
INVESTED = 0.9  # of the equity; leaves room for sizing and whole shares
PRIME = 2**31 - 1  # modulus of the random policy's hash; products of two residues fit int64
STEPS_PER_UNIT = 65_536.0  # observations are hashed in steps of 1 / this


def make_baseline(kind: str, spec: FeatureSpec, scaler: Scaler, seed: int = 0) -> bytes:
    """Return the ONNX graph of a baseline for one symbol; same arguments, same bytes.

    ``seed`` matters to ``random`` alone. Raises ``ConfigError`` for an unknown kind, and for
    ``ma_crossover`` and ``volatility_target`` where the spec lacks their column.
    """
    columns = observation_columns(spec)
    if kind == "flat":
        return _Graph(columns, kind).constant(0.0).finish()
    if kind == "buy_and_hold":
        return (
            _Graph(columns, kind)
            .hold_once_invested([columns.index(name) for name in POSITION_COLUMNS])
            .finish()
        )
    if kind == "ma_crossover":
        index, crossing = _crossing(columns, spec, scaler)
        return _Graph(columns, kind).above(index, crossing).finish()
    if kind == "volatility_target":
        index, slope = _unusual(columns, spec, scaler)
        return _Graph(columns, kind).against(index, slope).finish()
    if kind == "random":
        return _Graph(columns, kind).coin(np.random.default_rng(seed)).finish()
    raise ConfigError(f"no baseline {kind!r}; known: {', '.join(BASELINES)}")


def _crossing(columns: Sequence[str], spec: FeatureSpec, scaler: Scaler) -> tuple[int, float]:
    """Where the column stands in the newest row, and the scaled value of a raw zero.

    The scaler is monotone, so comparing scaled values is comparing raw ones.
    """
    _require(CROSSOVER_COLUMN, "ma_crossover", spec)
    zero = 0.0
    if spec.scaler != "rolling":
        scaled = scaler.transform(np.zeros((1, len(spec.columns))))
        zero = float(scaled[0, spec.columns.index(CROSSOVER_COLUMN)])
    return columns.index(CROSSOVER_COLUMN), zero


def _unusual(columns: Sequence[str], spec: FeatureSpec, scaler: Scaler) -> tuple[int, float]:
    """Where the column stands in the newest row, and its spread over its centre."""
    _require(VOLATILITY_COLUMN, "volatility_target", spec)
    slope = ROLLING_SPREAD
    if spec.scaler != "rolling":
        place = spec.columns.index(VOLATILITY_COLUMN)
        centre = scaler.centre[place]
        slope = scaler.spread[place] / centre if centre > 0.0 else ROLLING_SPREAD
    return columns.index(VOLATILITY_COLUMN), slope


def _require(column: str, kind: str, spec: FeatureSpec) -> None:
    if column not in spec.columns:
        raise ConfigError(
            f"baseline {kind} needs the indicator `{column}`; add it to features.indicators in "
            f"params.yaml, found {', '.join(spec.columns)}"
        )


class _Graph:
    """A small ONNX graph in the making: nodes, constants, and the three outputs."""

    def __init__(self, columns: Sequence[str], name: str) -> None:
        self.size, self.name = len(columns), name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, weight: float) -> "_Graph":
        """Answer the same weight in every row."""
        self._everywhere(weight, "weight")
        self._node("Identity", ["weight"], "score")
        return self._certain()

    def hold_once_invested(self, positions: Sequence[int]) -> "_Graph":
        """Answer 1 while the sum of the columns is below INVESTED, else NaN: keep the shares."""
        total = self._node("Sum", [self._column(index) for index in positions])
        buys = self._node("Less", [total, self._number("invested", INVESTED)])
        choices = [self._number("one", 1.0), self._number("hold", float("nan"))]
        self._node("Where", [buys, *choices], "weight")
        self._everywhere(1.0, "score")
        return self._certain()

    def above(self, index: int, crossing: float) -> "_Graph":
        """Answer 1 where a column exceeds ``crossing``, else 0; the distance is the confidence."""
        signal, threshold = self._column(index), self._number("crossing", crossing)
        crossed = self._node("Greater", [signal, threshold])
        self._node("Cast", [crossed], "weight", to=_onnx().TensorProto.FLOAT)
        self._node("Sigmoid", [self._node("Sub", [signal, threshold])], "score")
        other = self._node("Sub", [self._number("one", 1.0), "score"])
        return self._confidence(self._node("Max", ["score", other]))

    def against(self, index: int, slope: float) -> "_Graph":
        """Answer 1 / (1 + slope × column), at most 1."""
        excess = self._node("Mul", [self._column(index), self._number("slope", slope)])
        one = self._number("one", 1.0)
        scale = self._node("Max", [self._node("Add", [excess, one]), one])
        self._node("Div", [one, scale], "weight")
        self._node("Identity", ["weight"], "score")
        return self._certain()

    def coin(self, rng: np.random.Generator) -> "_Graph":
        """Answer 0 or 1 by the lowest bit of a modular hash; exact integer arithmetic."""
        onnx = _onnx()
        multipliers = rng.integers(1, PRIME, size=self.size).tolist()
        steps = self._node("Mul", ["observation", self._number("steps", STEPS_PER_UNIT)])
        bounded = self._node("Clip", [steps, self._number("low", -1e9), self._number("high", 1e9)])
        whole = self._node("Cast", [self._node("Round", [bounded])], to=onnx.TensorProto.INT64)
        prime = self._integers("prime", [PRIME])
        residue = self._node("Mod", [whole, prime])
        mixed = self._node("Mul", [residue, self._integers("multipliers", multipliers)])
        terms = self._node("Mod", [mixed, prime])
        total = self._node("ReduceSum", [terms, self._integers("axis", [1])], keepdims=1)
        stirred = self._node("Add", [total, self._integers("salt", [int(rng.integers(PRIME))])])
        hashed = self._node("Mod", [stirred, prime])
        bit = self._node("Mod", [hashed, self._integers("two", [2])])
        self._node("Cast", [bit], "weight", to=onnx.TensorProto.FLOAT)
        self._everywhere(0.5, "score")
        return self._confidence("score")

    def finish(self) -> bytes:
        """Return the serialised model."""
        onnx = _onnx()
        outputs = (("weight", ("n", 1)), ("score", ("n", 1)), ("confidence", ("n",)))
        graph = onnx.helper.make_graph(
            self.nodes,
            self.name,
            [_tensor("observation", ("n", self.size))],
            [_tensor(name, shape) for name, shape in outputs],
            initializer=self.constants,
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="ratchet",
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _certain(self) -> "_Graph":
        return self._confidence(self._everywhere(1.0))

    def _confidence(self, column: str) -> "_Graph":
        self._node("Squeeze", [column, self._integers("axis", [1])], "confidence")
        return self

    def _everywhere(self, value: float, output: str = "") -> str:
        """Return ``value`` in every row, shape (n, 1)."""
        nothing = self._node("Mul", [self._column(0), self._number("nought", 0.0)])
        return self._node("Add", [nothing, self._number(f"value_{value}", value)], output)

    def _column(self, index: int) -> str:
        """Return one column of the observation, shape (n, 1)."""
        place = self._integers(f"column_{index}", [index])
        return self._node("Gather", ["observation", place], axis=1)

    def _node(
        self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(_onnx().helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _number(self, name: str, value: float) -> str:
        return self._initializer(name, np.array(value, np.float32))

    def _integers(self, name: str, values: Sequence[int]) -> str:
        return self._initializer(name, np.array(values, np.int64))

    def _initializer(self, name: str, values: np.ndarray) -> str:
        if all(tensor.name != name for tensor in self.constants):
            self.constants.append(_onnx().numpy_helper.from_array(values, name))
        return name


def _tensor(name: str, shape: Sequence[str | int]) -> Any:
    onnx = _onnx()
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _onnx() -> Any:
    import onnx

    return onnx
