"""How often one thing is said: a quiet time, what got worse at once, what lasts again and again."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from serving.alerts import Alert, open_after, worth_sending
from serving.pacing import Pacing

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
REFUSED = Alert("order_refused", "warning", "broker", "aapl", NOW, "one")
LOST = Alert("broker_lost", "critical", "broker link", "", NOW, "gone", lasts=True)
BACK = replace(LOST, level="info", detail="back", lasts=False, ends=True)
REDUCING = Alert("risk_state", "warning", "risk", "aapl", NOW, "-> REDUCING", lasts=True)
HALTED = replace(REDUCING, level="critical", detail="-> HALTED")


def test_of_one_kind_a_message_a_minute_and_the_rest_is_counted() -> None:
    pacing = Pacing(quiet_seconds=60.0, repeat_seconds=300.0)
    assert pacing.admit(REFUSED, 0.0) == REFUSED
    held = [pacing.admit(replace(REFUSED, detail=f"{n}"), float(n)) for n in range(1, 15)]
    assert held == [None] * 14
    assert pacing.due(59.9) == []
    assert pacing.seconds_to_next(50.0) == 10.0
    # The newest of the fourteen is told, and that there were thirteen more.
    (told,) = pacing.due(60.0)
    assert (told.detail, told.held_back) == ("14", 13)
    assert "and 13 more of this kind" in told.text
    assert pacing.due(1000.0) == []


def test_another_agent_or_event_is_another_matter() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(REFUSED, 0.0)
    assert pacing.admit(replace(REFUSED, agent="ixic3x"), 0.0)
    assert pacing.admit(replace(REFUSED, event="latency"), 0.0)


def test_what_got_worse_waits_for_nothing() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(REDUCING, 0.0)
    assert pacing.admit(HALTED, 1.0) == HALTED
    assert pacing.admit(HALTED, 2.0) is None


def test_a_lost_link_is_told_at_once_and_again_until_it_is_back() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(LOST, 0.0) == LOST
    # The broker repeats the event every minute; a person hears it every five.
    assert [pacing.admit(LOST, 60.0 * minute) for minute in (1, 2, 3, 4)] == [None] * 4
    assert pacing.due(299.0) == []
    (again,) = pacing.due(300.0)
    assert again.since == NOW
    assert "lasts since: 2026-03-02T15:00:00+00:00" in again.text
    assert len(pacing.due(600.0)) == 1
    assert pacing.admit(BACK, 610.0) == replace(BACK, since=NOW)
    assert pacing.due(10_000.0) == []


def test_a_link_that_flaps_is_told_within_the_quiet_time_and_not_at_each_turn() -> None:
    pacing = Pacing(60.0, 300.0)
    sent = [pacing.admit(one, float(n)) for n, one in enumerate([LOST, BACK, LOST, BACK, LOST])]
    assert [one is not None for one in sent] == [True, True, False, False, False]
    assert len(pacing.due(61.0)) == 1  # it is down: that is told, a minute late at most
    assert len(pacing.due(361.0)) == 1


def test_what_never_began_does_not_end() -> None:
    assert Pacing(60.0, 300.0).admit(BACK, 0.0) is None


def test_a_halt_lasts_but_is_not_told_again_and_again() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(HALTED, 0.0)
    assert pacing.due(100_000.0) == []


def test_the_least_level_of_an_event_decides_what_is_sent() -> None:
    assert worth_sending(REFUSED, "info")
    assert worth_sending(REFUSED, "warning")
    assert not worth_sending(REFUSED, "critical")
    assert not worth_sending(HALTED, "off")
    assert worth_sending(BACK, "critical")  # who heard of the beginning hears of the end


def test_after_the_quiet_time_the_next_is_told_at_once() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(REFUSED, 5.0)
    assert pacing.admit(REFUSED, 64.9) is None
    assert pacing.due(64.9) == []
    assert pacing.due(65.0) == [REFUSED]
    other = Pacing(60.0, 300.0)
    assert other.admit(REFUSED, 5.0)
    assert other.admit(REFUSED, 65.0) == REFUSED


def test_what_lasts_and_is_not_repeated_is_told_again_after_the_quiet_time() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(HALTED, 0.0)
    assert pacing.admit(replace(HALTED, detail="deeper"), 1.0) is None
    (told,) = pacing.due(60.0)
    assert told.detail == "deeper"
    assert pacing.due(10_000.0) == []


def test_a_stall_that_gets_worse_is_told_at_once_and_lasts_since_it_began() -> None:
    pacing = Pacing(60.0, 300.0)
    stalled = Alert("stalled", "warning", "agent", "aapl", NOW, "hangs", lasts=True)
    later = replace(stalled, time=NOW + timedelta(seconds=30))
    assert pacing.admit(stalled, 0.0)
    assert pacing.admit(later, 30.0) is None
    worse = replace(stalled, level="critical", time=NOW + timedelta(seconds=31))
    assert pacing.admit(worse, 31.0) == worse
    (again,) = pacing.due(331.0)
    assert (again.level, again.since) == ("critical", NOW)
    shown = open_after([stalled, later, worse]).newest_first()
    assert [(one.level, one.since) for one in shown] == [("critical", NOW)]


def test_whoever_waits_knows_for_how_long_nothing_is_due() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.seconds_to_next(0.0) == math.inf
    assert pacing.admit(REFUSED, 100.0)
    assert pacing.seconds_to_next(110.0) == math.inf
    assert pacing.admit(LOST, 100.0)
    assert pacing.seconds_to_next(150.0) == 250.0
    assert (pacing.due(399.9), len(pacing.due(400.0))) == ([], 1)
    assert pacing.admit(REFUSED, 390.0) is not None
    assert pacing.admit(REFUSED, 400.0) is None
    assert pacing.seconds_to_next(410.0) == 40.0
    assert pacing.seconds_to_next(1_000.0) == 0.0


def test_what_is_over_is_not_told_afterwards_and_what_did_not_last_is() -> None:
    pacing = Pacing(60.0, 300.0)
    over = replace(HALTED, level="info", detail="-> ACTIVE", lasts=False, ends=True)
    assert pacing.admit(HALTED, 0.0)
    assert pacing.admit(HALTED, 1.0) is None
    assert pacing.admit(over, 2.0)
    assert pacing.due(62.0) == []
    once = replace(LOST, detail="a bar was stale", lasts=False)
    assert pacing.admit(LOST, 0.0)
    assert pacing.admit(once, 1.0) is None
    assert pacing.admit(BACK, 2.0)
    assert [one.detail for one in pacing.due(62.0)] == ["a bar was stale"]


def test_the_end_of_something_begins_a_quiet_time_too() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(LOST, 0.0)
    assert pacing.admit(BACK, 70.0)
    assert pacing.admit(LOST, 80.0) is None
    (told,) = pacing.due(130.0)
    assert told.event == "broker_lost"


def test_what_lasts_is_repeated_though_something_else_of_its_kind_was_told() -> None:
    pacing = Pacing(60.0, 300.0)
    assert pacing.admit(LOST, 0.0)
    assert pacing.admit(replace(LOST, detail="once", lasts=False), 61.0)
    assert [one.detail for one in pacing.due(361.0)] == ["gone"]
