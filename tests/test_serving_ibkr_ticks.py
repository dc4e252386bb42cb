"""Ticks from the fake TWS: the parts of a bar on which an agent with a decision timer decides."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import zmq
from fake_tws import Bar, FakeTws, Remote, Request
from fake_tws.replies import Reply, tick_price, tick_size
from test_serving_ibkr_feed import MONDAY, TEMPO, World, minute, world

from core.home import Home
from core.settings import Interval
from serving.bus import Hub, Line
from serving.gateway import Gateway
from serving.history import FeedBar, Instrument
from serving.timer import Tick
from sources.ibkr import REACHES

__all__ = ["world"]
TIMED = Instrument("ibkr", "AAPL", "1m", 5)
SO_FAR = Bar(minute(3), 152.9, 160.0, 152.8, 160.0, 1100.0)
VOLUME = 8  # IBKR's kind of tick


def say(remote: Remote, price: float, size: float, volume: float) -> None:
    """Tell the last price, its size and the day's volume, as IBKR does, one after the other."""

    def saying(tws: FakeTws) -> None:
        for connection in list(tws.connections):
            for request_id in connection.tickers:
                connection.send(tick_price(request_id, 4, price, size))
                connection.send(tick_size(request_id, 5, size))
                connection.send(tick_size(request_id, VOLUME, volume))

    remote.do(saying)


def say_what_is_held(tws: FakeTws) -> None:
    """Say it, and go on holding back."""
    held = set(tws.faults.held)
    tws.release()
    tws.faults.held |= held


class Tape:
    """Trades of the fake TWS, each waited for until the feed has heard it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.volume = 50_000.0
        self.heard: list[Tick] = []

    def opens(self) -> None:
        """The first word on a subscription: an old price, and the day's volume so far."""
        tickers = self.world.feed._ticks._volume
        self.world.until("subscription", lambda: any(
            one.tickers for one in self.world.remote.tws.connections))  # fmt: skip
        say(self.world.remote, 77.0, 100.0, self.volume)
        self.world.until("volume", lambda: tickers["AAPL"] == self.volume)

    def trade(self, seconds: float, price: float, size: float = 100.0) -> None:
        self.world.at = MONDAY + timedelta(seconds=seconds)
        self.volume += size
        say(self.world.remote, price, size, self.volume)
        count = len(self.heard) + 1

        def heard() -> bool:
            self.heard += self.world.feed.ticks()
            return len(self.heard) == count

        self.world.until("trade", heard)

    def hears(self, instrument: Instrument) -> bool:
        return self.world.feed._ticks._slicers[instrument].hears

    def parts(self) -> list[FeedBar]:
        return [one for one in self.world.shown if one.row]


@pytest.fixture
def tape(world: World) -> Iterator[Tape]:
    world.history("1m", "2026-03-02")
    return Tape(world)


def test_trades_are_shown_part_by_part_and_an_old_or_repeated_price_is_none(tape: Tape) -> None:
    world = tape.world
    world.watch(TIMED)
    tape.opens()
    tape.trade(1.0, 101.0)
    tape.trade(2.0, 103.0, 300.0)
    say(world.remote, 55.0, 100.0, tape.volume)  # no volume came with it
    tape.trade(4.9, 102.0)
    assert world.shown == []
    world.at = MONDAY + timedelta(seconds=5)
    world.until("part", lambda: len(world.shown) == 1)
    tape.trade(11.0, 99.0)
    world.at = MONDAY + timedelta(seconds=15)
    world.until("part", lambda: len(world.shown) == 2)
    first, second = world.shown
    assert (first.time, first.row) == (MONDAY, MONDAY)
    assert first.values == (101.0, 103.0, 101.0, 102.0, 500.0, 0.0, 1.0)
    assert (second.time, second.row) == (MONDAY + timedelta(seconds=10), MONDAY)
    assert second.values == (99.0, 99.0, 99.0, 99.0, 100.0, 0.0, 1.0)
    assert [(one.price, one.shares) for one in tape.heard] == [
        (101.0, 100.0), (103.0, 300.0), (102.0, 100.0), (99.0, 100.0),
    ]  # fmt: skip
    assert world.feed.too_old(second) == ""
    world.at = MONDAY + timedelta(seconds=20)
    assert world.feed.too_old(second) == (
        "AAPL: what was traded from 2026-03-02T15:00:10+00:00 on came 5.0 s after its end; "
        "the timer is 5 s"
    )


def test_every_part_of_the_bar_before_is_over_when_a_session_begins(tape: Tape) -> None:
    began = tape.world.feed.begin([TIMED])
    assert began == minute(0) - timedelta(seconds=5)
    assert tape.world.feed.history(TIMED, began).index[-1] == minute(-1)


def test_what_was_missed_is_heard_whole_and_the_bar_it_ends_in_goes_on(tape: Tape) -> None:
    world = tape.world
    world.watch(TIMED)
    tape.opens()
    tape.trade(1.0, 101.0)
    world.at = MONDAY + timedelta(seconds=5)
    world.until("part", lambda: len(world.shown) == 1)
    world.remote.do(lambda tws: tws.refuse_connections())
    world.remote.do(lambda tws: tws.drop())
    for number in (1, 2, 3):
        world.begins(minute(number), 150.0 + number)
    world.at = minute(3) + timedelta(seconds=28)
    world.remote.listen()
    tape.opens()
    tape.trade(3 * 60 + 31.0, 160.0)
    world.at = minute(3) + timedelta(seconds=35)
    world.until("the part after", lambda: len(tape.parts()) == 2)
    whole = [one for one in world.shown if not one.row]
    # Of 15:00 a part was lived through already; 15:03 is not over: it is what it was so far.
    assert [one.time for one in whole] == [minute(1), minute(2), minute(3)]
    assert whole[-1].values[:5] == (152.9, 153.2, 152.8, 153.0, 1000.0)
    last = tape.parts()[-1]
    assert (last.time, last.row) == (minute(3) + timedelta(seconds=30), minute(3))


def test_a_market_without_trades_is_named_until_there_are_some_again(tape: Tape) -> None:
    world = tape.world
    world.watch(TIMED)
    tape.opens()
    tape.trade(1.0, 101.0)
    world.at = MONDAY + timedelta(seconds=60)
    world.until("first part", lambda: len(world.shown) == 1)
    for number in (1, 2):  # bars go on: they come from another farm
        world.begins(minute(number), 150.0 + number)
    silence = (
        "AAPL: no trade was heard since 2026-03-02T15:00:01+00:00, though the market is open; "
        "nothing is decided until one is"
    )
    world.until("word", lambda: ("feed stale", silence) in world.told)
    world.remote.do(lambda tws: [tws.refuse(one, number, 10197, "a competing session")
                                 for one in tws.connections for number in one.tickers])  # fmt: skip
    said = ("feed stale", f"{silence}; IBKR: a competing session (10197)")
    world.until("reason", lambda: said in world.told)
    assert world.told.count(("feed stale", silence)) == 1
    assert len(tape.parts()) == 1
    tape.trade(125.0, 102.0)
    world.until("end", lambda: ("feed back", "AAPL: trades are heard again") in world.told)


def test_nobody_expects_trades_while_the_market_is_closed(tape: Tape) -> None:
    world = tape.world
    world.watch(TIMED)
    tape.opens()
    tape.trade(1.0, 101.0)
    world.at = MONDAY + timedelta(hours=7)
    world.until(
        "the last bar's absence", lambda: any("newest bar" in text for _, text in world.told)
    )
    assert not [text for _, text in world.told if "no trade was heard" in text]


@pytest.mark.parametrize("code", [1101, 1102])
def test_trades_that_ibkr_lost_are_subscribed_to_again(tape: Tape, code: int) -> None:
    world = tape.world
    world.watch(TIMED)
    tape.opens()
    tape.trade(1.0, 101.0)
    world.at = MONDAY + timedelta(seconds=5)
    world.until("first part", lambda: len(tape.parts()) == 1)
    asked = world.remote.tws.count(Request.MARKET_DATA)
    world.remote.do(lambda tws: tws.announce(1100))
    world.remote.do(lambda tws: tws.announce(code))
    world.until("another subscription", lambda: world.remote.tws.count(
        Request.MARKET_DATA) == asked + 1)  # fmt: skip
    tape.opens()
    tape.trade(11.0, 103.0)
    world.at = MONDAY + timedelta(seconds=15)
    world.until("part", lambda: len(tape.parts()) == 2)
    assert tape.parts()[-1].values[:5] == (103.0, 103.0, 103.0, 103.0, 100.0)


def test_each_of_two_timers_of_a_symbol_knows_what_it_did_not_hear(tape: Tape) -> None:
    """After a lost link the bar that is unfinished goes on from what IBKR has of it, for both.

    One hears again before the other: what is traded in between is in the other's beginning.
    """
    world, slower = tape.world, Instrument("ibkr", "AAPL", "1m", 10)
    world.feed._tempo = replace(TEMPO, answer=60.0)
    world.watch(TIMED, slower)
    tape.opens()
    world.begins(minute(1), 150.0)
    world.remote.do(lambda tws: tws.refuse_connections())
    world.remote.do(lambda tws: tws.drop())
    for number in (2, 3):
        world.begins(minute(number), 150.0 + number)
    world.at = minute(3) + timedelta(seconds=28)
    world.remote.do(lambda tws: tws.faults.held.add(Reply.HISTORICAL_DATA))
    world.remote.listen()
    for what in ("history", "newest bars"):  # of the first timer
        world.until(what, lambda: len(world.remote.tws.held) == 1)
        world.remote.do(say_what_is_held)
    world.until("question of the second timer", lambda: len(world.remote.tws.held) == 1)
    tape.opens()
    tape.trade(3 * 60 + 31.0, 160.0)
    world.remote.do(lambda tws: tws.history["AAPL", "1 min"].__setitem__(-1, SO_FAR))
    world.remote.do(lambda tws: tws.release())
    world.until("second timer", lambda: tape.hears(slower))
    tape.trade(3 * 60 + 38.0, 161.0)
    world.at = minute(3) + timedelta(seconds=40)
    world.until("the parts", lambda: len(tape.parts()) == 3)
    shown = {
        one: [bar.values[:5] for bar in world.shown if bar.instrument == one and (
            bar.time >= minute(3))] for one in (TIMED, slower)
    }  # fmt: skip
    assert shown == {
        TIMED: [
            (152.9, 153.2, 152.8, 153.0, 1000.0),
            (*(160.0,) * 4, 100.0),
            (*(161.0,) * 4, 100.0),
        ],
        slower: [(152.9, 160.0, 152.8, 160.0, 1100.0), (*(161.0,) * 4, 100.0)],
    }


@pytest.mark.parametrize(("interval", "minutes"), [("5m", 5), ("15m", 15)])
def test_bars_of_every_interval_are_shown_as_they_are_completed(
    world: World, interval: Interval, minutes: int
) -> None:
    opened = MONDAY - timedelta(minutes=30)
    world.at = opened + timedelta(minutes=2 * minutes)
    world.history(interval, "2026-02-27")
    world.watch(Instrument("ibkr", "AAPL", interval))
    for number in (2, 3):
        start = opened + timedelta(minutes=number * minutes)
        world.begins(start, 200.0 + number, interval)
    world.until("bar", lambda: len(world.shown) == 1)
    assert world.shown[0].time == opened + timedelta(minutes=2 * minutes)
    assert world.shown[0].values[3] == 202.0
    assert REACHES[interval].size in {size for _, size in world.remote.tws.history}


def test_ticks_are_published_under_a_topic_of_their_own(tmp_path: Any) -> None:
    hub = Hub(0)
    gateway = Gateway(Home(tmp_path), hub=hub)
    agent = Line(hub.addresses, "quick")
    with zmq.Context() as context, context.socket(zmq.SUB) as listener:
        listener.linger = 0
        listener.subscribe("ticks AAPL ")
        listener.connect(hub.addresses["bars"])
        whole = FeedBar(TIMED, MONDAY, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0), MONDAY)
        tick = Tick("AAPL", MONDAY, 101.25, 300.0)
        for _ in range(1000):  # a subscription takes a moment to arrive
            gateway.ticks([tick, Tick("MSFT", MONDAY, 1.0, 1.0)])
            gateway.bars([whole])
            if listener.poll(10) and agent.bars.poll(10):
                break
        topic, content = listener.recv_multipart()
        assert topic == b"ticks AAPL "
        assert content == (
            b'{"symbol":"AAPL","at":"2026-03-02T15:00:00+00:00","price":101.25,"shares":300.0}'
        )
        assert "bars" in agent.next(agent.bars)
    agent.close()
    gateway.end()
