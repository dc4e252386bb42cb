"""What the watchdog makes of each look: whom it believes, whom it ends, and what it says.

The gateway is this very process, which holds lock and lease as one does; signals to it are caught.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import serving_kit as world
from watchdog_kit import Told, until

from core.errors import BrokerUnavailable, Fenced, RatchetError
from core.home import Home
from serving import switch, watchdog
from serving.alerts import KILLED
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker
from serving.lease import STARTING, Holder, LeaseFolder, this_machine, this_process
from serving.ledger import Ledger, LedgerReader, rows
from serving.lock import lock_holder, worker_lock
from serving.session import session_event
from serving.watchdog import Limits, Watchdog

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
SECONDS = 2.0  # of the lease
FAILS = (sys.executable, "-c", "import sys; sys.exit(3)")
ENDS = (sys.executable, "-c", "")
WAITS = (sys.executable, "-c", "import time; time.sleep(600)")
DEAF = (
    sys.executable, "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open(sys.argv[1], 'w').close(); time.sleep(600)",
)  # fmt: skip


def paper(session: rows.Session) -> Broker:
    return PaperBroker()


@dataclass
class Yard:
    """A home, its watchdog, and clocks that go when they are told to."""

    home: Home
    stack: ExitStack
    seconds: float = 1000.0  # of the watchdog's clock
    now: datetime = NOW
    signals: list[int] = field(default_factory=list)
    deaf: bool = True  # a gateway that hears SIGTERM lets go of its home
    dogs: list[Watchdog] = field(default_factory=list)

    def clock(self) -> float:
        self.seconds += 0.01  # so that whoever waits for it comes to an end
        return self.seconds

    def dog(
        self, command: Sequence[str] = ENDS, restart: bool = False,
        broker: Callable[[rows.Session], Broker] = paper, **limits: float,
    ) -> tuple[Watchdog, Told]:  # fmt: skip
        params = world.params(agents={"solo": {"symbol": "SOLO"}})
        watch = Told(params)
        made = Watchdog(
            self.home, params, command, broker, watch,
            {**os.environ, "RATCHET_LEASE_SECONDS": str(SECONDS)}, restart=restart,
            limits=Limits(**({"ask": 0.1, "longest_pause": 0.0} | limits)),  # type: ignore[arg-type]
            clock=self.clock, now=lambda: self.now,
        )  # fmt: skip
        self.dogs.append(made)
        return made, watch

    @property
    def lease(self) -> LeaseFolder:
        return LeaseFolder(self.home.root / "lease", lambda: self.now)

    def serve(self, holder: Holder | None = None) -> int:
        """Hold lock and lease as a gateway that starts does; return the epoch."""
        self.stack.enter_context(worker_lock(self.home))
        term = self.lease.claim(holder or this_process("gateway", self.home), SECONDS * STARTING)
        assert term is not None
        return term.epoch

    def beat(self, epoch: int) -> None:
        self.now += timedelta(seconds=1)
        self.lease.renew(epoch, SECONDS)

    def heard(self, pid: int, number: int) -> None:
        """Stand in for os.kill."""
        assert pid == os.getpid()
        self.signals.append(number)
        if number == signal.SIGKILL or not self.deaf:
            self.stack.close()

    def looks(self, dog: Watchdog, times: int, seconds: float = 1.0) -> None:
        for _ in range(times):
            self.seconds += seconds
            dog.look()

    def write(self, *more: rows.Row) -> None:
        with Ledger(self.home.ledger) as ledger, ledger.transaction():
            ledger.add(rows.Session(session=1, broker="paper", feed="replay", mode="paper"), *more)

    def told(self) -> list[str]:
        with LedgerReader(self.home.ledger) as ledger:
            return [one.kind for one in ledger.rows(rows.RiskEvent)]


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with ExitStack() as stack:
        made = Yard(Home(tmp_path / "home"), stack)
        yield made
        for dog in made.dogs:
            dog.close()


@pytest.fixture
def caught(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """Catch the signals that are sent to this process."""
    monkeypatch.setattr(watchdog.os, "kill", yard.heard)
    return yard


def test_one_that_starts_is_given_longer_than_one_that_trades(caught: Yard) -> None:
    dog, watch = caught.dog()
    epoch = caught.serve()
    caught.looks(dog, 8)
    assert watch.kinds == []
    caught.beat(epoch)
    caught.looks(dog, 3)
    assert (watch.kinds, caught.signals) == ([], [])
    caught.looks(dog, 1)  # three seconds silent
    assert watch.kinds == ["gateway hangs"]
    assert caught.signals == [signal.SIGTERM, signal.SIGKILL]
    assert caught.lease.newest_epoch() == epoch + 1, "fenced before it is killed"
    assert dog.ended.startswith("gateway hangs: process")


def test_silence_is_as_long_as_the_time_between_two_looks(caught: Yard) -> None:
    dog, watch = caught.dog()
    caught.beat(caught.serve())
    caught.looks(dog, 8, seconds=0.2)
    assert watch.kinds == []


def test_one_that_was_started_is_minded_once_it_holds_its_home(yard: Yard) -> None:
    dog, watch = yard.dog(WAITS, start=3.0)
    yard.looks(dog, 3)
    epoch = yard.serve()  # in place of the process
    for _ in range(8):
        yard.beat(epoch)
        yard.looks(dog, 1)
    assert watch.kinds == []
    assert dog._child is not None
    assert dog._child.poll() is None


def test_one_that_renews_is_never_silent_and_one_that_comes_back_is_said(caught: Yard) -> None:
    dog, watch = caught.dog()
    epoch = caught.serve()
    for _ in range(20):
        caught.beat(epoch)
        caught.looks(dog, 1)
    assert watch.kinds == []
    watch.start()
    try:
        watch.notice("gateway hangs", "at another time")
        until("an alert", lambda: bool(watch.open.newest_first()))
        caught.looks(dog, 1)
        caught.beat(epoch)
        caught.looks(dog, 1)
        until("its end", lambda: not watch.open.newest_first())
        caught.beat(epoch)
        caught.looks(dog, 1)
    finally:
        watch.stop()
    assert watch.kinds == ["gateway hangs", "gateway runs"], "said once"


def test_where_the_watchdog_slept_too_nobody_was_silent(caught: Yard) -> None:
    dog, watch = caught.dog()
    epoch = caught.serve()
    caught.beat(epoch)
    dog.look()
    caught.seconds += 3_600.0  # the machine was asleep
    dog.look()
    assert watch.kinds == []


def test_one_that_ends_when_it_is_asked_is_not_killed(caught: Yard) -> None:
    caught.deaf = False
    dog, _ = caught.dog()
    caught.serve()
    caught.looks(dog, 10)
    assert caught.signals == [signal.SIGTERM]
    assert caught.lease.newest_epoch() == 1, "its own epoch holds until it has ended"
    assert dog.ended.startswith("gateway hangs")


def test_one_that_never_got_a_lease_is_killed_without_one(caught: Yard) -> None:
    dog, watch = caught.dog()
    caught.stack.enter_context(worker_lock(caught.home))
    caught.looks(dog, 8)  # as long as a start may take
    assert watch.kinds == []
    caught.looks(dog, 1)
    assert caught.signals == [signal.SIGTERM, signal.SIGKILL]
    assert caught.lease.newest() is None


def test_one_that_waits_for_the_lease_of_another_is_silent_all_the_same(caught: Yard) -> None:
    dog, watch = caught.dog()
    caught.stack.enter_context(worker_lock(caught.home))
    other = caught.lease.claim(Holder("gateway", "elsewhere", 1, "/h", "m"), SECONDS)
    assert other is not None
    for _ in range(9):
        caught.beat(other.epoch)
        caught.looks(dog, 1)
    assert watch.kinds == ["gateway hangs"]
    assert caught.signals == [signal.SIGTERM, signal.SIGKILL]
    assert caught.lease.newest_epoch() == other.epoch, "which goes on"


def test_one_that_a_standby_ended_first_is_left_to_it(
    caught: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog, watch = caught.dog()
    caught.serve()
    monkeypatch.setattr(watchdog, "end_silent", lambda *_: False)
    caught.looks(dog, 10)
    assert watch.kinds == ["gateway hangs"]
    assert (dog.ended, caught.signals) == ("", [signal.SIGTERM])
    assert lock_holder(caught.home) == os.getpid()


def test_a_process_number_of_another_machine_is_let_alone(caught: Yard) -> None:
    dog, watch = caught.dog()
    caught.serve(Holder("gateway", "elsewhere", os.getpid(), str(caught.home.root), "m"))
    caught.looks(dog, 12)
    assert (
        dog.ended == f"gateway, process {os.getpid()} on elsewhere trades by this home, elsewhere"
    )
    assert (watch.kinds, caught.signals) == ([], [])


def test_a_kill_switch_that_is_obeyed_is_believed_once(caught: Yard) -> None:
    dog, watch = caught.dog(kill=3.0)
    epoch = caught.serve()
    made = switch.press(caught.home, "A. Turing", "drill", NOW, "hold")

    def trades(seconds: int) -> None:
        for _ in range(seconds):
            caught.beat(epoch)
            caught.looks(dog, 1)

    trades(2)  # no ledger yet: nobody has obeyed
    event = rows.RiskEvent(session=1, agent="", bar_time=None, kind=KILLED, detail=made.words)
    caught.write(event)
    trades(10)
    assert watch.kinds == []
    switch.press(caught.home, "G. Hopper", "another drill", NOW, "hold")
    trades(3)
    assert watch.kinds == []
    trades(1)
    assert watch.kinds[0] == "gateway hangs"
    assert "did not obey the kill switch within" in dog.ended


def test_one_that_starts_has_longer_to_obey(caught: Yard) -> None:
    dog, watch = caught.dog(kill=1.0)
    caught.serve()
    switch.press(caught.home, "A. Turing", "drill", NOW)
    caught.looks(dog, 4)
    assert watch.kinds == []
    caught.looks(dog, 1)
    assert watch.kinds[0] == "gateway hangs"


# -- processes of its own


def test_one_that_holds_nothing_for_too_long_is_ended_and_counted(yard: Yard) -> None:
    dog, watch = yard.dog(WAITS, restart=True, start=2.0, failures=2)
    until("the end", lambda: bool(dog.ended), lambda: yard.looks(dog, 1))
    assert dog.gave_up
    assert dog.ended == f"2 failures in a row, the last: exit code {-signal.SIGKILL}"
    assert watch.kinds == ["gateway died", "gateway died", "watchdog gave up"]


def test_it_runs_until_the_gateway_ends_as_it_was_asked(yard: Yard) -> None:
    dog, watch = yard.dog(ENDS)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert dog._child is None or dog._child.wait(60.0) == 0

    dog.run(pause)
    assert dog.ended == "the gateway ended as it was asked to"
    assert (set(pauses), watch.kinds) == ({watchdog.LOOK_SECONDS}, [])


def test_a_watchdog_that_ends_takes_its_gateway_along_even_a_deaf_one(yard: Yard) -> None:
    sign = yard.home.root / "deaf"
    yard.home.make(yard.home.root)
    dog, _ = yard.dog([*DEAF, str(sign)])
    dog._seconds = 0.05  # of the lease: so long it may take
    until("a gateway", sign.exists, dog.look)
    child = dog._child
    assert child is not None
    dog.close()
    assert child.returncode == -signal.SIGKILL
    willing, _ = yard.dog(WAITS)
    willing.look()
    child = willing._child
    assert child is not None
    willing.close()
    assert child.returncode == -signal.SIGTERM


def test_failures_with_steady_hours_between_are_not_in_a_row(yard: Yard) -> None:
    dog, watch = yard.dog(FAILS, restart=True, failures=2, steady=60.0)

    def look() -> None:
        if dog._child is not None and dog._child.poll() is not None and len(watch.kinds) < 3:
            yard.seconds += 61.0
        dog.look()

    until("the end", lambda: bool(dog.ended), look)
    assert watch.kinds == ["gateway died"] * 4 + ["watchdog gave up"]


def test_the_pause_before_a_start_doubles(yard: Yard) -> None:
    dog, watch = yard.dog(FAILS, restart=True, longest_pause=3.0)
    pauses = []
    for failed in range(1, 4):
        until("a failure", lambda n=failed: len(watch.kinds) == n, dog.look)  # type: ignore[misc]
        assert dog._start_at is not None
        pauses.append(round(dog._start_at - yard.seconds, 1))
        dog.look()
        assert dog._child is None, "it is not time yet"
        yard.seconds += pauses[-1]
    assert pauses == [1.0, 2.0, 3.0]


def test_one_whose_place_another_home_took_needs_no_help(yard: Yard) -> None:
    dog, watch = yard.dog(FAILS, restart=True)
    other = Holder("gateway", "elsewhere", 7, "/another/home", this_machine())
    assert yard.lease.claim(other, SECONDS) is not None
    until("the end", lambda: bool(dog.ended), dog.look)
    assert dog.ended == "gateway, process 7 on elsewhere trades this account now"
    assert watch.kinds == []


@pytest.mark.parametrize(
    ("last", "died"),
    [
        (session_event(1, "closed", "the feed has no more bars"), False),
        (session_event(1, "stopped", "SIGTERM"), False),
        (session_event(1, "stopped", "StorageError: no space left"), True),
        (session_event(1, "started"), True),
    ],
    ids=["its feed ended", "by a person", "by an error", "in the middle of it"],
)
def test_one_that_was_there_before_is_judged_by_its_last_word(
    yard: Yard, last: rows.Row, died: bool
) -> None:
    dog, watch = yard.dog()
    with ExitStack() as own:
        own.enter_context(worker_lock(yard.home))
        dog.look()
    yard.write(last)
    dog.look()
    assert ("gateway died" in watch.kinds) == died
    assert (dog.ended == "the gateway ended as it was asked to") != died


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (BrokerUnavailable("no link to 127.0.0.1:4002"), "no link to 127.0.0.1:4002"),
        (Fenced("epoch 1: another"), "another took over: epoch 1: another"),
    ],
)
def test_orders_that_could_not_be_seen_to_are_an_alert(
    yard: Yard, problem: RatchetError, said: str
) -> None:
    def broker(session: rows.Session) -> Broker:
        raise problem

    yard.write()
    dog, watch = yard.dog(FAILS, broker=broker)
    details: list[str] = []
    notice = watch.notice
    watch.notice = lambda kind, detail, agent="": (  # type: ignore[method-assign]
        details.append(detail), notice(kind, detail, agent),
    )[1]  # fmt: skip
    until("the end", lambda: bool(dog.ended), dog.look)
    assert watch.kinds == ["gateway died", "orders in doubt"]
    assert details[1] == said
    assert yard.told() == ["gateway died"]


def test_orders_that_another_sees_to_are_no_alert(yard: Yard) -> None:
    yard.write()
    dog, watch = yard.dog(FAILS)
    standby = Holder("standby", "elsewhere", 7, str(yard.home.root), this_machine())
    assert yard.lease.claim(standby, SECONDS) is not None
    until("the end", lambda: bool(dog.ended), dog.look)
    assert watch.kinds == ["gateway died"]
    assert yard.told() == ["gateway died"]


def test_a_home_that_never_traded_has_nothing_to_see_to(yard: Yard) -> None:
    with Ledger(yard.home.ledger):
        """There is a ledger, and no session in it."""
    dog, watch = yard.dog(FAILS, restart=True, failures=2)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert watch.kinds == ["gateway died", "gateway died", "watchdog gave up"]
    assert yard.told() == []


def test_what_is_done_is_recorded_under_the_lease_of_the_watchdog(yard: Yard) -> None:
    yard.write()
    dog, watch = yard.dog(FAILS, restart=True, failures=2)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert watch.kinds == ["gateway died", "gateway died", "gateway fenced", "watchdog gave up"]
    assert yard.told() == ["gateway died", "gateway died", "gateway fenced", "watchdog gave up"]
    newest = yard.lease.newest()
    assert newest is not None
    assert newest.holder.role == "watchdog"
    assert newest.expired(yard.now)
