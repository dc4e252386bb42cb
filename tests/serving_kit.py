"""A small world for the tests of serving: two markets, a random network, a shelf of bundles."""

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pandas as pd

from core.errors import ServiceUnavailable, UnknownVersion
from core.home import Home
from core.settings import Params, parse_params
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec, spec_from
from features.table import build_table
from registry.bundle import Bundle, load_bundle, save_bundle
from registry.card import ActionSpace, Card
from serving.closing import Close
from serving.deciding import LocalDesk
from serving.feeds import ReplayFeed
from serving.following import Published
from serving.history import Instrument

PAPER_BARS = 40


def params(**sections: object) -> Params:
    """Two agents: one looks at what it trades, the other at another symbol."""
    content: dict[str, object] = {
        "agents": {
            "solo": {"symbol": "SOLO", "limits": {"stop_loss": 0.03}},
            "pair": {
                "symbol": "FUND", "train_on": "INDEX", "algorithm": "sac", "actions": "continuous",
            },
        },
        "account": {"cash": 100000.0, "fraction": 0.98},
        "risk": {"volatility_target": 0.25, "take_profit": 0.04, "cooldown_bars": 2},
        "split": {"paper_bars": PAPER_BARS},
        "paper": {"alias_poll_seconds": 0.05, "snapshot_seconds": 0.02},
    }  # fmt: skip
    return parse_params(content | sections)


def bars(seed: int, years: int = 4, volume: float = 3000.0) -> pd.DataFrame:
    """A random walk of daily bars, thin enough for partial fills, with a split and a dividend."""
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2010-01-01", periods=years * 260, tz="UTC", name="time", unit="ns")
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0003, 0.018, len(index))))
    opened = np.concatenate([[close[0]], close[:-1]]) * np.exp(rng.normal(0, 0.004, len(index)))
    split, dividend = np.ones(len(index)), np.zeros(len(index))
    split[-25], dividend[-12], dividend[-10] = 2.0, 0.25, 0.125
    factor = np.cumprod(split)
    opened, close = opened / factor, close / factor
    frame = pd.DataFrame({"open": opened, "close": close}, index=index)
    frame["high"] = frame.max(axis=1) * np.exp(np.abs(rng.normal(0, 0.006, len(index))))
    frame["low"] = frame[["open", "close"]].min(axis=1) / np.exp(
        np.abs(rng.normal(0, 0.006, len(index)))
    )
    frame["volume"] = np.round(volume * np.exp(rng.normal(0, 1.0, len(index))))
    frame["dividend"], frame["split_ratio"] = dividend, split
    return frame[["open", "high", "low", "close", "volume", "dividend", "split_ratio"]]


@cache
def market() -> dict[Instrument, pd.DataFrame]:
    """SOLO, FUND and INDEX; FUND lacks one of the reserved days, INDEX another."""
    solo, fund, index = bars(1), bars(2), bars(3)
    return {
        Instrument("bundled", "SOLO", "1d"): solo,
        Instrument("bundled", "FUND", "1d"): fund.drop(fund.index[-10]),
        Instrument("bundled", "INDEX", "1d"): index.drop(index.index[-20]),
    }


def feed(bars_per_second: float = 0.0, paper_bars: int = PAPER_BARS) -> ReplayFeed:
    return ReplayFeed(market(), paper_bars, bars_per_second)


def network(inputs: int, seed: int, hidden: int = 64) -> bytes:
    """A random 64 × 64 tanh network: score in (0, 1), weight its quarters, as a policy."""
    rng = np.random.default_rng(seed)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    sizes = [(inputs, hidden), (hidden, hidden), (hidden, 1)]
    constants, nodes, last = [], [], "observation"
    for layer, (rows, columns) in enumerate(sizes):
        scale = (4.0 if layer == 2 else 1.0) / np.sqrt(rows)
        weights = rng.normal(size=(rows, columns)).astype(np.float32) * np.float32(scale)
        constants.append(numpy_helper.from_array(weights, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = f"a{layer}"
        nodes.append(helper.make_node("Tanh" if layer < 2 else "Sigmoid", [f"m{layer}"], [last]))
    constants += [
        numpy_helper.from_array(np.array([4.0], np.float32), "four"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    nodes += [
        helper.make_node("Identity", [last], ["score"]),
        helper.make_node("Mul", ["score", "four"], ["quarters"]),
        helper.make_node("Round", ["quarters"], ["rounded"]),
        helper.make_node("Div", ["rounded", "four"], ["weight"]),
        helper.make_node("Squeeze", ["score", "axis"], ["confidence"]),
    ]
    graph = helper.make_graph(
        nodes, "random",
        [helper.make_tensor_value_info("observation", 1, ["n", inputs])],
        [helper.make_tensor_value_info(n, 1, s) for n, s in (
            ("weight", ["n", 1]), ("score", ["n", 1]), ("confidence", ["n"]))],
        initializer=constants,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test"
    )
    return bytes(model.SerializeToString(deterministic=True))


def spec_of(settings: Params) -> FeatureSpec:
    return spec_from(settings)


class CountingDesk(LocalDesk):
    """Calls ``after`` with the number of steps lived through, once each is in the books."""

    def __init__(self, after: Callable[[int], None]) -> None:
        self._after = after
        self._lived: set[datetime] = set()

    def closed(self, close: Close) -> None:
        before = len(self._lived)
        self._lived.add(close.time)
        if len(self._lived) > before:
            self._after(len(self._lived))


class FolderShelf:
    """Bundles and aliases in a folder; what another process moves is seen here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.away = threading.Event()  # set: the registry does not answer
        self.looks = 0

    def publish(self, settings: Params, agent: str, version: str, seed: int) -> str:
        """Save a random network as a version of an agent; return the bundle's sha256."""
        entry, spec = settings.agent(agent), spec_of(settings)
        signal = market()[Instrument(entry.source, entry.signal_symbol, entry.interval)]
        rows = build_table(signal.iloc[:-PAPER_BARS], spec, spec.interval).dropna().to_numpy()
        card = Card(
            agent=agent, algorithm=entry.algorithm, symbols=(entry.symbol,),
            signal_symbol=entry.signal_symbol, interval=entry.interval,
            action_space=ActionSpace("continuous"), dataset_sha256="d" * 64, commit="c" * 40,
            seed=seed, created_at="2020-01-01T00:00:00+00:00", trial=7,
        )  # fmt: skip
        policy = network(len(observation_columns(spec)), seed)
        return save_bundle(self.root / agent / version, policy, spec, Scaler.fit(rows, spec), card)

    def point(self, agent: str, version: str) -> None:
        folder = self.root / agent
        draft = folder / "alias.new"
        draft.write_text(json.dumps(version))
        draft.replace(folder / "alias.json")

    def production(self, agent: str) -> Published:
        self.looks += 1
        if self.away.is_set():
            raise ServiceUnavailable("the registry at 127.0.0.1 does not answer")
        alias = self.root / agent / "alias.json"
        if not alias.exists():
            raise UnknownVersion(f"{agent} has no Production")
        version = str(json.loads(alias.read_text()))
        manifest = self.root / agent / version / "manifest.json"
        return Published(version, hashlib.sha256(manifest.read_bytes()).hexdigest())

    def load(self, agent: str, published: Published) -> Bundle:
        return load_bundle(self.root / agent / published.version, published.bundle_sha256)


def shelf_with_both(root: Path, settings: Params) -> FolderShelf:
    shelf = FolderShelf(root)
    for agent, seed in (("solo", 11), ("pair", 12)):
        shelf.publish(settings, agent, "1", seed)
        shelf.point(agent, "1")
    return shelf


def home_at(path: Path) -> Home:
    return Home(path)
