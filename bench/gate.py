"""How often the gate promotes a simulated agent, by the edge it truly has: level and power.

    python -m bench.gate [--markets 400]

A market of fat-tailed daily returns, an agent half invested in it with an edge of its own, its
seeds, trials, worse conditions and baselines: what ``registry.gate`` gets from a retraining, made
up in a microsecond instead of learned in a minute. `make evidence` measures the whole pipeline.
"""

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from core.settings import Gate
from registry.evidence import Evidence, Stress
from registry.gate import judge
from registry.selection import effective_trials, overfitting
from training.splits import Window, combinatorial
from training.stress import capacity

BARS, WALK_BARS, VALIDATION_BARS = 378, 1_285, 378  # of ten years, divided as params.yaml has it
TRIALS, SEEDS = 9, 5
YEAR = math.sqrt(252.0)
DAILY = 0.012  # deviation of the market
SHARE = 0.5  # of the agent's return that is the market's
OWN = 0.006  # deviation of what is its own
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # annual Sharpe ratio


def evidence(edge: float, rng: np.random.Generator) -> Evidence:
    """Return what the gate would see of an agent whose own part has the annual Sharpe ``edge``."""
    market = _market(BARS, rng) + 0.4 * DAILY / YEAR
    seeds = np.stack([_agent(edge, market, rng) for _ in range(SEEDS)])
    before = _market(VALIDATION_BARS, rng) + 0.4 * DAILY / YEAR
    walked = _market(WALK_BARS, rng) + 0.4 * DAILY / YEAR
    trials = np.stack([_agent(edge, before, rng) for _ in range(TRIALS)])
    cost = 0.03 / 252  # a year's costs: what doubling them takes away
    grown = float(np.log1p(seeds[0]).sum())
    return Evidence(
        candidate=seeds[0],
        champion=None,
        baselines=_baselines(market, rng),
        seeds=seeds,
        trials=TRIALS,
        trial_sharpe_variance=float((trials.mean(1) / trials.std(1)).var(ddof=1)),
        walk_forward=_agent(edge, walked, rng),
        walk_baselines=_baselines(walked, rng),
        effective_trials=effective_trials(trials),
        overfitting=overfitting(trials, _splits()),
        stress=Stress(
            costs={n: seeds[0] - (n - 1) * cost for n in (1, 2, 5)},
            delayed=_agent(0.7 * edge, market, rng),
            capital={1: seeds[0], 100: seeds[0] / 4},
            capacity=capacity({1: grown, 100: grown / 4}),
        ),
        market=market,
    )


def _baselines(market: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    timing = np.where(rng.random(len(market)) < 0.5, market, 0.0)
    return {"flat": np.zeros(len(market)), "buy_and_hold": market, "random": timing}


def _market(bars: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_t(5, bars) * DAILY / math.sqrt(5 / 3)


def _agent(edge: float, market: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    deviation = math.hypot(SHARE * DAILY, OWN)
    own = OWN * rng.normal(size=len(market)) + edge * deviation / YEAR
    return np.asarray(SHARE * (market - market.mean()) + own)


def _splits() -> list[tuple[np.ndarray, np.ndarray]]:
    made = combinatorial(Window(0, VALIDATION_BARS), 8, 4, 6)
    return [(split.known_rows, split.tested_rows) for split in made]


def promoted(seed: int, edge: float, settings: Gate) -> tuple[str, ...]:
    """Return the tests that one such agent fails; none: promoted."""
    report = judge(evidence(edge, np.random.default_rng([seed, int(1000 * edge)])), settings)
    return tuple(reason.test for reason in report.reasons if not reason.passed)


def main() -> None:
    """Print one line per edge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=400)
    markets = parser.parse_args().markets
    sys.stdout.write(
        f"{markets} simulated markets per edge, {WALK_BARS} + {BARS} bars, {TRIALS} trials, "
        f"{SEEDS} seeds\n"
        "edge  promoted  failed most\n"
    )
    with ProcessPoolExecutor() as pool:
        for edge in EDGES:
            judged = list(pool.map(partial(promoted, edge=edge, settings=Gate()), range(markets)))
            failed = [test for failures in judged for test in dict.fromkeys(failures)]
            most = sorted(set(failed), key=failed.count, reverse=True)[:3]
            named = ", ".join(f"{test} {failed.count(test) / markets:.0%}" for test in most)
            share = sum(not failures for failures in judged) / markets
            sys.stdout.write(f"{edge:4.1f}  {share:8.1%}  {named}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
