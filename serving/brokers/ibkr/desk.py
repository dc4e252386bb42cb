"""The desk: what the link's thread, which hears, and the worker's, which calls, both touch.

Owns the order book's lock, the events nobody has taken yet, and whether orders can be sent. The
lock is never held while waiting. Knows neither what IBKR is asked nor what is ordered.
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from serving.brokers.ibkr.book import OrderBook

ACCOUNT_ZONE = ZoneInfo("US/Eastern")  # executions are kept for its day


class Desk:
    """One broker's; made before its link starts."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.book = OrderBook()
        self.lock = threading.Lock()  # of book and events
        self.ready = threading.Event()  # linked, and everything has been asked
        self.said = threading.Event()  # something, since the worker looked
        self.changed = asyncio.Event()  # the same, for what waits in the link's thread
        self.account = ""  # that is logged in; the link's thread alone
        self.events: list[tuple[str, str]] = []  # kind and detail, not yet taken

    def tell(self, kind: str, detail: str) -> None:
        """Keep an event for ledger and alerts."""
        with self.lock:
            self.events.append((kind, detail))
        self.said.set()

    def stir(self) -> None:
        """Let everybody who waits for a word look again; in the link's thread."""
        self.changed.set()
        self.said.set()

    def day(self) -> str:
        """Return the account's day, as an ISO date."""
        return f"{self.now().astimezone(ACCOUNT_ZONE):%Y-%m-%d}"
