"""The lease: never two holders, and one that was replaced is fenced whatever it believes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import serving_kit as world
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, Fenced, NotAllowed, StorageError
from core.home import Home
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Ticket
from serving.fencing import fenced
from serving.lease import (
    Holder,
    Lease,
    LeaseFolder,
    Term,
    claimed,
    is_gone,
    lease_seconds,
    leased,
    renewed,
    this_machine,
    this_process,
)
from serving.ledger import LedgerReader, rows
from serving.standby import wait_for_turn
from serving.worker import Worker

START = datetime(2026, 3, 2, 15, tzinfo=UTC)
SECONDS = 60.0


def holder(name: str) -> Holder:
    return Holder("gateway", f"host-{name}", 1, f"/home/{name}")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> LeaseFolder:
    return LeaseFolder(tmp_path / "lease", clock)


Step = tuple[str, int, float]  # what, whose, seconds that pass before it
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "renew", "give back"]),
        st.integers(0, 2),
        st.floats(0.0, 1.5 * SECONDS),
    ),
    max_size=40,
)


@given(STEPS)
def test_there_are_never_two_holders_whatever_the_order_of_events(steps: list[Step]) -> None:
    newest: Term | None = None
    held: dict[int, int] = {}  # epoch each process believes it holds
    now = START
    for what, who, seconds in steps:
        now += timedelta(seconds=seconds)
        before = newest
        if what == "claim":
            term = claimed(newest, holder(str(who)), now, SECONDS)
            if term is not None:
                assert before is None or before.expired(now)
                newest, held[who] = term, term.epoch
        elif who in held and newest is not None:
            wanted = SECONDS if what == "renew" else 0.0
            try:
                newest = renewed(newest, held[who], now, wanted)
                assert newest.holder == holder(str(who))
            except Fenced:
                assert newest.epoch > held.pop(who)
        if newest is not None and before is not None:
            assert newest.epoch - before.epoch in (0, 1)
        allowed = [who for who, epoch in held.items() if newest and epoch == newest.epoch]
        assert len(allowed) <= 1


@given(st.floats(0.0, 10 * SECONDS))
def test_a_lease_may_be_claimed_from_the_second_it_expires(age: float) -> None:
    old = Term(7, holder("old"), START, SECONDS)
    new = claimed(old, holder("new"), START + timedelta(seconds=age), SECONDS)
    moment = timedelta(seconds=age)  # whole microseconds, as the clock's
    assert (new is not None) == (moment >= timedelta(seconds=SECONDS))
    assert new is None or new.epoch == 8


def test_an_expired_holder_that_wakes_up_is_fenced(folder: LeaseFolder, clock: Clock) -> None:
    first = folder.claim(holder("first"), SECONDS)
    assert first is not None
    sleeper = Lease(folder, first, SECONDS)
    clock.advance(SECONDS - 1.0)
    assert folder.claim(holder("second"), SECONDS) is None
    sleeper.check()
    clock.advance(1.0)
    second = folder.claim(holder("second"), SECONDS)
    assert second is not None
    assert (first.epoch, second.epoch) == (1, 2)
    for act in (sleeper.check, lambda: sleeper.beat(at_once=True)):
        with pytest.raises(Fenced, match=r"epoch 1: .*host-second holds the lease .* epoch 2"):
            act()
    sleeper.give_back()
    newest = folder.newest()
    assert newest is not None
    assert newest.holder == holder("second")
    assert not newest.expired(clock.now)


def test_a_holder_that_was_late_but_not_replaced_goes_on(folder: LeaseFolder, clock: Clock) -> None:
    term = folder.claim(holder("slow"), SECONDS)
    assert term is not None
    slow = Lease(folder, term, SECONDS)
    clock.advance(5 * SECONDS)
    slow.beat(at_once=True)
    assert folder.claim(holder("other"), SECONDS) is None


def test_a_lease_given_back_is_free_at_once(folder: LeaseFolder, clock: Clock) -> None:
    term = folder.claim(holder("first"), SECONDS)
    assert term is not None
    Lease(folder, term, SECONDS).give_back()
    again = folder.claim(holder("second"), SECONDS)
    assert again is not None
    assert again.epoch == 2


RACE = """
import sys
from pathlib import Path
from serving.lease import Holder, LeaseFolder
folder = LeaseFolder(Path(sys.argv[1]))
sys.stdin.readline()
print(folder.claim(Holder("gateway", "elsewhere", int(sys.argv[2]), "h"), 60.0) is not None)
"""


def test_of_processes_that_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60.0)[0].strip() for racer in racers]
    assert sorted(said) == ["False", "False", "False", "True"]


def test_a_dead_process_of_this_machine_need_not_be_waited_for(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    here = this_machine()
    assert is_gone(Holder("gateway", host, ended.pid, "h", here))
    assert not is_gone(Holder("gateway", "elsewhere", ended.pid, "h", here))
    assert not is_gone(this_process("gateway", Home(tmp_path)))
    assert is_gone(Holder("gateway", host, os.getpid(), "h", here), same_home_free="h")


@pytest.mark.parametrize("machine", ["", "another boot/4026531836"])
def test_a_machine_of_the_same_name_is_not_this_one(machine: str) -> None:
    """Containers of one pod share the name, and folders are mounted at the same place in each."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    there = Holder("gateway", socket.gethostname(), ended.pid, "h", machine)
    assert not is_gone(there)
    assert not is_gone(there, same_home_free="h")


LOCKED = """
import sys
from pathlib import Path
from core.home import Home
from serving.lock import worker_lock
with worker_lock(Home(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_standby_ends_no_process_whose_number_is_of_another_machine(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        silent = Holder("gateway", socket.gethostname(), other.pid, str(tmp_path), "elsewhere")
        folder = LeaseFolder(tmp_path / "lease", lambda: START)
        assert folder.claim(silent, SECONDS) is not None
        wait_for_turn(home, {})
        assert other.poll() is None
        other.communicate("go\n")
    assert other.returncode == 0


def test_a_list_of_names_that_lags_behind_lets_nobody_order(
    folder: LeaseFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may show the names of half a minute ago; opening a file is fresh."""
    term = folder.claim(holder("first"), SECONDS)
    assert term is not None
    sleeper, names = Lease(folder, term, SECONDS), os.listdir(folder.path)
    clock.advance(SECONDS)
    assert folder.claim(holder("second"), SECONDS) is not None
    monkeypatch.setattr(os, "listdir", lambda path: names)
    with pytest.raises(Fenced, match="host-second holds the lease since, with epoch 2"):
        sleeper.check()


def test_a_fenced_broker_sends_nothing(tmp_path: Path, clock: Clock) -> None:
    folder = LeaseFolder(tmp_path / "lease", clock)
    term = folder.claim(holder("first"), SECONDS)
    assert term is not None
    broker = fenced(PaperBroker(), Lease(folder, term, SECONDS))
    ticket = Ticket(1, "a", "AAPL", 5.0, START, "entry", "1", "market")
    broker.place(ticket)
    clock.advance(SECONDS)
    assert folder.claim(holder("second"), SECONDS) is not None
    for act in (
        lambda: broker.place(replace(ticket, replica=1)),
        lambda: broker.cancel(ticket.order_ref),
    ):
        with pytest.raises(Fenced):
            act()
    assert [report.order_ref for report in broker.open_orders()] == [ticket.order_ref]


def test_two_homes_on_one_lease_are_not_served_at_once(tmp_path: Path) -> None:
    settings = world.params()
    shelf = world.shelf_with_both(tmp_path / "shelf", settings)
    environment = {"RATCHET_LEASE": str(tmp_path / "shared" / "lease")}
    other = Worker(
        Home(tmp_path / "b"), settings, ["solo"], world.feed(), shelf=shelf, environment=environment
    )
    with (
        leased(Home(tmp_path / "a"), environment),
        pytest.raises(NotAllowed, match=rf"gateway, process {os.getpid()} on .* --standby"),
    ):
        other.run()
    assert not (tmp_path / "b" / "ledger.db").exists()


def test_a_worker_whose_lease_is_taken_ends_and_writes_nothing_more(tmp_path: Path) -> None:
    settings = world.params()
    shelf = world.shelf_with_both(tmp_path / "shelf", settings)
    home = Home(tmp_path / "home")
    path = tmp_path / "home" / "lease"
    feed = world.feed()
    worker = Worker(home, settings, ["solo"], feed, shelf=shelf, environment={})
    stream = feed.stream

    def stolen(*arguments: object) -> Iterator[object]:
        for place, step in enumerate(stream(*arguments)):  # type: ignore[arg-type]
            if place == 3:
                taken = LeaseFolder(path)
                newest = taken.claim(holder("thief"), SECONDS, gone=lambda _: True)
                assert newest is not None
            yield step

    feed.stream = stolen  # type: ignore[method-assign,assignment]
    with pytest.raises(Fenced, match=r"epoch 1: .* epoch 2"):
        worker.run()
    with LedgerReader(home.ledger) as ledger:
        events = [event.kind for event in ledger.rows(rows.SessionEvent)]
        assert len(ledger.rows(rows.Decision)) < world.PAPER_BARS
    assert events == ["started"]


@pytest.mark.parametrize("named", ["soon", "0", "-3", "1e9", "nan"])
def test_a_lease_time_that_makes_no_sense_is_refused(named: str) -> None:
    with pytest.raises(ConfigError, match=f"RATCHET_LEASE_SECONDS={named}"):
        lease_seconds({"RATCHET_LEASE_SECONDS": named})
    assert lease_seconds({}) == 60.0
    for fine in ("0.5", "2.5", "3600"):
        assert lease_seconds({"RATCHET_LEASE_SECONDS": fine}) == float(fine)


def test_a_damaged_lease_orders_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.mkdir()
    (path / "7").write_text("{}")
    with pytest.raises(StorageError, match=r"lease/7: .* nothing is ordered"):
        LeaseFolder(path)
    (path / "7").unlink()
    path.rmdir()
    path.write_text("a file")
    with pytest.raises(StorageError, match=r"File exists.* nothing is ordered"):
        LeaseFolder(path)


FROZEN = """
import os, signal, sys
from pathlib import Path
from serving import lease
from core.home import Home
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGSTOP)  # in the middle of every write
folder = lease.LeaseFolder(Path(sys.argv[1]))
lease.Lease(folder, folder.newest(), 60.0).beat(at_once=True)
"""


def test_a_holder_frozen_in_the_middle_of_a_renewal_holds_up_nobody(
    folder: LeaseFolder, clock: Clock
) -> None:
    assert folder.claim(holder("frozen"), SECONDS) is not None
    frozen = subprocess.Popen([sys.executable, "-c", FROZEN, str(folder.path)])
    try:
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED)
        clock.advance(SECONDS)
        assert LeaseFolder(folder.path, clock).claim(holder("next"), SECONDS) is not None
        frozen.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED)  # the folder's own sync
    finally:
        frozen.kill()
        frozen.wait()
    newest = folder.newest()
    assert newest is not None
    assert newest.holder == holder("next")
