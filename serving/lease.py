"""The lease: which gateway trades an account, one at a time, told by an epoch that only grows.

Owns the folder both the gateway and whoever may take its place can see (RATCHET_LEASE, else
``lease`` of the home): one file per epoch, which its holder alone rewrites. The newest epoch is the
holder's; an older one is fenced, whatever it believes. Nothing is ever locked: a process that
freezes in the middle of a write holds up nobody. Clocks decide only when a silent holder may be
replaced, never who may order. Knows neither brokers nor the ledger.

Across a network a folder's list of names may be half a minute old, as NFS and others keep it. So
the newest epoch is told by a file, ``newest``, too: what a name stands for is asked anew whenever
it is opened.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from secrets import token_hex

from core.errors import ConfigError, Fenced, NotAllowed, StorageError
from core.home import Home
from sources.files import write_whole

SECONDS = 60.0  # a holder silent for so long may be replaced; RATCHET_LEASE_SECONDS
STARTING = 4.0  # times as long: connecting and loading models takes a while
RENEWALS = 6  # in the time of a lease

KEPT = 16  # epochs; older ones say nothing any more
NEWEST = "newest"  # the file that tells the newest epoch


@dataclass(frozen=True, slots=True)
class Holder:
    """Who trades, or means to."""

    role: str  # gateway or watchdog
    host: str
    pid: int
    home: str  # its ledger is there
    machine: str = ""  # whose process ids ``pid`` is one of

    @property
    def is_here(self) -> bool:
        """Tell whether its process id means a process of ours."""
        return (self.host, self.machine) == (socket.gethostname(), this_machine())

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
    return Holder(role, socket.gethostname(), os.getpid(), str(home.root), this_machine())


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Return what tells this machine's processes from others': names of hosts do not.

    Containers of one pod share their name and not their process ids, and machines made of one image
    may have one name, too. So it is the boot, and the namespace of process ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux
        return socket.gethostname()


class LeaseFolder:
    """The terms on disk. An epoch begins by a link, which one process alone can make."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises ``StorageError`` where the folder cannot be made or read."""
        self.path = path
        self._now = now
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        self.newest()

    def newest_epoch(self) -> int:
        """Return the epoch that counts, 0 where none has begun."""
        try:
            listed = [int(name) for name in os.listdir(self.path) if name.isdigit()]
            return max(self._told_newest(), *listed, 0)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error

    def _told_newest(self) -> int:
        try:
            return int((self.path / NEWEST).read_bytes())
        except FileNotFoundError:
            return 0

    def newest(self) -> Term | None:
        """Return the term that counts."""
        epoch = self.newest_epoch()
        if epoch == 0:
            return None
        try:
            told = json.loads((self.path / str(epoch)).read_bytes())
            moment = datetime.fromtimestamp(told["renewed_at"], UTC)
            return Term(epoch, Holder(**told["holder"]), moment, float(told["seconds"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._unusable(error, epoch) from error

    def claim(
        self, holder: Holder, seconds: float, gone: Callable[[Holder], bool] = lambda _: False
    ) -> Term | None:
        """Begin the next epoch; None while another holder's has not expired and is not ``gone``,
        and where another process began it first."""
        newest, now = self.newest(), self._now()
        if newest is not None and gone(newest.holder):
            newest = replace(newest, seconds=0.0, renewed_at=now)
        term = claimed(newest, holder, now, seconds)
        if term is None:
            return None
        draft = self.path / f".{token_hex(8)}"
        write_whole(draft, _told(term))
        try:
            os.link(draft, self.path / str(term.epoch))
            write_whole(self.path / NEWEST, str(self.newest_epoch()).encode())
            (self.path / str(term.epoch - KEPT)).unlink(missing_ok=True)
        except FileExistsError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            draft.unlink()
        return term

    def renew(self, epoch: int, seconds: float) -> None:
        """Say that the holder lives; raise ``Fenced`` where it is none any more."""
        newest = self.newest()
        if newest is None:
            raise Fenced(f"{self.path}: the lease of epoch {epoch} is gone; nothing is ordered")
        term = renewed(newest, epoch, self._now(), seconds)
        write_whole(self.path / str(epoch), _told(term))

    def _unusable(self, error: Exception, epoch: int | None = None) -> StorageError:
        place = self.path if epoch is None else self.path / str(epoch)
        return StorageError(
            f"{place}: the lease cannot be read or written ({error}); nothing is ordered without it"
        )


def _told(term: Term) -> bytes:
    told = {
        "holder": asdict(term.holder),
        "renewed_at": term.renewed_at.timestamp(),
        "seconds": term.seconds,
    }
    return json.dumps(told).encode()


class Lease:
    """A term held by this process: renewed while it lives, looked at before every order."""

    def __init__(self, folder: LeaseFolder, term: Term, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._renewed = time.monotonic()
        self.epoch = term.epoch

    def check(self) -> None:
        """Raise ``Fenced`` unless this process's epoch is the newest."""
        if self._folder.newest_epoch() != self.epoch:
            self._folder.renew(self.epoch, self._seconds)  # says by whom

    def beat(self, at_once: bool = False) -> None:
        """Say that this process lives, a few times in the lease's time; raise ``Fenced``."""
        due = time.monotonic() - self._renewed >= self._seconds / RENEWALS
        if due or at_once:
            self._folder.renew(self.epoch, self._seconds)
            self._renewed = time.monotonic()

    def give_back(self) -> None:
        """Let the next holder begin without waiting; no word where this one is fenced."""
        if self._folder.newest_epoch() == self.epoch:
            self._folder.renew(self.epoch, 0.0)


def lease_path(home: Home, environment: Mapping[str, str]) -> Path:
    named = environment.get("RATCHET_LEASE", "")
    return Path(named).expanduser() if named else home.root / "lease"


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
    if not holder.is_here:
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
    folder = LeaseFolder(lease_path(home, environment), now)
    me = this_process(role, home)
    term = folder.claim(me, seconds * STARTING, lambda who: is_gone(who, me.home))
    if term is None:
        newest = folder.newest()
        raise NotAllowed(
            f"{folder.path}: {newest.holder if newest else 'another gateway'} trades this "
            "account; stop it first, or let `ratchet serve --standby` wait for its place"
        )
    lease = Lease(folder, term, seconds)
    try:
        yield lease
    finally:
        lease.give_back()
