"""`ratchet up`: everything runs, Ctrl-C ends it all, and two homes do not meet."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from core.home import PROJECT, Home
from flows import servers


@pytest.fixture
def up(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Start `ratchet up` for ``home`` on free ports; kill whatever is left of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={
            **os.environ,
            "RATCHET_PREFECT_PORT": str(servers.free_port()),
            "RATCHET_MLFLOW_PORT": str(servers.free_port()),
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        servers.stop_leftovers(home)


def test_up_prints_where_everything_is_and_ctrl_c_ends_all_of_it(
    home: Home, up: subprocess.Popen[str]
) -> None:
    assert up.stdout is not None
    told = ""
    for line in up.stdout:
        told += line
        if line.startswith("Ctrl-C"):
            break
    notes = servers.noted(home)
    assert set(notes) == {"prefect", "mlflow", "worker", "runner"}, told
    for name in ("prefect", "mlflow"):
        assert notes[name].url in told
        assert servers.answers(notes[name].health)
    started = [process.pid for process in psutil.Process(up.pid).children(recursive=True)]
    assert set(started) >= {note.pid for note in notes.values()}
    lines = [" ".join(psutil.Process(pid).cmdline()) for pid in started]
    assert not [line for line in lines if "mlflow.db" in line]  # its address may hold a password

    again = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert f"already up at {notes['prefect'].url}" in again.stderr

    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=60) == 0, up.stdout.read()
    assert [pid for pid in started if psutil.pid_exists(pid)] == []
    assert servers.noted(home) == {}


def test_a_part_that_dies_is_started_again_after_a_growing_pause(home: Home) -> None:
    from rich.console import Console

    from flows.up import Part, _look_after

    def start() -> servers.Server:
        return servers._start(home, "part", [sys.executable, "-c", ""], "", "", {})

    part = Part("part", start, start(), started=0.0)
    console = Console(file=(home.root / "told").open("w"))
    pauses = []
    now = 1.0
    for _ in range(3):
        part.server.process.wait()
        assert not _look_after(part, console, now)
        assert part.retry_at is not None
        pauses.append(part.retry_at - now)
        assert not _look_after(part, console, part.retry_at - 0.1)
        now = part.retry_at
        assert _look_after(part, console, now)
    part.server.stop()
    console.file.close()
    assert pauses == [1.0, 2.0, 4.0]
