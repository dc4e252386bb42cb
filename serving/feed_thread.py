"""The feed's thread: puts the steps of a feed on the worker's queue, never more than a few ahead.

Owns how far ahead a feed may be, and what becomes of its end and its errors: a message.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Event, Semaphore, Thread

from serving.feeds import Feed
from serving.history import Instrument
from serving.messages import BarsArrived, FeedEnded

STEPS_AHEAD = 8  # of a feed that may wait in the queue: a moved alias waits for no more


class FeedThread:
    """Reads one feed until it ends or ``stopping`` is set."""

    def __init__(
        self, feed: Feed, put: Callable[[BarsArrived | FeedEnded], None], stopping: Event
    ) -> None:
        self._feed = feed
        self._put = put
        self._stopping = stopping
        self._room = Semaphore(STEPS_AHEAD)
        self._thread: Thread | None = None

    def start(self, after: Mapping[Instrument, datetime]) -> None:
        """Begin behind the bars in ``after``, the newest each instrument was lived through."""
        self._thread = Thread(target=self._run, args=(after,), name="feed", daemon=True)
        self._thread.start()

    @property
    def began(self) -> bool:
        return self._thread is not None

    def taken(self) -> None:
        """Hear that a step has left the queue."""
        self._room.release()

    def join(self, seconds: float) -> None:
        """Wait for its end, if it ever began."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, after: Mapping[Instrument, datetime]) -> None:
        error: BaseException | None = None
        try:
            for bars in self._feed.stream(after, self._stopping):
                while not self._room.acquire(timeout=0.1):
                    if self._stopping.is_set():
                        return
                self._put(BarsArrived(bars))
        except Exception as problem:  # noqa: BLE001  (raised again by the main loop)
            error = problem
        self._put(FeedEnded(error))
