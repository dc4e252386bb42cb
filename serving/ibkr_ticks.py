"""Ticks from Interactive Brokers: trades as market data tells them, cut into parts by the timer.

Owns the subscriptions (``reqMktData``, one a symbol) and what counts as a trade: whatever made the
day's volume grow. So neither the old price that opens a subscription nor a price told twice is one.
IBKR tells at most four times a second, which is what a high or low between two tellings may miss.
Lives in the link's thread; ``take`` and ``heard`` come from others.
"""

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from math import nan

from ib_async import IB, Contract, Ticker

from serving.history import FeedBar, Instrument
from serving.timer import Slicer, Tick

KEPT_AT_MOST = 10_000  # ticks nobody has asked for yet
DELAYED = (3, 4)  # IBKR's types of market data: a quarter of an hour old


class IbkrTicks:
    """Hears the symbols of instruments that have a decision timer."""

    def __init__(self, calendar: str, now: Callable[[], datetime]) -> None:
        self._calendar = calendar
        self._now = now
        self._lock = threading.Lock()
        self._slicers: dict[Instrument, Slicer] = {}
        self._heard: deque[Tick] = deque(maxlen=KEPT_AT_MOST)
        self._subscribed: dict[str, IB] = {}  # by symbol; in the link's thread
        self._volume: dict[str, float] = {}  # of the day

    def keep(
        self, ib: IB, contract: Contract, instrument: Instrument, begun: FeedBar | None
    ) -> None:
        """Hear an instrument on this connection; ``begun``: its unfinished bar so far."""
        symbol = instrument.symbol
        with self._lock:
            slicer = self._slicers.setdefault(instrument, Slicer(instrument, self._calendar))
            if self._subscribed.get(symbol) is not ib or not slicer.is_subscribed:
                slicer.subscribed(self._now(), begun)
        if self._subscribed.get(symbol) is ib:
            return
        self._subscribed[symbol], self._volume[symbol] = ib, nan
        ticker = ib.reqMktData(contract)
        ticker.updateEvent += lambda ticker: self._updated(symbol, ticker)

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

    def _updated(self, symbol: str, ticker: Ticker) -> None:
        before, self._volume[symbol] = self._volume[symbol], ticker.volume
        grown = ticker.volume - before  # NaN until the day's volume was told once
        if not grown > 0.0 or not ticker.last > 0.0 or ticker.marketDataType in DELAYED:
            return
        tick = Tick(symbol, self._now(), float(ticker.last), float(grown))
        with self._lock:
            self._heard.append(tick)
            for instrument, slicer in self._slicers.items():
                if instrument.symbol == symbol:
                    slicer.hear(tick)
