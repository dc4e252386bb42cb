import json

import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, intraday_index, params, random_bars, spec

from core.bars import RISK_COLUMNS
from core.errors import DataError
from core.home import Home
from features.indicators import INDICATORS, VIX_INDICATORS
from features.table import build_table, risk_columns
from pipelines import featurize
from pipelines.featurize import features_path, interval_of, validated_path
from sources.files import parquet_bytes, read_parquet, write_whole

BARS = random_bars(daily_index(400), seed=21)
VIX = BARS.assign(close=np.linspace(12.0, 30.0, 400))


def home_with(tmp_path, **frames: pd.DataFrame) -> Home:
    home = Home(tmp_path)
    for name, bars in frames.items():
        write_whole(validated_path(home, name), parquet_bytes(bars))
    return home


def test_the_stage_writes_features_and_risk_columns_of_the_validated_bars(tmp_path):
    home = home_with(tmp_path, AAPL=BARS)
    featurize.run(home, params(), "AAPL")
    found = read_parquet(features_path(home, "AAPL"))[0]
    expected = build_table(BARS, spec(), "1d").join(risk_columns(BARS, spec(), "1d"))
    assert list(found.columns) == [*INDICATORS, *RISK_COLUMNS]
    assert found.to_numpy().tobytes() == expected.to_numpy().tobytes()
    assert found.index.equals(BARS.index)


def test_the_stage_writes_the_same_bytes_each_time(tmp_path):
    written = []
    for folder in ("one", "two"):
        home = home_with(tmp_path / folder, AAPL=BARS)
        featurize.run(home, params(), "AAPL")
        path = features_path(home, "AAPL")
        written.append((path.read_bytes(), path.with_suffix(".json").read_bytes()))
    assert written[0] == written[1]


def test_the_description_says_how_the_table_was_made(tmp_path):
    home = home_with(tmp_path, **{"SPY-15m": random_bars(intraday_index(30, 15), seed=1)})
    featurize.run(home, params(), "SPY-15m")
    made = json.loads(features_path(home, "SPY-15m").with_suffix(".json").read_text())
    assert made["interval"] == "15m"
    assert made["anchor"] == 20
    assert made["columns"] == list(INDICATORS)
    assert made["rows"] == 30 * 26
    assert made["first"] == "2024-03-04T14:30:00+00:00"
    assert made["vix"] == "left out: it joins daily bars only"


def test_the_vix_joins_where_it_costs_no_row(tmp_path):
    home = home_with(tmp_path, AAPL=BARS, VIX=VIX)
    featurize.run(home, params(), "AAPL")
    found = read_parquet(features_path(home, "AAPL"))[0]
    assert list(found.columns) == [*INDICATORS, *VIX_INDICATORS, *RISK_COLUMNS]
    assert found["vix_level"].iloc[-1] == pytest.approx(0.3)


def test_a_day_without_a_vix_has_the_last_one(tmp_path):
    gappy = VIX.drop(VIX.index[[200, 201]])
    home = home_with(tmp_path, AAPL=BARS, VIX=gappy)
    featurize.run(home, params(), "AAPL")
    found = read_parquet(features_path(home, "AAPL"))[0]
    assert found["vix_level"].iloc[201] == found["vix_level"].iloc[199]


@pytest.mark.parametrize(
    "known",
    [VIX.iloc[50:], VIX.iloc[:390], VIX.drop(VIX.index[200:220])],
    ids=["late", "stale", "gap"],
)
def test_a_vix_that_would_cost_rows_stays_out(tmp_path, known):
    home = home_with(tmp_path, AAPL=BARS, VIX=known)
    featurize.run(home, params(), "AAPL")
    found = read_parquet(features_path(home, "AAPL"))[0]
    assert list(found.columns) == [*INDICATORS, *RISK_COLUMNS]


def test_the_vix_stays_out_when_unwanted_or_intraday(tmp_path):
    home = home_with(tmp_path, AAPL=BARS, VIX=VIX)
    featurize.run(home, params(features={"include_vix": False}), "AAPL")
    assert "vix_level" not in read_parquet(features_path(home, "AAPL"))[0]


def test_the_vix_itself_is_a_symbol_like_any_other(tmp_path):
    home = home_with(tmp_path, VIX=VIX)
    featurize.run(home, params(), "VIX")
    assert list(read_parquet(features_path(home, "VIX"))[0].columns)[:2] == ["return_1", "return_2"]


def test_without_validated_bars_the_stage_says_what_to_run(tmp_path):
    with pytest.raises(
        DataError, match=r"no validated bars of SPY yet; run `ratchet ingest SPY --interval 5m`"
    ):
        featurize.run(Home(tmp_path), params(), "SPY-5m")


def test_a_name_tells_its_interval():
    assert [interval_of(name) for name in ("AAPL", "BRK-B", "SPY-5m", "SPY-15m", "^VIX")] == [
        *("1d", "1d", "5m", "15m", "1d")
    ]
