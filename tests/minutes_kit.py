"""Minutes: a gateway's worker on 1-minute bars of several stocks, beside a fake TWS.

Owns the bars, the market that plays them one by one, and the worker in a process of its own, so
that neither holds up the other. Used by ``bench.latency`` and ``bench.soak`` and their tests.
"""

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from fake_tws import Exchange, FakeTws, Order, Stock, in_thread
from serving_kit import params

from core.accounts import State
from core.bars import BAR_COLUMNS, Bar
from core.errors import BrokerUnavailable
from core.home import Home
from core.settings import Params
from features.spec import spec_from
from serving.agent import Answer
from serving.brokers.ibkr import Access, IbkrBroker, Pace
from serving.closing import Close
from serving.deciding import LocalDesk, Trader
from serving.feeds import Calm
from serving.following import Published
from serving.history import FeedBar, History, Instrument
from serving.worker import Worker

SESSION_BARS = 390
OPEN_UTC = timedelta(hours=14, minutes=30)
PATIENCE_SECONDS = 120.0  # only ever spent by a run that fails
PACE = Pace(
    retry=0.02, heartbeat=0.2, patience=3.0, connect=5.0, remind=0.5, messages_per_second=100_000
)
CASH = 100_000.0


def symbols(count: int) -> tuple[str, ...]:
    return tuple(f"S{number}" for number in range(count))


def instrument(symbol: str) -> Instrument:
    return Instrument("bundled", symbol, "1m")


def agent_of(symbol: str) -> str:
    return f"agent-{symbol.lower()}"


def minute_bars(seed: int, sessions: int) -> pd.DataFrame:
    """A random walk of whole sessions; prices in cents, each open the close before."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2026-01-05", periods=sessions, tz="UTC")
    minutes = pd.to_timedelta(np.arange(SESSION_BARS), unit="min") + OPEN_UTC
    index = pd.DatetimeIndex([day + minute for day in days for minute in minutes], name="time")
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0006, len(index)))), 2)
    opened = np.concatenate([[close[0]], close[:-1]])
    frame = pd.DataFrame({"open": opened, "close": close}, index=index.as_unit("ns"))
    frame["high"] = np.round(frame[["open", "close"]].max(axis=1) * 1.0005, 2)
    frame["low"] = np.round(frame[["open", "close"]].min(axis=1) * 0.9995, 2)
    frame["volume"], frame["dividend"], frame["split_ratio"] = 1e5, 0.0, 1.0
    return frame[list(BAR_COLUMNS)]


def settings(count: int, **sections: object) -> Params:
    agents = {agent_of(symbol): {"symbol": symbol, "interval": "1m"} for symbol in symbols(count)}
    return params(agents=agents, **sections)


@dataclass
class MinuteExchange(Exchange):
    """Moves what is done and over to an archive each night: IBKR tells only of the day."""

    past_orders: list[Order] = field(default_factory=list)
    past_executions: list[Any] = field(default_factory=list)

    def end_day(self) -> None:
        for perm_id, order in list(self.orders.items()):
            if order.done:
                self.past_orders.append(self.orders.pop(perm_id))
        self._own_ids = {key: perm for key, perm in self._own_ids.items() if perm in self.orders}
        self.past_executions += self.executions.values()
        self.executions.clear()


class MinuteMarket:
    """Plays the bars of all stocks, one minute at a time; a minute is played once."""

    def __init__(
        self, frames: Mapping[str, pd.DataFrame], first: int, told_bars: int | None = None
    ) -> None:
        """``told_bars``: so many bars are a night apart, after which executions are told no more;
        None: sessions are."""
        self.frames = frames
        self._told_bars = told_bars
        clock = next(iter(frames.values())).index
        self._times = [time.to_pydatetime() for time in clock]
        self._prices = {
            symbol: frame[["open", "low", "high", "close"]].to_numpy()
            for symbol, frame in frames.items()
        }
        self.at: datetime = self._times[first - 1]
        stocks = tuple(Stock(1000 + n, symbol) for n, symbol in enumerate(frames))
        self.exchange = MinuteExchange(lambda: self.at, stocks, cash=CASH * len(frames))
        self.tws = FakeTws(self.exchange)
        self.port = 0
        self._done = first - 1

    def play(self, place: int, tws: FakeTws) -> None:
        if place <= self._done:
            return
        self._done = place
        by_bars = self._told_bars and place % self._told_bars == 0
        if by_bars or self._times[place].date() != self.at.date():
            self.exchange.end_day()
            tws.seen.clear()
        self.at = self._times[place] + timedelta(seconds=1)
        for symbol, prices in self._prices.items():
            for price in prices[place]:
                tws.trade(symbol, float(price))


@dataclass
class Clock:
    """What time it is for whoever lives through the minutes."""

    at: datetime

    def __call__(self) -> datetime:
        return self.at


class Desk(LocalDesk):
    """Seats the traders it is given, and tells the feed when a step has been lived through."""

    def __init__(self, seat: Callable[[str, Any, History, History], Any]) -> None:
        self._seat = seat
        self.passed = Event()
        self.awaited = 0  # closes

    def trader(
        self, name: str, version: str, bundle: Any, signal: History, traded: History, vix: Any
    ) -> Trader:
        trader: Trader = self._seat(name, bundle, signal, traded)
        return trader

    def bars(self, bars: Sequence[FeedBar]) -> None:
        if not bars:
            self.passed.set()

    def closed(self, close: Close) -> None:
        self.awaited -= 1
        if self.awaited <= 0:
            self.passed.set()


class Minutes(Calm):
    """Implements ``serving.feeds.Feed``: the next minute once this one is in the books."""

    name = "minutes"

    def __init__(
        self,
        frames: Mapping[str, pd.DataFrame],
        first: int,
        control: Any,
        broker: IbkrBroker,
        desk: Desk,
        clock: Clock,
        leaving: Callable[[], None] = lambda: None,
        pause: float = 0.0,
    ) -> None:
        """``pause``: seconds before a minute, in which its news are told; 0: they are asked for."""
        self._frames = {instrument(symbol): frame for symbol, frame in frames.items()}
        self._first = first
        self._control, self._broker, self._desk, self._leaving = control, broker, desk, leaving
        self._clock = clock
        self._pause = pause

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        moment: datetime = self._frames[instruments[0]].index[self._first - 1].to_pydatetime()
        return moment

    def history(self, one: Instrument, until: datetime) -> pd.DataFrame:
        return self._frames[one].loc[:until]

    def vix(self) -> None:
        return None

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        clock = next(iter(self._frames.values())).index
        times = [time.to_pydatetime() for time in clock]
        values = {one: frame.to_numpy() for one, frame in self._frames.items()}
        newest = int(clock.searchsorted(pd.Timestamp(min(after.values()))))
        for place in range(newest + 1, len(clock)):
            self._control.send(place)
            self._control.recv()
            self._clock.at = times[place] + timedelta(seconds=1)
            if self._pause:
                stop.wait(self._pause)
                yield from self._passed(())
                self._rest(stop)
            else:
                yield from self._settled(stop)
            bars = tuple(
                FeedBar(one, times[place], tuple(map(float, numbers[place])))
                for one, numbers in values.items()
            )
            self._desk.awaited = len(bars)
            yield from self._passed(bars)
            if stop.is_set():
                return
        yield from self._settled(stop)

    def _passed(self, bars: tuple[FeedBar, ...]) -> Iterator[tuple[FeedBar, ...]]:
        self._desk.passed.clear()
        if bars:
            self._leaving()
        yield bars
        if not self._desk.passed.wait(PATIENCE_SECONDS):
            raise TimeoutError("the worker did not live through a step")

    def _rest(self, stop: Event) -> None:
        """Wait until the link has no question on its way: between real minutes there is time."""
        asking, until = self._broker._asking, time.monotonic() + PATIENCE_SECONDS
        while asking.doubt or asking.turn.locked():
            if stop.wait(0.001):
                return
            if time.monotonic() > until:
                raise TimeoutError("the broker is asked without end")

    def _settled(self, stop: Event) -> Iterator[tuple[FeedBar, ...]]:
        """Let the worker hear what this minute brought."""
        while not stop.is_set():
            try:
                self._broker.ask()
            except BrokerUnavailable:
                self._broker.wait_for_news(0.01)
                continue
            yield from self._passed(())
            return


class OneModel:
    """Implements ``serving.following.Shelf``: the same bundle for everybody."""

    def __init__(self, bundle: Any) -> None:
        self._bundle = bundle

    def production(self, agent: str) -> Published:
        return Published("1", self._bundle.sha256)

    def load(self, agent: str, published: Published) -> Any:
        return self._bundle


def plain_bundle(chosen: Params) -> Any:
    """What a worker asks of a bundle besides decisions."""
    spec = spec_from(chosen, interval="1m")
    return SimpleNamespace(spec=spec, sha256="b" * 64, card=SimpleNamespace(to_json=dict))


class Dice:
    """Decides by lot: mostly to hold; the same lot for the same bar, whatever happened."""

    version = "1"

    def __init__(self, name: str, bundle: Any, traded: History, share: float) -> None:
        self.name, self.bundle = name, bundle
        self._traded, self._share = traded, share

    def see(self) -> None:
        """Nothing to remember."""

    def decide(self, state: State, bar: Bar) -> Answer:
        rng = np.random.default_rng([len(self._traded), *self.name.encode()])
        weight = math.nan
        if rng.random() < self._share:
            weight = float(rng.choice([0.0, 0.2, 0.4, 0.6, 0.8]))
        return Answer(b"", "0" * 64, weight, 0.0, 1.0, ())


Work = Callable[[Path, int, Any], None]  # folder, port, control


@contextmanager
def working(root: Path, market: MinuteMarket, work: Work) -> Iterator[tuple[Any, Connection, Any]]:
    """Run ``work`` in a process beside the market; yield process, control and the fake's hands."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with in_thread(market.tws) as remote:
        process = context.Process(target=work, args=(root, remote.port, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            yield process, ours, remote
        finally:
            process.join(PATIENCE_SECONDS)
            process.kill()
            ours.close()


def make_worker(
    root: Path,
    port: int,
    control: Any,
    chosen: Params,
    frames: Mapping[str, pd.DataFrame],
    first: int,
    bundle: Any,
    seat: Callable[[str, Any, History, History], Any],
    leaving: Callable[[], None] = lambda: None,
    pause: float = 0.0,
) -> Worker:
    """Return a worker on minutes, its broker being IBKR's."""
    desk = Desk(seat)
    clock = Clock(next(iter(frames.values())).index[first - 1].to_pydatetime())
    broker = IbkrBroker(Access(port=port, client_id=7), PACE, clock)
    feed = Minutes(frames, first, control, broker, desk, clock, leaving, pause)
    agents = [agent_of(symbol) for symbol in frames]
    return Worker(
        Home(root / "home"), chosen, agents, feed, shelf=OneModel(bundle), broker=broker,
        desk=desk, environment={},
    )  # fmt: skip
