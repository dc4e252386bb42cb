"""One client's socket: its handshake, what it subscribed to, and the way out to it.

It knows the wire and the faults of the way; what a request means is the server's.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fake_tws.jitter import Way
from fake_tws.protocol import BadRequest, Inbox, Request, frame, newest_version
from fake_tws.replies import Message, handshake

if TYPE_CHECKING:
    from fake_tws.server import FakeTws


@dataclass(frozen=True, slots=True)
class Bars:
    """A subscription to bars of a stock: keepUpToDate, or 5-second bars."""

    symbol: str
    size: str  # as asked for: "1 day", "5 mins"
    epoch: bool = False  # dates as seconds since 1970 (formatDate 2)


class Connection(asyncio.Protocol):
    """A socket, from its opening to its loss."""

    def __init__(self, tws: "FakeTws") -> None:
        self._tws = tws
        self._inbox = Inbox()
        self._transport: asyncio.Transport | None = None
        self._waiting: list[list[str]] = []  # what a frozen gateway has not read
        self._unsent: list[tuple[Message, bool]] = []  # what a frozen gateway has not said
        self._way: Way | None = None  # uneven, where the fake has jitter
        self.version = 0  # agreed on; 0 before the handshake
        self.client_id: int | None = None  # None before startApi
        self.auto_bind = False  # orders typed into TWS are told (client 0)
        self.positions = False
        self.account_updates: str | None = None
        self.tickers: dict[int, str] = {}  # request id to symbol
        self.history: dict[int, Bars] = {}  # request id to keepUpToDate subscription
        self.real_time: dict[int, Bars] = {}
        self.historical_at: list[tuple[float, tuple[str, ...]]] = []  # seconds, what was asked

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tws.connections.append(self)
        self._way = self._tws.way(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._way:
            self._way.stop()
        if self in self._tws.connections:
            self._tws.connections.remove(self)

    def data_received(self, data: bytes) -> None:
        for fields in self._inbox.feed(data):
            if self._tws.frozen:
                self._waiting.append(fields)
            elif self.open:
                self._read(fields)

    def push(self, message: Message) -> None:
        """Say something that nobody asked for."""
        self.send(message, pushed=True)

    def send(self, message: Message, *, pushed: bool = False) -> None:
        """Say something, unless a fault is in its way."""
        if self._tws.frozen:
            self._unsent.append((message, pushed))
            return
        kind = int(message[0])
        if kind in self._tws.faults.held:
            self._tws.held.append((self, message))
            return
        for _ in range(2 if kind in self._tws.faults.doubled else 1):
            self._write(message, pushed)

    def _write(self, message: Message, pushed: bool = False) -> None:
        if self._transport and self._way:
            self._way.say(message, pushed=pushed)
        elif self._transport:
            self._transport.write(frame(message))

    def thaw(self) -> None:
        """Say what was kept back, then read what came meanwhile."""
        unsent, self._unsent = self._unsent, []
        waiting, self._waiting = self._waiting, []
        for message, pushed in unsent:
            self.send(message, pushed=pushed)
        for fields in waiting:
            if self.open:
                self._read(fields)

    def drop(self) -> None:
        """Close the socket; what was said before still arrives."""
        if self in self._tws.connections:
            self._tws.connections.remove(self)
        if self._transport:
            if self._way:
                self._way.flush()
            self._transport.close()
            self._transport = None

    def _read(self, fields: list[str]) -> None:
        if not self.version:
            if not self._tws.faults.hang_handshake:
                self.version = min(self._tws.version, newest_version(fields[0]))
                self._write(handshake(self.version, self._tws.exchange.now()))
            return
        try:
            self._tws.handle(self, _kind(fields), fields)
        except BadRequest as problem:
            self._tws.refuse(self, -1, 320, f"Error reading request. {problem}")


def _kind(fields: list[str]) -> Request:
    try:
        return Request(int(fields[0]))
    except ValueError:
        raise BadRequest(f"{fields[0]} is no kind of request spoken here") from None
