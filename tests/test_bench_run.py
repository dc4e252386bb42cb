"""A run of the benchmark: what it does when its time is spent."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import results, run
from bench.rows import ENGINE, FEATURES


def none_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Leave a quick run no time; return where measured rows are noted."""
    begun: list[str] = []

    def measured(row: Any, *_: Any) -> dict[str, Any]:
        begun.append(row.name)
        return {"name": row.name, "failed": {}}

    monkeypatch.setattr(run, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(run, "measure", measured)
    monkeypatch.setattr(run, "hold", measured)
    monkeypatch.setattr(results, "file_of", lambda *_: tmp_path / "quick.json")
    return begun


def test_a_quick_run_begins_no_row_when_its_time_is_spent_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = none_left(monkeypatch, tmp_path)
    assert run.run([ENGINE, FEATURES], True, False, tmp_path) == 1
    assert begun == []
    told = capsys.readouterr().err
    assert "engine: not measured, the 0 s of a quick run are spent" in told
    assert "features: not measured" in told


def test_a_whole_run_takes_the_time_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = none_left(monkeypatch, tmp_path)
    assert run.run([ENGINE, FEATURES], False, False, tmp_path) == 0
    assert begun == ["engine", "features"]
    assert set(json.loads((tmp_path / "quick.json").read_text())["rows"]) == {"engine", "features"}
