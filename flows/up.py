"""``ratchet up``: Prefect with every deployment, MLflow and the paper worker, until Ctrl-C.

Owns who is started, in which order, what is started again when it dies, and that nothing is left
running. What they do is theirs.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from core.errors import ConfigError
from core.home import Home
from core.masking import masked
from flows import servers
from flows.after_session import SessionWatch
from flows.environment import prefect_environment
from flows.servers import Server

POLL_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0  # between attempts to start a part that keeps dying
STEADY_SECONDS = 60.0  # a part that ran so long starts anew without a pause


@dataclass(slots=True)
class Part:
    """One thing kept running."""

    name: str
    start: Callable[[], Server]
    server: Server
    started: float  # monotonic seconds
    failures: int = 0
    retry_at: float | None = None  # monotonic seconds; None: running


def run(home: Home, console: Console, with_worker: bool) -> int:
    """Start everything, print where it is, keep it running; return when stopped."""
    with _alone(home), _stop_on_sigterm():
        for name in servers.stop_leftovers(home):
            console.print(f"ended {name}, which an earlier `ratchet up` left behind")
        ports = _ports(os.environ)
        parts: list[Part] = []
        try:
            watch = _start_all(home, console, parts, ports, with_worker)
            _keep_running(home, console, parts, watch)
        except KeyboardInterrupt:
            console.print("\nstopping …")
            return 0
        finally:
            _stop_all(parts)
            home.services.unlink(missing_ok=True)
    return 0


def _ports(environment: Mapping[str, str]) -> tuple[int, int]:
    prefect = servers.choose_port("RATCHET_PREFECT_PORT", 4200, environment)
    mlflow = servers.choose_port("RATCHET_MLFLOW_PORT", 5000, environment)
    if prefect == mlflow:
        raise ConfigError(
            f"RATCHET_PREFECT_PORT and RATCHET_MLFLOW_PORT are both {prefect}; name two ports"
        )
    return prefect, mlflow


def _start_all(
    home: Home, console: Console, parts: list[Part], ports: tuple[int, int], with_worker: bool
) -> SessionWatch:
    def part(name: str, start: Callable[[], Server]) -> Part:
        made = Part(name, start, start(), time.monotonic())
        parts.append(made)
        return made

    elsewhere = _mlflow_elsewhere(home)
    prefect = part("prefect", lambda: servers.start_prefect(home, ports[0]))
    if not elsewhere:
        part("mlflow", lambda: servers.start_mlflow(home, ports[1]))
    with console.status("starting Prefect and MLflow …"):
        for one in parts:
            one.server.wait_until_healthy()
    # Who talks to them comes after them.
    api = f"{prefect.server.note.url}/api"
    extra = prefect_environment(home, api)
    arguments = ["flows.deployments"]
    part("runner", lambda: servers.start_ratchet(home, "runner", arguments, extra))
    if with_worker:
        serve = ["flows.cli", "serve", "--stay"]
        part("worker", lambda: servers.start_ratchet(home, "worker", serve, {}))
    servers.write_notes(home, [one.server for one in parts])
    mlflow = elsewhere or f"http://{servers.HOST}:{ports[1]}"
    console.print(f"Prefect  {prefect.server.note.url}   schedules, runs, rollback")
    console.print(f"MLflow   {masked(mlflow)}   experiments, models, versions")
    if with_worker:
        console.print("worker   trades on paper; `ratchet ledger decisions` shows what it does")
    console.print(f"state    {home.root}   logs in {home.logs}")
    console.print("Ctrl-C stops them all.")
    return SessionWatch(home, api)


def _mlflow_elsewhere(home: Home) -> str:
    """Return the MLflow server that MLFLOW_TRACKING_URI names; empty where ours is to be used."""
    from registry.tracking import backend_uri

    uri = backend_uri(home)
    return uri if uri.startswith("http") else ""


def _keep_running(home: Home, console: Console, parts: list[Part], watch: SessionWatch) -> None:
    while True:
        for part in parts:
            if _look_after(part, console, time.monotonic()):
                servers.write_notes(home, [one.server for one in parts])
        for session in watch.look(time.monotonic()):
            console.print(f"session {session} is over; Prefect runs `parity` on it")
        time.sleep(POLL_SECONDS)


def _look_after(part: Part, console: Console, now: float) -> bool:
    """Start a part that died, after a pause that doubles; say whether it was started."""
    if part.retry_at is not None:
        if now < part.retry_at:
            return False
        part.server, part.started, part.retry_at = part.start(), now, None
        return True
    code = part.server.process.poll()
    if code is None:
        return False
    part.failures = 1 if now - part.started > STEADY_SECONDS else part.failures + 1
    pause = min(2.0 ** (part.failures - 1), LONGEST_PAUSE_SECONDS)
    part.server.stop()  # whatever its group still holds
    part.retry_at = now + pause
    console.print(
        f"{part.name} stopped (exit {code}; see {part.server.log}); starting it again "
        f"in {pause:.0f} s"
    )
    return False


def _stop_all(parts: list[Part]) -> None:
    # Ctrl-C again while stopping must not leave anything behind.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for part in reversed(parts):
            part.server.stop()
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    home.make(home.locks)
    with (home.locks / "up.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note = servers.noted(home).get("prefect")
            where = f" at {note.url}" if note else ""
            raise ConfigError(
                f"Ratchet is already up{where} with the state in {home.root}; use that one, "
                "or name another folder in RATCHET_HOME"
            ) from None
        yield


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
