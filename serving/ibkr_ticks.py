"""Ticks from Interactive Brokers: trades as market data tells them, cut into parts by the timer.

Owns the subscriptions (``reqMktData``, one a symbol), what counts as a trade: whatever made the
day's volume grow, and since when none was heard. So neither the old price that opens a subscription
nor a price told twice is a trade, nor one a quarter of an hour old. IBKR tells at most four times a
second, which is what a high or low between two tellings may miss.
Lives in the link's thread; ``take`` and ``heard`` come from others.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import nan
from typing import Any

from ib_async import IB, Contract, Ticker

from serving.history import FeedBar, Instrument
from serving.timer import Slicer, Tick

KEPT_AT_MOST = 10_000  # ticks nobody has asked for yet
DELAYED = (3, 4)  # IBKR's types of market data: a quarter of an hour old
# What IBKR says where it tells no trades: too many subscriptions, none paid for, delayed ones only,
# another log-in of the same user that takes them.
WITHHELD = frozenset({101, 354, 10089, 10090, 10167, 10168, 10186, 10197})


@dataclass(frozen=True, slots=True)
class _Subscription:
    """One symbol's, on one connection."""

    ib: IB
    contract: Contract
    ticker: Ticker
    hear: Callable[[Ticker], None]


class IbkrTicks:
    """Hears the symbols of instruments that have a decision timer."""

    def __init__(self, calendar: str, now: Callable[[], datetime]) -> None:
        self._calendar = calendar
        self._now = now
        self._lock = threading.Lock()
        self._slicers: dict[Instrument, Slicer] = {}
        self._heard: deque[Tick] = deque(maxlen=KEPT_AT_MOST)
        self._subscribed: dict[str, _Subscription] = {}  # by symbol; in the link's thread
        self._followed: dict[Instrument, _Subscription] = {}  # whose parts are of which
        self._volume: dict[str, float] = {}  # of the day
        self._newest: dict[str, datetime] = {}  # when a trade was heard last, by symbol
        self._withheld = ""  # IBKR's newest word on why there are none

    def keep(
        self, ib: IB, contract: Contract, instrument: Instrument, begun: FeedBar | None
    ) -> None:
        """Hear an instrument on this connection; ``begun``: its unfinished bar so far."""
        symbol = instrument.symbol
        known = self._subscribed.get(symbol)
        if known is None or known.ib is not ib:
            known = self._subscribed[symbol] = self._subscribe(ib, contract, symbol)
        if self._followed.get(instrument) is known:
            return
        self._followed[instrument] = known
        with self._lock:
            slicer = self._slicers.setdefault(instrument, Slicer(instrument, self._calendar))
            slicer.subscribed(self._now(), begun)

    def lost(self) -> None:
        """Give up every subscription: IBKR may have lost them, on a connection that lives on."""
        for one in self._subscribed.values():
            one.ticker.updateEvent -= one.hear
            if one.ib.isConnected():
                one.ib.cancelMktData(one.contract)
        self._subscribed.clear()
        with self._lock:  # each hears again from its own ``keep`` on, not from another's
            for slicer in self._slicers.values():
                slicer.lost()

    def refused(self, code: int, text: str) -> None:
        """Take note of what IBKR says of a request."""
        if code in WITHHELD:
            self._withheld = f"{text} ({code})"

    def silent(self, instrument: Instrument, now: datetime, seconds: float) -> str:
        """Say since when no trade was heard, though the market is open; empty: it is as it should.

        ``seconds`` without one are nothing out of the ordinary.
        """
        symbol = instrument.symbol
        with self._lock:
            slicer = self._slicers.get(instrument)
            since = slicer.listening_since(now) if slicer else None
            if since is None:
                return ""
            since = max(since, self._newest.get(symbol, since))
            if (now - since).total_seconds() < seconds:
                return ""
            why = f"; IBKR: {self._withheld}" if self._withheld else ""
        return (
            f"{symbol}: no trade was heard since {since.isoformat(timespec='seconds')}, though the "
            f"market is open; nothing is decided until one is{why}"
        )

    def take(self, instrument: Instrument, now: datetime, lived: datetime) -> list[FeedBar]:
        """Return the parts that are over and were not ``lived`` through, oldest first."""
        with self._lock:
            slicer = self._slicers.get(instrument)
            return slicer.take(now, lived) if slicer else []

    def due(self, now: datetime, most: float) -> float:
        """Return the seconds until a part is over, ``most`` at most."""
        with self._lock:
            return min([most, *(slicer.due(now) for slicer in self._slicers.values())])

    def heard(self) -> tuple[Tick, ...]:
        """Return the trades since this was asked last."""
        with self._lock:
            ticks = tuple(self._heard)
            self._heard.clear()
        return ticks

    def _subscribe(self, ib: IB, contract: Contract, symbol: str) -> _Subscription:
        self._volume[symbol] = nan

        def hear(ticker: Any) -> None:
            self._updated(symbol, ticker)

        ticker = ib.reqMktData(contract)
        ticker.updateEvent += hear
        return _Subscription(ib, contract, ticker, hear)

    def _updated(self, symbol: str, ticker: Ticker) -> None:
        before, self._volume[symbol] = self._volume[symbol], ticker.volume
        grown = ticker.volume - before  # NaN until the day's volume was told once
        if ticker.marketDataType in DELAYED:
            self._withheld = "tells prices a quarter of an hour old; subscribe to market data"
            return
        if not grown > 0.0 or not ticker.last > 0.0:
            return
        tick = Tick(symbol, self._now(), float(ticker.last), float(grown))
        with self._lock:
            self._heard.append(tick)
            self._newest[symbol], self._withheld = tick.at, ""
            for instrument, slicer in self._slicers.items():
                if instrument.symbol == symbol:
                    slicer.hear(tick)
