"""One retraining per agent at a time, and a dead one holds nothing.

Owns one lock file per agent. The lock is the kernel's (flock): it is gone the moment its process
is, however that ended, so there is no stale lock to clean up, no heartbeat and no timeout. It
holds between runs started by Prefect, by hand and by the demo alike. Prefect's own limit of each
deployment only queues runs, so that they wait instead of failing here.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from core.errors import TrainingError
from core.home import Home


def _lock_file(home: Home, agent: str) -> Path:
    return home.locks / f"retrain-{agent}.lock"


@contextlib.contextmanager
def retraining(home: Home, agent: str, now: datetime) -> Iterator[None]:
    """Hold the slot of ``agent``; raise ``TrainingError`` naming the holder when it is taken."""
    path = _lock_file(home, agent)
    home.make(home.locks)
    # Append mode: a loser of the race must not empty what the holder wrote.
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{agent}: a retraining is already running ({_holder(path)}); "
                "wait for it, or end that process: its slot is free at once"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": now.isoformat(timespec="seconds")}))
        file.flush()
        yield


def is_taken(home: Home, agent: str) -> bool:
    """Say whether a living process retrains ``agent``."""
    path = _lock_file(home, agent)
    if not path.exists():
        return False
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _holder(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {content['pid']} since {content['since']}"
    except (json.JSONDecodeError, KeyError, OSError):
        return "started a moment ago"
