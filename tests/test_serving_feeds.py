"""Feeds: what is history, what is new, and nothing that can still change."""

from datetime import UTC, datetime
from threading import Event, Thread

import pandas as pd
import pytest
import serving_kit as world

from core.errors import BadBars, NotEnoughData, SourceUnavailable
from serving.feeds import PollingFeed, ReplayFeed
from serving.history import FeedBar, History, Instrument
from serving.pairing import Lone, Pair, Pairing
from serving.service import polling_feed
from sources.port import Delivery

X = Instrument("bundled", "X", "1d")
Y = Instrument("bundled", "Y", "1d")


def frame(days: list[int], close: float = 10.0) -> pd.DataFrame:
    index = pd.DatetimeIndex([at(day) for day in days], name="time")
    prices = {"open": close, "high": close, "low": close, "close": close, "volume": 100.0}
    return pd.DataFrame(prices | {"dividend": 0.0, "split_ratio": 1.0}, index=index)


def at(day: int) -> datetime:
    return datetime(2020, 1, day, tzinfo=UTC)


def days_of(steps: list[tuple[FeedBar, ...]]) -> list[list[tuple[str, int]]]:
    return [[(bar.instrument.symbol, bar.time.day) for bar in step] for step in steps]


def test_a_replay_begins_where_the_common_clock_of_the_reserved_bars_does() -> None:
    feed = ReplayFeed({X: frame([1, 2, 3, 6, 7]), Y: frame([1, 2, 6, 7])}, paper_bars=2)
    assert feed.begin([X, Y]) == at(2)
    assert list(feed.history(X, at(3)).index.day) == [1, 2, 3]
    steps = list(feed.stream({X: at(2), Y: at(2)}, Event()))
    assert days_of(steps) == [[("X", 3), ("Y", 6)], [("X", 6), ("Y", 7)], [("X", 7)]]
    with pytest.raises(NotEnoughData, match="4 common bars, a replay of 9"):
        ReplayFeed({X: frame([1, 2, 3, 6]), Y: frame([1, 2, 3, 6])}, paper_bars=9).begin([X, Y])


def test_a_replay_keeps_its_pace() -> None:
    waits: list[float | None] = []

    class Clock(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    feed = ReplayFeed({X: frame([1, 2, 3, 6])}, paper_bars=3, bars_per_second=0.01)
    assert len(list(feed.stream({X: at(1)}, Clock()))) == 3
    assert [round(wait or 0.0, -1) for wait in waits] == [100.0, 200.0]


def test_pairs_wait_for_the_later_bar_and_lone_bars_are_told() -> None:
    pairing = Pairing(X, Y)
    arrivals = [(X, 1), (X, 2), (Y, 1), (Y, 3), (X, 3)]
    out = [list(pairing.put(FeedBar(i, at(day), (0.0,) * 7))) for i, day in arrivals]
    assert out[:2] == [[], []]
    assert [type(one) for one in out[2]] == [Pair]
    assert out[3] == []
    lone, pair = out[4]
    assert isinstance(lone, Lone)
    assert isinstance(pair, Pair)
    assert (lone.bar.instrument, lone.bar.time, pair.signal.time) == (X, at(2), at(3))


def test_history_grows_in_order_and_refuses_the_past() -> None:
    history = History(X, frame([1, 2]))
    history.append(FeedBar(X, at(3), (1.0, 2.0, 0.5, 1.5, 9.0, 0.0, 1.0)))
    assert history.newest == at(3)
    assert history.frame(newest=1)["high"].tolist() == [2.0]
    pd.testing.assert_frame_equal(history.frame().iloc[:2], frame([1, 2]), check_freq=False)
    with pytest.raises(BadBars, match="X: bar 2020-01-03"):
        history.append(FeedBar(X, at(3), (0.0,) * 7))


def test_history_outgrows_its_room() -> None:
    solo = world.market()[Instrument("bundled", "SOLO", "1d")]
    history = History(X, solo.iloc[:0])
    for bar in ReplayFeed({X: solo}, 1).stream({X: at(1).replace(year=2000)}, Event()):
        history.append(bar[0])
    pd.testing.assert_frame_equal(history.frame(), solo, check_freq=False)


class Vendor:
    """A source whose clock and bars the test moves."""

    name = "vendor"

    def __init__(self) -> None:
        self.now = datetime(2020, 1, 3, 12, tzinfo=UTC)
        self.bars = frame([2, 3])
        self.away = False
        self.calls = 0

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        self.calls += 1
        if self.away:
            raise SourceUnavailable(f"vendor: no answer about {symbol}")
        return Delivery(symbol, interval, self.bars, "as_traded", now)


def test_a_bar_of_the_running_session_is_not_yielded_before_it_is_complete() -> None:
    vendor, stop = Vendor(), Event()
    params = world.params(paper={"poll_seconds": 0.001})
    feed = polling_feed(params, vendor, now=lambda: vendor.now)
    spy = Instrument("yfinance", "SPY", "1d")
    assert feed.begin([spy]) == at(2)  # at noon, Friday the 3rd is still being made
    seen: list[FeedBar] = []
    arrived = Event()

    def follow() -> None:
        for bars in feed.stream({spy: at(2)}, stop):
            seen.extend(bars)
            arrived.set()

    thread = Thread(target=follow, daemon=True)
    thread.start()
    calls = vendor.calls
    while vendor.calls < calls + 3:
        arrived.wait(0.001)
    assert seen == []
    vendor.bars = frame([2, 3], close=11.0)
    vendor.now = datetime(2020, 1, 3, 23, tzinfo=UTC)
    assert arrived.wait(30.0)
    stop.set()
    thread.join(30.0)
    assert [(bar.time, bar.values[3]) for bar in seen] == [(at(3), 11.0)]


def test_a_vendor_that_is_away_or_late_is_told_once_and_missed_bars_are_caught_up() -> None:
    vendor, stop, problems = Vendor(), Event(), list[str]()
    vendor.now = datetime(2020, 1, 4, tzinfo=UTC)
    feed = PollingFeed(
        lambda one, since: vendor.fetch(one.symbol, one.interval, since, vendor.now).frame,
        poll_seconds=0.0,
        expected=lambda one: at(vendor.now.day - 1),
        problem=problems.append,
    )
    steps = feed.stream({X: at(2)}, stop)
    assert days_of([next(steps)]) == [[("X", 3)]]
    vendor.away, vendor.now = True, datetime(2020, 1, 7, tzinfo=UTC)
    calls = vendor.calls
    arrived: list[tuple[FeedBar, ...]] = []
    thread = Thread(target=lambda: arrived.extend([next(steps), next(steps)]), daemon=True)
    thread.start()
    while vendor.calls < calls + 5:
        stop.wait(0.001)
    vendor.bars, vendor.away = frame([2, 3, 6, 7]), False
    vendor.now = datetime(2020, 1, 8, tzinfo=UTC)
    thread.join(30.0)
    assert days_of(arrived) == [[("X", 6)], [("X", 7)]]
    assert problems.count("vendor: no answer about X") == 1
    assert any("newest bar is 2020-01-03" in message for message in problems)
    assert len(problems) == len(set(problems))
    told = feed.events()  # for ledger and alerts: every problem, and that it is over
    assert [detail for kind, detail in told if kind == "feed stale"] == problems
    assert told[-1] == ("feed back", "X: as it should be again")
    assert feed.events() == ()
