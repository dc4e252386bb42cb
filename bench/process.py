"""A contender as a process: started, asked for samples in turns, ended with all it started.

Owns processes and how long one is waited for. Knows neither what is measured nor the table.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench.rows import Contender, Row
from core.home import PROJECT

VENVS = {"learners": ".", "vectorbt": "vectorbt", "nautilus": "nautilus"}
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class BenchError(Exception):
    """A contender that did not answer, or an argument that names no row."""


def python_of(venv: str, folder: Path) -> str:
    """Return the interpreter of a contender's virtual environment."""
    if venv not in VENVS:
        return sys.executable
    path = folder / VENVS[venv] / "bin" / "python"
    if not path.exists():
        raise BenchError(f"{path}: not there; `make bench` installs the peers")
    return str(path)


class Process:
    """A contender at work; begun at once, ready when ``wait_until_ready`` returns."""

    def __init__(
        self, contender: Contender, row: Row, folder: Path, quick: bool, venvs: Path
    ) -> None:
        self.label = contender.label
        self.ready: Mapping[str, Any] = {}
        self._log = folder / f"{contender.label.replace('/', '-')}.log"
        seconds = row.quick_seconds if quick else row.seconds
        command = [python_of(contender.venv, venvs), "-m", contender.module, contender.name]
        command += ["--folder", str(folder), "--seconds", str(seconds)]
        command += ["--quick"] if quick else []
        with self._log.open("w") as log:
            self._process = begun(command, log, stdin=subprocess.PIPE)

    def wait_until_ready(self, seconds: float, core: int | None) -> None:
        """Wait until it said what it is; from then on keep it on one ``core``."""
        self.ready = self._answer(seconds)["ready"]
        if core is not None:  # getting ready may use the whole machine
            _pin(self._process.pid, core)

    def sample(self, seconds: float) -> dict[str, float]:
        """Ask for one sample; raise ``BenchError`` where none comes within ``seconds``."""
        stdin = self._process.stdin
        if stdin is None:
            raise BenchError(f"{self.label}: has no input")
        with contextlib.suppress(BrokenPipeError):  # it ended: the answer says how
            stdin.write("go\n")
            stdin.flush()
        return self._answer(seconds)

    def end(self, patience: float = 10.0) -> None:
        """End it and whatever it started: without more lines it ends by itself, within seconds."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        end(self._process, patience)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], seconds)[0]:
            raise BenchError(f"{self.label} has not answered for {seconds:.0f} s")
        line = stdout.readline()
        if not line:
            self._process.wait()
            raise BenchError(f"{self.label} ended: {_tail(self._log)}")
        return json.loads(line)  # type: ignore[no-any-return]


def output_of(command: Sequence[str], folder: Path, seconds: float) -> str:
    """Return what a command of Ratchet's prints; raise ``BenchError`` saying why it failed."""
    log, printed = folder / "stderr.log", folder / "stdout.log"
    with log.open("w") as errors, printed.open("w") as out:
        process = begun([sys.executable, "-m", *command], errors, stdout=out)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} has not ended after {seconds:.0f} s") from None
    finally:
        end(process, patience=0.0)
    if status:
        raise BenchError(f"{command[0]} ended with status {status}: {_tail(log)}")
    return printed.read_text()


def begun(command: Sequence[str], log: IO[str], **streams: Any) -> "subprocess.Popen[str]":
    """Begin a command in a group of its own, on one thread per library."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE} | streams
    return subprocess.Popen(
        command,
        stderr=log,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **THREADS, "PYTHONWARNINGS": "ignore"},
        start_new_session=True,
        **given,
    )


def end(process: "subprocess.Popen[str]", patience: float = 10.0) -> None:
    """Wait a little, then end it with everything of its group."""
    asked = min(patience, 10.0)
    for signal_, seconds in ((None, patience), (signal.SIGTERM, asked), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            if signal_ is not None:
                os.killpg(process.pid, signal_)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):  # what it started and left behind
        os.killpg(process.pid, signal.SIGKILL)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-4:]
    return " / ".join(lines) or "it said nothing"


def _pin(process: int, core: int) -> None:
    """Keep every thread of a process, and those to come, on one core."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})
