"""Exchange sessions and bar clocks: which bars must exist, and when each one is complete.

Owns the mapping from (calendar, interval) to bar times; calendars are those of
``exchange_calendars`` (``XNYS``, ``24/7`` …). Times are aware UTC; a daily bar is named by its
session's date at midnight, an intraday bar by its start, as in ``core.bars``. Knows nothing of
sources or files, and never asks what time it is: "now" is an argument.
"""

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import pandas as pd

from core.errors import ConfigError
from core.settings import Interval

BAR_LENGTH: dict[str, timedelta] = {
    "1h": timedelta(hours=1),
    "15m": timedelta(minutes=15),
    "5m": timedelta(minutes=5),
    "1m": timedelta(minutes=1),
    "5s": timedelta(seconds=5),
}
_SESSIONS_PER_YEAR = {"24/7": 365}
_SESSION_LENGTH = {"24/7": timedelta(hours=24)}  # others: the 6.5 hours of the US exchanges
_USUAL_FIRST_YEAR = 1990  # a calendar's cost grows with its span; few series start earlier


def sessions(calendar: str, start: date | datetime, end: date | datetime) -> pd.DatetimeIndex:
    """Return the sessions from ``start`` to ``end`` (both included) at midnight UTC."""
    first, last = _day(start), _day(end)
    if first > last:
        return pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name="time")
    found = _covering(calendar, first, last).sessions_in_range(first, last)
    index = pd.DatetimeIndex(found.to_numpy("datetime64[ns]"), name="time")
    return index.tz_localize("UTC")


def is_session(calendar: str, day: date | datetime) -> bool:
    """Tell whether the exchange opens on ``day``."""
    at = _day(day)
    return bool(_covering(calendar, at, at).is_session(at))


def session_open(calendar: str, day: date | datetime) -> datetime:
    """Return the opening time of the session ``day`` as aware UTC; raise ``ConfigError``."""
    return _session_edge(calendar, day, "session_open")


def session_close(calendar: str, day: date | datetime) -> datetime:
    """Return the closing time of the session ``day`` as aware UTC; raise ``ConfigError``."""
    return _session_edge(calendar, day, "session_close")


def next_session(calendar: str, day: date | datetime) -> datetime:
    """Return the first session after ``day``, at midnight UTC."""
    after = _day(day) + pd.Timedelta(days=1)
    return _first(sessions(calendar, after, after + pd.Timedelta(days=30)), calendar, day)


def expected_bars(
    calendar: str, interval: Interval, start: date | datetime, end: date | datetime
) -> pd.DatetimeIndex:
    """Return the times of all bars of the sessions from ``start`` to ``end``, both included."""
    days = sessions(calendar, start, end)
    if interval == "1d" or days.empty:
        return days
    first, last = days[0].tz_localize(None), days[-1].tz_localize(None)
    hours = _covering(calendar, first, last).schedule.loc[first:last]
    step = BAR_LENGTH[interval]
    pieces = [
        pd.date_range(opened, closed, freq=step, inclusive="left", unit="ns")
        for opened, closed in zip(hours["open"], hours["close"], strict=True)
    ]
    return pd.DatetimeIndex(pieces[0].append(pieces[1:]), name="time")


def bar_close(calendar: str, interval: Interval, time: datetime) -> datetime:
    """Return when the bar named ``time`` is complete, as aware UTC.

    A daily bar is complete at the close of its session, an intraday bar after its length or at
    the session's close, whichever comes first.
    """
    if interval == "1d":
        return session_close(calendar, time)
    end = time + BAR_LENGTH[interval]
    day = pd.Timestamp(time).tz_convert("UTC").date()
    if not is_session(calendar, day):
        return end
    close = session_close(calendar, day)
    return min(end, close) if time < close else end


def is_partial(calendar: str, interval: Interval, time: datetime, now: datetime) -> bool:
    """Tell whether the bar named ``time`` is still being made at ``now``."""
    if interval == "1d" and not is_session(calendar, time):
        return now < pd.Timestamp(time) + timedelta(days=1)
    return now < bar_close(calendar, interval, time)


def newest_complete(calendar: str, interval: Interval, now: datetime) -> datetime:
    """Return the time of the newest bar that is complete at ``now``: what a feed must have."""
    days = sessions(calendar, now - timedelta(days=15), now)
    for day in reversed(days):
        bars = expected_bars(calendar, interval, day, day)
        close = session_close(calendar, day)
        ends = bars + BAR_LENGTH[interval] if interval in BAR_LENGTH else bars + (close - bars[0])
        whole = (ends <= pd.Timestamp(now)) | (pd.Timestamp(close) <= pd.Timestamp(now))
        complete = bars[whole]
        if len(complete):
            newest: datetime = complete[-1].to_pydatetime()
            return newest
    raise ConfigError(f"calendar {calendar}: no complete bar in the 15 days before {now}")


def bars_per_session(interval: Interval, calendar: str = "XNYS") -> int:
    """Return the number of bars of one full session."""
    if interval == "1d":
        return 1
    length = _SESSION_LENGTH.get(calendar, timedelta(hours=6, minutes=30))
    return -(-length // BAR_LENGTH[interval])


def bars_per_year(interval: Interval, calendar: str = "XNYS") -> float:
    """Return the number of bars of an average year, for annualising."""
    return float(_SESSIONS_PER_YEAR.get(calendar, 252) * bars_per_session(interval, calendar))


def decisions_per_year(interval: Interval, seconds: int, calendar: str = "XNYS") -> float:
    """Return how often an agent decides in an average year: every ``seconds``; 0: at each close."""
    if not seconds:
        return bars_per_year(interval, calendar)
    return bars_per_year("5s", calendar) * (BAR_LENGTH["5s"] / timedelta(seconds=seconds))


def _session_edge(calendar: str, day: date | datetime, edge: str) -> datetime:
    at = _day(day)
    known = _covering(calendar, at, at)
    if not known.is_session(at):
        raise ConfigError(f"calendar {calendar}: {at.date()} is not a session")
    when: datetime = getattr(known, edge)(at).to_pydatetime()
    return when


def _first(days: pd.DatetimeIndex, calendar: str, day: date | datetime) -> datetime:
    if days.empty:
        raise ConfigError(f"calendar {calendar}: no session within 30 days after {day}")
    first: datetime = days[0].to_pydatetime()
    return first


def _day(day: date | datetime) -> pd.Timestamp:
    """Return the date as a naive midnight, the form exchange_calendars takes."""
    at = pd.Timestamp(day)
    if at.tzinfo is not None:
        at = at.tz_convert("UTC").tz_localize(None)
    return at.normalize()


def _covering(calendar: str, first: pd.Timestamp, last: pd.Timestamp) -> Any:
    """Return the calendar over whole decades, so that it is built once and by the data alone."""
    start = min(_USUAL_FIRST_YEAR, first.year // 10 * 10)
    return _calendar(calendar, start, max(2029, last.year // 10 * 10 + 9))


@lru_cache(maxsize=8)
def _calendar(name: str, first_year: int, last_year: int) -> Any:
    import exchange_calendars  # costs a second: only who asks for a session pays

    try:
        return exchange_calendars.get_calendar(
            name, start=f"{first_year}-01-01", end=f"{last_year}-12-31"
        )
    except exchange_calendars.errors.InvalidCalendarName:
        raise ConfigError(
            f"no exchange calendar {name!r}; `validation.calendar` takes names of "
            "exchange_calendars such as XNYS, XLON or 24/7"
        ) from None
