"""Ingest by hand: source, gate, store and manifest, for daily and intraday bars."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_kit import NOW, csv_text, market
from fake_yahoo import FakeYahoo, serving

from core.errors import BadBars, ConfigError, NotEnoughData, UnknownSymbol, ValidationFailed
from core.home import PROJECT, Home
from core.settings import parse_params
from pipelines import ingest, snapshot
from sources import store
from sources.files import read_parquet
from sources.manifest import Manifest, content_sha256, manifest_path
from sources.yfinance import ADDRESS

PARAMS = parse_params({"agents": {}})
BARS = market()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def from_csv(home: Home, bars: pd.DataFrame, now: datetime = NOW, interval: str = "1d"):  # type: ignore[no-untyped-def]
    path = home.make(home.root) / "own.csv"
    path.write_text(csv_text(bars))
    return ingest.run(home, PARAMS, "OWN", "csv", interval, path, now=now)  # type: ignore[arg-type]


def test_a_bundled_symbol_has_the_committed_manifest_in_every_home(home: Home) -> None:
    told = ingest.run(home, PARAMS, "AAPL", now=NOW)
    assert str(told) == "AAPL 1d from bundled: 3270 new bars; 3270 bars, 2000-03-01 to 2013-03-01"
    made = Manifest.load(manifest_path(home, "AAPL", "1d"))
    assert made == Manifest.load(PROJECT / "manifests" / "AAPL.json")


def test_a_second_ingest_finds_nothing_new(home: Home) -> None:
    from_csv(home, BARS)
    before = files(home.root)
    told = from_csv(home, BARS, NOW + timedelta(days=1))
    assert str(told).startswith("OWN 1d from csv: nothing new; 124 bars")
    assert files(home.root) == before


def test_new_bars_make_a_new_manifest_and_a_new_snapshot(home: Home) -> None:
    from_csv(home, BARS.iloc[:-2])
    snapshot.run(home, PARAMS, "OWN")
    first = files(home.data)
    told = from_csv(home, BARS)
    assert told.new_rows == 2
    assert Manifest.load(manifest_path(home, "OWN", "1d")).last == "2024-06-28T00:00:00+00:00"
    snapshot.run(home, PARAMS, "OWN")
    assert files(home.data) != first
    assert len(read_parquet(home.data / "snapshot" / "OWN.parquet")[0]) == len(BARS)


def test_intraday_bars_go_the_same_way(home: Home) -> None:
    minutes = market("2024-06-25", "2024-06-28", "5m")
    told = from_csv(home, minutes, interval="5m")
    assert told.rows == len(minutes) == 4 * 78
    snapshot.run(home, PARAMS, "OWN-5m")
    bars, _ = read_parquet(home.data / "snapshot" / "OWN-5m.parquet")
    assert np.allclose(bars, minutes, atol=1e-4)


def test_the_bar_still_being_made_is_left_for_the_next_ingest(home: Home) -> None:
    during = datetime(2024, 6, 28, 19, tzinfo=UTC)
    assert from_csv(home, BARS, during).rows == len(BARS) - 1
    assert from_csv(home, BARS, NOW).new_rows == 1


def test_what_the_gate_refuses_reaches_neither_store_nor_manifest(home: Home) -> None:
    from_csv(home, BARS.iloc[:-20])
    before = {name: content for name, content in files(home.root).items() if "own" not in name}
    gappy = BARS.drop(BARS.index[10:30])
    with pytest.raises(
        ValidationFailed,
        match=r"OWN: the data gate refuses these bars: missing.*OWN-validation\.html",
    ):
        from_csv(home, gappy)
    after = files(home.root)
    report = after.pop("workspace/data/reports/OWN-validation.html").decode()
    assert "missing_sessions" in report
    assert {name: content for name, content in after.items() if "own" not in name} == before


def test_rows_in_quarantine_are_told_and_stay_in_the_store_as_delivered(home: Home) -> None:
    class Odd:
        name = "csv"

        def fetch(self, symbol, interval, since, now):  # type: ignore[no-untyped-def]
            bars = BARS.copy()
            bars.iloc[50, 0] = -1.0
            from data_kit import delivered

            return delivered(bars, now, symbol=symbol)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "make_source", lambda *_: Odd())
        told = ingest.run(home, PARAMS, "OWN", "csv", now=NOW)
    assert told.quarantined_rows == 1
    assert "1 quarantined" in str(told)
    assert store.read(home, "csv", "OWN", "1d").open.iloc[50] == -1.0


@pytest.fixture(scope="module")
def yahoo() -> Iterator[FakeYahoo]:
    with serving() as server:
        yield server


def test_yahoo_bars_survive_a_split_between_two_ingests(
    home: Home, yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, yahoo.url)
    now = datetime(2026, 6, 30, 21, tzinfo=UTC)
    bars = market("2026-01-02", "2026-06-30", splits={"2026-06-15": 4.0})
    yahoo.markets["ABC", "1d"] = bars[:"2026-06-12"]
    first = ingest.run(home, PARAMS, "ABC", "yfinance", now=now - timedelta(days=18))
    yahoo.markets["ABC", "1d"] = bars
    second = ingest.run(home, PARAMS, "ABC", "yfinance", now=now)
    assert (first.new_rows, second.new_rows, second.restated_rows) == (112, 11, 0)
    assert np.allclose(store.read(home, "yfinance", "ABC", "1d"), bars, rtol=1e-5)


def test_an_unknown_symbol_leaves_nothing_behind(home: Home) -> None:
    with pytest.raises(UnknownSymbol, match="bundled: no TSLA at 1d; it has AAPL"):
        ingest.run(home, PARAMS, "TSLA", now=NOW)
    assert files(home.root) == {}


def test_an_empty_file_leaves_nothing_behind(home: Home) -> None:
    path = home.make(home.root) / "own.csv"
    path.write_text("")
    with pytest.raises(BadBars, match=r"own\.csv: is empty"):
        ingest.run(home, PARAMS, "OWN", "csv", path=path, now=NOW)
    assert list(files(home.root)) == ["own.csv"]


def test_a_csv_source_without_a_file_says_so(home: Home) -> None:
    with pytest.raises(ConfigError, match="source csv needs a file: --path FILE"):
        ingest.run(home, PARAMS, "OWN", "csv", now=NOW)


@pytest.mark.parametrize("symbol", ["PLANTED", "IXIC3X"])
def test_a_fresh_clone_makes_its_snapshot_from_the_source_itself(home: Home, symbol: str) -> None:
    manifest = Manifest.load(PROJECT / "manifests" / f"{symbol}.json")
    manifest.save(manifest_path(home, symbol, "1d"))
    snapshot.run(home, PARAMS, symbol)
    path = home.data / "snapshot" / f"{symbol}.parquet"
    first = path.read_bytes()
    assert content_sha256(read_parquet(path)[0]) == manifest.sha256
    path.unlink()
    snapshot.run(home, PARAMS, symbol)
    assert path.read_bytes() == first


def test_a_snapshot_of_bars_only_another_machine_has_says_what_to_run(home: Home) -> None:
    Manifest.of("SPY", "yfinance", "1d", BARS).save(manifest_path(home, "SPY", "1d"))
    with pytest.raises(NotEnoughData, match="run `ratchet ingest SPY --source yfinance`"):
        snapshot.run(home, PARAMS, "SPY")


def test_a_snapshot_without_manifest_says_what_to_run(home: Home) -> None:
    with pytest.raises(
        ConfigError, match=r"NONE\.json: no such manifest; run `ratchet ingest SYMBOL`"
    ):
        snapshot.run(home, PARAMS, "NONE")
