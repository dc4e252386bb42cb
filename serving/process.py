"""The worker as a process: what the operating system's signals mean to it."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def on_signals(wanted: Mapping[signal.Signals, Callable[[str], None]]) -> Iterator[None]:
    """Call what is ``wanted`` with a signal's name; it must be safe inside a signal handler.

    Only a main thread can hear signals; in another this does nothing.
    """
    if current_thread() is not main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        one = signal.Signals(number)
        wanted[one](one.name)

    before = {number: signal.signal(number, heard) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
