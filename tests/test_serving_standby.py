"""A standby takes the place of a gateway that died or hangs, in real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving_kit as world

from core.errors import SchemaMismatch
from core.home import Home
from serving.ledger import LedgerReader, rows

HERE = Path(__file__).parent
DEADLINE_SECONDS = 120.0  # only ever spent by a test that fails
LEASE_SECONDS = "3"


class Place:
    """A shelf, a lease, and processes that trade on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        world.shelf_with_both(root / "shelf", world.params())
        self.started: list[subprocess.Popen[str]] = []

    def start(self, home: str, speed: str, *more: str) -> "subprocess.Popen[str]":
        lease = {
            "RATCHET_LEASE": str(self.root / "lease"),
            "RATCHET_LEASE_SECONDS": LEASE_SECONDS,
        }
        arguments = [str(self.root / home), str(self.root / "shelf"), speed, *more]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "standby_process.py"), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | lease | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
        )  # fmt: skip
        self.started.append(process)
        return process

    def decided(self, home: str) -> int:
        try:
            with LedgerReader(Home(self.root / home).ledger) as ledger:
                return len(ledger.rows(rows.Decision))
        except Exception as error:
            if "no ledger yet" in str(error) or isinstance(error, SchemaMismatch):
                return 0  # it is being made
            raise


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_standby_of_the_same_home_goes_on_where_the_gateway_stopped(
    place: Place, how: signal.Signals
) -> None:
    primary = place.start("home", "4")
    until("decisions", lambda: place.decided("home") >= 2)
    standby = place.start("home", "0", "standby")
    assert standby.stdout is not None
    assert standby.stdout.readline() == "waiting\n"
    assert standby.poll() is None
    primary.send_signal(how)
    _, problem = standby.communicate(timeout=DEADLINE_SECONDS)
    assert (standby.returncode, problem) == (0, "")
    # A gateway that hung was ended: its home has one writer.
    assert primary.wait(timeout=DEADLINE_SECONDS) == -signal.SIGKILL
    with LedgerReader(place.root / "home" / "ledger.db") as ledger:
        decisions = ledger.rows(rows.Decision)
        starts = [one.kind for one in ledger.rows(rows.SessionEvent)]
        orders = [order.order_ref for order in ledger.rows(rows.Intent)]
    assert len(decisions) == world.PAPER_BARS
    assert {one.session for one in decisions} == {1}
    assert starts == ["started", "started", "closed"]
    assert len(set(orders)) == len(orders)


def test_a_gateway_that_wakes_up_on_another_machine_is_fenced(place: Place) -> None:
    primary = place.start("here", "4")
    until("decisions", lambda: place.decided("here") >= 2)
    primary.send_signal(signal.SIGSTOP)
    shutil.copytree(place.root / "here", place.root / "there")  # as storage that moves over
    known = place.decided("here")
    standby = place.start("there", "0", "standby")
    _, problem = standby.communicate(timeout=DEADLINE_SECONDS)
    assert (standby.returncode, problem) == (0, "")
    assert place.decided("there") == world.PAPER_BARS
    primary.send_signal(signal.SIGCONT)
    _, problem = primary.communicate(timeout=DEADLINE_SECONDS)
    assert primary.returncode != 0
    assert "epoch 1" in problem
    assert "orders nothing any more" in problem
    # What it was in the middle of may be written; nothing is decided after that.
    assert place.decided("here") - known in (0, 1)
