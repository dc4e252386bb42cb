"""The VIX, end to end from every source that has one; where it is left out, it is said why."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from data_kit import csv_text, market
from fake_yahoo import FakeYahoo, serving

from core.home import Home
from core.settings import Params, Source, parse_params
from features.indicators import VIX_INDICATORS
from pipelines import featurize, ingest, snapshot, validate
from pipelines.dataset import load_dataset
from sources.yfinance import ADDRESS

NOW = datetime(2024, 7, 1, tzinfo=UTC)
BARS = market("2022-01-03", "2024-06-28")


def fear(bars: pd.DataFrame) -> pd.DataFrame:
    """Return an index of volatility as vendors have it: a level, and no volume."""
    close = np.round(20.0 + 5.0 * np.sin(np.arange(len(bars)) / 9.0), 2)
    frame = bars.assign(open=close, high=close + 0.5, low=close - 0.5, close=close, volume=0.0)
    return frame.assign(dividend=0.0, split_ratio=1.0)


def params(source: Source, **features: object) -> Params:
    own = {"indicators": ["return_1", "rsi_14"], "anchor_years": 1} | features
    agents = {"acme": {"symbol": "ACME", "source": source}}
    return parse_params({"agents": agents, "features": own})


@pytest.fixture(scope="module")
def yahoo() -> Iterator[FakeYahoo]:
    with serving() as server:
        yield server


def made(home: Home, settings: Params, symbol: str) -> str:
    """Run the stages of one dataset; return what became of the VIX."""
    for stage in (snapshot, validate, featurize):
        stage.run(home, settings, symbol)
    path = featurize.features_path(home, symbol).with_suffix(".json")
    return str(json.loads(path.read_text())["vix"])


def from_csv(home: Home, settings: Params, symbol: str, bars: pd.DataFrame) -> None:
    file = home.make(home.root) / f"{symbol}.csv"
    file.write_text(csv_text(bars))
    ingest.run(home, settings, symbol, "csv", path=file, now=NOW)


def require_the_vix(home: Home, settings: Params, level: float) -> None:
    dataset = load_dataset(home, settings, "acme")
    assert dataset.spec.uses_vix
    assert dataset.spec.columns[-len(VIX_INDICATORS) :] == tuple(VIX_INDICATORS)
    column = dataset.spec.columns.index("vix_level")
    assert dataset.table[-1, column] == pytest.approx(level / 100.0)


def test_a_vix_from_a_file_reaches_what_an_agent_sees(home: Home) -> None:
    settings = params("csv", indicators="all")
    from_csv(home, settings, "VIX", fear(BARS))
    from_csv(home, settings, "ACME", BARS)
    made(home, settings, "VIX")
    assert made(home, settings, "ACME") == "joined"
    require_the_vix(home, settings, fear(BARS)["close"].iloc[-1])


def test_a_vix_from_yahoo_reaches_what_an_agent_sees(
    home: Home, yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, yahoo.url)
    settings = params("yfinance", indicators="all")
    yahoo.markets["^VIX", "1d"], yahoo.markets["ACME", "1d"] = fear(BARS), BARS
    for symbol in ("^VIX", "ACME"):
        ingest.run(home, settings, symbol, "yfinance", now=NOW)
    made(home, settings, "^VIX")
    assert made(home, settings, "ACME") == "joined"
    require_the_vix(home, settings, fear(BARS)["close"].iloc[-1])


def test_a_vix_that_does_not_cover_the_bars_is_left_out_and_said(home: Home) -> None:
    settings = params("csv")
    from_csv(home, settings, "VIX", fear(BARS).iloc[300:])
    from_csv(home, settings, "ACME", BARS)
    made(home, settings, "VIX")
    told = made(home, settings, "ACME")
    assert told.startswith("left out: known 2023-03-15 to 2024-06-28, so that ")
    assert "bars would be lost, the first 2022-" in told
    assert not load_dataset(home, settings, "acme").spec.uses_vix
    line = featurize.told_of(home, "ACME")
    assert line.startswith("2 features of 625 bars, 2022-01-03 to 2024-06-28; VIX left out: known")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({}, "left out: there is none; run `ratchet ingest ^VIX --source yfinance`"),
        ({"include_vix": False}, "left out: features.include_vix is false"),
    ],
)
def test_without_a_vix_the_dataset_says_why(
    home: Home, features: dict[str, object], words: str
) -> None:
    settings = params("csv", **features)
    from_csv(home, settings, "ACME", BARS)
    assert made(home, settings, "ACME") == words
