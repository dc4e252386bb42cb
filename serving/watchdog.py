"""The watchdog: starts the gateway, sees that it lives and obeys, and takes its place when not.

Owns a process beside the gateway, with a connection of its own only once the gateway is gone. The
sign of life is the lease, which the gateway renews in its main loop: a process that is there and
hangs renews nothing. Silence is counted on this process's own clock, so no clock that jumps ends a
gateway. Orders nothing itself (``serving.caretaker``).

A gateway that is to be ended is asked first (SIGTERM): one that still runs its loop, but does not
obey the kill switch or cannot write its lease, closes its books. It is asked briefly, because a
process that is stopped or stuck hears nothing, and its orders work unminded meanwhile; and safely,
because it holds its own epoch until it has ended or another is raised (SIGKILL).
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from core.errors import Fenced, NotAllowed, RatchetError, StorageError
from core.home import Home
from core.settings import Params
from serving import switch
from serving.alerts import KILLED, RELEASED
from serving.brokers.port import Broker
from serving.caretaker import Caretaker
from serving.fencing import fenced
from serving.lease import STARTING, LeaseFolder, lease_path, lease_seconds, leased
from serving.ledger import Ledger, LedgerReader, rows
from serving.lock import lock_holder, worker_lock
from serving.logs import NAME
from serving.standby import end_silent
from serving.watch import Watch

LOOK_SECONDS = 0.2  # between two looks
PERSON = frozenset({signal.SIGTERM.name, signal.SIGINT.name, "asked to"})  # stopped on purpose


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a watchdog is, in seconds; how long a silence is, the lease says."""

    ask: float = 2.0  # from asking a gateway to end until it is killed
    kill: float = 15.0  # from a pressed kill switch to the gateway's word that it obeys
    start: float = 120.0  # until a gateway that was started holds its home
    steady: float = 60.0  # a gateway that ran so long has not failed in a row
    longest_pause: float = 60.0  # before a start; it doubles from one second on
    failures: int = 5  # in a row, and it is not started again
    care: float = 120.0  # for the orders of a gateway that is gone


class Watchdog:
    """Watches the gateway of one home; ``look`` is called again and again."""

    def __init__(
        self,
        home: Home,
        params: Params,
        command: Sequence[str],
        broker: Callable[[rows.Session], Broker],
        watch: Watch,
        environment: Mapping[str, str] = os.environ,
        *,
        restart: bool = True,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``command`` starts the gateway; ``broker`` makes the one a session traded with."""
        self._home, self._params, self._command = home, params, tuple(command)
        self._broker, self._watch, self._environment = broker, watch, environment
        self._restart, self._limits, self._clock, self._now = restart, limits, clock, now
        self._seconds = lease_seconds(environment)
        self._lease = LeaseFolder(lease_path(home, environment), now)
        self._log = logging.getLogger(NAME)
        self._child: subprocess.Popen[bytes] | None = None
        self._watched = False  # a gateway ran at the last look
        self._began = 0.0  # clock, at its start
        self._start_at: float | None = clock()  # None: nothing to start
        self._failures = 0
        self._heard: tuple[int, datetime] | None = None  # epoch, newest sign of life
        self._silent = 0.0  # seconds
        self._unheeded = 0.0  # seconds since the kill switch was pressed
        self._heeded: switch.Press | None = None
        self._looked = clock()
        self.ended = ""  # why there is nothing to watch any more
        self.gave_up = False

    def run(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Watch until the gateway ends as it should, or is given up."""
        while not self.ended:
            self.look()
            pause(LOOK_SECONDS)

    def close(self) -> None:
        """End the gateway this watchdog started, if it runs; one that was there before stays."""
        if self._child and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(self._seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def look(self) -> None:
        """See how the gateway is, and do what that asks for."""
        now = self._clock()
        # Where this process did not run either, nobody was silent.
        passed, self._looked = min(now - self._looked, 5.0 * LOOK_SECONDS), now
        pid = lock_holder(self._home)
        if pid is None and self._child and self._child.poll() is None:
            self._silent += passed  # it starts, and holds nothing yet
            if self._silent > self._limits.start:
                self._child.kill()
        elif pid is not None:
            self._mind(pid, passed)
        elif self._watched or self._child:
            self._see_off()
        elif self._start_at is not None and now >= self._start_at:
            self._start()

    # -- a gateway that is there

    def _mind(self, pid: int, passed: float) -> None:
        if not self._watched:
            self._watched, self._heard, self._silent = True, None, 0.0
            self._began = self._began if self._child else self._clock()
            self._log.info("watching", extra={"pid": pid})
        newest = self._lease.newest()
        mine = newest if newest and newest.holder.pid == pid else None
        if mine and not mine.holder.is_here:  # this number is another process here
            self._watched, self.ended = False, f"{mine.holder} trades by this home, elsewhere"
            return
        sign = (mine.epoch, mine.renewed_at) if mine else None
        starting = mine is None or mine.seconds > self._seconds
        patience = (STARTING if starting else 1.0) * self._seconds
        if sign != self._heard:
            if self._heard and not starting and ("stalled", "") in self._watch.open.by_key:
                self._watch.notice("gateway runs", f"process {pid}")
            self._heard, self._silent = sign, 0.0
        else:
            self._silent += passed
        if self._silent > patience:
            self._fence(pid, "gateway hangs", f"process {pid} silent for {self._silent:.0f} s")
            return
        self._mind_switch(pid, passed, STARTING if starting else 1.0)

    def _mind_switch(self, pid: int, passed: float, factor: float) -> None:
        """See that a pressed kill switch is obeyed."""
        press = switch.pressed(self._home)
        if press is None or press == self._heeded:
            self._unheeded = 0.0
        elif self._is_heeded(press):
            self._heeded, self._unheeded = press, 0.0
        else:
            self._unheeded += passed
            if self._unheeded > factor * self._limits.kill:
                why = f"process {pid} did not obey the kill switch within {self._unheeded:.0f} s"
                self._fence(pid, "gateway hangs", why)

    def _is_heeded(self, press: switch.Press) -> bool:
        try:
            with LedgerReader(self._home.ledger) as ledger:
                told = ledger.rows(rows.RiskEvent, agent="", session=ledger.newest_session())
        except StorageError:
            return False
        words = [one for one in told if one.kind in (KILLED, RELEASED)]
        return bool(words) and (words[-1].kind, words[-1].detail) == (KILLED, press.words)

    def _fence(self, pid: int, kind: str, why: str) -> None:
        """End a gateway that cannot be trusted to end, and take over what it minded."""
        self._watch.notice(kind, why)
        newest = self._lease.newest()
        if self._ends_when_asked(pid):
            pass
        elif newest is None or newest.holder.pid != pid:
            os.kill(pid, signal.SIGKILL)  # it holds our lock and never got a lease
        elif not end_silent(
            self._home, self._lease, newest, self._seconds, "watchdog",
            lambda who: who == newest.holder,
        ):  # fmt: skip
            return  # another was first
        if self._child:
            try:
                self._child.wait(self._limits.ask)
            except subprocess.TimeoutExpired:  # its books are closed, whatever else it is at
                self._child.kill()
                self._child.wait()
        self._gone(kind, why, care=True)

    def _ends_when_asked(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        until = self._clock() + self._limits.ask
        while lock_holder(self._home) == pid:
            if self._clock() >= until:
                return False
            time.sleep(LOOK_SECONDS / 10.0)
        return True

    # -- one that is gone

    def _see_off(self) -> None:
        """Judge how the gateway ended."""
        code = self._child.wait() if self._child else None
        if code == 0 or (code is None and self._was_stopped()):
            self._watched, self.ended = False, "the gateway ended as it was asked to"
            return
        newest = self._lease.newest()
        me = self._home.root
        if newest and newest.holder.home != str(me) and not newest.expired(self._now()):
            self._watched, self.ended = False, f"{newest.holder} trades this account now"
            return
        why = f"exit code {code}" if code is not None else "its process is gone"
        self._watch.notice("gateway died", why)
        self._gone("gateway died", why, care=False)

    def _was_stopped(self) -> bool:
        try:
            with LedgerReader(self._home.ledger) as ledger:
                last = ledger.rows(rows.SessionEvent, newest=1)
        except StorageError:
            return False
        return bool(last) and (last[0].kind == "closed" or last[0].detail in PERSON)

    def _gone(self, kind: str, why: str, care: bool) -> None:
        """Decide what follows: a start, after a pause that doubles, or none."""
        steady = self._clock() - self._began > self._limits.steady
        self._failures = 1 if steady else self._failures + 1
        self._child, self._watched, self._silent = None, False, 0.0
        given_up = self._failures >= self._limits.failures
        again = self._restart and not given_up
        pause = min(2.0 ** (self._failures - 1), self._limits.longest_pause)
        self._note(kind, f"{why}; failure {self._failures} in a row")
        if care or not again:
            self._take_care(f"{kind}: {why}")
        self._start_at = self._clock() + pause if again else None
        if not again:
            self.gave_up = given_up
            self.ended = f"{kind}: {why}; it is not started again"
            if given_up:
                self.ended = f"{self._failures} failures in a row, the last: {why}"
                self._watch.notice("watchdog gave up", self.ended)
                self._note("watchdog gave up", self.ended)

    def _take_care(self, why: str) -> None:
        """Bring the orders to rest under the lease; alert where that is not possible."""
        if not self._home.ledger.exists():
            return
        try:
            with (
                worker_lock(self._home),
                leased(self._home, self._environment, self._now, "watchdog") as lease,
                Ledger(self._home.ledger, self._now) as ledger,
            ):
                ledger.listen(self._watch.see)
                session = ledger.last(rows.Session)
                if session is None:
                    return
                broker = fenced(self._broker(session), lease)
                press = switch.pressed(self._home)
                keeper = Caretaker(ledger, broker, self._params, press, lease.beat)
                done = keeper.run(why, self._limits.care)
            self._heeded = press
            self._note("gateway fenced", f"{why}; {done}")
        except Fenced as error:
            self._watch.notice("orders in doubt", f"another took over: {error}")
        except NotAllowed as error:  # a standby was faster: it does what we would
            self._log.info("left to another", extra={"reason": str(error)})
        except RatchetError as error:
            self._watch.notice("orders in doubt", str(error))
            self._log.error("orders in doubt", extra={"reason": str(error)})

    def _note(self, kind: str, detail: str) -> None:
        """Write into the ledger where that can be done, and tell."""
        self._log.warning(kind, extra={"detail": detail})
        if not self._home.ledger.exists():
            return
        try:
            with worker_lock(self._home), Ledger(self._home.ledger, self._now) as ledger:
                session = ledger.newest_session()
                if session is None:
                    return
                if kind == "gateway fenced":  # the others were told when they happened
                    ledger.listen(self._watch.see)
                event = rows.RiskEvent(
                    session=session, agent="", bar_time=None, kind=kind, detail=detail
                )
                with ledger.transaction():
                    ledger.add(event)
        except RatchetError as error:
            self._log.error("not recorded", extra={"kind": kind, "reason": str(error)})

    def _start(self) -> None:
        log = self._home.make(self._home.logs) / "gateway.log"
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                self._command, env=dict(self._environment), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._start_at, self._began, self._silent = None, self._clock(), 0.0
        self._log.info("gateway started", extra={"pid": self._child.pid})
