"""The link: one thread that keeps a connection to TWS or IB Gateway, and knows when it has none.

Owns ``ib_async``'s event loop, connecting, the heartbeat and the pace of requests. Every connection
is a new ``IB``: what an old one knew froze when it broke. Nothing awaited here lacks a time-out,
and no handler blocks. What a connection is used for is its owner's (``Owner``); it knows no orders.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ib_async import IB, Fill, StartupFetch
from ib_async.wrapper import RequestError

from core.errors import BrokerError, BrokerUnavailable, NotAllowed
from serving.brokers.ibkr.access import Access
from sources.ibkr import silence

Answer = TypeVar("Answer")
CUT_OFF = {1100, 2110}  # the gateway lost IBKR; our socket to it lives on
RESTORED = {1101, 1102}  # 1101: subscriptions are gone


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of everything that waits; the defaults tell of a lost link within 15 s."""

    retry: float = 10.0  # between attempts to connect
    heartbeat: float = 10.0  # between questions for the time
    patience: float = 5.0  # for one answer
    connect: float = 15.0  # for a connection to come up
    remind: float = 60.0  # between alerts while there is no link
    look: float = 20.0  # between looks at the account when nobody asked: others act on it too
    untold: float = 60.0  # from "filled" to the executions of it, at most
    messages_per_second: int = 40  # IBKR takes 50, ib_async holds back past 45

    @property
    def call(self) -> float:
        """For all that one call asks."""
        return 5.0 * self.patience


class Owner(Protocol):
    """Who uses the link; all of it is called in the link's thread."""

    async def came_up(self, ib: IB) -> None:
        """Take up everything anew; what raises here breaks the connection."""

    def went_down(self) -> None:
        """Stop relying on anything."""

    def heard(self, ib: IB, order_id: int, code: int, text: str) -> None:
        """Note that something was said about an order."""

    def filled(self, fill: Fill) -> None:
        """Take a fill, or one whose fee is now known."""

    def tell(self, kind: str, detail: str) -> None:
        """Take an event for ledger and alerts."""

    def look(self, ib: IB) -> None:
        """Take a look at the account, which others may use too."""


class Link:
    """Keeps connecting until closed."""

    def __init__(self, access: Access, owner: Owner, pace: Pace | None = None) -> None:
        self._access = access
        self._owner = owner
        self.pace = pace or Pace()
        self._loop: asyncio.AbstractEventLoop  # from the start on
        self._thread = threading.Thread(target=self._run, name="ibkr", daemon=True)
        self._door = threading.Lock()  # what comes into the loop from other threads, until
        self._over = False  # it will run nothing more
        self._ib: IB | None = None
        self._closing = False
        self._lost: asyncio.Event | None = None
        self._sent: deque[float] = deque()
        self._told_at: float | None = None
        self._reason = ""
        self.cut_off = False  # connected to a gateway that has lost IBKR
        self.era = 0  # changes whenever it loses IBKR and when IBKR is back
        self._tasks: set[asyncio.Task[Any]] = set()  # that end with the connection
        self.refused: NotAllowed | None = None  # why no attempt will ever be made again
        self._unforeseen: BaseException | None = None  # what a task ended with, not caught there

    @property
    def died(self) -> bool:
        """Whether the thread ended by an error that nothing here expects: no link ever again."""
        begun = self._thread.ident is not None and not self._thread.is_alive()
        return begun and not self._closing and self.refused is None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def close(self) -> None:
        """End the thread; hangs at most as long as a connection takes to come up."""
        if self._thread.is_alive():
            self._closing = True
            self._hand_over(self._break, "closed")
            self._thread.join(self.pace.connect + self.pace.patience)

    def call(self, ask: Callable[[IB], Awaitable[Answer]], seconds: float) -> Answer:
        """Run something in the link's thread from another.

        Raises ``BrokerUnavailable`` without an answer, ``NotAllowed`` once no link may be made.
        """

        async def asking() -> Answer:
            if self._ib is None:
                raise BrokerUnavailable(f"IBKR: no link ({self._reason or 'not connected yet'})")
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                async with asyncio.timeout(seconds):  # in this task: an order waits for no other
                    return await ask(self._ib)
            except asyncio.CancelledError as error:
                raise ConnectionError(self._reason or "connection lost") from error
            finally:
                self._tasks.discard(task)

        with self._door:
            future = None if self._over else asyncio.run_coroutine_threadsafe(asking(), self._loop)
        if future is None:
            if self.refused is not None:
                raise NotAllowed(str(self.refused))
            raise BrokerUnavailable(f"IBKR: no link ({self._reason or 'closed'})")
        try:
            return future.result(seconds + 1.0)
        except (TimeoutError, ConnectionError, RequestError, CancelledError) as error:
            future.cancel()  # cancelled already: the link ended before the question began
            raise BrokerUnavailable(
                f"IBKR: no answer within {seconds:g} s ({type(error).__name__}: {error})"
            ) from error

    async def within(self, awaited: Awaitable[Answer]) -> Answer:
        """Await an answer, but not for ever."""
        return await asyncio.wait_for(awaited, self.pace.patience)

    async def paced(self) -> None:
        """Wait for room among the messages of this second: what queues in the client gets lost."""
        while True:
            now = self._loop.time()
            while self._sent and now - self._sent[0] >= 1.0:
                self._sent.popleft()
            if len(self._sent) < self.pace.messages_per_second:
                break
            await asyncio.sleep(1.0 - (now - self._sent[0]))
        self._sent.append(now)

    def schedule(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something in the loop, from any thread; an error in it breaks the connection."""
        if threading.current_thread() is not self._thread:
            self._hand_over(self.schedule, work)
            return
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _hand_over(self, callback: Callable[..., object], *arguments: object) -> None:
        """Let the loop call something soon; nothing, once it has ended."""
        with self._door:
            if not self._over:
                self._loop.call_soon_threadsafe(callback, *arguments)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._unforeseen = error
            self._break(f"{type(error).__name__}: {error}")

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (TimeoutError, ConnectionError, RequestError, BrokerError) as error:
            self._break(f"{type(error).__name__}: {error}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        silence()  # told in our own words
        try:
            self._loop.run_until_complete(self._live())
        finally:  # whatever ended it, nobody may wait for it
            with self._door:
                self._over = True
            self._loop.run_until_complete(asyncio.sleep(0))  # begins what came before that
            self._loop.run_until_complete(_ended(asyncio.all_tasks(self._loop)))
            self._loop.close()

    async def _live(self) -> None:
        while not self._closing and self.refused is None:
            self._lost, self._reason, self.cut_off = asyncio.Event(), "", False
            ib = IB()
            self._listen(ib)
            try:
                await asyncio.wait_for(self._connect(ib), self.pace.connect)
                await self._beat(ib)
                if self._unforeseen:
                    raise self._unforeseen
            except NotAllowed as error:
                self.refused, self._reason = error, str(error)
            except (OSError, TimeoutError, RequestError, BrokerError) as error:
                self._reason = self._reason or self._in_words(error)
            finally:
                self._ib = None
                self._owner.went_down()
                await _ended(self._tasks)
                ib.disconnect()
            if not self._closing:
                self._tell_down()
                await self._pause(self.pace.retry)

    async def _connect(self, ib: IB) -> None:
        await ib.connectAsync(
            self._access.host,
            self._access.port,
            clientId=self._access.client_id,
            timeout=self.pace.patience,
            raiseSyncErrors=True,
            fetchFields=StartupFetch.ORDERS_OPEN,
        )
        ib.client.MaxRequests = 0  # the pace is ours: nothing may queue unseen
        self._access.agrees_with(ib.managedAccounts())
        await self._owner.came_up(ib)
        if self.cut_off:
            raise BrokerUnavailable(self._reason)
        self._ib = ib
        self._told_at = None
        self._owner.tell("link up", f"{self._access.host}:{self._access.port}")

    async def _beat(self, ib: IB) -> None:
        """Ask for the time again and again: a frozen gateway looks connected."""
        assert self._lost is not None
        looked = self._loop.time()
        while not self._lost.is_set():
            try:
                await asyncio.wait_for(self._lost.wait(), self.pace.heartbeat)
            except TimeoutError:
                try:
                    await self.within(ib.reqCurrentTimeAsync())
                except TimeoutError:
                    self._break(f"no answer to the time within {self.pace.patience:g} s: frozen")
                looked = self._look_around(ib, looked)

    def _look_around(self, ib: IB, looked: float) -> float:
        """Go on telling of a gateway without IBKR; else look at the account when it is time."""
        if self.cut_off:
            self._tell_down()
        elif self._loop.time() - looked >= self.pace.look:
            looked = self._loop.time()
            self._owner.look(ib)
        return looked

    def _listen(self, ib: IB) -> None:
        ib.RaiseRequestErrors = True
        ib.disconnectedEvent += lambda: self._break("connection lost")
        ib.errorEvent += lambda order_id, code, text, _: self._error(ib, order_id, code, text)
        ib.orderStatusEvent += lambda trade: self._owner.heard(ib, trade.order.orderId, 0, "")
        ib.execDetailsEvent += lambda _, fill: self._owner.filled(fill)
        ib.commissionReportEvent += lambda _, fill, report: self._owner.filled(fill)

    def _error(self, ib: IB, order_id: int, code: int, text: str) -> None:
        if code in CUT_OFF:
            self.cut_off = True
            self.era += 1
            self._owner.went_down()
            self._reason = f"{code}: {text}"
            self._tell_down()
        elif code in RESTORED and self._ib is not None:
            self.schedule(lambda: self._restored(ib, code))
        elif code == 1300 or code == 326:
            self._break(f"{code}: {text}")
        elif order_id > 0:
            self._owner.heard(ib, order_id, code, text)

    async def _restored(self, ib: IB, code: int) -> None:
        self.cut_off, self._reason = False, ""
        self.era += 1
        era = self.era
        try:
            await self._owner.came_up(ib)
        except BrokerUnavailable:
            if self.era == era:
                raise
        if self.cut_off:  # lost again meanwhile: what was answered may be old
            self._owner.went_down()
        if self.era != era:  # whoever came back since asks again
            return
        self._told_at = None
        self._owner.tell("link up", f"IBKR is back ({code})")

    def _in_words(self, error: Exception) -> str:
        """Say why there is no connection, and what a person can do about it."""
        where = f"{self._access.host}:{self._access.port}"
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens at {where}; start TWS or IB Gateway and let it take API calls"
        if isinstance(error, TimeoutError) and self._ib is None:
            return f"{where} accepts connections but does not answer; is it logged in?"
        return f"{type(error).__name__}: {error}".rstrip(": ")

    def unanswered(self, what: str) -> None:
        """Give up a connection: a late answer to this would be taken for one to the next."""
        self._break(f"no answer about {what} within {self.pace.patience:g} s")

    def _break(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._lost is not None:
            self._lost.set()

    def _tell_down(self) -> None:
        now = self._loop.time()
        if self._told_at is None or now - self._told_at >= self.pace.remind:
            self._told_at = now
            self._owner.tell("link down", self._reason or "connection lost")

    async def _pause(self, seconds: float) -> None:
        self._lost = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._lost.wait(), seconds)


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still waits for answers of a connection that is gone, and see it end."""
    left = [task for task in tasks if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
