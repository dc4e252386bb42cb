"""Interactive Brokers as a source: historical bars from TWS or IB Gateway, through ``ib_async``.

Owns contracts, bar sizes, how far a request may reach, and Ratchet's names for IBKR's failures.
Nothing awaited lacks a time-out; requests keep IBKR's pace (``sources.pacing``). Regular trading
hours of US stocks and ETFs in US dollars; ``^VIX`` and other ``^`` names are indices of CBOE.

What the prices are, by IBKR's pages on historical bars: ``TRADES`` is adjusted for splits and not
for dividends. Its API tells neither splits nor dividends, so both are absent here: every bar has
ratio 1 and dividend 0, prices and volumes of the past are in today's shares, and returns leave
dividends out. After a split the whole past is delivered anew, and the store notes it as restated.
Volumes are in shares from TWS 985 on, unless its "bypass … in shares" setting says lots.

IBKR's own hours begin on the clock: of a session 9:30, half an hour long, then 10:00, 11:00 … Ours
begin with the session, as everywhere else (``core.calendar``), so they are made of half hours.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
from ib_async import IB, BarData, BarDataList, Contract, Index, StartupFetch, Stock
from ib_async.wrapper import RequestError

from core.bars import BAR_COLUMNS
from core.calendar import session_close, session_open, sessions
from core.errors import SourceUnavailable, UnknownSymbol
from sources.gateway import DATA_CLIENT, USUAL_DATA_CLIENT, address, whole
from sources.pacing import Pacer
from sources.port import Delivery

CALENDAR = "XNYS"
HALF_HOUR = timedelta(minutes=30)  # XNYS opens at half past an hour, in New York and in UTC
NO_DATA = "returned no data"
UNKNOWN = 200  # no security definition
HISTORICAL = 162  # anything wrong with historical data: also "no data"
PACER = Pacer()  # one for the process: IBKR counts all its requests


@dataclass(frozen=True, slots=True)
class Reach:
    """What one request may ask of an interval, and how far back it is worth asking."""

    size: str  # IBKR's name of the bars
    duration: str  # of one request: a few thousand bars, as IBKR asks for
    back: timedelta  # at most, without a ``since``: within the pace of one ingest


REACHES = {
    "1d": Reach("1 day", "10 Y", timedelta(days=20 * 365)),
    "1h": Reach("30 mins", "1 M", timedelta(days=2 * 365)),
    "15m": Reach("15 mins", "1 W", timedelta(days=182)),
    "5m": Reach("5 mins", "1 W", timedelta(days=182)),
    "1m": Reach("1 min", "1 D", timedelta(days=30)),
    "5s": Reach("5 secs", "3600 S", timedelta(days=5)),
}


HOUR_OF_HALVES = {
    "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
    "dividend": "sum", "split_ratio": "last",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    connect: float = 10.0
    answer: float = 60.0  # IBKR takes its time with long histories


class Questions:
    """What is asked of one connection about bars, at IBKR's pace."""

    def __init__(self, ib: IB, seconds: float, pacer: Pacer) -> None:
        """``seconds``: how long one answer may take."""
        self._ib = ib
        self._seconds = seconds
        self._pacer = pacer

    async def contract(self, symbol: str) -> Contract:
        """Return IBKR's own contract of a symbol; raise ``UnknownSymbol``."""
        index = symbol.startswith("^")
        asked = Index(symbol[1:], "CBOE", "USD") if index else Stock(symbol, "SMART", "USD")
        try:
            found = await asyncio.wait_for(self._ib.qualifyContractsAsync(asked), self._seconds)
        except RequestError as error:
            if error.code != UNKNOWN:
                raise refused(symbol, error) from error
            found = []
        contract = found[0] if found else None
        if not isinstance(contract, Contract) or not contract.conId:
            raise UnknownSymbol(f"ibkr: IBKR knows no US stock, ETF or index {symbol!r}")
        return contract

    async def history(
        self, contract: Contract, interval: str, since: datetime | None, now: datetime
    ) -> pd.DataFrame:
        """Ask from ``now`` backwards, piece by piece, until ``since`` or the interval's reach."""
        reach = REACHES[interval]
        earliest = max(since, now - reach.back) if since is not None else now - reach.back
        found: dict[datetime, BarData] = {}
        end = _end_before(interval, now, earliest)
        while end is not None and end > earliest:
            piece = {time_of(bar): bar for bar in await self.bars(contract, reach, end)}
            found = piece | found
            first = min(piece, default=end)
            end = _end_before(interval, first, earliest) if first < end else None
        frame = frame_of(found, interval)
        after = pd.Timestamp(earliest).floor("D") if interval == "1d" else pd.Timestamp(earliest)
        return frame[(frame.index >= after) & (frame.index <= pd.Timestamp(now))]

    async def bars(
        self, contract: Contract, reach: Reach, end: datetime | None, keep: bool = False
    ) -> BarDataList:
        """Return the bars of one request, none where IBKR has none; ``end`` None: up to now.

        ``keep``: the list goes on growing.
        """
        await self._turn(contract, (contract.conId, reach.size, reach.duration, end))
        call = self._ib.reqHistoricalDataAsync(
            *(contract, end or "", reach.duration, reach.size, "TRADES", True),
            formatDate=2,
            keepUpToDate=keep,
            timeout=0,
        )
        try:
            return await asyncio.wait_for(call, self._seconds)
        except RequestError as error:
            if error.code == HISTORICAL and NO_DATA in error.message:
                return BarDataList()  # type: ignore[no-untyped-call]
            raise refused(contract.symbol, error) from error

    async def _turn(self, contract: Contract, request: tuple[object, ...]) -> None:
        """Wait until a request may be sent, and take it as sent."""
        while seconds := self._pacer.delay(contract.conId, request, time.monotonic()):
            await asyncio.sleep(seconds)
        self._pacer.sent(contract.conId, request, time.monotonic())


class Ibkr:
    """TWS or IB Gateway as a source; connects anew for every fetch."""

    name = "ibkr"

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        patience: Patience | None = None,
        pacer: Pacer = PACER,
    ) -> None:
        """Raises ``ConfigError`` for variables that make no sense."""
        self._host, self._port = address(environment)
        self._client_id = whole(environment, DATA_CLIENT, USUAL_DATA_CLIENT)
        self._patience = patience or Patience()
        self._pacer = pacer

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return bars from ``since`` (as far back as ``REACHES`` when ``None``) up to ``now``.

        The newest bar may still be in the making. Raises ``UnknownSymbol`` or
        ``SourceUnavailable``.
        """
        try:
            frame = asyncio.run(self._fetch(symbol, interval, since, now))
        except (OSError, TimeoutError) as error:
            raise unavailable(symbol, self._host, self._port, error) from error
        if frame.empty and since is None:
            raise UnknownSymbol(f"ibkr: IBKR has no {interval} bars of {symbol!r}")
        return Delivery(symbol, interval, frame, "split_adjusted", now.astimezone(UTC))

    async def _fetch(
        self, symbol: str, interval: str, since: datetime | None, now: datetime
    ) -> pd.DataFrame:
        ib = IB()
        ib.RaiseRequestErrors = True
        silence()
        try:
            call = ib.connectAsync(
                self._host,
                self._port,
                clientId=self._client_id,
                timeout=self._patience.connect,
                fetchFields=StartupFetch(0),
            )
            await asyncio.wait_for(call, self._patience.connect + 1.0)
            questions = Questions(ib, self._patience.answer, self._pacer)
            contract = await questions.contract(symbol)
            return await questions.history(contract, interval, since, now)
        finally:
            ib.disconnect()


def _end_before(interval: str, moment: datetime, earliest: datetime) -> datetime | None:
    """Return where the piece before a moment ends; None: there is nothing worth asking for.

    A duration in seconds does not reach over the night: before an opening comes the last close.
    """
    if interval != "5s":
        return moment
    for day in reversed(sessions(CALENDAR, earliest, moment)):
        if session_open(CALENDAR, day) < moment:
            return min(session_close(CALENDAR, day), moment)
    return None


def time_of(bar: BarData) -> datetime:
    """Return a bar's name: its session's date at midnight UTC, or its start."""
    if isinstance(bar.date, datetime):
        return bar.date.astimezone(UTC)
    day: date = bar.date
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def values_of(bar: BarData) -> tuple[float, ...]:
    """Return a bar's numbers in the order of BAR_COLUMNS; no dividend, no split."""
    volume = max(float(bar.volume), 0.0)  # -1 where there is none
    return (bar.open, bar.high, bar.low, bar.close, volume, 0.0, 1.0)


def name_of(bar: BarData, interval: str) -> datetime:
    """Return the name of the bar of ``interval`` that a bar of IBKR is, or is a part of."""
    time = time_of(bar)
    if interval != "1h":
        return time
    return (time - HALF_HOUR).replace(minute=0, second=0, microsecond=0) + HALF_HOUR


def frame_of(bars: Mapping[datetime, BarData], interval: str) -> pd.DataFrame:
    """Return IBKR's bars by their own time as bars of ``interval``, oldest first."""
    times = sorted(bars)
    index = pd.DatetimeIndex(times, tz="UTC", name="time").as_unit("ns")
    values = np.array([values_of(bars[one]) for one in times], dtype=np.float64)
    columns = list(BAR_COLUMNS)
    frame = pd.DataFrame(values.reshape(len(times), len(columns)), index=index, columns=columns)
    if interval != "1h" or frame.empty:
        return frame
    hours = pd.DatetimeIndex([name_of(bars[one], interval) for one in times], name="time")
    whole = frame.groupby(hours.as_unit("ns")).agg(HOUR_OF_HALVES)
    return whole[columns]


def silence() -> None:
    """Keep the library's own messages away: what matters is raised."""
    for name in ("ib_async.ib", "ib_async.wrapper", "ib_async.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def unavailable(symbol: str, host: str, port: int, error: Exception) -> SourceUnavailable:
    told = str(error) or "no answer in time"
    return SourceUnavailable(
        f"ibkr: {symbol}: TWS or IB Gateway at {host}:{port} does not answer ({told}); start it, "
        "log in, or set IB_HOST and IB_PORT"
    )


def refused(symbol: str, error: RequestError) -> SourceUnavailable:
    return SourceUnavailable(f"ibkr: {symbol}: IBKR refuses: {error.message} ({error.code})")
