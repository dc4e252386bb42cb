"""kill -9 at any moment: the ledger ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serving_kit as world
import serving_process

from core.errors import StorageError
from serving import status
from serving.ledger import LedgerReader, rows

MONEY = (
    rows.BarSeen, rows.Decision, rows.Verdict, rows.Intent, rows.OrderStatus, rows.Fill,
    rows.Equity, rows.RiskEvent, rows.AliasChange, rows.Model, rows.Session,
)  # fmt: skip
HERE = Path(__file__).parent


def start(root: Path, crash: str = "never:0") -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    return subprocess.Popen(
        [sys.executable, str(HERE / "serving_process.py"), str(root), crash],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def money(root: Path) -> dict[str, list[str]]:
    """Everything that must be equal, per agent and in order."""
    with LedgerReader(world.home_at(root / "home").ledger) as ledger:
        found: dict[str, list[str]] = {}
        for kind in MONEY:
            named = {getattr(row, "agent", getattr(row, "order_ref", "")[:14]) for row in
                     ledger.rows(kind)}  # fmt: skip
            for name in named:
                found[f"{kind.TABLE} {name}"] = [
                    repr(row) for row in ledger.rows(kind)
                    if name == getattr(row, "agent", getattr(row, "order_ref", "")[:14])
                ]  # fmt: skip
    return found


def closes(root: Path) -> int:
    try:
        with LedgerReader(world.home_at(root / "home").ledger) as ledger:
            return len(ledger.rows(rows.Equity))
    except StorageError:
        return 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    root = tmp_path_factory.mktemp("uninterrupted")
    world.shelf_with_both(root / "shelf", serving_process.settings())
    code, output = finish(start(root))
    assert code == 0, output
    assert output.split() == ["heavy:"], "no learning library belongs in the serving process"
    return money(root)


def test_kill_9_at_random_bars_leaves_the_ledger_of_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: dict[str, list[str]]
) -> None:
    world.shelf_with_both(tmp_path / "shelf", serving_process.settings())
    rng = random.Random(time.time_ns() % 1000)
    kills = sorted(rng.sample(range(1, 2 * serving_process.PAPER_BARS - 4), 2))
    for bar in kills:
        process = start(tmp_path)
        while process.poll() is None and closes(tmp_path) < bar:
            time.sleep(0.002)  # the other process works; there is nothing else to wait for
        process.send_signal(signal.SIGKILL)
        code, output = finish(process)
        assert code == -signal.SIGKILL, f"not killed at {bar} of {kills}: {output}"
        assert status.read(world.home_at(tmp_path / "home")).phase == "died"
    code, output = finish(start(tmp_path))
    assert code == 0, f"{kills}: {output}"
    assert money(tmp_path) == uninterrupted, f"killed at {kills}"


def test_a_crash_between_ledger_and_broker_loses_and_doubles_no_order(
    tmp_path: Path, uninterrupted: dict[str, list[str]]
) -> None:
    world.shelf_with_both(tmp_path / "shelf", serving_process.settings())
    for crash in ("before:4", "after:5", "inside:6"):
        code, output = finish(start(tmp_path, crash))
        assert code == -signal.SIGKILL, f"{crash}: {output}"
    code, output = finish(start(tmp_path))
    assert code == 0, output
    assert money(tmp_path) == uninterrupted
