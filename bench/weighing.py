"""Weighing: what the processes of a soak take, session by session, and whether that is flat.

Owns the numbers, the picture and the verdict. Knows neither bars nor brokers: a session is so many
steps of whoever is weighed.
"""

import gc
import os
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil

BOUND = 1.0  # MiB a thousand bars, of a worker with ten agents
WARM = 0.25  # of the sessions, and three at least: caches, free lists and the client's orders fill
LEAST = 4  # sessions behind a verdict
WIDTH = 40  # of the picture
LARGEST = 12  # places in the code, of a trace


@dataclass(frozen=True, slots=True)
class Held:
    """What the worker says of itself."""

    bars: int  # lived through
    objects: int  # that Python's collector sees, after a collection
    grown: tuple[str, ...]  # since the session before, by place in the code: of a trace


@dataclass(frozen=True, slots=True)
class Weight:
    """Both processes at the beginning of a session."""

    bars: int
    worker: float  # MiB, resident: the gateway with its ten agents
    objects: int
    market: float  # MiB, resident: the fake TWS, its books of all orders, and the bench

    def __str__(self) -> str:
        return f"worker {self.worker:.1f} MiB, {self.objects:,} objects; fake {self.market:.1f} MiB"


class Witness:
    """Stands between the worker's feed and the market, and says what the worker holds."""

    def __init__(self, control: Connection, first: int, every: int, trace: bool) -> None:
        self._control, self._first, self._every = control, first, every
        self._before: tracemalloc.Snapshot | None = None
        if trace:
            tracemalloc.start()

    def recv(self) -> Any:
        return self._control.recv()

    def send(self, place: int) -> None:
        if (place - self._first) % self._every == 0:
            self._control.send(self.held(place - self._first))
        self._control.send(place)

    def held(self, bars: int) -> Held:
        gc.collect()
        return Held(bars, len(gc.get_objects()), self._grown())

    def _grown(self) -> tuple[str, ...]:
        if not tracemalloc.is_tracing():
            return ()
        now, before = tracemalloc.take_snapshot(), self._before
        self._before = now
        found = now.compare_to(before, "lineno")[:LARGEST] if before else []
        return tuple(f"{one.size_diff / 1024:+.0f} KiB {one.traceback[0]}" for one in found)


def weigh(held: Held, worker: psutil.Process) -> Weight:
    own = psutil.Process(os.getpid())
    return Weight(held.bars, _mib(worker), held.objects, _mib(own))


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def judged(weights: Sequence[Weight]) -> list[Weight]:
    """Return the weights behind a verdict: those after the warm-up."""
    return list(weights[max(3, round(WARM * len(weights))) :])


def slope(weights: Sequence[Weight]) -> float | None:
    """Return MiB a thousand bars of the worker by least squares; None where there are too few."""
    kept = judged(weights)
    if len(kept) < LEAST:
        return None
    bars, worker = np.array([(one.bars, one.worker) for one in kept]).T
    return float(np.polyfit(bars, worker, 1)[0] * 1000.0)


def is_flat(weights: Sequence[Weight]) -> bool:
    """Say whether memory is flat; too few sessions are no evidence against it."""
    found = slope(weights)
    return found is None or found <= BOUND


def verdict(weights: Sequence[Weight]) -> str:
    """Say in a line whether memory is flat."""
    found, kept = slope(weights), judged(weights)
    if found is None:
        return f"memory: {len(kept)} weights after the warm-up, a verdict needs {LEAST}"
    word = "flat" if found <= BOUND else "NOT FLAT"
    return (
        f"memory: {word}; after the warm-up {found:+.2f} MiB a thousand bars (at most "
        f"{BOUND:g}), {kept[-1].objects - kept[0].objects:+,} objects in {len(kept) - 1} sessions"
    )


def picture(weights: Sequence[Weight]) -> list[str]:
    """Return a table with a bar for each weight, from zero, for people."""
    most = max((one.worker for one in weights), default=1.0)
    lines = [f"{'bars':>6} {'worker MiB':>10} {'objects':>9} {'fake MiB':>8}"]
    for one in weights:
        mark = "#" * round(WIDTH * one.worker / most)
        lines.append(
            f"{one.bars:>6} {one.worker:>10.1f} {one.objects:>9,} {one.market:>8.1f}  {mark}"
        )
    return lines
