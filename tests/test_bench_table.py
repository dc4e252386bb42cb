"""The benchmark's table, its results file and how a contender is asked."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import results, run, speak, table
from bench.rows import ROWS, Row


def samples(*rates: float) -> list[dict[str, float]]:
    """Return samples of two seconds of wall and one of processor time."""
    return [{"amount": rate, "seconds": 2.0, "processor": 1.0} for rate in rates]


def measured(**changed: Any) -> dict[str, Any]:
    row = {
        "name": "engine",
        "work": "engine",
        "unit": "steps/s",
        "clock": "processor",
        "fastest": True,
        "asked": {"quick": 30, "slow": 30},
        "samples": {
            "ratchet": samples(900, 600, 6_000, 1, 600),
            "quick": samples(30, 20, 20),
            "slow": samples(2, 2, 2),
        },
    }
    return row | changed


def test_a_ratio_is_of_medians_and_asked_of_the_fastest_peer_only() -> None:
    quick, slow = table.lines(measured())
    assert (quick.ours, quick.theirs, quick.ratio) == (600, 20, 30)
    assert (quick.asked, quick.reached) == ("30×", True)
    assert (slow.ratio, slow.asked, slow.reached) == (300, "", None)


def test_wall_time_counts_where_the_row_says_so() -> None:
    assert table.lines(measured(clock="seconds"))[0].ours == 300


def test_what_is_not_reached_is_said() -> None:
    lines = table.lines(measured(asked={"quick": 30.5, "slow": 3}, fastest=False))
    assert [line.reached for line in lines] == [False, True]


def test_a_limit_is_held_against_its_median() -> None:
    row = {"work": "w", "against": "a", "unit": "ms", "values": [1.0, 9.0, 2.0], "at_most": 2.0}
    assert table.limit_line(row).reached is True
    assert table.limit_line(row | {"at_most": 1.9}).reached is False


def test_a_limit_in_milliseconds_has_no_ratio() -> None:
    row = {"work": "w", "against": "a", "unit": "ms", "values": [1.0], "at_most": 2.0}
    assert table.text([row]).splitlines()[2].count("–") == 2  # nothing beside it either
    assert table.limit_line(row | {"unit": "times"}).ratio == 1.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12345, "0.123"), (21.04, "21"), (999, "999"), (5_971_234, "5,970,000"), (1_049, "1,050")],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert table.figure(value) == shown


def test_the_table_is_aligned_and_has_a_line_per_peer() -> None:
    shown = table.text([measured()]).splitlines()
    assert len(shown) == 4
    assert len({len(line) for line in shown}) == 1
    assert shown[2].endswith("|   30× |     yes |")


def test_an_interrupted_run_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ROWS[0], Row(**{**_fields(ROWS[0]), "name": "second"})
    monkeypatch.setattr(run, "ROWS", (first, second))
    monkeypatch.setattr(run, "PROJECT", tmp_path)
    asked: list[str] = []

    def measure(row: Row, quick: bool, venvs: Path) -> dict[str, Any]:
        asked.append(row.name)
        if row.name == "second" and len(asked) == 2:
            raise run.BenchError("gym-anytrading ended: no such module")
        return measured(name=row.name)

    monkeypatch.setattr(run, "measure", measure)
    assert run.run([first, second], True, False, tmp_path) == 1
    assert "second: gym-anytrading ended: no such module" in capsys.readouterr().err
    assert run.run([first, second], True, False, tmp_path) == 0
    assert asked == ["engine", "second", "second"]
    kept = json.loads(next((tmp_path / "bench" / "results").glob("*-quick.json")).read_text())
    assert list(kept["rows"]) == ["engine", "second"]
    assert kept["machine"]["cores"] >= 1


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def test_the_newest_file_of_a_commit_is_taken_up_and_quick_runs_keep_apart(tmp_path: Path) -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    fresh = results.file_of(tmp_path, False, now)
    assert fresh.name == "2026-11-26-unknown.json"
    results.save(fresh.with_name("2026-11-25-unknown.json"), {})
    results.save(fresh.with_name("2026-11-25-unknown-quick.json"), {})
    assert results.file_of(tmp_path, False, now).name == "2026-11-25-unknown.json"
    assert results.file_of(tmp_path, True, now).name == "2026-11-25-unknown-quick.json"


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(run.BenchError, match="no row 'motor'; rows: engine"):
        run.chosen("motor")


def test_a_sample_repeats_the_work_until_its_seconds_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 0.4, 0.8, 1.2])
    monkeypatch.setattr(speak.time, "perf_counter", lambda: next(clock))
    assert speak.sample(lambda: 7.0, 1.0)["amount"] == 21.0


def test_a_contender_that_cannot_start_says_why(tmp_path: Path) -> None:
    row = ROWS[0]
    assert isinstance(row, Row)
    broken = type(row.ratchet)("broken", "bench.peers.no_such_module", "x")
    with pytest.raises(run.BenchError, match=r"broken ended: .*no_such_module"):
        run.Process(broken, row, tmp_path, True, tmp_path, None)


def test_ratchets_own_sides_make_samples(tmp_path: Path) -> None:
    row = ROWS[0]
    assert isinstance(row, Row)
    process = run.Process(row.ratchet, row, tmp_path, True, tmp_path, None)
    try:
        assert process.ready["accounts"] == 1_024
        assert process.sample()["amount"] >= 1_024 * 50
    finally:
        process.end()
