"""The proof: many runs, a table, and whether anything was lost, doubled or unexplained.

Owns the command line of ``make crash``, its progress and its verdict.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from crash.boundaries import PLANTED
from crash.plan import draw, once_each, recoveries
from crash.runs import Bench, Kill, Outcome, Task, Verdict, judge

REPEATED = 12  # failing runs that are told in full
_bench: Bench


def _open() -> None:
    global _bench
    _bench = Bench().__enter__()  # its zygote ends with this process


def _run(task: Task) -> Outcome:
    return _bench.run(task)


class Crash:
    """Runs tasks side by side and counts what came of them."""

    def __init__(self, pool: ProcessPoolExecutor, total: int) -> None:
        self._pool = pool
        self._total = total
        self._began = time.monotonic()
        self.done = 0
        self.rows: dict[str, Counter[str]] = {}
        self.failed: list[tuple[Task, Verdict]] = []

    def run(self, tasks: Sequence[Task], reference: Outcome) -> Iterator[Outcome]:
        """Yield outcomes in the order of the tasks."""
        for task, outcome in zip(tasks, self._pool.map(_run, tasks), strict=True):
            self._count(task, outcome, judge(outcome, reference, task.market_goes_on))
            yield outcome

    def _count(self, task: Task, outcome: Outcome, verdict: Verdict) -> None:
        where = outcome.struck[-1] if outcome.struck else "ran to its end before the kill"
        if where == "random":
            where = f"at random, {len(outcome.struck)} ×"
        row = self.rows.setdefault(where, Counter())
        row.update(
            runs=1,
            kills=len(outcome.struck),
            lost=int(bool(verdict.lost)),
            doubled=int(bool(verdict.doubled)),
            unexplained=int(bool(verdict.unexplained)),
        )
        if not verdict.clean:
            self.failed.append((task, verdict))
        self.done += 1
        if self.done % 50 == 0 or self.done == self._total:
            seconds = time.monotonic() - self._began
            say(f"  {self.done} of {self._total} runs, {len(self.failed)} bad, {seconds:.0f} s")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(rows: dict[str, Counter[str]]) -> None:
    columns = ("runs", "kills", "lost", "doubled", "unexplained")
    say("| killed | " + " | ".join(columns) + " |")
    say("|---|" + "--:|" * len(columns))
    for where in sorted(rows, key=lambda name: (name.startswith("recovering"), name)):
        say(f"| {where} | " + " | ".join(str(rows[where][c]) for c in columns) + " |")
    total: Counter[str] = sum(rows.values(), Counter())
    say("| **all** | " + " | ".join(f"**{total[c]}**" for c in columns) + " |")


def explain(failed: Sequence[tuple[Task, Verdict]]) -> None:
    for task, verdict in failed[:REPEATED]:
        say(f"bad: {as_options(task)}")
        for kind in ("lost", "doubled", "unexplained"):
            for one in getattr(verdict, kind):
                say(f"  {kind}: {one}")


def as_options(task: Task) -> str:
    """Return how to repeat a run."""
    kills = (
        f"{kill.boundary}:{kill.crossing}" if kill.boundary else f"{kill.after_seconds}"
        for kill in task.kills
    )
    return (
        " ".join(f'--kill "{kill}"' for kill in kills)
        + f" --snapshot {task.snapshot_seconds}"
        + (" --goes-on" if task.market_goes_on else "")
    )


def kill_of(text: str) -> Kill:
    boundary, colon, count = text.rpartition(":")
    return Kill(boundary, int(count)) if colon else Kill(after_seconds=float(text))


def prove(pool: ProcessPoolExecutor, runs: int, seed: str) -> bool:
    """Run the plan; return whether nothing was lost, doubled or unexplained."""
    began = time.monotonic()
    pool.submit(_run, Task()).result()  # the first pays for what is imported late
    began = time.monotonic()
    reference = pool.submit(_run, Task()).result()
    seconds = time.monotonic() - began
    crash = Crash(pool, runs)
    first = once_each(reference, seed)[:runs]
    crossed = list(crash.run(first, reference))
    again, counts = recoveries(first, crossed), Counter(reference.crossings[0])
    say(f"{len(counts)} boundaries of a run, {len(again)} of its recovery; seed {seed}")
    rest = [draw(n, seed, counts, again, seconds) for n in range(len(first), runs)]
    for _ in crash.run(rest, reference):
        pass
    table(crash.rows)
    explain(crash.failed)
    found = planted(pool, reference, seed)
    return not crash.failed and found


def planted(pool: ProcessPoolExecutor, reference: Outcome, seed: str) -> bool:
    """Plant bugs, kill at every boundary once; return whether each was found."""
    good = True
    for bug in [name for name in PLANTED if name]:
        tasks = once_each(reference, seed, bug)
        crash = Crash(pool, -1)
        for _ in crash.run(tasks, reference):
            pass
        by_killing = [one for _, one in crash.failed if not one.clean_but_for_blind_orders]
        say(
            f"planted bug ({bug}): found in {len(crash.failed)} of {len(tasks)} runs, in "
            f"{len(by_killing)} without looking into the ledger when an order arrives"
        )
        good = good and bool(by_killing)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m crash", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="how many; default 1000")
    parser.add_argument("--seed", default="1", help="of the draw; the same seed, the same kills")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side; default 2")
    parser.add_argument(
        "--kill",
        action="append",
        type=kill_of,
        help='one run only: "BOUNDARY:N" or seconds, for its first process, its second, …',
    )
    parser.add_argument("--snapshot", type=float, default=1e-6, help="seconds, with --kill")
    parser.add_argument("--goes-on", action="store_true", help="the market does not wait")
    parser.add_argument("--planted", default="", choices=list(PLANTED), help="with --kill")
    given = parser.parse_args()
    with ProcessPoolExecutor(given.jobs, get_context("spawn"), _open) as pool:
        if not given.kill:
            return 0 if prove(pool, given.runs, given.seed) else 1
        reference = pool.submit(_run, Task()).result()
        task = Task(tuple(given.kill), given.snapshot, given.planted, given.goes_on)
        crash = Crash(pool, 1)
        for _ in crash.run([task], reference):
            pass
    table(crash.rows)
    explain(crash.failed)
    return 1 if crash.failed else 0
