"""A decision timer inside a day, for a policy that sees the VIX: never that day's close."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import serving_kit as world
from test_serving_timer import certificate

from core.bars import BAR_COLUMNS
from core.calendar import expected_bars
from core.home import Home
from core.settings import Params
from features.account import ACCOUNT_COLUMNS
from features.observation import observation_columns
from features.scaler import Scaler
from features.table import build_table
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card
from serving.agent import TradingAgent
from serving.history import FeedBar, History, Instrument, grow
from serving.ledger import LedgerReader, rows
from serving.service import make_feed
from serving.worker import Worker
from sources.files import parquet_bytes, write_whole

DAYS, PARTS = 3, 13  # that are traded, and parts of each
FIRST, LAST = pd.Timestamp("2025-06-02"), pd.Timestamp("2026-03-04")


def settings(window: int) -> Params:
    return world.params(
        agents={"quick": {"symbol": "SOLO", "interval": "1d", "decide": "30m"}},
        split={"paper_bars": DAYS},
        features={"include_vix": True, "anchor_years": 1},
        environment={"window": window},
    )


def frame(index: pd.DatetimeIndex, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(index)))), 2)
    made = pd.DataFrame({"open": close, "close": close, "volume": 1e6}, index=index)
    made["high"], made["low"] = close + 0.5, close - 0.5
    made["dividend"], made["split_ratio"] = 0.0, 1.0
    return made[list(BAR_COLUMNS)]


def bars_of() -> dict[str, pd.DataFrame]:
    """Days, quarters of hours of the newest of them, and the VIX."""
    days = expected_bars("XNYS", "1d", FIRST, LAST)
    finer = frame(expected_bars("XNYS", "15m", days[-DAYS], LAST), 2)
    solo = frame(days, 1)
    for day in days[-DAYS:]:
        parts = finer.loc[finer.index.normalize() == day].to_numpy()
        row = parts[0].copy()
        for part in parts[1:]:
            grow(row, tuple(part))
        solo.loc[day] = row
    return {"SOLO": solo, "SOLO-15m": finer, "VIX": frame(days, 3)}


def home_at(root: Path, bars: dict[str, pd.DataFrame]) -> Home:
    home = Home(root)
    for name, found in bars.items():
        write_whole(home.data / "validated" / f"{name}.parquet", parquet_bytes(found))
    return home


def shelf_of(root: Path, params: Params, bars: dict[str, pd.DataFrame]) -> world.FolderShelf:
    shelf, spec = world.FolderShelf(root), world.spec_from(params, "1d", vix=True)
    table = build_table(bars["SOLO"], spec, "1d", bars["VIX"]["close"]).dropna().to_numpy()
    card = Card(
        agent="quick", algorithm="ppo", symbols=("SOLO",), signal_symbol="SOLO", interval="1d",
        action_space=ActionSpace("continuous"), dataset_sha256="d" * 64, commit="c" * 40,
        seed=1, created_at="2020-01-01T00:00:00+00:00", trial=7,
    )  # fmt: skip
    policy = world.network(len(observation_columns(spec)), 5)
    save_bundle(root / "quick" / "1", policy, spec, Scaler.fit(table, spec), card)
    shelf.point("quick", "1")
    return shelf


def seen(home: Home) -> list[str]:
    with LedgerReader(home.ledger) as ledger:
        return [one.observation_sha256 for one in ledger.rows(rows.Decision)]


def trade(root: Path, params: Params, bars: dict[str, pd.DataFrame]) -> Home:
    home, shelf = home_at(root / "home", bars), shelf_of(root / "shelf", params, bars_of())
    feed = make_feed(home, params, ["quick"])
    Worker(home, params, ["quick"], feed, shelf=shelf, environment={}).run()
    return home


@pytest.mark.parametrize("window", [1, 3])
def test_a_session_of_a_policy_that_sees_the_vix_is_certified(tmp_path: Path, window: int) -> None:
    params = settings(window)
    home = trade(tmp_path, params, bars_of())
    said = certificate(home, tmp_path, params)
    assert said.passed, str(said)
    assert said.bars == DAYS * PARTS


def test_the_vix_of_a_day_is_unknown_on_that_day_and_known_on_the_next(tmp_path: Path) -> None:
    params, other = settings(1), bars_of()
    other["VIX"].loc[other["VIX"].index[-2], "close"] += 5.0
    found = seen(trade(tmp_path / "a", params, bars_of()))
    changed = seen(trade(tmp_path / "b", params, other))
    same = [one == two for one, two in zip(found, changed, strict=True)]
    assert same == [True] * 2 * PARTS + [False] * PARTS


def test_at_a_close_the_vix_of_the_day_is_known(tmp_path: Path) -> None:
    params, bars = settings(1), bars_of()
    shelf, vix = shelf_of(tmp_path, params, bars), bars["VIX"]["close"]
    bundle = shelf.load("quick", shelf.production("quick"))
    one, solo = Instrument("bundled", "SOLO", "1d"), bars["SOLO"]
    history = History(one, solo.iloc[:-1])
    agent = TradingAgent("quick", "1", bundle, history, history, lambda: vix)
    history.append(FeedBar(one, solo.index[-1].to_pydatetime(), tuple(solo.iloc[-1])))
    agent.see()
    seen = agent.decide_on(np.zeros((1, len(ACCOUNT_COLUMNS)), np.float32)).observation
    table = build_table(solo, bundle.spec, "1d", vix).to_numpy()[-1:]
    expected = bundle.scaler.transform(table).astype("<f4").tobytes()
    assert seen[: len(expected)] == expected
