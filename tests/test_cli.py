"""The command line: instant help, one line per error, the right exit code."""

import argparse
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_kit import home_with_mlflow

from core.home import PROJECT, Home
from flows import cli, commands
from registry import history

VERBS = (
    "demo ingest retrain backtest compare promote register rollback whatwas audit parity explain "
    "serve watchdog pause resume reload ledger status alerts up doctor shadow"
)


def ratchet(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "RATCHET_HOME": str(home)},
        timeout=120,
        check=False,
    )


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"    {verb} " in text for verb in VERBS.split())


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_verb_has_a_function_and_help_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    assert f"ratchet {verb}" in capsys.readouterr().out.split("example:")[1]
    assert callable(getattr(commands, verb))


def test_help_answers_at_once(tmp_path: Path) -> None:
    # Processor time, since a busy machine must not fail a test; the start of Python is most of it.
    before = os.times()
    assert ratchet("--help", home=tmp_path).returncode == 0
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.4
    heavy = ("prefect", "mlflow", "pandas", "numpy", "pydantic", "rich")
    script = f"import sys, flows.cli; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.setattr(commands, "doctor", broken)
    assert cli.main(["doctor"]) == 70
    log = tmp_path / "logs" / "ratchet.log"
    told = capsys.readouterr().err
    assert told == (
        f"error: unexpected ZeroDivisionError: division by zero; the traceback is in {log}\n"
    )
    assert "Traceback" in log.read_text()


def test_ctrl_c_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "doctor", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_look_at_the_status_makes_no_database(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status"]) == 0
    assert "none yet" in capsys.readouterr().out
    assert not home.mlflow.exists()


def test_the_audit_ends_with_an_error_where_the_ledger_was_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_with_mlflow(tmp_path)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    for number in range(3):
        history.append(home.promotions, now, "aapl", "look", {"number": number})
    assert commands.audit(home, argparse.Namespace()) == 0
    assert "the promotion ledger is whole" in capsys.readouterr().out
    with closing(sqlite3.connect(home.promotions)) as database, database:
        database.execute("DROP TRIGGER entries_no_delete")
        database.execute("DELETE FROM entries WHERE id = 3")
    assert commands.audit(home, argparse.Namespace()) == commands.ALTERED
    assert "entries 3 to 3 were removed from the end" in capsys.readouterr().out
