"""One retraining per agent at a time; a dead one holds nothing."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from core.errors import TrainingError
from core.home import Home
from flows import slot

NOW = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)

HOLD = """
import sys
from datetime import UTC, datetime
from core.home import Home
from flows import slot
with slot.retraining(Home.from_environment(), "aapl", datetime(2026, 3, 2, 22, 0, tzinfo=UTC)):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(home: Home) -> subprocess.Popen[str]:
    """Start a process that holds the slot of aapl until it dies; return once it holds it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RATCHET_HOME": str(home.root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_retraining_of_an_agent_is_refused_and_told_who_holds_the_slot(home: Home) -> None:
    with slot.retraining(home, "aapl", NOW):
        told = rf"aapl: .*pid {os.getpid()} since 2026-03-02T22:00:00"
        with pytest.raises(TrainingError, match=told), slot.retraining(home, "aapl", NOW):
            pass
        assert slot.is_taken(home, "aapl")


def test_agents_do_not_wait_for_each_other(home: Home) -> None:
    with slot.retraining(home, "aapl", NOW), slot.retraining(home, "ixic3x", NOW):
        assert slot.is_taken(home, "ixic3x")


def test_a_finished_retraining_frees_its_slot(home: Home) -> None:
    with slot.retraining(home, "aapl", NOW):
        pass
    assert not slot.is_taken(home, "aapl")
    with slot.retraining(home, "aapl", NOW):
        pass


def test_a_failed_retraining_frees_its_slot(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), slot.retraining(home, "aapl", NOW):
        raise ZeroDivisionError
    assert not slot.is_taken(home, "aapl")


def test_a_killed_retraining_frees_its_slot_at_once(home: Home) -> None:
    with hold(home) as holder:
        told = f"pid {holder.pid}"
        with pytest.raises(TrainingError, match=told), slot.retraining(home, "aapl", NOW):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with slot.retraining(home, "aapl", NOW):
            content = json.loads((home.locks / "retrain-aapl.lock").read_text())
    assert content == {"pid": os.getpid(), "since": "2026-03-02T22:00:00+00:00"}


def test_asking_whether_a_slot_is_taken_makes_nothing(home: Home) -> None:
    assert not slot.is_taken(home, "aapl")
    assert not home.root.exists()
