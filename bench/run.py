"""`make bench`: every row of the table, Ratchet and its peers in turns, into one JSON and a table.

    python -m bench.run [--quick] [--only engine,ppo] [--again]

Contenders of a row are processes that wait for each other: A B C, A B C, …; the first round is a
warm-up and is thrown away, the figures are medians of the others. Rows that stand in the results
file of this commit already are not measured again, so an interrupted run goes on where it was. A
contender that fails or does not answer in time costs its own line, never the others'; it is tried
again by the next run.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import results, table
from bench.agreement import differences
from bench.process import BenchError, Process, output_of
from bench.rows import ROWS, Limit, Row
from bench.table import RATCHET
from core.home import PROJECT

SAMPLES = 5
# A row ends after the round in which its budget is spent, so the sum of them bounds a whole run.
# These are for what hangs: a busy machine should be slow, not fail.
QUICK_ANSWER_SECONDS, ANSWER_SECONDS = 240.0, 900.0
QUICK_SECONDS = 285.0  # of all rows of a quick run: whoever works then is ended, and tried again
LEAST_SECONDS = 15.0  # with less of them left no row begins

Failed = dict[str, str]  # label -> why


def say(text: str) -> None:
    """Tell progress, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Clock:
    """How long a run may take, and an answer."""

    quick: bool
    begun: float  # time.monotonic()

    @property
    def passed(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> float:
        """Return the seconds until everything must have ended."""
        return QUICK_SECONDS - self.passed if self.quick else math.inf

    @property
    def patience(self) -> float:
        """Return the seconds after which a contender counts as hung."""
        most = QUICK_ANSWER_SECONDS if self.quick else ANSWER_SECONDS
        return max(0.0, min(most, self.left))


@contextlib.contextmanager
def started(row: Row, clock: Clock, venvs: Path, failed: Failed) -> Iterator[list[Process]]:
    """Start the contenders of a row side by side, yield those that got ready; end them all."""
    begun: list[Process] = []
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    core = max(cores) if row.one_core and hasattr(os, "sched_setaffinity") else None
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as name:
        folder = Path(name)
        row.write(folder, clock.quick)
        try:
            for contender in (row.ratchet, *row.peers):
                with _noting(failed, contender.label):
                    begun.append(Process(contender, row, folder, clock.quick, venvs))
            ready = []
            for process in begun:
                if RATCHET in failed:  # nothing to compare with: no need to wait for the others
                    break
                with _noting(failed, process.label):
                    process.wait_until_ready(clock.patience, core)
                    ready.append(process)
                    say(f"  {process.label}: ready")
            yield ready
        finally:
            for process in begun:
                process.end(10.0 if clock.left > 0.0 else 0.0)


@contextlib.contextmanager
def _noting(failed: Failed, label: str) -> Iterator[None]:
    try:
        yield
    except BenchError as problem:
        failed[label] = str(problem)
        say(f"  failed: {problem}")


def measure(row: Row, clock: Clock, venvs: Path) -> dict[str, Any]:
    """Return what the JSON holds of one row."""
    failed: Failed = {}
    begun = time.monotonic()
    with started(row, clock, venvs, failed) as running:
        taken = take_turns(row, running, clock, failed)
        contenders = {process.label: dict(process.ready) for process in running}
    return {
        "name": row.name,
        "work": row.work,
        "unit": row.unit,
        "clock": "processor" if row.one_core else "seconds",
        "cores": 1 if row.one_core else len(os.sched_getaffinity(0)),
        "fastest": row.fastest,
        "asked": dict(row.asked),
        "notes": list(row.notes),
        "contenders": contenders,
        "unequal": differences(contenders),
        "samples": {label: samples for label, samples in taken.items() if samples},
        "failed": failed,
        "took_seconds": time.monotonic() - begun,
        "load": os.getloadavg()[0],
    }


def take_turns(
    row: Row, running: list[Process], clock: Clock, failed: Failed
) -> dict[str, list[dict[str, float]]]:
    """Return the samples of every contender, round by round until the row's budget is spent.

    One that fails drops out. Without Ratchet there is nothing to compare: the round ends.
    """
    begun, budget = time.monotonic(), row.quick_budget if clock.quick else row.budget
    taken: dict[str, list[dict[str, float]]] = {process.label: [] for process in running}
    for round_ in range(0 if row.warm_up else 1, SAMPLES + 1):
        for process in running:
            if process.label in failed or RATCHET in failed:
                continue
            with _noting(failed, process.label):
                sample = process.sample(clock.patience)
                taken[process.label] += [sample] if round_ else []
        spent, kind = time.monotonic() - begun, "" if round_ else " (warm-up)"
        say(f"  round {round_} of {SAMPLES}{kind}, {spent:.0f} s")
        if round_ and spent > budget:
            if round_ < SAMPLES:
                say(f"  its {budget:.0f} s are spent: medians of {round_}")
            break
    return {label: ([] if label in failed else samples) for label, samples in taken.items()}


def hold(limit: Limit, clock: Clock) -> dict[str, Any]:
    """Run the command of a limit; return what the JSON holds of it."""
    arguments = limit.quick_arguments if clock.quick else limit.arguments
    failed: Failed = {}
    values: list[float] = []
    beside: float | None = None
    printed, begun = None, time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder,
        _noting(failed, RATCHET),
    ):
        printed = json.loads(output_of((limit.module, *arguments), Path(folder), clock.patience))
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
        "failed": failed,
        "took_seconds": time.monotonic() - begun,
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
    kept, clock = results.load(file, quick), Clock(quick, time.monotonic())
    problems = []
    for number, row in enumerate(rows, 1):
        before = kept["rows"].get(row.name)
        if before is not None and not before.get("failed") and not again:
            say(f"{number}/{len(rows)} {row.name}: measured already, in {file.name}")
            continue
        if clock.left < LEAST_SECONDS:
            problems.append(
                f"{row.name}: not measured, the {QUICK_SECONDS:.0f} s of a quick run are spent on "
                "this machine; the same command again goes on with it"
            )
            continue
        say(f"{number}/{len(rows)} {row.name}: {row.work} (after {clock.passed:.0f} s)")
        found = measure(row, clock, venvs) if isinstance(row, Row) else hold(row, clock)
        problems += [
            f"{row.name}: {why}" for why in (*found["failed"].values(), *found.get("unequal", ()))
        ]
        kept["rows"][row.name] = found
        results.save(file, kept)
    order = [row.name for row in ROWS]
    measured = sorted(kept["rows"].values(), key=lambda row: order.index(row["name"]))
    sys.stdout.write(table.text(measured) + "\n")
    say(f"took {clock.passed:.0f} s; every sample, version and note: {file}")
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
