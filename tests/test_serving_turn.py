"""Whose turn it is: when a silent holder is waited for, when it is ended, and what it costs."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ExecutionError, Fenced, StorageError
from core.home import Home
from serving import lease as leases
from serving import standby
from serving.lease import KEPT, Holder, Lease, LeaseFolder, is_gone, leased, this_machine
from serving.lock import lock_holder
from serving.standby import end_silent, wait_for_turn

START = datetime(2026, 3, 2, 15, tzinfo=UTC)
SECONDS = 60.0
ELSEWHERE = Holder("gateway", "elsewhere", 1, "/home/elsewhere")

LOCKED = """
import sys
from pathlib import Path
from core.home import Home
from serving.lock import worker_lock
with worker_lock(Home(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.readline()
"""


class Clock:
    """A clock, and a pause that lets it go on."""

    def __init__(self) -> None:
        self.now = START
        self.pauses: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> LeaseFolder:
    return LeaseFolder(tmp_path / "lease", clock)


@contextmanager
def locking(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the worker's lock of a home, and does nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            yield other
        finally:
            other.kill()


def silent_gateway(pid: int, home: Path) -> Holder:
    return Holder("gateway", socket.gethostname(), pid, str(home), this_machine())


def test_a_standby_waits_until_the_holder_has_been_silent_long_enough(
    tmp_path: Path, folder: LeaseFolder, clock: Clock
) -> None:
    assert folder.claim(ELSEWHERE, 1.0) is not None
    wait_for_turn(Home(tmp_path), {}, clock, clock.pause)
    assert clock.pauses == [standby.LOOK_SECONDS] * 5  # of a second
    assert folder.newest_epoch() == 1  # to claim it is the gateway's own


def test_a_silent_gateway_of_the_same_home_is_ended_and_fenced(
    tmp_path: Path, folder: LeaseFolder, clock: Clock
) -> None:
    with locking(tmp_path) as other:
        assert folder.claim(silent_gateway(other.pid, tmp_path), SECONDS) is not None
        clock.now += timedelta(seconds=SECONDS)
        wait_for_turn(Home(tmp_path), {}, clock, clock.pause)
        assert other.wait(60.0) == -signal.SIGKILL
    newest = folder.newest()
    assert newest is not None
    assert (newest.epoch, newest.holder.role) == (2, "standby")
    assert newest.expired(clock.now), "the gateway that follows need not wait"


def test_a_home_that_another_process_serves_meanwhile_is_left_alone(
    tmp_path: Path, folder: LeaseFolder, clock: Clock
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with locking(tmp_path) as other:
        assert folder.claim(silent_gateway(ended.pid, tmp_path), SECONDS) is not None
        wait_for_turn(Home(tmp_path), {}, clock, clock.pause)
        assert clock.pauses == [], "who has ended is not waited for"
        clock.now += timedelta(seconds=SECONDS)
        wait_for_turn(Home(tmp_path), {}, clock, clock.pause)
        assert other.poll() is None
    assert folder.newest_epoch() == 1


def test_where_nobody_ever_traded_nobody_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    wait_for_turn(Home(tmp_path), {}, clock, clock.pause)
    assert clock.pauses == []


def test_a_killed_process_is_given_the_time_to_let_go_of_its_home(
    tmp_path: Path, folder: LeaseFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = folder.claim(silent_gateway(4321, tmp_path), SECONDS)
    assert term is not None
    clock.now += timedelta(seconds=SECONDS)
    holders: list[int | None] = [4321, 4321, None]
    monkeypatch.setattr(standby, "lock_holder", lambda home: holders.pop(0))
    monkeypatch.setattr(standby.os, "kill", lambda pid, number: None)
    assert end_silent(Home(tmp_path), folder, term, SECONDS)
    assert holders == []


def test_a_gateway_that_woke_up_is_not_ended(
    tmp_path: Path, folder: LeaseFolder, clock: Clock
) -> None:
    with locking(tmp_path) as other:
        term = folder.claim(silent_gateway(other.pid, tmp_path), SECONDS)
        assert term is not None
        assert not end_silent(Home(tmp_path), folder, term, SECONDS)
        assert other.poll() is None
        assert folder.newest() == term


def test_a_lock_that_outlives_its_killed_holder_is_named_and_the_lease_given_back(
    tmp_path: Path, folder: LeaseFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(standby, "END_SECONDS", 0.05)
    with locking(tmp_path) as other:
        term = folder.claim(silent_gateway(other.pid, tmp_path), SECONDS)
        assert term is not None
        clock.now += timedelta(seconds=SECONDS)
        with monkeypatch.context() as deaf:
            deaf.setattr(standby.os, "kill", lambda pid, number: killed.append((pid, number)))
            with pytest.raises(ExecutionError, match=rf"process {other.pid} .*still holds the"):
                end_silent(home, folder, term, SECONDS)
        assert lock_holder(home) == other.pid
    assert killed == [(other.pid, signal.SIGKILL)]
    newest = folder.newest()
    assert newest is not None
    assert newest.epoch == 2
    assert newest.expired(clock.now)


def test_a_process_of_another_user_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(leases.os, "kill", refused)
    assert not is_gone(silent_gateway(4321, Path("/h")))


def test_only_the_gateway_of_a_home_is_gone_when_its_lock_is_free() -> None:
    """A watchdog that brings orders to rest holds the lease under a lock it will let go of."""
    here = {"host": socket.gethostname(), "pid": os.getpid(), "machine": this_machine()}
    assert is_gone(Holder("gateway", home="h", **here), "h")  # type: ignore[arg-type]
    assert not is_gone(Holder("watchdog", home="h", **here), "h")  # type: ignore[arg-type]
    assert not is_gone(Holder("gateway", home="i", **here), "h")  # type: ignore[arg-type]


def test_a_lease_that_was_taken_away_orders_nothing(folder: LeaseFolder) -> None:
    term = folder.claim(ELSEWHERE, SECONDS)
    assert term is not None
    held = Lease(folder, term, SECONDS)
    held.check()
    for path in folder.path.iterdir():
        path.unlink()
    with pytest.raises(Fenced, match="the lease of epoch 1 is gone; nothing is ordered"):
        held.check()


def test_a_newest_epoch_that_is_no_number_orders_nothing(folder: LeaseFolder) -> None:
    (folder.path / "newest").write_text("seven")
    with pytest.raises(StorageError, match=r"lease: .*'seven'.*nothing is ordered without it"):
        folder.newest_epoch()


def test_a_folder_that_takes_no_new_epoch_is_said(
    folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leases.os, "link", full)
    with pytest.raises(StorageError, match=r"No space left.*nothing is ordered without it"):
        folder.claim(ELSEWHERE, SECONDS)
    assert list(folder.path.iterdir()) == []


def test_old_epochs_are_forgotten_and_the_newest_never(folder: LeaseFolder) -> None:
    for _ in range(KEPT + 2):
        assert folder.claim(ELSEWHERE, 0.0) is not None
    names = sorted(int(path.name) for path in folder.path.iterdir() if path.name.isdigit())
    assert names == [*range(3, KEPT + 3)]
    assert len(list(folder.path.iterdir())) == KEPT + 1, "no drafts are left"


def test_a_holder_renews_a_few_times_in_the_lease_s_time(
    folder: LeaseFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: passed[0])
    term = folder.claim(ELSEWHERE, SECONDS)
    assert term is not None
    held = Lease(folder, term, SECONDS)
    renewed = []
    for _ in range(60):  # a look every second, for a minute
        passed[0] += 1.0
        clock.now += timedelta(seconds=1)
        held.beat()
        newest = folder.newest()
        assert newest is not None
        renewed.append(newest.renewed_at)
    assert len(set(renewed) - {START}) == leases.RENEWALS
    assert renewed[8:10] == [START, START + timedelta(seconds=10)]


def test_a_gateway_that_starts_is_waited_for_longer_and_lets_go_when_it_ends(
    tmp_path: Path, clock: Clock
) -> None:
    folder = LeaseFolder(tmp_path / "lease", clock)
    with leased(Home(tmp_path), {}, clock) as held:
        first = folder.newest()
        held.beat(at_once=True)
        second = folder.newest()
    last = folder.newest()
    assert first is not None
    assert second is not None
    assert last is not None
    assert [term.seconds for term in (first, second, last)] == [240.0, 60.0, 0.0]
    assert {term.epoch for term in (first, second, last)} == {1}
    assert last.expired(clock.now)
