"""The benchmark's table, its results file and how a contender is asked."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import process, results, run, speak, table
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


def test_an_interrupted_run_goes_on_with_what_is_missing_or_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ROWS[0], Row(**{**_fields(ROWS[0]), "name": "second"})
    monkeypatch.setattr(run, "ROWS", (first, second))
    monkeypatch.setattr(run, "PROJECT", tmp_path)
    asked: list[str] = []

    def measure(row: Row, quick: bool, venvs: Path) -> dict[str, Any]:
        asked.append(row.name)
        failed = row.name == "second" and len(asked) == 2
        samples = measured()["samples"]
        if failed:
            del samples["quick"]
        problems = {"quick": "quick ended: no such module"} if failed else {}
        return measured(name=row.name, samples=samples, failed=problems)

    monkeypatch.setattr(run, "measure", measure)
    assert run.run([first, second], True, False, tmp_path) == 1
    told = capsys.readouterr()
    assert "second: quick ended: no such module" in told.err
    assert told.out.count("| quick   |") == 2  # the other peer's lines stay, and its own says so
    assert told.out.count("failed |") == 1
    assert run.run([first, second], True, False, tmp_path) == 0
    assert asked == ["engine", "second", "second"]
    kept = json.loads(next((tmp_path / "bench" / "results").glob("*-quick.json")).read_text())
    assert list(kept["rows"]) == ["engine", "second"]
    assert kept["machine"]["cores"] >= 1


class Contender:
    """Answers samples, or fails in a round."""

    def __init__(self, label: str, fails_in: int | None = None) -> None:
        self.label, self.ready, self.asked, self._fails_in = label, {}, 0, fails_in

    def sample(self, seconds: float) -> dict[str, float]:
        self.asked += 1
        if self.asked == self._fails_in:
            raise process.BenchError(f"{self.label} has not answered for {seconds:.0f} s")
        return {"amount": float(self.asked), "seconds": 1.0, "processor": 1.0}


def _in_turns(*running: Contender, **changed: Any) -> tuple[dict[str, Any], run.Failed]:
    failed: run.Failed = {}
    row = Row(**{**_fields(ROWS[0]), **changed})
    taken = run.take_turns(row, list(running), run.Clock(False, 0.0), failed)  # type: ignore[arg-type]
    return taken, failed


def test_the_first_round_does_not_count_and_who_fails_loses_only_its_own_samples() -> None:
    ours, slow = Contender("ratchet"), Contender("slow", fails_in=3)
    taken, failed = _in_turns(ours, slow, Contender("fast"))
    assert [sample["amount"] for sample in taken["ratchet"]] == [2, 3, 4, 5, 6]
    assert len(taken["fast"]) == 5
    assert (taken["slow"], slow.asked) == ([], 3)
    assert failed == {"slow": "slow has not answered for 900 s"}


def test_without_ratchet_a_row_ends() -> None:
    fast = Contender("fast")
    _, failed = _in_turns(Contender("ratchet", fails_in=2), fast)
    assert list(failed) == ["ratchet"]
    assert fast.asked == 1


def test_rounds_end_when_their_seconds_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1_000, 15))
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))
    taken, failed = _in_turns(Contender("ratchet"), budget=40.0)
    assert len(taken["ratchet"]) == 2  # warm-up at 15, rounds at 30 and 45
    assert not failed


def test_a_row_that_cannot_be_measured_still_has_its_line() -> None:
    lines = table.lines(measured(samples={}))
    assert [(line.peer, line.failed, line.reached) for line in lines] == [
        ("quick", True, None),
        ("slow", True, None),
    ]
    row = {"work": "w", "against": "a", "unit": "ms", "values": [], "at_most": 2.0, "beside": None}
    assert "failed" in table.text([row])


def test_a_command_that_fails_or_hangs_says_so(tmp_path: Path) -> None:
    with pytest.raises(process.BenchError, match=r"bench\.no_such ended with status 1: .*no_such"):
        process.output_of(["bench.no_such"], tmp_path, 30.0)
    with pytest.raises(process.BenchError, match=r"http\.server has not ended after 0 s"):
        process.output_of(["http.server", "0", "--bind", "127.0.0.1"], tmp_path, 0.2)


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
    begun = process.Process(broken, row, tmp_path, True, tmp_path)
    with pytest.raises(process.BenchError, match=r"broken ended: .*no_such_module"):
        begun.wait_until_ready(60.0, None)
    begun.end()


def test_nothing_that_a_contender_started_outlives_it(tmp_path: Path) -> None:
    started = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    with (tmp_path / "log").open("w") as log:
        begun = process.begun([sys.executable, "-c", started], log)
    assert begun.stdout is not None
    with begun.stdout as told:
        left = Path("/proc", told.readline().strip(), "stat")
    assert left.exists()
    process.end(begun)
    deadline = time.monotonic() + 10.0
    while left.exists() and ") Z " not in left.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left.exists() or ") Z " in left.read_text()


def test_ratchets_own_sides_make_samples(tmp_path: Path) -> None:
    row = ROWS[0]
    assert isinstance(row, Row)
    ours = process.Process(row.ratchet, row, tmp_path, True, tmp_path)
    try:
        ours.wait_until_ready(240.0, None)
        assert ours.ready["accounts"] == 1_024
        assert ours.sample(240.0)["amount"] >= 1_024 * 50
    finally:
        ours.end()
