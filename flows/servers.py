"""Servers of one home as child processes: start, wait until healthy, note where, stop.

Owns process groups, ports and ``services.json``. A server is bound to 127.0.0.1. Whoever starts
one stops it; one left behind by a killed Ratchet is found by its note and replaced.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from core.errors import ConfigError, ServiceUnavailable
from core.home import Home
from flows.environment import child_environment, prefect_environment

HOST = "127.0.0.1"
START_SECONDS = 240.0  # a cold start takes 10 on an idle machine, far more on a busy one
STOP_SECONDS = 10.0  # then SIGKILL


@dataclass(frozen=True, slots=True)
class Note:
    """What ``services.json`` says of one running server."""

    name: str
    url: str  # of its page; empty where it has none
    health: str  # GET answers 200 when it is ready; empty: alive is healthy
    pid: int
    created: float  # start of the process, seconds since the epoch: a pid alone may be reused


@dataclass(slots=True)
class Server:
    """A child process in its own process group."""

    note: Note
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Return once it answers; raise ``ServiceUnavailable`` when it died or takes too long."""
        limit = time.monotonic() + seconds
        while not answers(self.note.health):
            if self.process.poll() is not None:
                raise ServiceUnavailable(
                    f"{self.note.name} stopped while starting (exit {self.process.returncode}); "
                    f"its last words are in {self.log}: {_last_line(self.log)}"
                )
            if time.monotonic() > limit:
                raise ServiceUnavailable(
                    f"{self.note.name} does not answer at {self.note.health} after "
                    f"{seconds:.0f} s; see {self.log}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End the whole process group: SIGTERM, then SIGKILL."""
        _end_group(self.process.pid)
        self.process.wait()


def answers(url: str, seconds: float = 2.0) -> bool:
    """Say whether GET ``url`` gives 200; an empty ``url`` always does."""
    if not url:
        return True
    try:
        with urllib.request.urlopen(url, timeout=seconds) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def choose_port(variable: str, default: int, environment: Mapping[str, str]) -> int:
    """Return the port ``variable`` names, which must be free; else the default, else a free one."""
    named = environment.get(variable)
    if named is None:
        return default if _is_free(default) else free_port()
    if not named.isdigit() or not 0 < int(named) < 65536:
        raise ConfigError(f"{variable}: expected a port number from 1 to 65535, found {named!r}")
    if not _is_free(int(named)):
        raise ConfigError(
            f"{variable}: port {named} of {HOST} is in use; name another one, or unset {variable} "
            "and a free one is chosen"
        )
    return int(named)


def start_prefect(home: Home, port: int, scheduler: bool = True) -> Server:
    """Start the Prefect server of ``home``; it is healthy some ten seconds later.

    A private one, for a single command, has no ``scheduler``: it starts nothing by itself.
    """
    api = f"http://{HOST}:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    return _start(
        home,
        "prefect",
        [
            *command,
            "--port",
            str(port),
            "--log-level",
            "WARNING",
            *([] if scheduler else ["--no-scheduler"]),
        ],
        url=f"http://{HOST}:{port}",
        health=f"{api}/health",
        extra=prefect_environment(home, api),
    )


def start_mlflow(home: Home, port: int) -> Server:
    """Start the MLflow UI of ``home`` over the tracking database that runs write to."""
    from registry.tracking import backend_uri

    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    return _start(
        home,
        "mlflow",
        [*command, "--workers", "1"],
        url=f"http://{HOST}:{port}",
        health=f"http://{HOST}:{port}/health",
        # Its job runners (for LLM scorers) slow it down several times, and nothing here needs them.
        # Its database is told by the environment: everybody may read a command line.
        extra={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_BACKEND_STORE_URI": backend_uri(home),
        },
    )


def start_ratchet(
    home: Home, name: str, arguments: Sequence[str], extra: Mapping[str, str]
) -> Server:
    """Start ``python -m <arguments>`` as the part ``name`` of this home."""
    return _start(home, name, [sys.executable, "-m", *arguments], url="", health="", extra=extra)


def noted(home: Home) -> dict[str, Note]:
    """Return the servers of ``home`` whose processes are alive."""
    try:
        content = json.loads(home.services.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    notes = (Note(**entry) for entry in content.values())
    return {note.name: note for note in notes if _is_alive(note)}


def running_prefect(home: Home) -> str | None:
    """Return the API address of the Prefect server of ``home``, or None where none runs.

    An address in ``PREFECT_API_URL`` is the user's word: it must answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        if not answers(f"{named.rstrip('/')}/health"):
            raise ServiceUnavailable(
                f"Prefect does not answer at {named} (PREFECT_API_URL); start it with "
                "`ratchet up`, or unset PREFECT_API_URL and a private server is started"
            )
        return named
    note = noted(home).get("prefect")
    if note is None or not answers(note.health):
        return None
    return f"{note.url}/api"


@contextlib.contextmanager
def stopping(*servers: Server) -> Iterator[None]:
    """Stop ``servers``, last one first, however the block ends."""
    try:
        yield
    finally:
        for server in reversed(servers):
            server.stop()


def write_notes(home: Home, servers: Sequence[Server]) -> None:
    """Note the running servers, in one step: readers see the old list or the new one."""
    content = {server.note.name: asdict(server.note) for server in servers}
    draft = home.make(home.root) / f".services.{os.getpid()}.json"
    draft.write_text(json.dumps(content, indent=2), encoding="utf-8")
    draft.replace(home.services)


def stop_leftovers(home: Home) -> list[str]:
    """End servers of this home that a killed Ratchet left behind; return their names."""
    left = noted(home)
    for note in left.values():
        _end_group(note.pid)
    home.services.unlink(missing_ok=True)
    return sorted(left)


def _start(
    home: Home, name: str, command: Sequence[str], url: str, health: str, extra: Mapping[str, str]
) -> Server:
    log = home.make(home.logs) / f"{name}.log"
    home.make(home.prefect)
    home.make(home.mlflow)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=child_environment(home, extra),
            # A group of its own: Ctrl-C reaches us only, and we end all that it started.
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    return Server(Note(name, url, health, process.pid, created), process, log)


def _end_group(group: int) -> None:
    """End every process of ``group``: SIGTERM, then SIGKILL for what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    limit = time.monotonic() + STOP_SECONDS
    while _members(group) and time.monotonic() < limit:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _members(group: int) -> list[int]:
    """Return the living processes of ``group``; a zombie only waits for its parent to ask."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _is_alive(note: Note) -> bool:
    try:
        process = psutil.Process(note.pid)
        return bool(abs(process.create_time() - note.created) < 1.0)
    except psutil.NoSuchProcess:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A server that stopped a moment ago leaves the port in TIME_WAIT: that is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing)"
