"""What actors inside one training cost, or gain: PPO environment steps a second, wall clock.

    python -m bench.actors [--actors 0+0,2+0,0+2] [--hidden 64,64] [--accounts 256] [--rounds 5]

Each entry is runners+learners (``training`` in params.yaml) of one training in the bench's market;
0+0 is one process. All stand ready side by side and work in turns, the first round is thrown
away, the figures are medians. Ray gets as many processors as the largest asks for, whatever the
machine has.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import torch

from bench.learning import lesson
from core.settings import Ppo
from training.algorithm import quiet
from training.learn import build


def ready(text: str, hidden: tuple[int, ...], accounts: int) -> Any:
    """Return the algorithm of one entry, its actors started."""
    runners, learners = (int(number) for number in text.split("+"))
    task = lesson(Ppo(hidden=hidden), accounts=accounts)
    return build(replace(task, runners=runners, learners=learners))


def seconds_of(algorithm: Any) -> float:
    """Return the wall clock of one iteration: rollout, values, four epochs."""
    begun = time.perf_counter()
    algorithm.train()
    return time.perf_counter() - begun


def main() -> None:
    """Print steps a second of every entry as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--actors", default="0+0,2+0,0+2", help="runners+learners, with commas")
    parser.add_argument("--hidden", default="64,64", help="widths of the layers")
    parser.add_argument("--accounts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    entries = given.actors.split(",")
    hidden = tuple(int(width) for width in given.hidden.split(","))
    most = sum(int(number) for entry in entries for number in entry.split("+"))
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=1 + most, include_dashboard=False, log_to_driver=False)
    taken: dict[str, list[float]] = {entry: [] for entry in entries}
    with quiet():
        algorithms = {entry: ready(entry, hidden, given.accounts) for entry in entries}
        for number in range(given.rounds + 1):
            for entry, algorithm in algorithms.items():
                seconds = seconds_of(algorithm)
                taken[entry] += [seconds] if number else []
            sys.stderr.write(f"round {number} of {given.rounds}\n")
        for algorithm in algorithms.values():
            algorithm.stop()
    ray.shutdown()
    steps = given.accounts * Ppo().rollout_bars
    medians = {entry: float(np.median(seconds)) for entry, seconds in taken.items()}
    told = {
        "steps_a_second": {entry: steps / seconds for entry, seconds in medians.items()},
        "times_the_first": {
            entry: medians[entries[0]] / seconds for entry, seconds in medians.items()
        },
        "hidden": hidden,
        "accounts": given.accounts,
        "samples_seconds": taken,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
