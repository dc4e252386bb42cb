"""Ratchet's side of every row that has a peer; run in Ratchet's own virtual environment.

python -m bench.sides engine --folder DIR --seconds 5
"""

import time

import numpy as np

from bench.speak import Asked, Work, serve

ACCOUNTS = 1_024
PATHS, BARS = 256, 2_500


def engine(told: Asked) -> tuple[Work, dict[str, object]]:
    """Account-steps of the engine, every rule on."""
    from bench.engine import Run

    run, steps = Run(ACCOUNTS), 50

    def work() -> float:
        for index in range(steps):
            run.step(index, time.perf_counter)
        return ACCOUNTS * steps

    return work, {"accounts": ACCOUNTS}


def ppo(told: Asked) -> tuple[Work, dict[str, object]]:
    """Environment steps of PPO, learning included."""
    from bench.learning import lesson, steps
    from core.settings import Ppo

    settings, task = Ppo(), lesson(Ppo())
    work, said = _learner(task, steps)
    return work, said | {"rollout_steps": task.environment.accounts * settings.rollout_bars}


def sac(told: Asked) -> tuple[Work, dict[str, object]]:
    """Gradient updates of SAC, with the environment steps that earn them."""
    from bench.learning import lesson, updates
    from core.settings import Sac

    return _learner(lesson(Sac()), updates(Sac().batch))


def _learner(task, count) -> tuple[Work, dict[str, object]]:  # type: ignore[no-untyped-def]
    import torch

    from training.algorithm import quiet
    from training.learn import build

    torch.set_num_threads(1)
    with quiet():
        algorithm = build(task)
    done = 0.0

    def work() -> float:
        nonlocal done
        before, done = done, count(algorithm.train())
        return done - before

    module = algorithm.learner.module["default_policy"]
    return work, {
        "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "accounts": task.environment.accounts,
        **task.hyperparameters.model_dump(mode="json"),
    }


def backtest(told: Asked) -> tuple[Work, dict[str, object]]:
    """Bars of a trained policy that decides at each of them, over many histories."""
    import torch

    from bench import paths
    from core.home import PROJECT
    from core.rules import Rules
    from core.settings import load_params
    from features.scaler import Scaler
    from features.spec import spec_from
    from training.paths import run
    from training.splits import Window

    torch.set_num_threads(1)
    params = load_params(PROJECT / "params.yaml")
    spec = spec_from(params, "1d")
    rules = Rules.of(params.account, params.costs, params.risk)
    datasets = [paths.history(number, spec) for number in range(PATHS)]
    first = max(dataset.first_row for dataset in datasets)
    rows = Window(first, min(first + BARS, *(len(dataset) for dataset in datasets)))
    scaler = Scaler.fit(datasets[0].table[first:], spec)
    policy = paths.trained(datasets[0], scaler, rules)

    def work() -> float:
        return float(run(policy, datasets, scaler, rules, rows, params.account.cash).equity.size)

    done = run(policy, datasets, scaler, rules, rows, params.account.cash)
    return work, {
        "paths": len(datasets),
        "bars": len(rows),
        "observation": policy.observation_size,
        "median_final_equity": float(np.median(done.equity[-1])),
    }


def retraining(told: Asked) -> tuple[Work, dict[str, object]]:
    """A whole retraining of one agent, gate and registry included."""
    import torch

    from bench import retraining as both
    from training.learn import train

    torch.set_num_threads(1)
    return both.prepare(told.folder / "ratchet", told.quick, train)


SIDES = {
    "engine": engine,
    "ppo": ppo,
    "sac": sac,
    "backtest": backtest,
    "retraining": retraining,
}


def prepare(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return Ratchet's work of one row."""
    return SIDES[told.contender](told)


if __name__ == "__main__":
    serve(prepare, ("numpy", "numba", "torch", "ray", "onnxruntime"))
