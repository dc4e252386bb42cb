"""How fast the learners learn: PPO environment steps and SAC updates a second, learning included.

    python -m bench.learning [--seconds 10] [--peers] [--device cuda --accounts 131072]

One process, one torch thread, observations 93 numbers wide, networks 64×64, PPO with four epochs,
SAC with batches of 256. ``--peers`` runs RLlib's own runner, replay buffer, modules and learners
on the same market beside them. Wall clock and processor time: on a busy machine believe the
second, on a GPU the first.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from core.settings import Environment, Ppo, Sac
from features.dataset import Dataset
from features.scaler import Scaler
from training.algorithm import quiet
from training.known_answer import CASH, KnownMarket, known_dataset, known_rules
from training.learn import Lesson, build

BARS = 4_000
WIDTH = 82  # columns of the feature table
MARKET = KnownMarket()
STEPS = "num_env_steps_sampled_lifetime"


def wide_dataset() -> Dataset:
    """Return the known market with as many columns as a real one."""
    dataset = known_dataset(MARKET, BARS, np.random.default_rng(0))
    noise = np.random.default_rng(1).standard_normal((BARS, WIDTH - dataset.table.shape[1]))
    names = tuple(f"noise_{i}" for i in range(noise.shape[1]))
    spec = replace(dataset.spec, columns=dataset.spec.columns + names)
    return Dataset.of("WIDE", "WIDE", dataset.market, np.hstack([dataset.table, noise]), spec)


def lesson(settings: Ppo | Sac, device: str = "cpu", accounts: int | None = None) -> Lesson:
    """Return a lesson in the wide market; as many ``accounts`` as usual when None."""
    dataset = wide_dataset()
    return Lesson(
        agent="bench",
        actions="discrete" if isinstance(settings, Ppo) else "continuous",
        dataset=dataset,
        train_rows=(0, BARS - 500),
        validation_rows=(BARS - 500, BARS),
        scaler=Scaler.fit(dataset.table, dataset.spec),
        rules=known_rules(MARKET),
        environment=Environment() if accounts is None else Environment(accounts=accounts),
        reward="log_return",
        hyperparameters=settings,
        seed=0,
        cash=CASH,
        device=device,
    )


def rates(
    train: Callable[[], dict[str, Any]], count: Callable[[dict[str, Any]], float], seconds: float
) -> dict[str, float]:
    """Call ``train`` for ``seconds`` after a warm-up; return what ``count`` grew by, a second."""
    before = 0.0
    while before == 0.0:
        train()
        before = count(train())
    wall, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        after = count(train())
    done = after - before
    return {
        "per_second": done / (time.perf_counter() - wall),
        "per_processor_second": done / (time.process_time() - processor),
    }


def steps(result: dict[str, Any]) -> float:
    """Return the environment steps so far."""
    return float(result[STEPS])


def updates(batch: int) -> Callable[[dict[str, Any]], float]:
    """Return a count of the gradient updates so far."""

    def count(result: dict[str, Any]) -> float:
        learned = result.get("learners", {}).get("default_policy", {})
        return float(learned.get("num_module_steps_trained_lifetime", 0.0)) / batch

    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--peers", action="store_true", help="measure stock RLlib too")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, tpu or torch-cpu")
    parser.add_argument("--accounts", type=int, help="stepped side by side")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    ppo, sac = Ppo(), Sac()
    with quiet():
        for name, settings, count in (
            ("PPO environment steps", ppo, steps),
            ("SAC updates", sac, updates(sac.batch)),
        ):
            task = lesson(settings, arguments.device, arguments.accounts)
            figures[name] = rates(build(task).train, count, arguments.seconds)
            if arguments.peers:
                from bench.peers.rllib import stock as stock_rllib

                stock = stock_rllib(lesson(settings))
                figures[f"{name}, stock RLlib"] = rates(stock.train, count, arguments.seconds)
                stock.stop()
    import ray

    figures["device"], figures["accounts"] = task.device, task.environment.accounts
    figures["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    figures["load"] = os.getloadavg()[0]
    figures["versions"] = {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "torch": torch.__version__,
        "ray": ray.__version__,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
