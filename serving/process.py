"""The worker as a process: what the operating system's signals mean to it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def stopping_on_signals(
    stop: Callable[[str], None], reload: Callable[[str], None]
) -> Iterator[None]:
    """Call ``stop`` on SIGTERM and SIGINT, ``reload`` on SIGHUP; both safe in a signal handler.

    Only a main thread can hear signals; in another this does nothing.
    """
    if current_thread() is not main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop(signal.Signals(number).name)

    def again(number: int, frame: FrameType | None) -> None:
        reload(signal.Signals(number).name)

    handlers = {signal.SIGTERM: ask, signal.SIGINT: ask, signal.SIGHUP: again}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
