"""How many account-steps a second the engine makes on one core, every rule on.

    python -m bench.engine [--accounts 1024] [--steps 2000] [--device cpu|cuda]

A step is one bar of one account: look up the bar, ``submit`` a target, ``settle`` the next bar;
accounts stand at rows of their own, as in training, and a finished one is opened anew. All of it
runs on one thread; the figure is processor time of this process, compiling not included. The
targets are drawn beforehand: a third hold, a third go to a new weight, a third repeat theirs.
`by_arrays` is the same in NumPy's arrays, operation by operation: the reference of the machine
code, and what several symbols at once still run on. With ``--device`` accounts and market are torch
tensors that stay there: on a GPU with ``cuda``; ``cpu`` is the same code where there is none. The
figure is then wall clock, for the device works beside the processor.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from core import settings
from core.accounts import State, choose, open_accounts
from core.bars import Market
from core.compiled import by_arrays
from core.engine import PackedMarket, settle, submit
from core.rules import Rules

ROWS = 3_000
EPISODE = 252


def every_rule() -> Rules:
    """Return rules of which none is switched off."""
    return Rules.of(
        settings.Account(fraction=0.98, no_trade_band=0.02),
        settings.Costs(),
        settings.RiskLimits(
            max_weight=0.9,
            max_exposure=0.8,
            max_leverage=1.0,
            volatility_target=0.25,
            stop_loss=0.05,
            take_profit=0.10,
            stop_loss_atr=2.0,
            take_profit_atr=4.0,
            cooldown_bars=3,
            reduce_drawdown=0.10,
            halt_drawdown=0.30,
        ),
    )


def random_market(rng: np.random.Generator) -> Market:
    """Return a random walk with gaps, quarterly dividends and two splits."""
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0003, 0.02, ROWS)))
    open_ = close * np.exp(rng.normal(0.0, 0.005, ROWS))
    dividend, split = np.zeros(ROWS), np.ones(ROWS)
    dividend[::63] = 0.2
    split[[ROWS // 3, 2 * ROWS // 3]] = 2.0
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.01, ROWS))),
        "low": np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.01, ROWS))),
        "close": close,
        "volume": rng.integers(20_000, 2_000_000, ROWS).astype(float),
        "dividend": dividend,
        "split_ratio": split,
        "atr": close * 0.02,
        "volatility": rng.uniform(0.15, 0.5, ROWS),
    }
    time_ = np.datetime64("2000-01-03", "ns") + np.arange(ROWS) * np.timedelta64(1, "D")
    return Market(("TEST",), time_, **{name: c[:, None] for name, c in columns.items()})


def targets(rng: np.random.Generator, accounts: int) -> np.ndarray:
    """Return (64, accounts, 1) target weights, NaN: hold."""
    new = rng.uniform(0.0, 1.0, (64, accounts, 1))
    kind = rng.integers(0, 3, new.shape)
    return np.where(kind == 0, np.nan, np.where(kind == 1, new, np.round(new)))


class Run:
    """A batch of accounts, each at its own row, stepped as training steps them."""

    def __init__(self, accounts: int, seed: int = 0, device: str | None = None) -> None:
        rng = np.random.default_rng(seed)
        xp: Any = np if device is None else torch_arrays()
        self.xp, self.device = xp, device
        self.rules = every_rule()
        self.market = PackedMarket.of(random_market(rng), xp, device)
        self.weights = xp.asarray(targets(rng, accounts), device=device)
        self.fresh = open_accounts(accounts, 1, 100_000.0, xp, device)
        self.state: State = self.fresh
        self.rows = xp.asarray(rng.integers(0, ROWS - EPISODE - 1, accounts), device=device)
        self.seconds = {"look up": 0.0, "submit": 0.0, "settle": 0.0, "open anew": 0.0}
        self.bar = self.market.at(self.rows)

    def step(self, index: int, clock: Callable[[], float]) -> None:
        """Make one step of all accounts."""
        begun = clock()
        submitted = submit(self.state, self.weights[index % 64], self.bar, self.rules).state
        decided = clock()
        self.rows = self.rows + 1
        self.bar = self.market.at(self.rows)
        looked = clock()
        self.state = settle(submitted, self.bar, self.rules).state
        settled = clock()
        over = (self.state.terminated != 0) | (self.rows >= ROWS - 1)
        if self.device is not None or np.count_nonzero(over):  # a device is not waited for
            self.state = choose(over, self.fresh, self.state)
            self.rows = self.xp.where(over, self.xp.zeros_like(self.rows), self.rows)
            self.bar = self.market.at(self.rows)
        self.seconds["submit"] += decided - begun
        self.seconds["look up"] += looked - decided
        self.seconds["settle"] += settled - looked
        self.seconds["open anew"] += clock() - settled


def torch_arrays() -> Any:
    """Return torch as an array-API namespace."""
    import array_api_compat.torch as namespace

    return namespace


def measure_on(device: str, accounts: int, steps: int) -> dict[str, Any]:
    """Return account-steps per second of wall clock, the market resident on ``device``."""
    import torch

    from training.device import find_device

    name = str(find_device(device))
    torch.set_num_threads(1)
    run, rates = Run(accounts, device=name), []

    def wait() -> None:
        if name.startswith("cuda"):
            torch.cuda.synchronize()

    for stretch in range(6):  # the first is not counted
        wait()
        begun = time.perf_counter()
        for index in range(max(1, steps // 5)):
            run.step(stretch + index, time.perf_counter)
        wait()
        rates.append(accounts * max(1, steps // 5) / (time.perf_counter() - begun))
    return {
        "accounts": accounts,
        "device": torch.cuda.get_device_name() if name.startswith("cuda") else name,
        "account_steps_per_second_median": float(np.median(rates[1:])),
        "account_steps_per_second": rates[1:],
        "torch": torch.__version__,
    }


def measure(accounts: int, steps: int) -> dict[str, Any]:
    """Return account-steps per second, of the machine code and by arrays."""
    machine = stretches(accounts, steps)
    with by_arrays():
        reference = stretches(accounts, max(10, steps // 4))
    return {
        "accounts": accounts,
        **machine,
        "by_arrays": reference,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "numba": metadata.version("numba"),
    }


def stretches(accounts: int, steps: int) -> dict[str, Any]:
    """Return account-steps per second: the best and the median of ten stretches."""
    run = Run(accounts)
    for index in range(100):
        run.step(index, time.perf_counter)
    run.seconds = dict.fromkeys(run.seconds, 0.0)
    rates = []
    for stretch in range(10):
        begun = time.process_time()
        for index in range(steps // 10):
            run.step(stretch + index, time.perf_counter)
        rates.append(accounts * (steps // 10) / (time.process_time() - begun))
    return {
        "account_steps_per_second_best": max(rates),
        "account_steps_per_second_median": float(np.median(rates)),
        "microseconds_per_step": {k: v / steps * 1e6 for k, v in run.seconds.items()},
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--accounts", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--device", default=None, help="run as torch tensors there: cpu, cuda")
    arguments = parser.parse_args()
    if arguments.device is not None:
        print(
            json.dumps(measure_on(arguments.device, arguments.accounts, arguments.steps), indent=2)
        )
        return
    print(json.dumps(measure(arguments.accounts, arguments.steps), indent=2))


if __name__ == "__main__":
    main()
