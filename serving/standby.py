"""Standby: a gateway that waits for the lease, and makes sure of the one it replaces.

Owns the waiting and, where the silent holder is a process of this very home, its end: two writers
of one ledger there must never be. On another machine nothing can be ended; there the epoch fences
it, and IBKR lets a client id in only once. Trades nothing itself.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from core.errors import ExecutionError
from core.home import Home
from serving.lease import (
    Holder,
    Lease,
    LeaseFolder,
    Term,
    is_gone,
    lease_path,
    lease_seconds,
    this_process,
)
from serving.lock import lock_holder

LOOK_SECONDS = 0.2  # between two looks at the lease
END_SECONDS = 10.0  # a killed process may take to let go of its home


def wait_for_turn(
    home: Home,
    environment: Mapping[str, str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return once nobody holds the lease who lives and renews it, and this home is free.

    Raises ``StorageError`` where the lease cannot be read, ``ExecutionError`` where a silent
    gateway of this home cannot be ended.
    """
    seconds = lease_seconds(environment)
    folder = LeaseFolder(lease_path(home, environment), now)
    while not _free(folder.newest(), now()):
        pause(LOOK_SECONDS)
    newest = folder.newest()
    if newest and newest.holder.is_here and lock_holder(home) == newest.holder.pid:
        end_silent(home, folder, newest, seconds)


def _free(newest: Term | None, now: datetime) -> bool:
    return newest is None or newest.expired(now) or is_gone(newest.holder)


def end_silent(
    home: Home,
    folder: LeaseFolder,
    silent: Term,
    seconds: float,
    role: str = "standby",
    gone: Callable[[Holder], bool] = lambda _: False,
) -> bool:
    """Raise the epoch, then end the process that holds this home's lock; say whether it was done.

    ``gone``: whose term need not have expired. SIGKILL, because what hangs hears nothing else.
    """
    term = folder.claim(this_process(role, home), seconds, gone)
    if term is None:  # it woke up, or another was first
        return False
    lease = Lease(folder, term, seconds)
    try:
        os.kill(silent.holder.pid, signal.SIGKILL)
        deadline = time.monotonic() + END_SECONDS
        while lock_holder(home) is not None:
            if time.monotonic() > deadline:
                raise ExecutionError(
                    f"{home.root}: {silent.holder} was killed and still holds the worker's lock; "
                    "look for it with `ps`, end it, and start the standby again"
                )
            time.sleep(LOOK_SECONDS / 10)
    finally:
        lease.give_back()
    return True
