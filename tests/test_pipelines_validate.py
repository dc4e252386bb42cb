"""The data gate: what it finds, what it takes out, and what it refuses."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_kit import NOW, day, market

from core.errors import ValidationFailed
from core.home import Home
from core.settings import Interval, Validation, parse_params
from pipelines import validate
from pipelines.inspection import inspect
from pipelines.validate import Judged, judge
from sources.bundled import LISTINGS
from sources.files import parquet_bytes, read_parquet, write_whole
from sources.manifest import Manifest

BARS = market(splits={"2024-03-01": 2.0}, dividends={"2024-04-01": 0.5})
SETTINGS = Validation()
PARAMS = parse_params({"agents": {}})


def verdict(bars: pd.DataFrame, now: datetime = NOW, interval: Interval = "1d") -> Judged:
    return judge(bars, "ABC", interval, SETTINGS, now)


def refused(bars: pd.DataFrame, now: datetime = NOW, interval: Interval = "1d") -> str:
    with pytest.raises(ValidationFailed) as caught:
        verdict(bars, now, interval).require(Path("report.html"))
    return str(caught.value)


def put(bars: pd.DataFrame, time: str, **values: float) -> pd.DataFrame:
    changed = bars.copy()
    for name, value in values.items():
        changed.loc[day(time), name] = value
    return changed


def test_good_bars_pass_unchanged() -> None:
    found = verdict(BARS)
    assert found.failures == ()
    assert found.quarantined.empty
    pd.testing.assert_frame_equal(found.bars, BARS, check_freq=False)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"close": np.nan}, "price missing or infinite"),
        ({"open": np.inf}, "price missing or infinite"),
        ({"low": 0.0}, "price zero or negative"),
        ({"low": -3.0}, "price zero or negative"),
        ({"volume": np.nan}, "volume missing or negative"),
        ({"volume": -1.0}, "volume missing or negative"),
        ({"high": 1.0}, "high below low"),
        ({"close": 1e6}, "open or close above high"),
        ({"open": 1e-3}, "open or close below low"),
        ({"dividend": -1.0}, "dividend or split ratio impossible"),
        ({"split_ratio": 0.0}, "dividend or split ratio impossible"),
    ],
)
def test_a_bad_row_goes_to_quarantine_with_its_reason(
    values: dict[str, float], reason: str
) -> None:
    found = inspect(put(BARS, "2024-05-01", **values), "1d", SETTINGS, NOW)
    assert found.quarantined.index.tolist() == [day("2024-05-01")]
    assert reason in found.quarantined.reasons.iloc[0]
    assert found.kept.equals(BARS.drop(day("2024-05-01")))


def test_a_spike_that_goes_back_is_one_bad_row() -> None:
    spike = {name: BARS[name][day("2024-05-01")] * 2.5 for name in ("open", "high", "low", "close")}
    found = inspect(put(BARS, "2024-05-01", **spike), "1d", SETTINGS, NOW)
    assert found.quarantined.reasons.tolist() == ["close jumps by more than 0.5, back"]
    assert found.measures.unexplained_jump < 0.1


def test_a_split_on_a_bad_row_moves_to_the_next_good_one() -> None:
    found = inspect(put(BARS, "2024-03-01", close=np.nan), "1d", SETTINGS, NOW)
    splits = found.kept.split_ratio[found.kept.split_ratio != 1.0]
    assert splits.to_dict() == {day("2024-03-04"): 2.0}


def test_a_row_on_a_holiday_is_not_of_this_calendar() -> None:
    holiday = BARS.iloc[[0]].set_axis(pd.DatetimeIndex([day("2024-01-15")], name="time"))
    found = inspect(pd.concat([BARS, holiday]).sort_index(), "1d", SETTINGS, NOW)
    assert found.quarantined.reasons.tolist() == ["no such bar on the calendar"]


def test_a_repeated_row_is_taken_once() -> None:
    found = inspect(pd.concat([BARS, BARS.iloc[[5]]]).sort_index(), "1d", SETTINGS, NOW)
    assert found.quarantined.reasons.tolist() == ["time repeated or out of order"]
    assert found.kept.equals(BARS)


def test_the_bar_still_being_made_is_set_aside_and_not_held_against_the_data() -> None:
    during = datetime(2024, 6, 28, 19, tzinfo=UTC)
    found = verdict(BARS, during)
    assert found.failures == ()
    assert found.bars.equals(BARS.iloc[:-1])
    assert found.quarantined.reasons.tolist() == ["still being made"]


def test_gaps_of_five_percent_are_refused() -> None:
    gappy = BARS.drop(BARS.index[10:-10:17])
    assert len(gappy) < 0.96 * len(BARS)
    assert "missing_sessions: 0.05645, expected at most 0.02 (7 absent, the first" in refused(gappy)


def test_too_many_bad_rows_are_refused() -> None:
    bad = BARS.copy()
    bad.iloc[20:24, 0] = -1.0
    told = refused(bad)
    assert "quarantined: 0.03226, expected at most 0.02" in told
    assert "price zero or negative" in told


def test_a_bar_of_the_future_is_refused() -> None:
    told = refused(BARS, datetime(2024, 6, 20, 22, tzinfo=UTC))
    assert "future_bars: 6, expected at most 0 (first 2024-06-21, now is 2024-06-20" in told


@pytest.mark.parametrize("ratio", [2.0, 4.0, 10.0, 0.1])
def test_a_split_nobody_recorded_is_refused(ratio: float) -> None:
    bars = market(splits={"2024-03-01": ratio}).assign(split_ratio=1.0)
    assert "unexplained_jump: " in refused(bars)


def test_a_split_the_price_did_not_follow_is_a_seam() -> None:
    told = refused(put(market(), "2024-03-01", split_ratio=1.5))
    assert "seams: 1, expected at most 0 (1.5:1 on 2024-03-01, price" in told


def test_a_crash_on_news_is_real() -> None:
    crash = BARS.copy()
    crash.loc[day("2024-05-01") :, ["open", "high", "low", "close"]] *= 0.5
    assert "unexplained_jump: 0.6" in refused(crash)
    news = put(crash, "2024-05-01", volume=2e7)  # ten times the usual
    assert verdict(news).failures == ()


def test_a_price_that_stands_still_without_volume_is_stale() -> None:
    stale = BARS.copy()
    last = stale.close.iloc[60]
    stale.iloc[61:73, :4] = last
    stale.iloc[61:73, 4] = 0.0
    assert f"stale_run: 12, expected at most 10 (ends {stale.index[72].date()})" in refused(stale)


def test_the_index_whose_opens_are_the_close_before_is_found() -> None:
    early = LISTINGS["GSPC"].load()[:"2005-12-31"]
    told = refused(early)
    assert "stale_opens: 0.96" in told
    assert "98% in 2003" in told
    assert verdict(LISTINGS["IXIC"].load()).failures == ()


@pytest.mark.parametrize(
    ("bars", "fault"),
    [
        (BARS.drop(columns="volume"), "no column volume"),
        (BARS.rename(columns={"close": "Close"}), "no column close"),
        (BARS.astype({"volume": "int64"}), "volume is int64, not float64"),
        (BARS.tz_localize(None), "its index is no UTC time"),
        (BARS.iloc[:0], "no rows"),
    ],
)
def test_what_is_no_bar_frame_fails_the_schema(bars: pd.DataFrame, fault: str) -> None:
    told = refused(bars)
    assert told.startswith("ABC: the data gate refuses these bars: schema: ")
    assert fault in told


def test_minutes_are_judged_by_the_minutes_of_the_session() -> None:
    bars = market("2024-07-01", "2024-07-05", "5m")  # the 3rd closes early, the 4th is a holiday
    now = datetime(2024, 7, 8, tzinfo=UTC)
    assert len(bars) == 78 + 78 + 42 + 78
    assert verdict(bars, now, "5m").failures == ()
    late = bars.iloc[[0]].set_axis(pd.DatetimeIndex([day("2024-07-03 17:00")], name="time"))
    found = verdict(pd.concat([bars, late]).sort_index(), now, "5m")
    assert found.quarantined.reasons.tolist() == ["no such bar on the calendar"]
    assert "missing_sessions: 0.0" in refused(bars.drop(bars.index[100:120]), now, "5m")


def test_no_given_frame_is_changed() -> None:
    bad = put(BARS, "2024-03-01", close=np.nan)
    copy = bad.copy()
    verdict(bad)
    pd.testing.assert_frame_equal(bad, copy)


@pytest.fixture
def staged(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    snapshot(home, BARS)
    return home


def snapshot(home: Home, bars: pd.DataFrame) -> None:
    Manifest.of("ABC", "csv", "1d", bars).save(home.workspace / "manifests" / "ABC.json")
    write_whole(home.data / "snapshot" / "ABC.parquet", parquet_bytes(bars))


def outputs(home: Home) -> dict[str, bytes]:
    folders = ("validated", "quarantine", "reports")
    return {
        str(path.relative_to(home.data)): path.read_bytes()
        for folder in folders
        for path in sorted((home.data / folder).iterdir())
    }


def test_the_stage_writes_the_same_bytes_each_time(staged: Home) -> None:
    validate.run(staged, PARAMS, "ABC")
    first = outputs(staged)
    assert list(first) == [
        "validated/ABC.parquet", "quarantine/ABC.parquet", "reports/ABC-validation.html",
    ]  # fmt: skip
    validate.run(staged, PARAMS, "ABC")
    assert outputs(staged) == first


def test_a_failed_gate_leaves_the_last_good_dataset_and_a_report(staged: Home) -> None:
    validate.run(staged, PARAMS, "ABC")
    good = outputs(staged)["validated/ABC.parquet"]
    snapshot(staged, put(BARS, "2024-05-01", split_ratio=3.0))
    with pytest.raises(ValidationFailed, match=r"ABC: the data gate refuses.*seams: 1"):
        validate.run(staged, PARAMS, "ABC")
    after = outputs(staged)
    assert after["validated/ABC.parquet"] == good
    report = after["reports/ABC-validation.html"].decode()
    assert "data gate <span" in report
    assert "3:1 on 2024-05-01" in report
    assert "http" not in report  # standalone


def test_the_report_shows_what_was_taken_out(staged: Home) -> None:
    snapshot(staged, put(BARS, "2024-05-01", low=-1.0))
    validate.run(staged, PARAMS, "ABC")
    report = outputs(staged)["reports/ABC-validation.html"].decode()
    assert "price zero or negative" in report
    taken, _ = read_parquet(staged.data / "quarantine" / "ABC.parquet")
    assert taken.index.tolist() == [day("2024-05-01")]


def test_the_gate_leaves_no_files_elsewhere(
    staged: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    validate.run(staged, PARAMS, "ABC")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["workspace"]
