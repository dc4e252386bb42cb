"""The yfinance source: the real library against Yahoo's protocol on loopback."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_kit import day, market
from fake_yahoo import Answer, FakeYahoo, serving, truncated

from core.errors import SourceUnavailable, UnknownSymbol
from core.settings import Interval
from sources.port import as_traded
from sources.yfinance import ADDRESS, Yahoo

NOW = datetime(2026, 6, 30, 21, tzinfo=UTC)
BARS = market(
    "2026-01-02",
    "2026-06-30",
    splits={"2026-02-17": 4.0, "2026-05-01": 0.1},
    dividends={"2026-01-15": 0.5, "2026-06-01": 0.2},
)
BUSY = Answer(429, b"Too Many Requests", {"Retry-After": "7"})


class Slept(list[float]):
    """Remembers how long it was asked to sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeYahoo]:
    with serving() as yahoo:
        yield yahoo


@pytest.fixture
def yahoo(server: FakeYahoo, monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    monkeypatch.setenv(ADDRESS, server.url)
    server.markets = {("ABC", "1d"): BARS}
    server.queued, server.asked = [], []
    return server


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yfinance")


def test_daily_bars_with_splits_and_dividends_become_bars_as_traded(
    yahoo: FakeYahoo, cache: Path
) -> None:
    found = Yahoo(cache).fetch("ABC", "1d", None, NOW)
    assert found.convention == "split_adjusted"
    assert found.delivered_at == NOW
    january = day("2026-01-15")  # 4:1 and 1:10 came later: 0.4 shares of today each
    assert found.frame.dividend[january] == pytest.approx(0.5 / 0.4)
    assert found.frame.close[january] == pytest.approx(BARS.close[january] / 0.4, rel=1e-6)
    bars = as_traded(found.frame, found.convention)
    pd.testing.assert_frame_equal(bars, BARS, rtol=1e-5, check_freq=False)


@pytest.mark.parametrize("interval", ["1h", "15m", "5m", "1m"])
def test_intraday_bars_start_when_they_start(
    yahoo: FakeYahoo, cache: Path, interval: Interval
) -> None:
    minutes = market("2026-06-25", "2026-06-30", interval)
    yahoo.markets["ABC", interval] = minutes
    found = Yahoo(cache).fetch("ABC", interval, None, NOW).frame
    pd.testing.assert_frame_equal(
        found[minutes.columns], minutes, rtol=1e-5, check_freq=False, check_names=False
    )


def test_null_bars_are_left_out(yahoo: FakeYahoo, cache: Path) -> None:
    holey = BARS.copy()
    holey.loc[day("2026-03-10"), ["open", "high", "low", "close", "volume"]] = np.nan
    yahoo.markets["ABC", "1d"] = holey
    found = Yahoo(cache).fetch("ABC", "1d", None, NOW).frame
    assert day("2026-03-10") not in found.index
    assert len(found) == len(BARS) - 1


def test_only_what_is_newer_is_asked_for_while_polling(yahoo: FakeYahoo, cache: Path) -> None:
    yahoo.markets["ABC", "5m"] = market("2026-06-25", "2026-06-30", "5m")
    since = datetime(2026, 6, 30, 19, 50, tzinfo=UTC)
    found = Yahoo(cache).fetch("ABC", "5m", since, NOW).frame
    assert [f"{time:%H:%M}" for time in found.index] == ["19:50", "19:55"]
    nothing = Yahoo(cache).fetch("ABC", "5m", since + timedelta(minutes=10), NOW).frame
    assert nothing.empty
    assert "split_ratio" in nothing


def test_a_rate_limit_is_waited_out_as_told(yahoo: FakeYahoo, cache: Path) -> None:
    slept = Slept()
    yahoo.queued = [BUSY, BUSY]
    found = Yahoo(cache, slept).fetch("ABC", "1d", None, NOW)
    assert slept == [7.0, 7.0]
    assert len(found.frame) == len(BARS)


def test_a_lasting_rate_limit_is_given_up_after_three_attempts(
    yahoo: FakeYahoo, cache: Path
) -> None:
    slept = Slept()
    yahoo.queued = [BUSY] * 3
    with pytest.raises(SourceUnavailable, match="ABC: still over Yahoo's rate limit after 3"):
        Yahoo(cache, slept).fetch("ABC", "1d", None, NOW)
    assert slept == [7.0, 7.0]


def test_a_rate_limit_of_hours_is_left_to_the_caller(yahoo: FakeYahoo, cache: Path) -> None:
    slept = Slept()
    yahoo.queued = [Answer(429, b"", {"Retry-After": "7200"})]
    with pytest.raises(SourceUnavailable, match="asks for 2:00:00 of patience"):
        Yahoo(cache, slept).fetch("ABC", "1d", None, NOW)
    assert slept == []


def test_truncated_json_is_no_chart(yahoo: FakeYahoo, cache: Path) -> None:
    yahoo.queued = [truncated(yahoo.chart("ABC", {"interval": "1d"}))]
    with pytest.raises(SourceUnavailable, match=r"ABC: .*\(status 200, 400 bytes\) is not a whole"):
        Yahoo(cache).fetch("ABC", "1d", None, NOW)
    assert len(Yahoo(cache).fetch("ABC", "1d", None, NOW).frame) == len(BARS)  # nothing stuck


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(503, b"<html>busy</html>"), "status 503"),
        (Answer(200, b'{"chart": {"result": [{"meta": {}}], "error": null}}'), "not what yfinance"),
        (
            Answer(422, b'{"chart":{"result":null,"error":{"code":"X","description":"too old"}}}'),
            "Yahoo refuses: too old",
        ),
    ],
)
def test_a_broken_answer_is_worth_a_retry_later(
    yahoo: FakeYahoo, cache: Path, answer: Answer, message: str
) -> None:
    yahoo.queued = [answer] * 2
    with pytest.raises(SourceUnavailable, match=message):
        Yahoo(cache).fetch("ABC", "1d", None, NOW)


def test_an_empty_result_is_an_unknown_symbol(yahoo: FakeYahoo, cache: Path) -> None:
    yahoo.queued = [Answer(200, b'{"chart": {"result": [], "error": null}}')]
    with pytest.raises(UnknownSymbol, match="no symbol 'ABC'"):
        Yahoo(cache).fetch("ABC", "1d", None, NOW)


def test_a_symbol_yahoo_does_not_know_is_unknown(yahoo: FakeYahoo, cache: Path) -> None:
    with pytest.raises(UnknownSymbol, match=r"no symbol 'NOPE' \(No data found"):
        Yahoo(cache).fetch("NOPE", "1d", None, NOW)


def test_an_interval_without_bars_is_unknown(yahoo: FakeYahoo, cache: Path) -> None:
    with pytest.raises(UnknownSymbol, match="no 1m bars of 'ABC'"):
        Yahoo(cache).fetch("ABC", "1m", None, NOW)


def test_no_server_is_a_source_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="XYZ: Yahoo did not answer"):
        Yahoo(cache).fetch("XYZ", "1d", None, NOW)


def test_nothing_but_loopback_is_asked(yahoo: FakeYahoo, cache: Path) -> None:
    Yahoo(cache).fetch("ABC", "1d", None, NOW)
    assert yahoo.asked
    assert all(path.startswith("/v8/finance/chart/ABC") for path in yahoo.asked)
