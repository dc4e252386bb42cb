"""How near the learners are to the machine's limit: matrix products that cannot be avoided.

    python -m bench.limit [--repeats 5] [--seconds 2]

Counts the floating-point operations of one environment step with learning (PPO) and of one update
(SAC) that are matrix products: forward in the rollout, values, forward and backward in every epoch.
Each product is timed by itself, in the shape in which it occurs, on one thread; a learner that did
nothing else would take the sum of those times. Learner and products take turns; the share reached
is the median. What is not counted: activations, Adam, the engine, observations, shuffling.
"""

import argparse
import json
import os
import platform
import time
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.learning import lesson, rates, steps, updates
from core.settings import Environment, Ppo, Sac
from training.algorithm import quiet
from training.learn import build


class Product(NamedTuple):
    """``members`` products of (rows, inner) and (inner, columns), made ``times`` per unit."""

    members: int
    rows: int
    inner: int
    columns: int
    times: float

    @property
    def operations(self) -> float:
        """Floating-point operations per unit: a multiplication and an addition each."""
        return 2.0 * self.members * self.rows * self.inner * self.columns * self.times


def forward(sizes: list[int], rows: int, times: float, members: int = 1) -> list[Product]:
    return [Product(members, rows, a, b, times) for a, b in pairwise(sizes)]


def backward(
    sizes: list[int], rows: int, times: float, members: int = 1, weights: bool = True
) -> list[Product]:
    """Return the products of the gradients of weights and of what lies below them."""
    made = []
    for layer, (a, b) in enumerate(pairwise(sizes)):
        if weights:
            made.append(Product(members, a, rows, b, times))
        if layer:
            made.append(Product(members, rows, b, a, times))
    return made


def ppo_products(settings: Ppo, width: int, accounts: int) -> list[Product]:
    """Return the products of one environment step with learning."""
    actor, critic = [width, *settings.hidden, 3], [width, *settings.hidden, 1]
    rollout, batch = accounts * settings.rollout_bars, settings.minibatch
    learned = settings.epochs / batch
    made = forward(actor, accounts, 1.0 / accounts) + forward(critic, rollout, 1.0 / rollout)
    for sizes in (actor, critic):
        made += forward(sizes, batch, learned) + backward(sizes, batch, learned)
    return made


def sac_products(settings: Sac, width: int) -> list[Product]:
    """Return the products of one update."""
    actor, critic, n = (
        [width, *settings.hidden, 2],
        [width + 1, *settings.hidden, 1],
        settings.batch,
    )
    return [
        *forward(actor, 2 * n, 1.0),  # here and one bar on
        *forward(critic, n, 1.0, 2),  # targets
        *forward(critic, n, 1.0, 2),
        *backward(critic, n, 1.0, 2),
        *forward(critic, n, 1.0, 2),  # of imagined actions
        *backward(critic, n, 1.0, 2, weights=False),
        Product(2, n, settings.hidden[0], 1, 1.0),  # down to the action
        *backward(actor, n, 1.0),
    ]


def seconds_of(product: Product, budget: float = 0.03) -> float:
    """Return the time of one such product, repeated for ``budget`` seconds."""
    shape = (product.members, product.rows, product.inner)
    left = torch.randn(shape)
    right = torch.randn(product.members, product.inner, product.columns)
    out = torch.empty(product.members, product.rows, product.columns)
    count, begun = 0, time.process_time()
    while time.process_time() - begun < budget:
        for _ in range(20):
            torch.bmm(left, right, out=out)
        count += 20
    return (time.process_time() - begun) / count


def limit(products: list[Product]) -> tuple[float, float]:
    """Return units per second of the products alone, and their floating-point operations."""
    timed = {p[:4]: seconds_of(p) for p in products}
    spent = sum(timed[p[:4]] * p.times for p in products)
    return 1.0 / spent, sum(p.operations for p in products)


def main() -> None:
    """Print limits, rates and shares as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of learning, each time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ppo, sac = Ppo(), Sac()
    figures: dict[str, Any] = {}
    with quiet():
        for name, settings, count in (
            ("PPO environment steps", ppo, steps),
            ("SAC updates", sac, updates(sac.batch)),
        ):
            algorithm = build(lesson(settings))
            width = algorithm._market.width
            products = (
                ppo_products(settings, width, Environment().accounts)
                if isinstance(settings, Ppo)
                else sac_products(settings, width)
            )
            samples = []
            for _ in range(arguments.repeats):
                most, operations = limit(products)
                made = rates(algorithm.train, count, arguments.seconds)["per_processor_second"]
                samples.append((made, most, made / most))
            made, most, share = np.median(samples, axis=0).tolist()
            figures[name] = {
                "per_second": made,
                "limit_per_second": most,
                "share_of_the_limit": share,
                "operations": operations,
                "matrix_products_gflops": most * operations / 1e9,
                "samples": samples,
            }
            algorithm.stop()
    figures["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    figures["load"] = os.getloadavg()[0]
    figures["torch"] = torch.__version__
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
