from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from features_kit import daily_index, params, random_bars, spec
from registry_kit import CARD

from core.errors import CorruptFile, DataError, NotEnoughData
from core.home import Home
from features.scaler import Scaler
from pipelines import monitor
from pipelines.featurize import validated_path
from pipelines.monitor import Monitored, Production, rows_of
from registry.baselines import make_baseline
from registry.bundle import load_bundle, save_bundle
from registry.card import Card
from sources.files import parquet_bytes, write_whole

NOW = datetime(2026, 3, 2, 22, tzinfo=UTC)
BARS = random_bars(daily_index(1300), seed=41, actions=False)
TRAINED_TO = BARS.index[1000]
FEW = spec(indicators=["return_1", "volatility_20", "volume_20"])
PARAMS = params()


def bundle_of(folder: Path, card: Card, number: int = 3) -> Production:
    rows = pd.DataFrame(0.0, index=[0, 1], columns=list(FEW.columns)).to_numpy()
    scaler = Scaler.fit(rows, FEW)
    folder = folder / card.algorithm / str(number)
    save_bundle(folder, make_baseline("flat", FEW, scaler), FEW, scaler, card)
    return Production(number, load_bundle(folder))


def trained_card() -> Card:
    return replace(
        CARD,
        agent="aapl",
        algorithm="ppo",
        train_first=BARS.index[200].isoformat(),
        train_last=TRAINED_TO.isoformat(),
    )


def wild(bars: pd.DataFrame, rows: int) -> pd.DataFrame:
    """The same bars, with the newest ``rows`` swinging five times as far."""
    changed = bars.copy()
    calm = bars["close"] / bars["close"].shift(1) - 1.0
    start = len(bars) - rows
    close = changed["close"].to_numpy().copy()
    for row in range(start, len(bars)):
        close[row] = close[row - 1] * (1.0 + 5.0 * calm.iloc[row])
    prices = ["open", "high", "low", "close"]
    changed[prices] = bars[prices].mul(close / bars["close"].to_numpy(), axis=0)
    return changed


class Desk:
    """One home, one Production model, bars that grow."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = Home(tmp_path / "home")
        self.model = bundle_of(tmp_path / "bundles", trained_card())

    def look(self, bars: pd.DataFrame, day: int = 0) -> Monitored:
        write_whole(validated_path(self.home, "AAPL"), parquet_bytes(bars))
        now = NOW + timedelta(days=day)
        return monitor.run(self.home, PARAMS, "aapl", now=now, find=lambda home, agent: self.model)


def test_a_planted_shift_is_drift_at_the_second_look_and_calm_is_not(tmp_path):
    desk = Desk(tmp_path)
    calm = desk.look(BARS.iloc[:1200])
    assert (calm.drift, calm.agent, calm.version) == (False, "aapl", 3)
    assert calm.judged is not None
    assert not calm.judged.alarm
    html = calm.reports["drift"]
    assert html == desk.home.reports / "aapl" / "drift.html"
    assert "volatility_20" in html.read_text(encoding="utf-8")
    shifted = wild(BARS, 130)
    first = desk.look(shifted.iloc[:1299], day=1)
    assert not first.drift
    assert "alarm 1 of 2 in a row" in first.reasons
    second = desk.look(shifted, day=2)
    assert second.drift
    assert "volatility_20" in second.reasons[0]
    assert second.reasons[1] == "2 alarms in a row: retrain"


def test_without_bars_after_the_training_window_there_is_nothing_to_judge(tmp_path):
    found = Desk(tmp_path).look(BARS.iloc[:1001])
    assert not found.drift
    assert found.judged is None
    assert found.reasons == (f"no bar is newer than {TRAINED_TO.date()}, the last trained on",)


def test_a_broken_alarm_history_is_one_clear_error(tmp_path):
    desk = Desk(tmp_path)
    write_whole(desk.home.drift / "aapl.json", b"{")
    with pytest.raises(CorruptFile, match="drift history cannot be read"):
        desk.look(BARS)


def test_without_bars_the_error_says_what_to_run(tmp_path):
    desk = Desk(tmp_path)
    with pytest.raises(DataError, match="no validated bars of AAPL yet; run `ratchet ingest"):
        monitor.run(desk.home, PARAMS, "aapl", now=NOW, find=lambda home, agent: desk.model)


def test_the_training_window_is_the_cards(tmp_path):
    dataset = monitor.load_training_dataset(_with_bars(tmp_path), PARAMS, "aapl", FEW)
    training, recent = rows_of(dataset, trained_card(), PARAMS)
    assert (training.index[0], training.index[-1]) == (BARS.index[200], TRAINED_TO)
    assert recent.index.equals(BARS.index[-60:])
    assert list(training.columns) == list(FEW.columns)


def test_a_baseline_is_compared_with_the_research_rows(tmp_path):
    dataset = monitor.load_training_dataset(_with_bars(tmp_path), PARAMS, "aapl", FEW)
    training, _ = rows_of(dataset, CARD, PARAMS)
    usable = 1300 - dataset.first_row
    assert len(training) == int(0.85 * usable)


def test_a_training_window_that_is_gone_is_refused(tmp_path):
    dataset = monitor.load_training_dataset(_with_bars(tmp_path), PARAMS, "aapl", FEW)
    card = replace(
        trained_card(),
        train_first="1990-01-01T00:00:00+00:00",
        train_last="1995-01-01T00:00:00+00:00",
    )
    with pytest.raises(NotEnoughData, match="no features between 1990-01-01"):
        rows_of(dataset, card, PARAMS)


def _with_bars(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    write_whole(validated_path(home, "AAPL"), parquet_bytes(BARS))
    return home
