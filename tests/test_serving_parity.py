"""Paper and backtest of the same bars: difference zero; and a difference is found and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import serving_kit as world

from core.errors import ExecutionError
from core.home import Home
from core.settings import Params
from features import table as table_module
from features.dataset import Dataset
from features.indicators import INDICATORS
from features.table import build_table, risk_columns
from pipelines.certificate import (
    Certificate,
    Recorded,
    certificate_of,
    newest_session,
    recorded,
)
from pipelines.dataset import join
from pipelines.parity import Difference, first_difference
from registry.bundle import Bundle
from serving.history import Instrument
from serving.session import rules_of
from serving.worker import Worker
from training.backtest import BacktestResult, run
from training.splits import Window

AGENTS = ("solo", "pair")


def dataset_of(settings: Params, bundle: Bundle, agent: str) -> Dataset:
    entry, frames = settings.agent(agent), world.market()
    bars = frames[Instrument("bundled", entry.symbol, "1d")]
    signal = frames[Instrument("bundled", entry.signal_symbol, "1d")]
    bars = bars.join(risk_columns(bars, bundle.spec, "1d"))
    table: pd.DataFrame = build_table(signal, bundle.spec, "1d")
    return join(entry.symbol, entry.signal_symbol, bars, table, bundle.spec)


def backtest(settings: Params, shelf: world.FolderShelf, agent: str) -> BacktestResult:
    bundle = shelf.load(agent, shelf.production(agent))
    dataset = dataset_of(settings, bundle, agent)
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


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Params, Bundle, Recorded]:
    settings, root = world.params(), tmp_path_factory.mktemp("traded")
    shelf, home = world.shelf_with_both(root / "shelf", settings), Home(root / "home")
    Worker(home, settings, ("solo",), world.feed(), shelf=shelf, environment={}).run()
    (found,) = recorded(home, 1)
    return home, settings, shelf.load("solo", shelf.production("solo")), found


Session = tuple[Home, Params, Bundle, Recorded]


def certified(traded: Session, bundle: Bundle, dataset: Dataset) -> Certificate:
    home, settings, _, found = traded
    rules = rules_of(settings, "solo")
    return certificate_of(home, found, bundle, dataset, rules, settings.account.cash)


def test_a_session_that_training_would_repeat_is_certified(traded: Session) -> None:
    _, settings, bundle, found = traded
    one = certified(traded, bundle, dataset_of(settings, bundle, "solo"))
    assert one.passed
    assert (one.bars, one.fills) == (world.PAPER_BARS, len(found.fills))
    assert one.slippage == pytest.approx(sum(fill.slippage for fill in found.fills))
    assert one.fills > 0
    assert one.slippage_bps > 0.0
    assert str(one).startswith("session 1, solo version 1, 40 bars: equal to the last bit; ")


def first_bar(found: Recorded, difference: Difference | None) -> str:
    assert difference is not None
    assert difference.bar_time == found.decisions[0].bar_time
    return difference.what


def test_features_of_the_bar_before_are_named(traded: Session) -> None:
    _, settings, bundle, found = traded
    dataset = dataset_of(settings, bundle, "solo")
    shifted = replace(dataset, table=np.roll(dataset.table, 1, axis=0))
    one = certified(traded, bundle, shifted)
    assert first_bar(found, one.difference) == "observation return_1"
    assert "DIFFERS: solo at" in str(one)


def test_a_changed_scaler_is_named(traded: Session) -> None:
    _, settings, bundle, found = traded
    centre = list(bundle.scaler.centre)
    position = bundle.spec.columns.index("rsi_14")
    centre[position] += 1e-3
    changed = replace(bundle, scaler=replace(bundle.scaler, centre=tuple(centre)))
    one = certified(traded, changed, dataset_of(settings, bundle, "solo"))
    assert first_bar(found, one.difference) == "observation rsi_14"


def test_a_changed_indicator_is_named(traded: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    _, settings, bundle, found = traded
    other = dict(INDICATORS) | {"rsi_14": INDICATORS["rsi_2"]}
    monkeypatch.setattr(table_module, "INDICATORS", other)
    one = certified(traded, bundle, dataset_of(settings, bundle, "solo"))
    assert first_bar(found, one.difference) == "observation rsi_14"


def test_the_newest_session_is_the_one_to_certify(traded: Session, tmp_path: Path) -> None:
    assert newest_session(traded[0]) == 1
    assert newest_session(Home(tmp_path)) is None


def test_a_session_that_is_not_there_cannot_be_certified(traded: Session) -> None:
    with pytest.raises(ExecutionError, match="session 9: no decision in"):
        recorded(traded[0], 9)
