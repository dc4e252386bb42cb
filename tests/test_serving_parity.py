"""Paper and backtest of the same bars: difference zero; and a difference is found and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import serving_kit as world

from core.home import Home
from core.settings import Params
from features.table import build_table, risk_columns
from pipelines.dataset import join
from pipelines.parity import first_difference
from serving.history import Instrument
from serving.session import rules_of
from serving.worker import Worker
from training.backtest import BacktestResult, run
from training.splits import Window

AGENTS = ("solo", "pair")


def backtest(settings: Params, shelf: world.FolderShelf, agent: str) -> BacktestResult:
    entry, frames = settings.agent(agent), world.market()
    bundle = shelf.load(agent, shelf.production(agent))
    bars = frames[Instrument("bundled", entry.symbol, "1d")]
    signal = frames[Instrument("bundled", entry.signal_symbol, "1d")]
    bars = bars.join(risk_columns(bars, bundle.spec, "1d"))
    table: pd.DataFrame = build_table(signal, bundle.spec, "1d")
    dataset = join(entry.symbol, entry.signal_symbol, bars, table, bundle.spec)
    rows = Window(len(dataset) - world.PAPER_BARS, len(dataset))
    cash = settings.account.cash
    return run(bundle, dataset, bundle.scaler, rules_of(settings, agent), rows, cash)


@pytest.mark.parametrize("environment", [
    {"window": 1}, {"window": 3},
])  # fmt: skip
def test_paper_and_backtest_differ_in_nothing(tmp_path: Path, environment: dict[str, int]) -> None:
    scaler = "zscore" if environment["window"] == 1 else "rolling"
    features = {"scaler": scaler, "rolling_window_bars": 60}
    settings = world.params(environment=environment, features=features)
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    result = Worker(home, settings, AGENTS, world.feed(), shelf=shelf, environment={}).run()
    for agent, sleeve in zip(AGENTS, result.sleeves, strict=True):
        offline = backtest(settings, shelf, agent)
        assert first_difference(home.ledger, agent, offline) is None
        for name in ("total_return", "sharpe", "max_drawdown"):
            assert getattr(sleeve, name) == offline.metrics[name]
        assert sleeve.fills == int(
            np.count_nonzero(offline.fills.open_shares)
            + np.count_nonzero(offline.fills.exit_shares)
        )
        altered = replace(offline, equity=offline.equity + np.eye(1, world.PAPER_BARS, 7)[0] * 1e-9)
        found = first_difference(home.ledger, agent, altered)
        assert found is not None
        assert (found.what, found.backtest) == ("equity", altered.equity[7])
        shorter = replace(offline, market=offline.market.rows(0, world.PAPER_BARS - 1))
        missing = first_difference(home.ledger, agent, shorter)
        assert missing is not None
        assert missing.what == "the bar"
