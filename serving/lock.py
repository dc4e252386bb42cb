"""One worker per home, and one watchdog: locks the kernel frees when their holders die, however.

Owns ``locks/worker.lock`` and ``locks/watchdog.lock``: who holds one is written inside, for the
message to whoever comes second.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from core.errors import NotAllowed
from core.home import Home

Role = Literal["worker", "watchdog"]


@contextmanager
def worker_lock(home: Home) -> Iterator[None]:
    """Hold the worker's lock; raise ``NotAllowed`` naming the process that has it."""
    with _locked(home, "worker", "a worker already serves this home"):
        yield


@contextmanager
def watchdog_lock(home: Home) -> Iterator[None]:
    """Hold the watchdog's lock; raise ``NotAllowed`` naming the process that has it."""
    with _locked(home, "watchdog", "a watchdog already watches over this home"):
        yield


@contextmanager
def _locked(home: Home, role: Role, taken: str) -> Iterator[None]:
    path = home.make(home.locks) / f"{role}.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise NotAllowed(
                f"{home.root}: {taken} (process {holder}); "
                "stop it first, or name another folder in RATCHET_HOME"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def lock_holder(home: Home, role: Role = "worker") -> int | None:
    """Return the process id of the running worker, or watchdog, or None."""
    path = home.locks / f"{role}.lock"
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None
