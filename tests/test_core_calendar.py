"""Sessions, closes and bar clocks of the New York exchange and of markets that never close."""

from datetime import UTC, date, datetime, timedelta
from typing import get_args

import pytest

from core import calendar
from core.errors import ConfigError
from core.settings import Interval


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_sessions_leave_out_weekends_and_holidays() -> None:
    found = calendar.sessions("XNYS", date(2024, 7, 3), date(2024, 7, 8))
    assert [str(day.date()) for day in found] == ["2024-07-03", "2024-07-05", "2024-07-08"]
    assert str(found.tz) == "UTC"
    assert calendar.sessions("XNYS", date(2024, 7, 8), date(2024, 7, 3)).empty
    assert not calendar.is_session("XNYS", date(2024, 7, 4))


def test_a_session_closes_earlier_on_half_days_and_an_hour_later_in_winter() -> None:
    assert calendar.session_close("XNYS", date(2024, 7, 2)) == at("2024-07-02T20:00")
    assert calendar.session_close("XNYS", date(2024, 7, 3)) == at("2024-07-03T17:00")
    assert calendar.session_close("XNYS", date(2024, 1, 2)) == at("2024-01-02T21:00")
    assert calendar.session_open("XNYS", date(2024, 1, 2)) == at("2024-01-02T14:30")


def test_the_close_of_a_holiday_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="2024-07-04 is not a session"):
        calendar.session_close("XNYS", date(2024, 7, 4))


def test_the_next_session_skips_the_weekend() -> None:
    assert calendar.next_session("XNYS", date(2024, 7, 5)) == at("2024-07-08T00:00")


def test_intraday_bars_start_at_the_open_and_stop_at_the_close() -> None:
    full = calendar.expected_bars("XNYS", "5m", date(2024, 7, 2), date(2024, 7, 2))
    half = calendar.expected_bars("XNYS", "1h", date(2024, 7, 3), date(2024, 7, 3))
    assert len(full) == 78
    assert full[0] == at("2024-07-02T13:30")
    assert full[-1] == at("2024-07-02T19:55")
    assert [f"{bar:%H:%M}" for bar in half] == ["13:30", "14:30", "15:30", "16:30"]


def test_the_last_hourly_bar_is_complete_at_the_close() -> None:
    last = at("2024-07-02T19:30")
    assert calendar.bar_close("XNYS", "1h", last) == at("2024-07-02T20:00")
    assert calendar.is_partial("XNYS", "1h", last, at("2024-07-02T19:59"))
    assert not calendar.is_partial("XNYS", "1h", last, at("2024-07-02T20:00"))


def test_a_daily_bar_is_partial_until_its_session_closes() -> None:
    bar = at("2024-07-02T00:00")
    assert calendar.is_partial("XNYS", "1d", bar, at("2024-07-02T19:59"))
    assert not calendar.is_partial("XNYS", "1d", bar, at("2024-07-02T20:00"))


@pytest.mark.parametrize(
    ("interval", "now", "newest"),
    [
        ("1d", "2024-07-02T19:59", "2024-07-01T00:00"),
        ("1d", "2024-07-02T20:00", "2024-07-02T00:00"),
        ("1d", "2024-07-07T12:00", "2024-07-05T00:00"),
        ("5m", "2024-07-02T13:34", "2024-07-01T19:55"),
        ("5m", "2024-07-02T13:35", "2024-07-02T13:30"),
        ("1h", "2024-07-03T18:00", "2024-07-03T16:30"),
    ],
)
def test_the_newest_complete_bar(interval: str, now: str, newest: str) -> None:
    assert calendar.newest_complete("XNYS", interval, at(now)) == at(newest)  # type: ignore[arg-type]


def test_bars_per_year_count_sessions_and_bars() -> None:
    counted = [calendar.bars_per_year(i) for i in get_args(Interval)]
    assert counted == [252, 252 * 7, 252 * 26, 252 * 78, 252 * 390, 252 * 4680]
    assert calendar.bars_per_year("1h", "24/7") == 365 * 24


def test_a_market_that_never_closes_has_a_bar_every_hour() -> None:
    found = calendar.expected_bars("24/7", "1h", date(2024, 7, 6), date(2024, 7, 6))
    assert len(found) == 24
    assert found[1] - found[0] == timedelta(hours=1)


def test_sessions_before_1990_are_known() -> None:
    assert calendar.is_session("XNYS", date(1987, 10, 19))


def test_an_unknown_calendar_is_refused_with_examples() -> None:
    with pytest.raises(ConfigError, match=r"no exchange calendar 'NYSE2'.*XNYS"):
        calendar.sessions("NYSE2", date(2024, 1, 1), date(2024, 1, 5))
