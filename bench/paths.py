"""How many bars a second a policy is backtested on many histories at once, deciding at every bar.

    python -m bench.paths [--paths 256] [--bars 2500] [--repeats 5]

The histories are bootstrapped from real markets, the observations those of ``params.yaml`` (about
100 numbers), the networks 64×64, the rules and costs the shipped ones. Bars, features and risk
columns are ready, as a peer's signals are; scaling, observing, deciding, risk, orders, fills, stops
and books are measured, on one core. The profile says where the time goes.
"""

import argparse
import cProfile
import json
import os
import platform
import pstats
import time
from typing import Any

import numpy as np

from core.bars import Market
from core.home import PROJECT
from core.rules import Rules
from core.settings import Ppo, load_params
from features.dataset import Dataset
from features.scaler import Scaler
from features.spec import FeatureSpec, spec_from
from features.table import build_table, risk_columns
from pipelines.histories import History
from registry.policy import Policy
from training.algorithm import quiet
from training.learn import Lesson, build, export_policy
from training.paths import run
from training.splits import Window

PARTS = {
    "policy network": "InferenceSession.run",
    "bars side by side": "pack_each",
    "scaling": "scale_each",
    "engine: settle": "settle",
    "engine: submit": "submit",
    "account features": "account_features",
    "observations, scaling included": "observe",
    "checks of the answers": "_decision",
}


def history(number: int, spec: FeatureSpec) -> Dataset:
    """Return one bootstrapped history with its features."""
    bars = History("bootstrapped", number).bars()
    market = Market.from_frames({"PATH": bars.join(risk_columns(bars, spec, spec.interval))})
    table = build_table(bars, spec, spec.interval).to_numpy()
    return Dataset.of("PATH", "PATH", market, table, spec)


def trained(dataset: Dataset, scaler: Scaler, rules: Rules, iterations: int = 4) -> Policy:
    """Return a PPO policy that has learned a little."""
    params, stop = load_params(PROJECT / "params.yaml"), len(dataset)
    lesson = Lesson(
        agent="bench",
        actions="discrete",
        dataset=dataset,
        train_rows=(0, stop - 300),
        validation_rows=(stop - 300, stop),
        scaler=scaler,
        rules=rules,
        environment=params.environment,
        reward="log_return",
        hyperparameters=Ppo(),
        seed=0,
        cash=params.account.cash,
    )
    with quiet():
        algorithm = build(lesson)
        for _ in range(iterations):
            algorithm.train()
        onnx = export_policy(algorithm, lesson)
        algorithm.stop()
    return Policy.open(onnx)


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Return the share of the time spent in each part, parts of parts included."""
    stats: Any = pstats.Stats(profile)
    total = stats.total_tt
    found = dict.fromkeys(PARTS, 0.0)
    for (_, _, name), (_, _, _, within, _) in stats.stats.items():
        for part, function in PARTS.items():
            if name == function.split(".")[-1] and (name != "run" or within < 0.9 * total):
                found[part] = max(found[part], within / total)
    return found


def main() -> None:
    """Print the rates and the profile as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--paths", type=int, default=256)
    parser.add_argument("--bars", type=int, default=2_500)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    params = load_params(PROJECT / "params.yaml")
    spec = spec_from(params, "1d")
    rules = Rules.of(params.account, params.costs, params.risk)
    begun = time.perf_counter()
    datasets = [history(number, spec) for number in range(arguments.paths)]
    building = time.perf_counter() - begun
    first = max(dataset.first_row for dataset in datasets)
    rows = Window(first, min(first + arguments.bars, *(len(dataset) for dataset in datasets)))
    scaler = Scaler.fit(datasets[0].table[first:], spec)
    policy = trained(datasets[0], scaler, rules)
    samples, processed = [], []
    for _ in range(arguments.repeats + 1):  # the first is not counted
        begun, processor = time.perf_counter(), time.process_time()
        paths = run(policy, datasets, scaler, rules, rows, params.account.cash)
        samples.append(paths.equity.size / (time.perf_counter() - begun))
        processed.append(paths.equity.size / (time.process_time() - processor))
    profile = cProfile.Profile()
    profile.runcall(run, policy, datasets, scaler, rules, rows, params.account.cash)
    figures = {
        "paths": len(datasets),
        "bars": len(rows),
        "observation": policy.observation_size,
        "bars_per_second_median": float(np.median(samples[1:])),
        "bars_per_processor_second_median": float(np.median(processed[1:])),
        "bars_per_second": samples[1:],
        "seconds_to_build_the_features": building,
        "profile": shares(profile),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
