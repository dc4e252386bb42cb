"""The kill switch stays on until a person's release is written down and done, restarts included."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_serving_switch import pressing, rows_of, serve, told

from core.errors import StorageError
from core.home import Home
from serving import switch
from serving.alerts import KILLED, RELEASED
from serving.ledger import rows

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)


def test_what_cannot_be_written_down_is_not_released(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "kill.log").mkdir()
    made = switch.press(home, "A. Turing", "drill", NOW)  # a stop needs no diary
    with pytest.raises(StorageError, match=r"kill\.log: cannot be written"):
        switch.release(home, "G. Hopper", "drill over", NOW)
    assert switch.pressed(home) == made


def test_a_switch_that_cannot_be_taken_away_stays_on_and_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.kill.mkdir()  # which no program of ours makes, and none can read
    found = switch.pressed(home)
    assert found is not None
    assert (found.policy, found.by) == (None, switch.SOMEBODY)
    assert found.reason == f"{home.kill} cannot be read"
    with pytest.raises(StorageError, match="KILL: cannot be removed"):
        switch.release(home, "G. Hopper", "drill over", NOW)
    assert switch.pressed(home) == found


def test_the_diary_says_when_who_and_why_in_utc(tmp_path: Path) -> None:
    home = Home(tmp_path)
    switch.press(home, "A. Turing", "drill", NOW)
    switch.release(home, "G. Hopper", "drill over", NOW)
    lines = [json.loads(line) for line in (tmp_path / "kill.log").read_text().splitlines()]
    at = "2026-03-02T15:00:00+00:00"
    assert lines == [
        {"at": at, "what": "pressed", "by": "A. Turing", "reason": "drill"},
        {"at": at, "what": "released", "by": "G. Hopper", "reason": "drill over"},
    ]


def test_one_pressed_anew_while_nobody_traded_stops_by_its_own_policy(tmp_path: Path) -> None:
    home = serve(tmp_path, lambda worker, home: {8: pressing(home, "protect"), 10: worker.stop})
    switch.release(home, "G. Hopper", "drill over", NOW)
    again = switch.press(home, "K. Johnson", "another drill", NOW, "hold")
    serve(tmp_path, lambda worker, home: {20: worker.stop})
    stops = rows_of(home, rows.Intervention)
    assert [one.policy for one in stops] == ["protect", "hold"]
    assert stops[1].detail == again.words
    assert told(home) == [KILLED, KILLED]
    later = [one for one in rows_of(home, rows.Intent) if one.bar_time > stops[0].bar_time]
    assert [one for one in later if one.leg == "entry"] == []


def test_a_restart_goes_on_stopped_by_the_same_press_and_says_it_once(tmp_path: Path) -> None:
    home = serve(tmp_path, lambda worker, home: {8: pressing(home, "flatten"), 10: worker.stop})
    serve(tmp_path, lambda worker, home: {20: worker.stop})
    assert told(home) == [KILLED]
    assert len(rows_of(home, rows.Intervention)) == 1
    verdicts = rows_of(home, rows.Verdict)
    assert len(verdicts) == 20
    assert all("kill switch: flatten" in one.words for one in verdicts[8:])
    assert RELEASED not in told(home)
