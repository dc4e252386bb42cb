"""The watchdog: what dies is started again, what hangs is ended, and its session goes on."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving_kit as world
from watchdog_kit import DEADLINE_SECONDS, Place, place_at, until

from serving.ledger import rows


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
