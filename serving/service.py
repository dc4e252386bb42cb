"""Serving a home: feeds built from its data, and the worker that trades on them.

Owns the composition: which feed from which files or vendor, which broker, which desk.
Knows nothing of how a bar is traded.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pandas as pd

from core.calendar import is_partial, newest_complete
from core.errors import ConfigError, DataError
from core.home import Home
from core.settings import Params, load_params
from serving.brokers.choice import Ask, BrokerName, make_broker, nobody
from serving.challengers import RegistryChallengers
from serving.feeds import Feed, PollingFeed, ReplayFeed
from serving.history import Instrument
from serving.logs import NAME
from serving.results import SessionResult
from serving.session import instruments_of
from serving.standby import wait_for_turn
from serving.switch_page import page_of
from serving.timed_replay import refuse_timers, replayed_parts
from serving.watch import watch_of
from serving.worker import Worker
from sources.catalogue import ingest_command, make_source
from sources.files import read_parquet
from sources.manifest import dataset_name
from sources.port import Source, as_traded

FeedName = Literal["replay", "yfinance", "ibkr"]
VIX_NAMES = ("VIX", "^VIX")  # as the bundled source and Yahoo call it
GRACE = timedelta(minutes=15)  # after a daily close: vendors correct the last prints


def served_agents(params: Params, agents: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the agents to serve: those asked for, else all but demonstrations."""
    if agents:
        for name in agents:
            params.agent(name)
        return tuple(agents)
    served = tuple(name for name, entry in params.agents.items() if not entry.demonstration)
    if not served:
        raise ConfigError("params.yaml has no agent to serve by default; name one with --agents")
    return served


def make_feed(
    home: Home,
    params: Params,
    agents: Sequence[str],
    feed: FeedName = "replay",
    bars_per_second: float | None = None,
) -> Feed:
    """Return a replay of the reserved validated bars, or a feed of the present."""
    if feed == "yfinance":
        refuse_timers(params, agents)
        return polling_feed(params, make_source("yfinance"))
    if feed == "ibkr":
        from serving.ibkr_feed import feed_of

        return feed_of(os.environ, params.validation.calendar)
    speed = params.paper.bars_per_second if bars_per_second is None else bars_per_second
    wanted = _instruments(params, agents)
    frames = {one: validated_bars(home, one) for one in wanted}
    calendar = params.validation.calendar
    parts = {
        one: replayed_parts(home, one, calendar, validated_bars) for one in wanted if one.decide
    }
    vix = next((_closes(home, name) for name in VIX_NAMES if _path(home, name).exists()), None)
    return ReplayFeed(frames, params.split.paper_bars, speed, vix, parts=parts)


def validated_bars(home: Home, one: Instrument) -> pd.DataFrame:
    """Read the validated bars of an instrument; raise ``DataError`` when there are none yet."""
    path = _path(home, dataset_name(one.symbol, one.interval))
    if not path.exists():
        raise DataError(
            f"{path}: no validated bars of {one.symbol} yet; run "
            f"{ingest_command(one.symbol, one.source, one.interval)}"
        )
    return read_parquet(path, remedy="delete it and run `dvc repro`")[0]


def polling_feed(
    params: Params, source: Source, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> PollingFeed:
    """Return a feed of complete bars as traded from a source that is asked again and again."""
    calendar = params.validation.calendar

    def fetch(instrument: Instrument, since: datetime | None) -> pd.DataFrame:
        asked = now()  # what is complete by the time of the answer may not have been in it
        delivery = source.fetch(instrument.symbol, instrument.interval, since, asked)
        bars = as_traded(delivery.frame, delivery.convention)
        settled = asked - (GRACE if instrument.interval == "1d" else timedelta(0))
        while len(bars) and is_partial(
            calendar, instrument.interval, bars.index[-1].to_pydatetime(), settled
        ):
            bars = bars.iloc[:-1]
        return bars

    def expected(instrument: Instrument) -> datetime:
        return newest_complete(calendar, instrument.interval, now() - 2 * GRACE)

    def problem(message: str) -> None:
        logging.getLogger(NAME).warning("feed", extra={"problem": message})

    return PollingFeed(
        fetch,
        params.paper.poll_seconds,
        name=source.name,
        vix=_polled_vix(fetch, now),
        expected=expected,
        problem=problem,
    )


def serve(
    home: Home,
    params: Params,
    agents: Sequence[str] | None = None,
    feed: FeedName | None = None,
    bars_per_second: float | None = None,
    stay: bool = False,
    fresh: bool = False,
    processes: bool = False,
    broker: BrokerName = "paper",
    ask: Ask = nobody,
    standby: bool = False,
) -> SessionResult:
    """Trade until the feed ends (``stay``: until stopped); return the session's result.

    Without a ``feed``, bars come from whom the broker is: a replay on paper, IBKR at IBKR.
    A session that was interrupted is resumed; ``fresh`` opens a new one instead.
    ``processes`` gives each agent a process of its own; ``ask`` puts a question to a person.
    ``standby`` waits until the gateway that holds the lease is gone or silent, and takes its place.
    Raises ``NotAllowed`` where TRADING_MODE, broker, account and a person's word do not agree, or
    another worker serves ``home``.
    """
    chosen = served_agents(params, agents)
    feed = feed or ("ibkr" if broker == "ibkr" else "replay")
    execution = make_broker(broker, os.environ, ask, feed, params.validation.calendar)
    source = make_feed(home, params, chosen, feed, bars_per_second)
    if standby:
        wait_for_turn(home, os.environ)
    desk = None
    if processes:
        from serving.gateway import gateway_of

        desk = gateway_of(home)
    page = page_of(home, os.environ, lambda: datetime.now(UTC))
    try:
        worker = Worker(
            home,
            params,
            chosen,
            source,
            broker=execution,
            desk=desk,
            challengers=RegistryChallengers(home),
            stay=stay,
            fresh=fresh,
            watch=watch_of(home, params.alerts, chosen),
            settings=lambda: load_params(home.params_file),
        )
        return worker.run()
    finally:
        if page is not None:
            page.close()
        if desk is not None:
            desk.end()


def _instruments(params: Params, agents: Iterable[str]) -> list[Instrument]:
    return list(dict.fromkeys(one for name in agents for one in instruments_of(params, name)))


def _path(home: Home, name: str) -> Path:
    return home.data / "validated" / f"{name}.parquet"


def _closes(home: Home, name: str) -> pd.Series:
    return validated_bars(home, Instrument("bundled", name, "1d"))["close"]


def _polled_vix(
    fetch: Callable[[Instrument, datetime | None], pd.DataFrame], now: Callable[[], datetime]
) -> Callable[[], pd.Series | None]:
    """Fetch the VIX once a day, and only for a policy that looks at it."""
    known: dict[str, pd.Series] = {}

    def closes() -> pd.Series | None:
        day = f"{now():%Y-%m-%d}"
        if day not in known:
            frame = fetch(Instrument("yfinance", "^VIX", "1d"), None)
            known.clear()
            known[day] = frame["close"]
        return known[day]

    return closes
