"""How a study's throughput grows with its workers, and what a large one would cost.

    python -m bench.workers [--workers 1,2] [--lessons 8] [--repeats 3] [--cluster]

Every worker count is a Ray of its own, of so many processors: on this machine, or with
``--cluster`` of so many nodes of one processor each, which join one another over the loopback
device as machines do. The lessons are PPO trainings of the demonstration's size on 1,250 bars of
the bench's market. What a thousand tickers times a hundred trials cost is reckoned from the
seconds per lesson.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray

from bench.learning import lesson
from core.home import Home
from core.settings import Ppo
from training import workers
from training.learn import train

STEPS = 100_000  # of a trial: 400,000 × effort 0.25 of the demonstration's size
TICKERS, TRIALS = 1_000, 100


def measure(count: int, lessons: int, cluster: bool) -> float:
    """Return the seconds of wall clock that ``lessons`` take on ``count`` warm workers."""
    with TemporaryDirectory(prefix="ratchet-bench-") as place:
        home = Home(Path(place))
        nodes = start_cluster(count) if cluster else None
        try:
            if nodes is None:
                ray.init(
                    address="local",  # never a cluster that happens to run here
                    num_cpus=count,
                    include_dashboard=False,
                    log_to_driver=False,
                )
            tasks = [
                replace(lesson(Ppo(steps=STEPS)), seed=seed, reports=1) for seed in range(lessons)
            ]
            workers.train_all(home, [replace(task, effort=0.1) for task in tasks[:count]])
            begun = time.perf_counter()
            outcomes = workers.train_all(home, tasks)
            taken = time.perf_counter() - begun
            workers.require_trained(outcomes, "lesson")
        finally:
            ray.shutdown()
            if nodes is not None:
                nodes.shutdown()
    return taken


def processor_seconds() -> float:
    """Return the processor time of one lesson, in a process that has trained before."""
    task = replace(lesson(Ppo(steps=STEPS)), reports=1)
    train(replace(task, effort=0.1))
    begun = time.process_time()
    train(task)
    return time.process_time() - begun


def start_cluster(count: int) -> Any:
    """Start ``count`` nodes of one processor and join them as a driver."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(count - 1):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    return nodes


def main() -> None:
    """Print the throughput by workers, and the cost on paper, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", default="1,2", help="counts, with commas between")
    parser.add_argument("--lessons", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cluster", action="store_true", help="every worker on a node of its own")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.workers.split(",")]
    samples: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(arguments.repeats):
        for count in counts:
            samples[count].append(measure(count, arguments.lessons, arguments.cluster))
            sys.stderr.write(f"{count} workers: {samples[count][-1]:.1f} s\n")
    seconds = {count: float(np.median(taken)) for count, taken in samples.items()}
    first = counts[0]
    each = processor_seconds()
    print(
        json.dumps(
            {
                "lessons": arguments.lessons,
                "steps_per_lesson": STEPS,
                "nodes": "one per worker" if arguments.cluster else "one",
                "lessons_per_minute": {
                    count: 60.0 * arguments.lessons / taken for count, taken in seconds.items()
                },
                "times_the_first": {
                    count: seconds[first] / taken for count, taken in seconds.items()
                },
                "processor_seconds_per_lesson": each,
                "days_of_two_processors": each * TICKERS * TRIALS / 2 / 86_400,
                "hours_of_a_cluster_of_256_processors": each * TICKERS * TRIALS / 256 / 3_600,
                "samples_seconds": samples,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
                "load": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
