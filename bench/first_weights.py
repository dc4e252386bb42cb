"""Does SAC gain on real markets from first weights that let an action be heard?

    python -m bench.first_weights [--seeds 5] [--updates 1000] [--markets IXIC3X IBM]

Trains the agent ``ixic3x`` of params.yaml (its reward, limits and usual hyper-parameters) on
bundled markets, once with the critics' first weights of the action as they are (√width times
orthogonal) and once as all the others; same seeds, same rows. Prints the annualised Sharpe ratio
on validation and hold-out rows, after costs, without exploration: mean over the seeds ± its error.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from core.bars import Market
from core.calendar import bars_per_year
from core.home import PROJECT
from core.metrics import sharpe
from core.rules import Rules
from core.settings import Params, load_params
from features.dataset import Dataset
from features.scaler import Scaler
from features.spec import spec_from
from features.table import build_table, risk_columns
from registry.policy import Policy
from sources.catalogue import make_source
from sources.port import as_traded
from training.backtest import run
from training.learn import Lesson, train
from training.sac import SacModule
from training.splits import Timeline, divide

AGENT = "ixic3x"
SIGNALS = {"IXIC3X": "IXIC"}  # what an agent looks at, where that is not what it trades
MARKETS = ("IXIC3X", "GSPC", "IBM", "MSFT", "AAPL")
KINDS = {"heard": True, "like all others": False}


def bars_of(symbol: str) -> pd.DataFrame:
    """Return bundled bars as traded."""
    delivery = make_source("bundled").fetch(symbol, "1d", None, datetime.now(UTC))
    return as_traded(delivery.frame, delivery.convention)


def dataset(symbol: str, params: Params) -> Dataset:
    """Return a bundled market with what an agent sees of it."""
    spec, bars, signal = spec_from(params), bars_of(symbol), SIGNALS.get(symbol, symbol)
    market = Market.from_frames({symbol: bars.join(risk_columns(bars, spec, spec.interval))})
    table = build_table(bars_of(signal), spec, spec.interval).to_numpy()
    return Dataset.of(symbol, signal, market, table, spec)


def lesson(data: Dataset, rows: Timeline, params: Params, seed: int, updates: int) -> Lesson:
    """Return what is learned from the training rows."""
    return Lesson(
        agent=AGENT,
        actions="continuous",
        dataset=data,
        train_rows=(rows.train.start, rows.train.stop),
        validation_rows=(rows.validation.start, rows.validation.stop),
        scaler=Scaler.fit(data.table[rows.train.start : rows.train.stop], data.spec),
        rules=Rules.of(params.account, params.costs, params.risk_for(AGENT)),
        environment=params.environment,
        reward=params.agent(AGENT).reward,
        hyperparameters=params.sac.model_copy(update={"updates": updates}),
        seed=seed,
        cash=params.account.cash,
        reports=1,
    )


@contextmanager
def first_weights(heard: bool) -> Iterator[None]:
    """Begin critics as they begin, or with weights of the action like all the others."""
    setup = SacModule.setup

    def plain(module: SacModule) -> None:
        setup(module)
        module.critics.weights[0].data[:, -1] /= math.sqrt(module.observation_space.shape[0])

    SacModule.setup = setup if heard else plain
    try:
        yield
    finally:
        SacModule.setup = setup


def scores(task: Lesson, rows: Timeline) -> tuple[float, float]:
    """Return the Sharpe ratios of one training, on validation and on hold-out rows."""
    trained = train(task)
    policy = Policy.open(trained.policy_onnx)
    result = run(policy, task.dataset, task.scaler, task.rules, rows.holdout, task.cash)
    curve = np.append(task.cash, result.equity)
    return trained.validation_score, float(sharpe(curve, bars_per_year(task.dataset.interval)))


def main() -> None:
    """Print one line a market and kind, then the differences over all markets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--updates", type=int, default=1_000, help="1,000: the demo's size")
    parser.add_argument("--markets", nargs="+", default=MARKETS, metavar="SYMBOL")
    asked = parser.parse_args()
    params = load_params(PROJECT / "params.yaml")
    gained = []
    print(f"{'market':8} {'first weights':16} {'validation':>13}  {'hold-out':>13}")
    for symbol in asked.markets:
        data = dataset(symbol, params)
        rows = divide(data.first_row, len(data), params.split, data.spec.window)
        task = lesson(data, rows, params, 0, asked.updates)
        found = []
        for kind, heard in KINDS.items():
            with first_weights(heard):
                found.append([scores(replace(task, seed=s), rows) for s in range(asked.seeds)])
            print(f"{symbol:8} {kind:16} {'  '.join(map(told, zip(*found[-1], strict=True)))}")
            sys.stdout.flush()
        gained.append(np.mean(found[0], axis=0) - np.mean(found[1], axis=0))
    if len(gained) > 1:
        columns = "  ".join(map(told, zip(*gained, strict=True)))
        print(f"{'all':8} {'gained':16} {columns}")


def told(values: tuple[float, ...]) -> str:
    """Return mean ± its error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{float(np.mean(values)):+6.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
