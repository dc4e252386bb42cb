"""The fake TWS: connections, client ids, who hears what, and a test's hands on all of it.

It turns requests into calls on the exchange, and the exchange's events into messages for those
clients IBKR would tell. Faults are looked up at each step. It runs in the loop that starts it, or
in a thread of its own (``in_thread``) beside processes under test.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from fake_tws import requests
from fake_tws.connection import Connection
from fake_tws.exchange import Exchange
from fake_tws.faults import (
    CORRECTION,
    PARTIAL_SHARES,
    SYSTEM_TEXTS,
    WARNING_TEXT,
    Faults,
    Once,
    Point,
)
from fake_tws.jitter import Jitter, Way
from fake_tws.orders import (
    Charged,
    Event,
    Executed,
    Execution,
    Moved,
    Order,
    Position,
    Refused,
    Reported,
    Stock,
    Ticket,
)
from fake_tws.protocol import Request
from fake_tws.replies import (
    Bar,
    Message,
    commission_report,
    error,
    execution,
    historical_data_update,
    open_order,
    order_status,
    portfolio_value,
    position,
    real_time_bar,
    tick_price,
    tick_size,
)

Answer = TypeVar("Answer")


def system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class FakeTws:
    """A gateway with a market behind it. Bind it with ``running`` or ``in_thread``."""

    exchange: Exchange = field(default_factory=lambda: Exchange(system_clock))
    faults: Faults = field(default_factory=Faults)
    history: dict[tuple[str, str], list[Bar]] = field(default_factory=dict)  # symbol, bar size
    version: int = 178  # newest protocol spoken, 176 to 178
    master_client: int | None = None  # hears every client's orders
    jitter: Jitter | None = field(default_factory=Jitter.from_environment)
    port: int = 0  # 0 until bound; kept over restarts
    connections: list[Connection] = field(default_factory=list)
    seen: list[tuple[int | None, Request]] = field(default_factory=list)  # client id, kind
    frozen: bool = False
    held: list[tuple[Connection, Message]] = field(default_factory=list)
    _amid: list[Event] = field(default_factory=list)  # told within the next answer
    _ways: int = 0  # that there have been
    _server: asyncio.Server | None = None
    _watchers: list[tuple[Request, int, asyncio.Future[None]]] = field(default_factory=list)

    # -- being there

    async def listen(self) -> None:
        """Accept connections; the port is the same after a restart."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def way(self, transport: asyncio.Transport) -> Way | None:
        """Return the uneven way out to a client that has just come, where there is jitter."""
        self._ways += 1
        return self.jitter.way(self._ways, transport.write) if self.jitter else None

    def refuse_connections(self) -> None:
        """Stop listening; those connected stay. ``listen`` ends it."""
        if self._server:
            self._server.close()
            self._server = None

    def stop(self) -> None:
        """End: drop everybody and stop listening. The broker and its books live on."""
        self.refuse_connections()
        self.drop()
        self.frozen = False
        self.held.clear()

    def drop(self, client_id: int | None = None) -> None:
        """Drop one client's connection, or everybody's."""
        for connection in list(self.connections):
            if client_id is None or connection.client_id == client_id:
                connection.drop()

    def freeze(self) -> None:
        """Hang: sockets stay open, nothing is read or said."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on where the freeze began: what came meanwhile is read now."""
        self.frozen = False
        for connection in list(self.connections):
            connection.thaw()

    def release(self, *, newest_first: bool = False) -> None:
        """Say what was held back, in order or in reverse, and hold nothing more."""
        held, self.held = self.held, []
        self.faults.held.clear()
        for connection, message in reversed(held) if newest_first else held:
            connection.send(message)

    async def received(self, kind: Request, count: int = 1) -> None:
        """Wait until so many requests of a kind have been read, from the start."""
        if self.count(kind) < count:
            done = asyncio.get_running_loop().create_future()
            self._watchers.append((kind, count, done))
            await done

    def count(self, kind: Request) -> int:
        return sum(seen == kind for _, seen in self.seen)

    # -- what the market and the broker do

    def trade(self, symbol: str, price: float, volume: float = float("inf")) -> None:
        """Print a trade; what it fills is told, or the link drops before (BEFORE_FILL)."""
        self.tell(self.exchange.trade(symbol, price, volume))

    def auction(self, symbol: str, price: float) -> None:
        partial = self.faults.takes(Once.PARTIAL)
        volume = PARTIAL_SHARES if partial else float("inf")
        self.tell(self.exchange.auction(symbol, price, volume))

    def end_session(self) -> None:
        self.tell(self.exchange.end_session())

    def type_order(self, ticket: Ticket) -> Order:
        """Place an order by hand in TWS."""
        events = self.exchange.place(0, ticket)
        self.tell(events)
        return next(event.order for event in events if isinstance(event, Reported))

    def cancel_by_hand(self, perm_id: int) -> None:
        """Cancel any order in TWS, or as the broker's own risk control."""
        self.tell(self.exchange.cancel_perm_id(perm_id))

    def correct(
        self, exec_id: str, *, price: float | None = None, shares: float | None = None
    ) -> None:
        self.tell(self.exchange.correct(exec_id, price=price, shares=shares))

    def give(self, symbol: str, shares: float, average_cost: float) -> None:
        """Put shares on the account that nobody here bought."""
        self.tell(self.exchange.give(symbol, shares, average_cost))

    def split(self, symbol: str, ratio: float) -> None:
        self.tell(self.exchange.split(symbol, ratio))

    def bar(self, symbol: str, bar: Bar) -> None:
        """Publish a 5-second bar."""
        for connection in list(self.connections):
            for request_id, bars in connection.real_time.items():
                if bars.symbol == symbol:
                    connection.push(real_time_bar(request_id, bar))

    def update_history(self, symbol: str, size: str, bar: Bar) -> None:
        """Begin or renew the newest bar of a history, and tell those who keep it up to date."""
        bars = self.history.setdefault((symbol, size), [])
        if bars and bars[-1].start == bar.start:
            bars.pop()
        bars.append(bar)
        for connection in list(self.connections):
            for request_id, kept in connection.history.items():
                if (kept.symbol, kept.size) == (symbol, size):
                    daily = size.endswith("day")
                    message = historical_data_update(request_id, bar, daily, kept.epoch)
                    connection.push(message)

    def tick(self, symbol: str, kind: int, price: float, size: float) -> None:
        """Publish a bid (1), ask (2) or last (4)."""
        for connection in list(self.connections):
            for request_id, ticking in connection.tickers.items():
                if ticking == symbol:
                    connection.push(tick_price(request_id, kind, price, size))
                    connection.push(tick_size(request_id, {1: 0, 2: 3, 4: 5}[kind], size))

    def announce(self, code: int) -> None:
        """Say a system message to everybody; 1101 loses subscriptions to data, 1300 the socket."""
        text = SYSTEM_TEXTS[code] + (f" - {self.port}" if code == 1300 else "")
        for connection in list(self.connections):
            if code == 1101:
                for subscriptions in (connection.tickers, connection.history, connection.real_time):
                    subscriptions.clear()
            connection.push(error(-1, code, text))
            if code == 1300:
                connection.drop()

    def warn(self, client_id: int, order_id: int, code: int, text: str) -> None:
        """Say something about an order, whatever state it is in."""
        self.tell([Refused(client_id, order_id, code, text)])

    # -- who hears what

    def tell(self, events: list[Event]) -> None:
        """Turn the exchange's events into messages for those IBKR would tell."""
        if any(isinstance(event, Executed) for event in events) and self.faults.drops(
            Point.BEFORE_FILL
        ):
            self.drop()
        for event in events:
            match event:
                case Reported(order):
                    self._tell_order(order)
                case Executed(fill):
                    for connection in self._interested(fill.order):
                        stock = self.stock(fill.order.ticket.symbol)
                        connection.push(execution(-1, fill, stock, connection.version))
                case Charged(fill):
                    for connection in self._interested(fill.order):
                        connection.push(commission_report(fill))
                case Moved(at):
                    self._tell_position(at)
                case Refused(client_id, request_id, code, text):
                    for connection in self.of(client_id):
                        connection.push(error(request_id, code, text))
        for event in events:
            if isinstance(event, Executed):
                self._after_fill(event.execution)

    def tell_amid_answer(self, events: list[Event]) -> None:
        """Say the errors at once, and the rest when open orders are asked for next.

        Pushed orders look like those of the answer they fall into.
        """
        self.tell([event for event in events if isinstance(event, Refused)])
        self._amid += [event for event in events if not isinstance(event, Refused)]

    def end_amid_answer(self, perm_id: int) -> None:
        """Cancel an order in TWS: its status is told at once, the order amid the next answer."""
        events = self.exchange.cancel_perm_id(perm_id)
        self.faults.once(Once.UNSHOWN)
        self.tell(events)
        self._amid += [event for event in events if isinstance(event, Reported)]

    def amid_answer(self) -> list[Event]:
        """Return what falls into an answer that begins now."""
        events, self._amid = self._amid, []
        return events

    def _after_fill(self, fill: Execution) -> None:
        if self.faults.takes(Once.WARN):
            order = fill.order
            self.warn(order.client_id, order.ticket.order_id, 399, WARNING_TEXT)
        if self.faults.takes(Once.CORRECT):
            self.correct(fill.exec_id, price=round(fill.price + CORRECTION, 2))

    def of(self, client_id: int) -> list[Connection]:
        return [each for each in self.connections if each.client_id == client_id]

    def stock(self, symbol: str) -> Stock:
        found = self.exchange.stock(symbol)
        if found is None:
            raise LookupError(f"{symbol} is not among {self.exchange.stocks}")
        return found

    def refuse(self, connection: Connection, request_id: int, code: int, text: str) -> None:
        connection.send(error(request_id, code, text))

    def handle(self, connection: Connection, kind: Request, fields: list[str]) -> None:
        """Answer one request."""
        self.seen.append((connection.client_id, kind))
        if kind not in self.faults.unanswered:
            requests.answer(self, connection, kind, fields)
        reached = [watch for watch in self._watchers if self.count(watch[0]) >= watch[1]]
        for watch in reached:
            self._watchers.remove(watch)
            if not watch[2].done():
                watch[2].set_result(None)

    def _interested(self, order: Order) -> list[Connection]:
        """The client that placed an order, the master, and client 0 for what is typed in TWS."""
        typed = order.ticket.order_id == 0
        return [
            each
            for each in self.connections
            if each.client_id is not None
            and (
                each.client_id == self.master_client
                or (each.client_id == order.client_id and (not typed or each.auto_bind))
            )
        ]

    def _tell_order(self, order: Order) -> None:
        interested = self._interested(order)
        if interested and order.status != "Inactive" and self.faults.takes(Once.NO_PERM_ID):
            for connection in interested:
                connection.push(order_status(order, perm_id=0, status="ApiPending"))
        unshown = self.faults.takes(Once.UNSHOWN)
        for connection in interested:
            if unshown:
                connection.push(order_status(order))
            else:
                self.show_order(connection, order, pushed=True)

    def show_order(self, connection: Connection, order: Order, *, pushed: bool = False) -> None:
        """Say an order as it is: openOrder, then orderStatus."""
        stock = self.stock(order.ticket.symbol)
        connection.send(open_order(order, stock, connection.version), pushed=pushed)
        connection.send(order_status(order), pushed=pushed)

    def _tell_position(self, at: Position) -> None:
        stock = self.stock(at.symbol)
        price = self.exchange.prices.get(at.symbol, at.average_cost)
        for connection in self.connections:
            if connection.positions:
                connection.push(position(at, stock))
            if connection.account_updates == at.account:
                connection.push(portfolio_value(at, stock, price))


@asynccontextmanager
async def running(tws: FakeTws) -> AsyncIterator[FakeTws]:
    """Serve in this loop until the block ends."""
    await tws.listen()
    try:
        yield tws
    finally:
        tws.stop()


@dataclass(frozen=True)
class Remote:
    """A fake TWS in a thread of its own: everything is done in that thread."""

    tws: FakeTws
    loop: asyncio.AbstractEventLoop
    timeout_seconds: float = 10.0

    @property
    def port(self) -> int:
        return self.tws.port

    def do(self, act: Callable[[FakeTws], Answer]) -> Answer:
        """Do something to it and return what that returned."""

        async def acting() -> Answer:
            return act(self.tws)

        return asyncio.run_coroutine_threadsafe(acting(), self.loop).result(self.timeout_seconds)

    def listen(self) -> None:
        asyncio.run_coroutine_threadsafe(self.tws.listen(), self.loop).result(self.timeout_seconds)

    def received(self, kind: Request, count: int = 1) -> None:
        """Wait until so many requests of a kind have been read."""
        waiting = self.tws.received(kind, count)
        asyncio.run_coroutine_threadsafe(waiting, self.loop).result(self.timeout_seconds)


@contextmanager
def in_thread(tws: FakeTws) -> Iterator[Remote]:
    """Serve in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-tws")
    thread.start()
    remote = Remote(tws, loop)
    try:
        remote.listen()
        yield remote
    finally:
        remote.do(FakeTws.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
