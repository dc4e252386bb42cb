"""One worker per home: a lock the kernel frees when its holder dies, however it dies.

Owns ``locks/worker.lock``: who holds it is written inside, for the message to whoever comes second.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import NotAllowed
from core.home import Home


@contextmanager
def worker_lock(home: Home) -> Iterator[None]:
    """Hold the worker's lock; raise ``NotAllowed`` naming the process that has it."""
    path = home.make(home.locks) / "worker.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise NotAllowed(
                f"{home.root}: a worker already serves this home (process {holder}); "
                "stop it first, or name another folder in RATCHET_HOME"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def lock_holder(home: Home) -> int | None:
    """Return the process id of the running worker, or None."""
    path = home.locks / "worker.lock"
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None
