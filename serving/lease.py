"""The lease: which gateway trades an account, one at a time, told by an epoch that only grows.

Owns the file both the gateway and whoever may take its place can see (RATCHET_LEASE, else
``lease.db`` of the home): one row per epoch. The newest epoch is the holder's; an older one is
fenced, whatever it believes. Clocks decide only when a silent holder may be replaced, never who
may order. Knows neither brokers nor the ledger.
"""

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.errors import ConfigError, Fenced, NotAllowed, StorageError
from core.home import Home

SECONDS = 60.0  # a holder silent for so long may be replaced; RATCHET_LEASE_SECONDS
STARTING = 4.0  # times as long: connecting and loading models takes a while
RENEWALS = 6  # in the time of a lease

_TABLE = """CREATE TABLE IF NOT EXISTS terms (epoch INTEGER PRIMARY KEY, role TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, home TEXT NOT NULL, taken_at REAL NOT NULL,
    renewed_at REAL NOT NULL, seconds REAL NOT NULL) STRICT"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who trades, or means to."""

    role: str  # gateway or watchdog
    host: str
    pid: int
    home: str  # its ledger is there

    def __str__(self) -> str:
        return f"{self.role}, process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class Term:
    """One epoch."""

    epoch: int
    holder: Holder
    renewed_at: datetime  # UTC
    seconds: float  # after which a silent holder may be replaced; 0: given back

    def expired(self, now: datetime) -> bool:
        return now >= self.renewed_at + timedelta(seconds=self.seconds)


def claimed(newest: Term | None, holder: Holder, now: datetime, seconds: float) -> Term | None:
    """Return the next term, for ``holder``; None while somebody else's has not expired."""
    if newest is not None and not newest.expired(now):
        return None
    return Term(newest.epoch + 1 if newest else 1, holder, now, seconds)


def renewed(newest: Term, epoch: int, now: datetime, seconds: float) -> Term:
    """Return the term renewed by its holder; raise ``Fenced`` where a newer one has begun."""
    if newest.epoch != epoch:
        raise Fenced(
            f"epoch {epoch}: {newest.holder} holds the lease since, with epoch {newest.epoch}; "
            "this process orders nothing any more and ends"
        )
    return replace(newest, renewed_at=now, seconds=seconds)


def this_process(role: str, home: Home) -> Holder:
    return Holder(role, socket.gethostname(), os.getpid(), str(home.root))


class LeaseFile:
    """The terms on disk; every change is one transaction that sees the newest."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises ``StorageError`` where the file cannot be made or is none of ours."""
        self.path = path
        self._now = now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            # No WAL: its shared memory does not reach another machine.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._connection.close()

    def newest(self) -> Term | None:
        """Return the term that counts."""
        try:
            found = self._connection.execute(
                "SELECT epoch, role, host, pid, home, renewed_at, seconds FROM terms "
                "ORDER BY epoch DESC LIMIT 1"
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if found is None:
            return None
        epoch, role, host, pid, home, renewed_at, seconds = found
        moment = datetime.fromtimestamp(renewed_at, UTC)
        return Term(epoch, Holder(role, host, pid, home), moment, seconds)

    def claim(
        self, holder: Holder, seconds: float, gone: Callable[[Holder], bool] = lambda _: False
    ) -> Term | None:
        """Begin the next epoch; None while another holder's has not expired and is not ``gone``."""
        with self._transaction():
            newest, now = self.newest(), self._now()
            if newest is not None and gone(newest.holder):
                newest = replace(newest, seconds=0.0, renewed_at=now)
            term = claimed(newest, holder, now, seconds)
            if term is not None:
                self._write(term)
        return term

    def renew(self, epoch: int, seconds: float) -> None:
        """Say that the holder lives; raise ``Fenced`` where it is none any more."""
        with self._transaction():
            newest = self.newest()
            if newest is None:
                raise Fenced(f"{self.path}: the lease of epoch {epoch} is gone; nothing is ordered")
            self._write(renewed(newest, epoch, self._now(), seconds))

    def _write(self, term: Term) -> None:
        who, moment = term.holder, term.renewed_at.timestamp()
        self._connection.execute(
            "INSERT INTO terms VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (epoch) DO UPDATE SET "
            "renewed_at = excluded.renewed_at, seconds = excluded.seconds",
            (term.epoch, who.role, who.host, who.pid, who.home, moment, moment, term.seconds),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _unusable(self, error: Exception) -> StorageError:
        return StorageError(
            f"{self.path}: the lease cannot be read or written ({error}); nothing is ordered "
            "without it"
        )


class Lease:
    """A term held by this process: renewed while it lives, looked at before every order."""

    def __init__(self, file: LeaseFile, term: Term, seconds: float) -> None:
        self._file = file
        self._seconds = seconds
        self._renewed = time.monotonic()
        self.epoch = term.epoch

    def check(self) -> None:
        """Raise ``Fenced`` unless this process's epoch is the newest."""
        newest = self._file.newest()
        if newest is None or newest.epoch != self.epoch:
            self._file.renew(self.epoch, self._seconds)  # says by whom

    def beat(self, at_once: bool = False) -> None:
        """Say that this process lives, a few times in the lease's time; raise ``Fenced``."""
        due = time.monotonic() - self._renewed >= self._seconds / RENEWALS
        if due or at_once:
            self._file.renew(self.epoch, self._seconds)
            self._renewed = time.monotonic()

    def give_back(self) -> None:
        """Let the next holder begin without waiting; no word where this one is fenced."""
        newest = self._file.newest()
        if newest is not None and newest.epoch == self.epoch:
            self._file.renew(self.epoch, 0.0)


def lease_path(home: Home, environment: Mapping[str, str]) -> Path:
    named = environment.get("RATCHET_LEASE", "")
    return Path(named).expanduser() if named else home.root / "lease.db"


def lease_seconds(environment: Mapping[str, str]) -> float:
    """Return how long a silent holder is waited for; raise ``ConfigError`` for nonsense."""
    named = environment.get("RATCHET_LEASE_SECONDS", "")
    try:
        seconds = float(named) if named else SECONDS
    except ValueError:
        seconds = -1.0
    if not 0.5 <= seconds <= 3600.0:
        raise ConfigError(f"RATCHET_LEASE_SECONDS={named}: expected seconds from 0.5 to 3600")
    return seconds


def is_gone(holder: Holder, same_home_free: str = "") -> bool:
    """Tell whether a holder on this machine has certainly ended.

    ``same_home_free``: a home whose worker lock is ours, so that no other worker of it lives.
    """
    if holder.host != socket.gethostname():
        return False
    if holder.home == same_home_free and holder.role == "gateway":
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def leased(
    home: Home,
    environment: Mapping[str, str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    role: str = "gateway",
) -> Iterator[Lease]:
    """Hold the lease; the worker lock of ``home`` must be held already.

    Raises ``NotAllowed`` naming who holds it.
    """
    seconds = lease_seconds(environment)
    file = LeaseFile(lease_path(home, environment), now)
    try:
        me = this_process(role, home)
        term = file.claim(me, seconds * STARTING, lambda who: is_gone(who, me.home))
        if term is None:
            newest = file.newest()
            raise NotAllowed(
                f"{file.path}: {newest.holder if newest else 'another gateway'} trades this "
                "account; stop it first, or let `ratchet serve --standby` wait for its place"
            )
        lease = Lease(file, term, seconds)
        try:
            yield lease
        finally:
            lease.give_back()
    finally:
        file.close()
