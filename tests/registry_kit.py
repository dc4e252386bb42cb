"""Small, real ingredients for the registry's tests: a spec, a scaler, a card, bundles."""

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.home import Home
from core.settings import Gate, parse_params
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec, spec_from
from registry.baselines import make_baseline
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card
from registry.connection import connect
from registry.evidence import Evidence

QUICK = Gate(bootstrap_samples=300)
YEAR = 252**0.5
BARS = 470
PARAMS: dict[str, Any] = {
    "agents": {"demo": {"symbol": "AAPL"}},
    "features": {
        "indicators": ["return_1", "macd", "rsi_14", "volatility_20"],
        "include_vix": False,
    },
}
CARD = Card(
    agent="demo",
    algorithm="flat",
    symbols=("AAPL",),
    signal_symbol="AAPL",
    interval="1d",
    action_space=ActionSpace("discrete", (0.0, 1.0)),
    dataset_sha256="d" * 64,
    commit="c" * 40,
    seed=7,
    created_at="2026-03-02T21:00:00+00:00",
    params={"environment": {"window": 1}},
)


def make_spec(**environment: Any) -> FeatureSpec:
    return spec_from(parse_params(PARAMS | {"environment": environment}))


def make_scaler(spec: FeatureSpec) -> Scaler:
    rng = np.random.default_rng(3)
    rows = rng.normal([0.001, 0.004, 0.1, 0.02], [0.02, 0.01, 0.3, 0.005], size=(400, 4))
    return Scaler.fit(rows, spec)


def save_baseline(folder: Path, kind: str = "flat", seed: int = 0, **changes: Any) -> str:
    spec = make_spec()
    scaler = make_scaler(spec)
    card = replace(CARD, **{"algorithm": kind, "seed": seed} | changes)
    return save_bundle(folder, make_baseline(kind, spec, scaler, seed), spec, scaler, card)


def observations(n: int, spec: FeatureSpec, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, len(observation_columns(spec)))).astype(np.float32)


def world(sharpe: float, rng: np.random.Generator, trials: int = 9, drift: float = 0.4) -> Evidence:
    """A market, an agent half in it with an edge of annual ``sharpe``, and the baselines."""
    market = rng.standard_t(5, BARS) * 0.012 / (5 / 3) ** 0.5 + drift * 0.012 / YEAR

    def agent(annual: float) -> np.ndarray:
        own = rng.normal(size=BARS)
        edge = annual * 0.0085 / YEAR
        return 0.5 * (market - market.mean()) + 0.006 * own + edge

    seeds = np.array([agent(sharpe) for _ in range(3)])
    timing = np.where(rng.random(BARS) < 0.5, market, 0.0)
    return Evidence(
        candidate=seeds[0],
        champion=market,
        baselines={"flat": np.zeros(BARS), "buy_and_hold": market, "random": timing},
        seeds=seeds,
        trials=trials,
        trial_sharpe_variance=(0.4 / YEAR) ** 2,
    )


def strong() -> Evidence:
    return world(4.0, np.random.default_rng(5))


def home_with_mlflow(root: Path) -> Home:
    """Return a home whose MLflow database exists already: a copy, its migrations take seconds."""
    home = Home(root)
    home.make(home.mlflow)
    shutil.copyfile(_mlflow_template(), home.mlflow / "mlflow.db")
    return home


@lru_cache(maxsize=1)
def _mlflow_template() -> Path:
    home = Home(Path(tempfile.mkdtemp(prefix="ratchet-test-")))
    atexit.register(shutil.rmtree, home.root, ignore_errors=True)
    connect(home)
    return home.mlflow / "mlflow.db"
