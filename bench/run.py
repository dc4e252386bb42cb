"""`make bench`: every row of the table, Ratchet and its peers in turns, into one JSON and a table.

    python -m bench.run [--quick] [--only engine,ppo] [--again]

Contenders of a row are processes that wait for each other: A B C, A B C, …; the first round is a
warm-up and is thrown away, the figures are medians of the others. Rows that stand in the results
file of this commit already are not measured again, so an interrupted run goes on where it was.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import results, table
from bench.rows import ROWS, Contender, Limit, Row
from core.home import PROJECT

VENVS = {"learners": ".", "vectorbt": "vectorbt", "nautilus": "nautilus"}
SAMPLES = 5
ANSWER_SECONDS = 900.0
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class BenchError(Exception):
    """A contender that did not answer, or an argument that names no row."""


def say(text: str) -> None:
    """Tell progress, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def python_of(venv: str, folder: Path) -> str:
    """Return the interpreter of a contender's virtual environment."""
    if venv not in VENVS:
        return sys.executable
    path = folder / VENVS[venv] / "bin" / "python"
    if not path.exists():
        raise BenchError(f"{path}: not there; `make bench` installs the peers")
    return str(path)


class Process:
    """A contender at work."""

    def __init__(
        self,
        contender: Contender,
        row: Row,
        folder: Path,
        quick: bool,
        venvs: Path,
        core: int | None,
    ) -> None:
        self.label = contender.label
        self._log = folder / f"{contender.label.replace('/', '-')}.log"
        seconds = row.quick_seconds if quick else row.seconds
        command = [python_of(contender.venv, venvs), "-m", contender.module, contender.name]
        command += ["--folder", str(folder), "--seconds", str(seconds)]
        command += ["--quick"] if quick else []
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=PROJECT,
                env={**os.environ, **THREADS, "PYTHONWARNINGS": "ignore"},
                start_new_session=True,
            )
        try:
            self.ready: Mapping[str, Any] = self._answer()["ready"]
        except BenchError:
            self.end()
            raise
        if core is not None:  # from here on: getting ready may use the whole machine
            _pin(self._process.pid, core)

    def sample(self) -> dict[str, float]:
        """Ask for one sample."""
        stdin = self._process.stdin
        if stdin is None:
            raise BenchError(f"{self.label}: has no input")
        with contextlib.suppress(BrokenPipeError):  # it ended: the answer says how
            stdin.write("go\n")
            stdin.flush()
        return self._answer()

    def end(self) -> None:
        """End it and whatever it started: without more lines it ends by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        for signal_ in (None, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                if signal_ is not None:
                    os.killpg(self._process.pid, signal_)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                break
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], ANSWER_SECONDS)[0]:
            raise BenchError(f"{self.label} has not answered for {ANSWER_SECONDS:.0f} s")
        line = stdout.readline()
        if not line:
            self._process.wait()
            tail = self._log.read_text(errors="replace").strip().splitlines()[-4:]
            raise BenchError(f"{self.label} ended: {' / '.join(tail) or 'it said nothing'}")
        return json.loads(line)  # type: ignore[no-any-return]


def _pin(process: int, core: int) -> None:
    """Keep every thread of a process, and those to come, on one core."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


@contextlib.contextmanager
def started(row: Row, quick: bool, venvs: Path) -> Iterator[list[Process]]:
    """Start the contenders of a row, one after the other; end them all."""
    running: list[Process] = []
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    core = max(cores) if row.one_core and hasattr(os, "sched_setaffinity") else None
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as name:
        folder = Path(name)
        row.write(folder, quick)
        try:
            for contender in (row.ratchet, *row.peers):
                say(f"  {contender.label}: getting ready")
                running.append(Process(contender, row, folder, quick, venvs, core))
            yield running
        finally:
            for process in running:
                process.end()


def measure(row: Row, quick: bool, venvs: Path) -> dict[str, Any]:
    """Return what the JSON holds of one row."""
    with started(row, quick, venvs) as running:
        taken: dict[str, list[dict[str, float]]] = {process.label: [] for process in running}
        for round_ in range(SAMPLES + 1):
            for process in running:
                taken[process.label].append(process.sample())
            say(f"  round {round_} of {SAMPLES}" + (" (warm-up)" if round_ == 0 else ""))
        return {
            "name": row.name,
            "work": row.work,
            "unit": row.unit,
            "clock": "processor" if row.one_core else "seconds",
            "cores": 1 if row.one_core else len(os.sched_getaffinity(0)),
            "fastest": row.fastest,
            "asked": dict(row.asked),
            "notes": list(row.notes),
            "contenders": {process.label: dict(process.ready) for process in running},
            "samples": {label: samples[1:] for label, samples in taken.items()},
            "load": os.getloadavg()[0],
        }


def hold(limit: Limit, quick: bool) -> dict[str, Any]:
    """Run the command of a limit; return what the JSON holds of it."""
    arguments = limit.quick_arguments if quick else limit.arguments
    ended = subprocess.run(
        [sys.executable, "-m", limit.module, *arguments],
        cwd=PROJECT,
        env={**os.environ, **THREADS},
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
    )
    if ended.returncode:
        raise BenchError(f"bench {limit.name}: {' / '.join(ended.stderr.splitlines()[-4:])}")
    printed = json.loads(ended.stdout)
    values, beside = limit.read(printed)
    return {
        "name": limit.name,
        "work": limit.work,
        "against": limit.against,
        "unit": limit.unit,
        "at_most": limit.at_most,
        "values": values,
        "beside": beside,
        "notes": list(limit.notes),
        "printed": printed,
        "load": os.getloadavg()[0],
    }


def chosen(only: str | None) -> list[Row | Limit]:
    """Return the rows that ``--only`` names, all without it."""
    known = {row.name: row for row in ROWS}
    names = [name.strip() for name in only.split(",")] if only else list(known)
    for name in names:
        if name not in known:
            raise BenchError(f"no row {name!r}; rows: {', '.join(known)}")
    return [known[name] for name in names]


def run(rows: list[Row | Limit], quick: bool, again: bool, venvs: Path) -> int:
    """Measure what is missing, write it row by row, print the table; return the exit status."""
    file = results.file_of(PROJECT, quick, datetime.now(UTC))
    kept = results.load(file, quick)
    problems = []
    for number, row in enumerate(rows, 1):
        if row.name in kept["rows"] and not again:
            say(f"{number}/{len(rows)} {row.name}: measured already, in {file.name}")
            continue
        say(f"{number}/{len(rows)} {row.name}: {row.work}")
        try:
            found = measure(row, quick, venvs) if isinstance(row, Row) else hold(row, quick)
        except BenchError as problem:
            problems.append(f"{row.name}: {problem}")
            say(f"  failed: {problem}")
            continue
        kept["rows"][row.name] = found
        results.save(file, kept)
    order = [row.name for row in ROWS]
    measured = sorted(kept["rows"].values(), key=lambda row: order.index(row["name"]))
    sys.stdout.write(table.text(measured) + "\n")
    say(f"every sample, version and note: {file}")
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--quick", action="store_true", help="short samples, smaller work")
    parser.add_argument("--only", help=f"rows, with commas between: {names}")
    parser.add_argument("--again", action="store_true", help="measure rows anew")
    parser.add_argument("--peers", type=Path, default=PROJECT / ".venv-bench", help="their folder")
    given = parser.parse_args()
    try:
        rows = chosen(given.only)
    except BenchError as problem:
        parser.error(str(problem))
    sys.exit(run(rows, given.quick, given.again, given.peers.resolve()))


if __name__ == "__main__":
    main()
