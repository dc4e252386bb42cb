"""The watchdog: what dies is started again, what hangs is ended, and its session goes on."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving_kit as world
from watchdog_kit import DEADLINE_SECONDS, Place, place_at, until

from core.errors import NotAllowed
from serving.ledger import rows
from serving.lock import watchdog_lock, worker_lock
from serving.watchdog import Watchdog
from serving.watchdog_process import watch_over


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


def test_a_gateway_that_keeps_failing_is_given_up_with_an_alert(place: Place) -> None:
    counting = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    starts = place.root / "starts"
    dog, watch = place.dog([sys.executable, "-c", counting, str(starts)], failures=3)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert starts.read_text() == "xxx"
    assert dog.gave_up
    assert "3 failures in a row, the last: exit code 3" in dog.ended
    assert watch.kinds == ["gateway died"] * 3 + ["watchdog gave up"]


def test_a_gateway_that_is_asked_to_stop_is_not_started_again(place: Place) -> None:
    dog, watch = place.dog(place.command("4"))
    until("decisions", lambda: len(place.rows(rows.Decision)) > 0, dog.look)
    assert dog._child is not None
    dog._child.terminate()
    until("the end", lambda: bool(dog.ended), dog.look)
    assert (dog.ended, watch.kinds) == ("the gateway ended as it was asked to", [])


HANGS = """
import os
import signal, sys, time
from pathlib import Path
from core.home import Home
from serving.lock import watchdog_lock, worker_lock
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(sys.argv[2] == "hears"))
with worker_lock(Home(Path(sys.argv[1]))):
    while not any(ended):
        time.sleep(0.01)
"""


@pytest.mark.parametrize(("kind", "code"), [("hears", 0), ("is deaf", -signal.SIGKILL)])
def test_what_hangs_is_asked_to_end_and_killed_where_it_does_not(
    place: Place, kind: str, code: int
) -> None:
    place.lease_seconds = "1"
    command = [sys.executable, "-c", HANGS, str(place.home.root), kind]
    dog, watch = place.dog(command, restart=False, ask=60.0 if code == 0 else 0.2)
    until("a gateway", lambda: dog._watched or bool(dog.ended), dog.look)
    child = dog._child
    assert child is not None, dog.ended
    until("the end", lambda: bool(dog.ended), dog.look)
    assert child.returncode == code
    assert watch.kinds == ["gateway hangs"]


def test_in_live_mode_a_watchdog_starts_nothing(place: Place) -> None:
    params = world.params(agents={"solo": {"symbol": "SOLO"}})
    live = place.environment | {"TRADING_MODE": "live", "IB_ACCOUNT": "U1234567"}
    with pytest.raises(NotAllowed, match="in live mode a watchdog starts none; start `ratchet"):
        watch_over(place.home, params, ["--broker", "ibkr"], environment=live)
    assert not (place.home.logs / "gateway.log").exists()


def test_a_home_has_one_watchdog(place: Place) -> None:
    params = world.params(agents={"solo": {"symbol": "SOLO"}})
    with (
        watchdog_lock(place.home),
        pytest.raises(NotAllowed, match=rf"watches over this home \(process {os.getpid()}\)"),
    ):
        watch_over(place.home, params, [], environment=place.environment)
    assert not (place.home.logs / "gateway.log").exists()


@pytest.mark.parametrize("live", [True, False])
def test_a_gateway_that_died_in_live_mode_stays_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    restarts: list[bool] = []

    class Seen(Watchdog):
        def __init__(self, *arguments: Any, restart: bool, **more: Any) -> None:
            restarts.append(restart)
            super().__init__(*arguments, restart=restart, **more)
            self.ended = "seen"

    monkeypatch.setattr("serving.watchdog_process.Watchdog", Seen)
    mode = {"TRADING_MODE": "live" if live else "paper", "RATCHET_ALERT_URLS": ""}
    with worker_lock(place.home):  # a gateway that runs already
        params = world.params(agents={"solo": {"symbol": "SOLO"}})
        assert watch_over(place.home, params, [], environment=place.environment | mode) == "seen"
    assert restarts == [not live]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_gateway_that_dies_or_hangs_is_ended_and_its_session_goes_on(
    place: Place, how: signal.Signals
) -> None:
    if how == signal.SIGSTOP:
        place.lease_seconds = "10"
    first = place.gateway()
    until("orders", lambda: len(place.rows(rows.Fill)) > 0)
    dog, watch = place.dog(place.command("0"), policy="flatten")
    dog.look()
    first.send_signal(how)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert first.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert dog.ended == "the gateway ended as it was asked to"
    assert len(place.rows(rows.Decision)) == world.PAPER_BARS
    assert {one.session for one in place.rows(rows.Decision)} == {1}
    kinds = [one.kind for one in place.rows(rows.SessionEvent)]
    assert kinds == ["started", "started", "closed"]
    told = [one.kind for one in place.rows(rows.RiskEvent, agent="")]
    stops = [one.policy for one in place.rows(rows.Intervention)]
    hung = how == signal.SIGSTOP
    assert stops == (["flatten"] if hung else [])
    assert ("gateway fenced" in told) == hung
    assert ("gateway hangs" if hung else "gateway died") in watch.kinds
