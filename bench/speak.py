"""How a contender is asked for samples: a line in, a line of JSON out. Standard library only.

A contender prepares itself, says what it is (``{"ready": …}``), and then makes one sample per line
it reads: how much work it did, in how many seconds. Between samples it waits and costs nothing, so
several can take turns. Knows neither rows nor tables.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

Work = Callable[[], float]  # does some work, returns how much


class Asked(argparse.Namespace):
    """What the runner tells a contender."""

    contender: str
    folder: Path  # the row's data
    seconds: float  # at least, of one sample
    quick: bool


def asked() -> Asked:
    """Read the command line of a contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(namespace=Asked())


def serve(
    prepare: Callable[[Asked], tuple[Work, dict[str, object]]], packages: tuple[str, ...]
) -> None:
    """Prepare, then answer every line with one sample, until there are no more lines."""
    say = _own_output()
    told = asked()
    work, notes = prepare(told)
    versions = {name: metadata.version(name) for name in packages}
    say({"ready": {"python": sys.version.split()[0], **versions, **notes}})
    for _ in sys.stdin:
        say(sample(work, told.seconds))


def sample(work: Work, seconds: float) -> dict[str, float]:
    """Repeat ``work`` for ``seconds`` at least; return the amount, wall and processor seconds."""
    amount, wall, processor = 0.0, time.perf_counter(), _processor()
    while True:
        amount += work()
        passed = time.perf_counter() - wall
        if passed >= seconds:
            return {"amount": amount, "seconds": passed, "processor": _processor() - processor}


def _processor() -> float:
    """Return processor seconds of this process and of children that have ended."""
    times = os.times()  # in hundredths, too coarse for a short sample of this process itself
    return time.process_time() + times.children_user + times.children_system


def _own_output() -> Callable[[object], None]:
    """Keep standard output for answers: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    return say
