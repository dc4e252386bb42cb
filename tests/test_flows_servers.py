"""Servers as children: healthy, noted, stopped with everything they started."""

import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from core.errors import ConfigError, ServiceUnavailable
from core.home import Home
from flows import servers


def web(home: Home, port: int) -> servers.Server:
    """Start a real web server as a stand-in for the slow ones."""
    return servers._start(
        home,
        "web",
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        url=f"http://127.0.0.1:{port}",
        health=f"http://127.0.0.1:{port}/",
        extra={},
    )


def test_a_server_is_healthy_then_noted_then_gone(home: Home) -> None:
    server = web(home, servers.free_port())
    with servers.stopping(server):
        server.wait_until_healthy()
        servers.write_notes(home, [server])
        assert servers.noted(home)["web"].url == server.note.url
    assert not psutil.pid_exists(server.note.pid)
    assert servers.noted(home) == {}


def test_a_server_that_dies_while_starting_is_reported_with_its_last_words(home: Home) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        server = web(home, busy.getsockname()[1])
        # The port answers nothing, so only the death of the process can end the wait.
        with pytest.raises(ServiceUnavailable, match=r"web stopped while .*web\.log: OSError"):
            server.wait_until_healthy()


def test_a_server_that_never_answers_is_reported_with_its_log(home: Home) -> None:
    server = servers._start(
        home,
        "mute",
        [sys.executable, "-c", "import sys; sys.stdin.read(); import time; time.sleep(60)"],
        url="",
        health=f"http://127.0.0.1:{servers.free_port()}/",
        extra={},
    )
    with servers.stopping(server), pytest.raises(ServiceUnavailable, match=r"after 0 s.*mute\.log"):
        server.wait_until_healthy(seconds=0.0)


def test_stopping_a_server_ends_what_it_started(home: Home) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    server = servers._start(
        home, "parent", [sys.executable, "-c", script], url="", health="", extra={}
    )
    while not server.log.read_text():
        assert server.process.poll() is None
    child = psutil.Process(int(server.log.read_text()))
    server.stop()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_a_killed_ratchet_left_behind_is_found_and_ended(home: Home) -> None:
    server = web(home, servers.free_port())
    server.wait_until_healthy()
    servers.write_notes(home, [server])
    assert servers.stop_leftovers(home) == ["web"]
    assert server.process.wait(timeout=10) == -signal.SIGTERM
    assert not home.services.exists()


def test_a_note_of_a_reused_pid_is_no_server_of_ours(home: Home) -> None:
    server = web(home, servers.free_port())
    with servers.stopping(server):
        servers.write_notes(home, [server])
        text = home.services.read_text()
        home.services.write_text(text.replace(str(server.note.pid), str(os.getpid())))
        assert servers.noted(home) == {}
        assert servers.stop_leftovers(home) == []


def test_the_default_port_gives_way_when_taken_but_a_named_one_does_not() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert servers.choose_port("RATCHET_PREFECT_PORT", taken, {}) != taken
        with pytest.raises(ConfigError, match=f"RATCHET_PREFECT_PORT: port {taken} .* is in use"):
            servers.choose_port("RATCHET_PREFECT_PORT", 4200, {"RATCHET_PREFECT_PORT": str(taken)})


@pytest.mark.parametrize("wrong", ["", "http", "0", "70000", "-1"])
def test_a_port_that_is_no_port_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"1 to 65535, found '{wrong}'"):
        servers.choose_port("RATCHET_MLFLOW_PORT", 5000, {"RATCHET_MLFLOW_PORT": wrong})


def test_a_prefect_server_the_user_named_must_answer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{servers.free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(ServiceUnavailable, match=f"Prefect does not answer at {address}"):
        servers.running_prefect(home)


def test_no_server_runs_where_none_was_started(home: Home, tmp_path: Path) -> None:
    assert servers.running_prefect(home) is None
    assert list(tmp_path.iterdir()) == []
