"""The IBKR source: the real client against the fake TWS, and the pace of its requests."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from fake_tws import Bar, Exchange, FakeTws, Once, Remote, Request, Stock, in_thread
from fake_tws.orders import ZONE

from core.bars import BAR_COLUMNS
from core.calendar import expected_bars
from core.errors import ConfigError, SourceUnavailable, UnknownSymbol
from core.home import Home
from core.settings import Interval, parse_params
from pipelines import ingest
from sources.ibkr import REACHES, Ibkr, Patience
from sources.pacing import Pacer
from sources.port import as_traded

NOW = datetime(2026, 3, 6, 21, 30, tzinfo=UTC)  # a Friday, half an hour after the close
HURRIED = Patience(connect=2.0, answer=0.5)


class Free(Pacer):
    """Lets everything through at once, and remembers it."""

    def delay(self, contract: object, request: object, now: float) -> float:
        return 0.0


def bars(interval: Interval, first: str, last: str = "2026-03-06") -> list[Bar]:
    """Every bar of some sessions: a walk in cents."""
    rng = np.random.default_rng(4)
    found, close = [], 100.0
    for time in expected_bars("XNYS", interval, pd.Timestamp(first), pd.Timestamp(last)):
        start = time.tz_localize(None).tz_localize(ZONE) if interval == "1d" else time
        opened = round(close + float(rng.integers(1, 4)) / 100.0, 2)
        close = round(close * float(np.exp(rng.normal(0.0, 0.001))), 2)
        high, low = max(opened, close) + 0.05, min(opened, close) - 0.05
        volume = float(rng.integers(100, 10_000))
        found.append(Bar(start.to_pydatetime(), opened, high, low, close, volume))
    return found


def frame(known: list[Bar], interval: Interval) -> pd.DataFrame:
    """The same as the bar frame it must become."""
    starts = [bar.start for bar in known]
    if interval == "1d":
        starts = [start.replace(tzinfo=UTC) for start in starts]
    index = pd.DatetimeIndex(starts, name="time").tz_convert("UTC").as_unit("ns")
    rows = [(b.open, b.high, b.low, b.close, b.volume, 0.0, 1.0) for b in known]
    return pd.DataFrame(rows, index=index, columns=list(BAR_COLUMNS))


@pytest.fixture
def remote() -> Iterator[Remote]:
    exchange = Exchange(lambda: NOW, (Stock(265598, "AAPL"), Stock(13455763, "VIX")))
    with in_thread(FakeTws(exchange)) as found:
        yield found


def source(remote: Remote, pacer: Pacer | None = None) -> Ibkr:
    return Ibkr({"IB_PORT": str(remote.port)}, HURRIED, pacer or Free())


@pytest.mark.parametrize(
    ("interval", "first", "requests"),
    [
        ("1d", "2010-01-04", 3),
        ("1h", "2025-11-03", 6),
        ("15m", "2026-02-02", 7),
        ("5m", "2026-02-16", 4),
        ("1m", "2026-03-02", 6),
        ("5s", "2026-03-05", 15),
    ],
)
def test_history_is_asked_for_backwards_until_there_is_no_more(
    interval: Interval, first: str, requests: int, remote: Remote
) -> None:
    known, pacer = bars(interval, first), Free()
    remote.tws.history["AAPL", REACHES[interval].size] = known
    found = source(remote, pacer).fetch("AAPL", interval, None, NOW)
    assert (found.symbol, found.interval, found.delivered_at) == ("AAPL", interval, NOW)
    bars_found = as_traded(found.frame, found.convention)
    pd.testing.assert_frame_equal(bars_found, frame(known, interval), check_freq=False)
    asked = [request for _, _, request in pacer._asked]
    assert len(asked) == len(set(asked)) == requests == remote.tws.count(Request.HISTORICAL_DATA)


def test_only_what_is_new_is_asked_for(remote: Remote) -> None:
    known = bars("1m", "2026-03-02")
    remote.tws.history["AAPL", "1 min"] = known
    since = NOW - timedelta(hours=2)
    found = source(remote).fetch("AAPL", "1m", since, NOW)
    assert found.frame.index[0] == pd.Timestamp(since)
    assert len(found.frame) == 90
    assert remote.tws.count(Request.HISTORICAL_DATA) == 1


def test_hours_begin_with_the_session_as_everywhere_else(remote: Remote) -> None:
    """IBKR's own begin at 9:30, 10:00, 11:00 …; half a day has an odd number of half hours."""
    halves = [
        Bar(opened + n * timedelta(minutes=30), 10.0 + n, 12.0 + n, 9.0 + n, 11.0 + n, 100.0 + n)
        for opened, count in (
            (datetime(2025, 11, 28, 14, 30, tzinfo=UTC), 7),  # closes at 13:00 in New York
            (datetime(2025, 12, 1, 14, 30, tzinfo=UTC), 13),
        )
        for n in range(count)
    ]
    remote.tws.history["AAPL", "30 mins"] = halves
    since, now = datetime(2025, 11, 28, tzinfo=UTC), datetime(2025, 12, 1, 22, tzinfo=UTC)
    found = source(remote).fetch("AAPL", "1h", since, now).frame
    expected = expected_bars("XNYS", "1h", date(2025, 11, 28), date(2025, 12, 1))
    assert list(found.index) == list(expected)
    assert [f"{one:%H:%M}" for one in found.index[:4]] == ["14:30", "15:30", "16:30", "17:30"]
    assert tuple(found.iloc[0]) == (10.0, 13.0, 9.0, 12.0, 201.0, 0.0, 1.0)
    assert tuple(found.iloc[3]) == (16.0, 18.0, 15.0, 17.0, 106.0, 0.0, 1.0)  # the half alone


def test_nothing_new_is_no_error(remote: Remote) -> None:
    remote.tws.history["AAPL", "1 min"] = bars("1m", "2026-03-02")
    found = source(remote).fetch("AAPL", "1m", NOW - timedelta(minutes=5), NOW)
    assert found.frame.empty


def test_an_index_is_found_by_its_caret(remote: Remote) -> None:
    remote.tws.history["VIX", "1 day"] = bars("1d", "2026-01-02")
    assert len(source(remote).fetch("^VIX", "1d", None, NOW).frame) == 44


Strike = Callable[[FakeTws], object]


@pytest.mark.parametrize(
    ("strike", "error", "said"),
    [
        (lambda tws: tws.refuse_connections(), SourceUnavailable, "127.0.0.1:.* start it"),
        (lambda tws: tws.freeze(), SourceUnavailable, "does not answer"),
        (lambda tws: tws.faults.once(Once.PACING), SourceUnavailable, r"pacing violation \(162\)"),
        (lambda tws: tws.faults.unanswered.add(Request.HISTORICAL_DATA), SourceUnavailable,
         "no answer in time"),
        (lambda tws: tws.faults.unanswered.add(Request.CONTRACT_DETAILS), SourceUnavailable,
         "no answer in time"),
        (lambda tws: tws.history.clear(), UnknownSymbol, "no 1d bars of 'AAPL'"),
    ],
    ids=["nobody there", "frozen", "too fast", "no history", "no contract", "no bars"],
)  # fmt: skip
def test_what_goes_wrong_is_named(
    strike: Strike, error: type[Exception], said: str, remote: Remote
) -> None:
    remote.tws.history["AAPL", "1 day"] = bars("1d", "2026-01-02")
    remote.do(strike)
    with pytest.raises(error, match=said):
        source(remote).fetch("AAPL", "1d", None, NOW)


def test_a_symbol_ibkr_does_not_know_is_named(remote: Remote) -> None:
    with pytest.raises(UnknownSymbol, match="'NOPE'"):
        source(remote).fetch("NOPE", "1d", None, NOW)


def test_a_port_that_is_no_number_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match="IB_PORT=gateway"):
        Ibkr({"IB_PORT": "gateway"})


def test_an_ingest_stores_what_ibkr_told(
    home: Home, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IB_PORT", str(remote.port))
    remote.tws.history["AAPL", "1 day"] = bars("1d", "2024-01-02")
    params = parse_params({"agents": {"aapl": {"symbol": "AAPL", "source": "ibkr"}}})
    added = ingest.run(home, params, "AAPL", "ibkr", now=NOW)
    assert (added.source, added.new_rows, added.rows) == (
        "ibkr",
        546,
        546,
    )  # 252 + 250 + 44 sessions
    assert f"{added.last:%Y-%m-%d}" == "2026-03-06"


def test_the_pace_keeps_every_limit_and_wastes_no_time() -> None:
    rng = np.random.default_rng(1)
    pacer, now, sent = Pacer(), 0.0, []
    for _ in range(400):
        contract = int(rng.integers(3))
        request = (contract, int(rng.integers(4)))
        now += max(pacer.delay(contract, request, now), 0.0)
        assert pacer.delay(contract, request, now) == 0.0
        pacer.sent(contract, request, now)
        sent.append((now, contract, request))
    for place, (at, contract, request) in enumerate(sent):
        before = sent[:place]
        assert sum(at - then < 600.0 for then, _, _ in before) < 60
        assert all(at - then >= 15.0 for then, _, known in before if known == request)
        assert sum(at - then < 2.0 for then, known, _ in before if known == contract) < 5
    # 60 at once as far as repeats allow, then 60 every ten minutes: 400 take six full waits.
    assert 3600.0 <= now < 3900.0


def test_every_interval_has_a_reach_within_one_ingests_pace() -> None:
    assert set(REACHES) == set(get_args(Interval))
