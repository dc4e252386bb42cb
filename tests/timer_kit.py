"""A home with minutes of a made-up stock, and the 5-second bars of the newest of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import serving_kit as world
from shadow_kit import ChallengerShelf

from core.bars import BAR_COLUMNS
from core.calendar import expected_bars
from core.home import Home
from core.settings import Params
from features.observation import observation_columns
from features.scaler import Scaler
from features.table import build_table
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card
from serving.history import grow
from sources.files import parquet_bytes, write_whole

MINUTES = 6  # that have finer bars, and are traded
PARTS = 12  # of 5 s in a minute
SYMBOL = "SOLO"


def settings(decide: str | None = "5s", **sections: object) -> Params:
    entry = {"symbol": SYMBOL, "interval": "1m", "decide": decide}
    of = {"split": {"paper_bars": MINUTES}, "features": {"anchor_sessions": 2}}
    return world.params(agents={"quick": entry}, **of | sections)


def finer_bars() -> pd.DataFrame:
    """Three sessions would be 14,040 of them: these are the last six minutes."""
    rng = np.random.default_rng(3)
    index = expected_bars("XNYS", "5s", pd.Timestamp("2026-03-04"), pd.Timestamp("2026-03-04"))
    index = index[-MINUTES * PARTS :]
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.001, len(index)))), 2)
    frame = pd.DataFrame({"open": np.append(100.0, close[:-1]), "close": close}, index=index)
    frame["high"] = frame.max(axis=1) + 0.01
    frame["low"] = frame[["open", "close"]].min(axis=1) - 0.01
    frame["volume"] = rng.integers(2_000, 90_000, len(index)).astype(float)
    frame["dividend"], frame["split_ratio"] = 0.0, 1.0
    return frame[list(BAR_COLUMNS)]


def whole_bars(finer: pd.DataFrame) -> pd.DataFrame:
    """Return three sessions of minutes, the newest as the finer bars make them."""
    rng = np.random.default_rng(4)
    index = expected_bars("XNYS", "1m", pd.Timestamp("2026-03-02"), pd.Timestamp("2026-03-04"))
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0005, len(index)))), 2)
    values = np.column_stack([close, close + 0.02, close - 0.02, close, 0 * close + 1e5])
    frame = pd.DataFrame(index=index, columns=list(BAR_COLUMNS), dtype="float64")
    frame[list(BAR_COLUMNS[:5])] = values
    frame["dividend"], frame["split_ratio"] = 0.0, 1.0
    for place in range(MINUTES):
        parts = finer.iloc[place * PARTS : (place + 1) * PARTS].to_numpy()
        row = parts[0].copy()
        for part in parts[1:]:
            grow(row, tuple(part))
        frame.loc[finer.index[place * PARTS]] = row
    return frame


def home_with_bars(root: Path) -> Home:
    home, finer = Home(root), finer_bars()
    for name, frame in ((f"{SYMBOL}-5s", finer), (f"{SYMBOL}-1m", whole_bars(finer))):
        write_whole(home.data / "validated" / f"{name}.parquet", parquet_bytes(frame))
    return home


def shelf_of(root: Path, params: Params, **more: int) -> ChallengerShelf:
    """Return a shelf whose version 1 of `quick` is a random network; ``v2=seed`` …: challengers."""
    shelf, spec = ChallengerShelf(root), world.spec_from(params, "1m")
    rows = build_table(whole_bars(finer_bars()), spec, "1m").dropna().to_numpy()
    card = Card(
        agent="quick", algorithm="ppo", symbols=(SYMBOL,), signal_symbol=SYMBOL, interval="1m",
        action_space=ActionSpace("continuous"), dataset_sha256="d" * 64, commit="c" * 40,
        seed=1, created_at="2020-01-01T00:00:00+00:00", trial=7,
    )  # fmt: skip
    for version, seed in {"v1": 5, **more}.items():
        policy = world.network(len(observation_columns(spec)), seed)
        folder = root / "quick" / version.removeprefix("v")
        save_bundle(folder, policy, spec, Scaler.fit(rows, spec), card)
    shelf.point("quick", "1")
    shelf.challenge("quick", *(version.removeprefix("v") for version in more))
    return shelf
