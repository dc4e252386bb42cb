"""The plan: which processes die where, drawn from a seed.

Owns the draw. First every boundary once; what those recoveries cross is where the second kill of
later runs can strike. Runs nothing itself.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from crash.boundaries import RECOVERING
from crash.runs import Kill, Outcome, Task

SNAPSHOTS = (1e-6, 1e6)  # seconds: one at every bar; one, then bars lived through again
THIRD = 0.3  # of those that are killed while they recover, once more
GOES_ON = 0.3  # the market does not wait for them to come back
ONE, TWO = 0.45, 0.75  # of a draw: a boundary; a boundary, then one of its recovery; else random


def once_each(census: Outcome, seed: str, planted: str = "") -> list[Task]:
    """Return a task for every boundary that an uninterrupted run crosses.

    In the first half of its crossings: how often IBKR has a word or is asked differs from run to
    run by a few.
    """
    counts = Counter(census.crossings[0])
    tasks = []
    for boundary in sorted(counts):
        rng = random.Random(f"{seed}/{boundary}")
        kill = Kill(boundary, rng.randint(1, (counts[boundary] + 1) // 2))
        tasks.append(Task((kill,), planted=planted))
    return tasks


def recoveries(
    tasks: Sequence[Task], outcomes: Sequence[Outcome]
) -> dict[str, list[tuple[Task, int]]]:
    """Return what recoveries crossed: by boundary, after which first kill, and how often."""
    found: dict[str, list[tuple[Task, int]]] = {}
    for task, outcome in zip(tasks, outcomes, strict=True):
        for process in outcome.crossings[1:2]:
            for boundary, count in Counter(process).items():
                if boundary.startswith(RECOVERING):
                    found.setdefault(boundary, []).append((task, count))
    return found


def draw(
    number: int,
    seed: str,
    counts: Mapping[str, int],
    again: Mapping[str, Sequence[tuple[Task, int]]],
    seconds: float,
) -> Task:
    """Return the task of one run; ``seconds`` is how long an uninterrupted process takes."""
    rng = random.Random(f"{seed}/{number}")
    dice = rng.random()
    snapshot_seconds, goes_on = rng.choice(SNAPSHOTS), rng.random() < GOES_ON
    if dice < ONE:
        boundary = rng.choice(sorted(counts))
        kills: tuple[Kill, ...] = (Kill(boundary, rng.randint(1, counts[boundary])),)
        if "snapshots" in boundary:
            snapshot_seconds = SNAPSHOTS[0]
    elif dice < TWO and again:
        boundary = rng.choice(sorted(again))
        first, count = rng.choice(again[boundary])
        snapshot_seconds = first.snapshot_seconds  # or it might not cross that boundary again
        kills = (*first.kills, Kill(boundary, rng.randint(1, count)))
        if rng.random() < THIRD:
            kills = (*kills, Kill(rng.choice(sorted(again)), 1))
    else:
        longest = [seconds, 0.4 * seconds, 0.4 * seconds][: rng.randint(1, 3)]
        kills = tuple(Kill(after_seconds=round(rng.uniform(0.0, s), 4)) for s in longest)
    return Task(kills, snapshot_seconds, market_goes_on=goes_on)
