"""A real dataset of AAPL and rules without costs, for tests of backtest and report."""

import pytest

from core.bars import Market
from core.risk import Rules
from core.settings import Account, Costs, Params, RiskLimits, parse_params
from features.dataset import Dataset
from features.scaler import Scaler
from features.spec import spec_from
from features.table import build_table, risk_columns
from sources.bundled import LISTINGS

PARAMS: Params = parse_params({"agents": {"aapl": {"symbol": "AAPL"}}})
FREE = Rules.of(
    Account(fraction=1.0, no_trade_band=0.0),
    Costs(commission_per_share=0.0, commission_minimum=0.0, slippage_bps=0.0),
    RiskLimits(reduce_drawdown=None, halt_drawdown=None),
)


@pytest.fixture(scope="module")
def apple() -> Dataset:
    bars = LISTINGS["AAPL"].load().iloc[:900]
    spec = spec_from(PARAMS, "1d")
    market = Market.from_frames({"AAPL": bars.join(risk_columns(bars, spec, "1d"))})
    table = build_table(bars, spec, "1d").to_numpy()
    return Dataset.of("AAPL", "AAPL", market, table, spec)


@pytest.fixture(scope="module")
def scaler(apple: Dataset) -> Scaler:
    return Scaler.fit(apple.table[apple.first_row :], apple.spec)
