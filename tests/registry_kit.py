"""Small, real ingredients for the registry's tests: a spec, a scaler, a card, bundles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.settings import parse_params
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec, spec_from
from registry.baselines import make_baseline
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card

PARAMS: dict[str, Any] = {
    "agents": {"demo": {"symbol": "AAPL"}},
    "features": {"indicators": ["return_1", "macd", "rsi_14"], "include_vix": False},
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
    rows = rng.normal([0.001, 0.004, 0.1], [0.02, 0.01, 0.3], size=(400, 3))
    return Scaler.fit(rows, spec)


def save_baseline(folder: Path, kind: str = "flat", seed: int = 0, **changes: Any) -> str:
    spec = make_spec()
    scaler = make_scaler(spec)
    card = replace(CARD, algorithm=kind, seed=seed, **changes)
    return save_bundle(folder, make_baseline(kind, spec, scaler, seed), spec, scaler, card)


def observations(n: int, spec: FeatureSpec, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, len(observation_columns(spec)))).astype(np.float32)
