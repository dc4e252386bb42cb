"""Drift on real and made markets.

Replayed every fifth bar after training, the share of windows beyond the threshold was: Nasdaq
Composite 2010-18 trained to 2009 0 %, AAPL and MSFT 2008-13 trained to 2007 0 %; Nasdaq Composite
2006-18 trained to 2005 0.9 %, all of them in the autumn of 2008.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, random_bars, spec
from scipy.stats import wasserstein_distance

from core.errors import CorruptFile, NotEnoughData
from core.settings import Monitor
from features.indicators import LONGEST_LOOK_BACK
from features.table import build_table
from pipelines import drift
from pipelines.drift import AlarmHistory, calibrate, check_drift, measure, window_distances
from sources.bundled import Bundled

NOW = datetime(2026, 3, 2, 22, tzinfo=UTC)
SETTINGS = Monitor()
WINDOW = SETTINGS.window_bars
FEW = ["return_1", "sma_20", "rsi_14", "volatility_20", "volume_20", "macd"]


def features(bars: pd.DataFrame, columns: list[str] | None = None) -> pd.DataFrame:
    made = spec(indicators=columns) if columns else spec()
    return build_table(bars, made, "1d").iloc[LONGEST_LOOK_BACK:]


def nasdaq() -> pd.DataFrame:
    return features(Bundled().fetch("IXIC", "1d", None, NOW).frame)


def walk(seed: int = 1) -> pd.DataFrame:
    return features(random_bars(daily_index(1200), seed), FEW)


@pytest.fixture
def quick(monkeypatch):
    """Measure with what Evidently itself calls, without its figures (equality: see below)."""

    def scores(reference, current, threshold, html=None):
        return {
            name: wasserstein_distance(reference[name], current[name]) / reference[name].std(ddof=0)
            for name in reference
        }

    monkeypatch.setattr(drift, "measure", scores)


def test_a_distance_by_hand():
    # Quantiles 0 1 2 3 against 0 0 1 1: (0 + 1 + 1 + 2) / 4; the deviation is sqrt(1.25).
    found = window_distances(np.array([0.0, 1.0, 3.0, 2.0]), 2)
    assert found[0] == pytest.approx(1.0 / np.sqrt(1.25))


def test_our_distances_are_evidentlys(tmp_path):
    table = walk().round(3)  # with ties
    html = tmp_path / "report.html"
    found = measure(table, table.iloc[300:360], 0.5, html)
    ours = {name: window_distances(table[name].to_numpy(), 60)[300] for name in FEW}
    assert found == pytest.approx(ours, rel=1e-9)
    assert html.read_text(encoding="utf-8").count("volatility_20") > 0


def test_calibration_measures_each_window_against_the_rest():
    table = walk().to_numpy()[:300, :2]
    table = table / table.std(axis=0)
    scores = [
        np.mean(
            [
                wasserstein_distance(np.delete(column, slice(i, i + 40)), column[i : i + 40])
                for column in table.T
            ]
        )
        for i in range(300 - 40 + 1)
    ]
    assert calibrate(table, 40, 0.9) == pytest.approx(np.quantile(scores, 0.9), rel=1e-9)


def replay(table: pd.DataFrame, until: str, step: int) -> pd.Series:
    """Return statistic / threshold every ``step`` bars after ``until``, by newest bar."""
    training = table[table.index < until]
    scaled = (table - training.mean()) / training.std(ddof=0)
    reference = scaled[: len(training)].to_numpy()
    threshold = calibrate(reference, WINDOW, SETTINGS.threshold_quantile)
    found = {}
    for stop in range(len(training) + WINDOW, len(table) + 1, step):
        window = scaled.iloc[stop - WINDOW : stop].to_numpy()
        distances = map(wasserstein_distance, reference.T, window.T)
        found[table.index[stop - 1]] = np.mean(list(distances)) / threshold
    return pd.Series(found)


def test_calm_years_after_the_training_history_raise_no_alarm():
    found = replay(nasdaq(), "2010-01-01", step=90)
    assert len(found) == 25
    assert found.max() < 1.0


def test_a_crash_unlike_the_training_history_alarms_in_a_row():
    found = replay(nasdaq().loc[:"2009-06-30"], "2006-01-01", step=15)
    alarms = found > 1.0
    assert found[:"2008-09-15"].max() < 1.0
    assert (alarms & alarms.shift(fill_value=False)).any()
    assert found["2009-03-01":].max() < 1.0


def test_a_planted_shift_alarms_and_names_what_moved(quick):
    table = walk().iloc[:1000]
    calm = check_drift(table.iloc[:900], table, SETTINGS, NOW, AlarmHistory())
    assert not calm.alarm
    shifted = table.copy()
    shifted.loc[table.index[-60] :, "volume_20"] += 20.0 * table["volume_20"].std()
    seen = check_drift(table.iloc[:900], shifted, SETTINGS, NOW, AlarmHistory())
    assert seen.alarm
    assert seen.columns[0][0] == "volume_20"
    assert "furthest: volume_20" in seen.reasons[0]


def test_a_feature_of_small_numbers_counts_like_any_other(quick):
    table = walk() * 1e-6
    shifted = table.copy()
    shifted.loc[table.index[-60] :] += 5.0 * table.std()
    assert check_drift(table.iloc[:900], shifted, SETTINGS, NOW, AlarmHistory()).alarm


class Days:
    """Checks day by day on a table that has left its training window, or has not."""

    def __init__(self) -> None:
        self.calm = walk()
        self.wild = self.calm + 10.0 * self.calm.std()
        self.history = AlarmHistory(model="1")
        self.day = 0

    def check(self, wild: bool, new_bar: bool = True) -> bool:
        self.day += new_bar
        table = (self.wild if wild else self.calm).iloc[: 1000 + self.day]
        now = NOW + timedelta(days=self.day)
        seen = check_drift(self.calm.iloc[:900], table, SETTINGS, now, self.history)
        self.history = AlarmHistory.from_json(seen.history.to_json())
        return seen.drift


def test_only_alarms_in_a_row_are_drift(quick):
    days = Days()
    assert [days.check(wild) for wild in (True, False, True, True)] == [False, False, False, True]


def test_the_same_bars_do_not_alarm_twice(quick):
    days = Days()
    assert not days.check(wild=True)
    assert not days.check(wild=True, new_bar=False)
    assert days.check(wild=True)


def test_after_drift_comes_the_cool_down(quick):
    days = Days()
    assert [days.check(wild=True) for _ in range(2)] == [False, True]
    cooled = [days.check(wild=True) for _ in range(SETTINGS.cooldown_days)]
    assert cooled == [False] * (SETTINGS.cooldown_days - 1) + [True]


def test_another_model_starts_with_no_alarms_but_keeps_the_cool_down():
    history = AlarmHistory(1, "2026-03-02", "2026-02-01T00:00:00+00:00", "7")
    assert history.of_model("7") == history
    assert history.of_model("8") == AlarmHistory(last_drift=history.last_drift, model="8")


@pytest.mark.parametrize("text", ["", "[1]", '{"colour": 1}', '{"last_drift": "soon"}'])
def test_a_broken_alarm_history_is_one_clear_error(text):
    with pytest.raises(CorruptFile, match="drift history cannot be read"):
        AlarmHistory.from_json(text)


def test_too_little_to_compare_is_refused_with_numbers():
    table = walk()
    with pytest.raises(NotEnoughData, match="200 training rows, a window of 60 needs 240"):
        check_drift(table.iloc[:200], table, SETTINGS, NOW, AlarmHistory())
    with pytest.raises(NotEnoughData, match="59 newest rows, the window needs 60"):
        check_drift(table, table.iloc[:59], SETTINGS, NOW, AlarmHistory())
    with pytest.raises(NotEnoughData, match="different columns"):
        check_drift(table, table[FEW[:3]], SETTINGS, NOW, AlarmHistory())
    holed = table.copy()
    holed.iloc[5, 0] = np.nan
    with pytest.raises(NotEnoughData, match="NaN"):
        check_drift(holed, table, SETTINGS, NOW, AlarmHistory())


def test_the_threshold_follows_its_quantile(quick):
    table = walk()
    loose = check_drift(
        table.iloc[:900], table, replace_quantile(0.9), NOW, AlarmHistory()
    ).threshold
    strict = check_drift(table.iloc[:900], table, SETTINGS, NOW, AlarmHistory()).threshold
    assert loose < strict


def replace_quantile(quantile: float) -> Monitor:
    return SETTINGS.model_copy(update={"threshold_quantile": quantile})
