"""Live bars from IBKR, against the fake TWS: complete ones only, none missing, none too old.

The market is bars of a made-up stock; the clock is the test's own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from fake_tws import Bar, Exchange, FakeTws, Once, Remote, Request, Stock, in_thread
from fake_tws.orders import ZONE
from ibkr_kit import FAST

from core.calendar import expected_bars, session_close
from core.errors import NotAllowed, SourceUnavailable
from core.settings import Interval
from serving import ibkr_feed
from serving.brokers.ibkr import Access
from serving.history import FeedBar, Instrument
from serving.ibkr_feed import KEPT, IbkrFeed, Tempo
from sources.ibkr import REACHES
from sources.pacing import Pacer

PATIENCE_SECONDS = 10.0  # only ever spent by a test that fails
MINUTES = Instrument("ibkr", "AAPL", "1m")
DAYS = Instrument("ibkr", "AAPL", "1d")
FIVES = Instrument("ibkr", "AAPL", "5s")
TEMPO = Tempo(look=0.01, settle=5.0, late=30.0, retry=1.0, answer=2.0, history=10.0)
MONDAY = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)  # half an hour after the open


class Free(Pacer):
    """Lets everything through at once."""

    def delay(self, contract: object, request: object, now: float) -> float:
        return 0.0


def bar(start: datetime, close: float, daily: bool = False) -> Bar:
    if daily:
        start = start.replace(tzinfo=ZONE)
    return Bar(start, close - 0.1, close + 0.2, close - 0.2, close, 1000.0)


def bars(interval: Interval, first: str, now: datetime) -> list[Bar]:
    """Every bar that has begun by now, the closes 100.00, 100.01 …"""
    times = expected_bars("XNYS", interval, pd.Timestamp(first), now)
    begun = [one.to_pydatetime() for one in times if one <= pd.Timestamp(now)]
    return [bar(t, 100.0 + n / 100.0, interval == "1d") for n, t in enumerate(begun)]


@dataclass
class World:
    """A gateway, a clock, and what the feed has shown so far."""

    remote: Remote
    at: datetime
    feed: IbkrFeed = field(init=False)
    shown: list[FeedBar] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        access = Access(port=self.remote.port, client_id=72)
        pace = replace(FAST, patience=2.0)
        self.feed = IbkrFeed(access, "XNYS", pace, TEMPO, Free(), lambda: self.at)

    def history(self, interval: Interval, first: str) -> None:
        self.remote.tws.history["AAPL", REACHES[interval].size] = bars(interval, first, self.at)

    def watch(self, *instruments: Instrument) -> None:
        """Begin, and stream from then on."""
        after = {one: self.feed.begin([one]) for one in instruments}

        def streaming() -> None:
            for step in self.feed.stream(after, self.stop):
                self.shown.extend(step)

        self.thread = threading.Thread(target=streaming)
        self.thread.start()

    def begins(self, start: datetime, close: float, interval: Interval = "1m") -> None:
        """A bar begins: the clock is there, and IBKR tells it to those subscribed."""
        self.at = start
        size = REACHES[interval].size
        self.remote.do(lambda tws: tws.update_history("AAPL", size, bar(start, close)))

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self.told += self.feed.events()
            assert time.monotonic() < deadline, f"no {what}: {self.told}"
            time.sleep(0.005)

    def subscribed(self) -> bool:
        return any(one.history for one in self.remote.tws.connections)

    def times(self) -> list[str]:
        return [f"{one.time:%H:%M:%S}" for one in self.shown]


@pytest.fixture
def world() -> Iterator[World]:
    found: list[World] = []
    exchange = Exchange(lambda: found[0].at if found else MONDAY, (Stock(265598, "AAPL"),))
    with in_thread(FakeTws(exchange)) as remote:
        found.append(World(remote, MONDAY))
        try:
            yield found[0]
        finally:
            found[0].stop.set()
            if found[0].thread:
                found[0].thread.join(PATIENCE_SECONDS)
            found[0].feed.close()


def minute(number: int) -> datetime:
    return MONDAY + timedelta(minutes=number)


def test_history_ends_with_the_newest_complete_bar(world: World) -> None:
    world.history("1m", "2026-02-27")
    assert world.feed.begin([MINUTES]) == minute(-1)  # that of 15:00 has only begun
    known = world.feed.history(MINUTES, minute(-1))
    assert (len(known), known.index[-1]) == (390 + 30, pd.Timestamp(minute(-1)))
    assert world.feed.history(MINUTES, minute(-11)).index[-1] == pd.Timestamp(minute(-11))


def test_a_bar_is_shown_once_another_follows_it_and_never_while_it_grows(world: World) -> None:
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    world.begins(minute(0), 200.0)
    world.remote.do(lambda tws: tws.update_history("AAPL", "1 min", bar(minute(0), 201.0)))
    world.begins(minute(1), 202.0)
    world.until("bar of 15:00", lambda: world.times() == ["15:00:00"])
    assert world.shown[0].values == (200.9, 201.2, 200.8, 201.0, 1000.0, 0.0, 1.0)
    world.begins(minute(2), 203.0)
    world.until("bar of 15:01", lambda: world.times() == ["15:00:00", "15:01:00"])


def test_old_bars_are_let_go_and_none_is_shown_twice_or_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest of thirty minutes is not settled at first: 29, and at most twice as many."""
    monkeypatch.setattr(ibkr_feed, "LEAST_BARS", 10)
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    known = []
    for number in range(36):
        world.begins(minute(number), 200.0 + number)
        world.until("bar", lambda shown=number: len(world.shown) == shown)  # type: ignore[misc]
        known.append(len(world.feed.history(MINUTES, world.at)))
    assert known == [*range(30, 59), *range(29, 36)]
    assert [one.time for one in world.shown] == [minute(number) for number in range(35)]


def test_the_last_bar_of_a_session_is_shown_when_the_clock_says_so(world: World) -> None:
    close = session_close("XNYS", MONDAY)
    world.at = close - timedelta(seconds=20)
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    world.at = close + timedelta(seconds=6)
    world.until("last bar", lambda: bool(world.shown))
    assert world.times() == ["20:59:00"]


def test_what_was_missed_while_the_link_was_down_comes_first(world: World) -> None:
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    world.remote.do(lambda tws: tws.refuse_connections())
    world.remote.do(lambda tws: tws.drop())
    for number in range(5):
        world.begins(minute(number), 150.0 + number)
    world.until("word of the link", lambda: any("link for bars" in text for _, text in world.told))
    assert world.shown == []
    world.remote.listen()
    world.until("gap", lambda: len(world.shown) == 4)
    world.until("subscription", world.subscribed)
    world.begins(minute(5), 160.0)
    world.until("live bar", lambda: len(world.shown) == 5)
    assert world.times() == [f"15:0{number}:00" for number in range(5)]
    assert [kind for kind, _ in world.told if kind == "feed stale"]
    assert world.feed.too_old(world.shown[0]).startswith(
        "AAPL: the bar of 2026-03-02T15:00:00+00:00 came at 2026-03-02T15:05:00+00:00"
    )
    assert world.feed.too_old(world.shown[4]) == ""


@pytest.mark.parametrize("code", [1101, 1102])
def test_subscriptions_that_ibkr_lost_are_made_again(world: World, code: int) -> None:
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    asked = world.remote.tws.count(Request.HISTORICAL_DATA)
    world.remote.do(lambda tws: tws.announce(1100))
    world.remote.do(lambda tws: tws.announce(code))
    world.until("new subscription", lambda: world.remote.tws.count(
        Request.HISTORICAL_DATA) == asked + 2 and world.subscribed())  # fmt: skip
    world.begins(minute(0), 200.0)
    world.begins(minute(1), 201.0)
    world.until("bar", lambda: world.times() == ["15:00:00"])
    assert sum(len(one.history) for one in world.remote.tws.connections) == 1


def test_a_subscription_that_begins_empty_shows_its_first_bar(world: World) -> None:
    world.at = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)  # before the open: no bars in this hour
    friday = bars("5s", "2026-02-27", world.at)
    world.remote.tws.history["AAPL", "5 secs"] = friday
    world.watch(FIVES)
    opened = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
    for number in range(3):
        world.begins(opened + timedelta(seconds=5 * number), 200.0 + number, "5s")
    world.until("first bars", lambda: len(world.shown) == 2)
    assert world.times() == ["14:30:00", "14:30:05"]
    assert [one.values[3] for one in world.shown] == [200.0, 201.0]


def test_an_hour_is_shown_when_both_its_halves_are_over_and_none_is_missed(world: World) -> None:
    opened = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)

    def half(number: int) -> None:
        world.at = opened + timedelta(minutes=30 * number)
        told = bar(world.at, 200.0 + number)
        world.remote.do(lambda tws: tws.update_history("AAPL", "30 mins", told))

    friday = opened - timedelta(days=3)
    world.remote.tws.history["AAPL", "30 mins"] = [
        bar(friday + timedelta(minutes=30 * n), 100.0 + n) for n in range(13)
    ]
    world.at = opened - timedelta(minutes=30)
    world.watch(Instrument("ibkr", "AAPL", "1h"))
    half(0)
    half(1)
    half(2)
    world.until("first hour", lambda: world.times() == ["14:30:00"])
    assert world.shown[0].values == (199.9, 201.2, 199.8, 201.0, 2000.0, 0.0, 1.0)
    for number in range(3, 13):
        half(number)
        whole = number // 2
        world.until("hour", lambda: len(world.shown) == whole)  # noqa: B023
        world.at += timedelta(minutes=29)  # nothing is late, and nothing new complete
    world.at = opened + timedelta(hours=6, minutes=30, seconds=6)
    world.until("last half alone", lambda: len(world.shown) == 7)
    assert [one.time for one in world.shown] == [opened + timedelta(hours=n) for n in range(7)]
    assert world.shown[-1].values == (211.9, 212.2, 211.8, 212.0, 1000.0, 0.0, 1.0)
    world.told += world.feed.events()
    assert [kind for kind, _ in world.told if kind == "feed stale"] == []


def test_a_bar_that_does_not_come_is_named_once_and_asked_for(world: World) -> None:
    world.history("1m", "2026-03-02")
    world.watch(MINUTES)
    world.remote.do(lambda tws: [one.history.clear() for one in tws.connections])
    world.at = minute(3)  # by now those of 15:01 and 15:02 should be there
    missing = (
        "AAPL: newest bar is 2026-03-02T15:00:00+00:00, expected 2026-03-02T15:01:00+00:00; "
        "nothing is decided until it comes"
    )
    world.until("word", lambda: ("feed stale", missing) in world.told)
    world.remote.tws.history["AAPL", "1 min"] += [bar(minute(n), 200.0 + n) for n in (1, 2, 3)]
    world.at = minute(4)
    world.until("bars", lambda: world.times() == ["15:00:00", "15:01:00", "15:02:00"])
    world.until("end", lambda: ("feed back", "AAPL: bars are there again") in world.told)
    assert world.told.count(("feed stale", missing)) == 1


@pytest.mark.parametrize("ratio", [1.0, 4.0, 0.1])
def test_a_daily_bar_comes_after_the_close_and_a_split_is_put_on_it(
    world: World, ratio: float
) -> None:
    world.at = datetime(2026, 3, 2, 12, tzinfo=UTC)
    world.history("1d", "2026-02-02")
    world.watch(DAYS)
    close = session_close("XNYS", MONDAY)
    before = world.remote.tws.history["AAPL", "1 day"][:-1]
    restated = [replace(one, close=one.close / ratio) for one in before]
    today = bar(datetime(2026, 3, 2), 101.0 / ratio, daily=True)
    world.remote.tws.history["AAPL", "1 day"] = [*restated, today]
    world.at = close + timedelta(minutes=14)
    assert not world.shown
    world.at = close + timedelta(minutes=16)
    world.until("bar", lambda: len(world.shown) == 1)
    assert world.shown[0].time == datetime(2026, 3, 2, tzinfo=UTC)
    assert world.shown[0].values[-1] == ratio
    known = world.feed.history(DAYS, world.shown[0].time)
    assert known["close"].iloc[-2] == before[-1].close  # as it was traded


def test_an_account_of_the_other_mode_gives_no_bars(world: World) -> None:
    world.remote.tws.exchange.accounts = ("U1234567",)
    with pytest.raises(NotAllowed, match="is a live account"):
        world.feed.begin([MINUTES])


def test_a_gateway_that_is_not_there_is_named(world: World) -> None:
    world.remote.do(lambda tws: tws.refuse_connections())
    world.feed._link.pace = replace(FAST, connect=0.1, patience=0.1)
    with pytest.raises(SourceUnavailable, match="AAPL: no bars from TWS or IB Gateway at 127"):
        world.feed.begin([MINUTES])


def test_history_that_is_refused_while_nobody_waits_for_it_is_named(world: World) -> None:
    world.history("1m", "2026-03-02")
    world.feed.begin([MINUTES])
    world.remote.do(lambda tws: tws.faults.once(Once.PACING))
    world.feed._link.call(lambda ib: world.feed._refill(ib, MINUTES), PATIENCE_SECONDS)
    (event,) = [one for one in world.feed.events() if one[0] == "feed stale"]
    assert "pacing violation" in event[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_nobody_foresaw_in_the_links_thread_ends_the_stream(world: World) -> None:
    world.history("1m", "2026-03-02")
    after = {MINUTES: world.feed.begin([MINUTES])}

    async def take(*_: object) -> pd.DataFrame:
        raise LookupError("of our own making")

    world.feed._take = take  # type: ignore[method-assign]
    world.remote.do(lambda tws: tws.drop())  # the next connection takes everything up
    ending = threading.Timer(6 * PATIENCE_SECONDS, world.stop.set)  # where it goes on for ever
    ending.start()
    with pytest.raises(SourceUnavailable, match="ended by an error of its own"):
        list(world.feed.stream(after, world.stop))
    ending.cancel()


def test_every_intraday_interval_can_be_kept_up_to_date() -> None:
    assert set(KEPT) == set(REACHES) - {"1d"}
    assert all(KEPT[one].size == REACHES[one].size for one in KEPT)
