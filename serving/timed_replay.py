"""A decision timer on replayed bars: which finer bars of a home its parts are made of.

Owns that choice, and the refusal where there is nothing to decide on between two closes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from core.errors import ConfigError
from core.home import Home
from core.settings import INTERVAL_SECONDS, Interval, Params
from serving.history import FeedBar, Instrument
from serving.timer import parts_of
from sources.catalogue import ingest_command
from sources.manifest import dataset_name

ReadBars = Callable[[Home, Instrument], pd.DataFrame]


def replayed_parts(
    home: Home, one: Instrument, calendar: str, read: ReadBars
) -> tuple[FeedBar, ...]:
    """Return the parts of every validated bar finer than ``one``; raise ``ConfigError``."""
    fit = [i for i, seconds in INTERVAL_SECONDS.items() if one.decide % seconds == 0]
    if not fit:
        raise ConfigError(
            f"{one.symbol}: a replay has bars of 5 s at the finest and cannot decide every "
            f"{one.decide} s; trade it on ticks with --feed ibkr, or set `decide` to whole 5 s"
        )
    for interval in fit:
        finer: Interval = interval  # type: ignore[assignment]
        name = dataset_name(one.symbol, finer)
        if (home.data / "validated" / f"{name}.parquet").exists():
            bars = read(home, replace(one, interval=finer, decide=0))
            return tuple(parts_of(bars, one, calendar))
    command = ingest_command(one.symbol, one.source, fit[0])
    raise ConfigError(
        f"{one.symbol}: a replay that decides every {one.decide} s needs finer bars than "
        f"{one.interval}; run {command}"
    )


def refuse_timers(params: Params, agents: Sequence[str]) -> None:
    """Raise ``ConfigError`` for an agent with a timer on a feed of bars alone."""
    for name in agents:
        if decide := params.agent(name).decide:
            raise ConfigError(
                f"{name}: decide: {decide} needs ticks, and yfinance has bars only; trade it with "
                "--feed ibkr, or take `decide` out of params.yaml"
            )
