"""A comparison of unequal work is a defect: it is said, and the run fails."""

from pathlib import Path
from typing import Any

import pytest

from bench import run
from bench.agreement import differences
from bench.rows import ROWS, Row

OURS = {"learning_rate": 5e-4, "hidden": (64, 64), "epochs": 4, "accounts": 256}


def test_what_both_say_must_be_equal_and_what_one_says_need_not() -> None:
    theirs = {"learning_rate": 5.0000001e-4, "hidden": [64, 64], "epochs": 4, "environments": 16}
    assert differences({"ratchet": OURS, "peer": theirs}) == []
    assert differences({"ratchet": OURS, "peer": theirs | {"hidden": [256, 256], "epochs": 3}}) == [
        "peer: epochs is 3, Ratchet's 4",
        "peer: hidden is [256, 256], Ratchet's (64, 64)",
    ]


def test_a_row_of_unequal_work_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(row: Row, quick: bool, venvs: Path) -> dict[str, Any]:
        return {"name": row.name, "unequal": ["peer: epochs is 3, Ratchet's 4"], "failed": {},
                "samples": {}, "asked": {}, "clock": "processor"}  # fmt: skip

    monkeypatch.setattr(run, "PROJECT", tmp_path)
    monkeypatch.setattr(run, "measure", measure)
    assert run.run([ROWS[0]], True, False, tmp_path) == 1
    assert "error: engine: peer: epochs is 3" in capsys.readouterr().err
