"""The backtest: one policy over past bars, through the very engine that trades.

Owns the loop (settle, observe, decide, submit: a worker's bar) and what is kept of it. A run over
bars gives, bar by bar, what the paper worker gives on them; ``pipelines/parity.py`` holds the two
against each other. Knows neither where a policy comes from nor what its result decides.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from core.accounts import open_accounts
from core.bars import Market, bar_at
from core.calendar import bars_per_year
from core.engine import settle, submit
from core.errors import NotEnoughData
from core.fills import Fills
from core.metrics import bar_returns, performance
from core.rules import Rules
from core.trades import FillLog, Trade, log_fills, trades_of
from features.account import account_features
from features.dataset import Dataset
from features.observation import observe_rows
from features.scaler import Scaler
from registry.policy import Decision
from training.splits import Window


class Decides(Protocol):
    """A ``registry.bundle.Bundle`` or ``registry.policy.Policy``."""

    def decide(self, observation: np.ndarray) -> Decision:
        """Answer observations (n, D) float32, each row by itself."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BacktestResult:
    """One account of one policy, close by close; every array (T,) unless it says otherwise."""

    market: Market  # the bars of the run, (T, 1)
    opening_cash: float  # account currency
    equity: np.ndarray  # at each close, account currency
    position: np.ndarray  # value of the shares / equity at each close
    asked: np.ndarray  # target weight the policy asked for; NaN: hold
    allowed: np.ndarray  # what risk left of it; NaN: hold
    reasons: np.ndarray  # bits of core.risk.Reason
    score: np.ndarray
    confidence: np.ndarray
    observations: np.ndarray  # (T, D) float32: what the policy saw
    fills: FillLog  # (T, 1)
    trades: tuple[Trade, ...]
    metrics: Mapping[str, float]  # core.metrics.MEASURES

    @property
    def time(self) -> np.ndarray:
        """Return the bars' times, datetime64[ns] UTC."""
        return self.market.time

    @property
    def returns(self) -> np.ndarray:
        """Return the simple return of each bar, (T,); the first is that of the opening cash."""
        return bar_returns(np.append(self.opening_cash, self.equity))

    def trade_log(self) -> pd.DataFrame:
        """Return one row per trade, with the fields of ``core.trades.Trade``."""
        return pd.DataFrame(map(asdict, self.trades), columns=list(Trade.__slots__))


def run(
    policy: Decides, dataset: Dataset, scaler: Scaler, rules: Rules, rows: Window, cash: float
) -> BacktestResult:
    """Open an account with ``cash`` before row ``rows.start`` and trade to the end of ``rows``.

    The first decision falls at the close of the first row, so the first fill at the next open.
    Raises ``NotEnoughData`` where the rows lie in the warm-up or outside the dataset.
    """
    if rows.start < dataset.first_row or rows.stop > len(dataset) or len(rows) < 2:
        raise NotEnoughData(
            f"{dataset.symbol}: a backtest of rows {rows.start} to {rows.stop} needs at least 2 "
            f"between {dataset.first_row} (warm-up) and {len(dataset)}"
        )
    scaled = scaler.transform(dataset.table)
    state = open_accounts(1, len(dataset.market.symbols), cash)
    fills: list[Fills] = []
    kept: dict[str, list[np.ndarray]] = {name: [] for name in _KEPT}
    for row in range(rows.start, rows.stop):
        bar = bar_at(dataset.market, row)
        settlement = settle(state, bar, rules)
        state = settlement.state
        account = account_features(state, bar)
        observation = observe_rows(scaled, np.array([row]), dataset.spec.window, account)
        decision = policy.decide(observation)
        submission = submit(state, decision.weight, bar, rules)
        fills.append(settlement.fills)
        values = (
            state.equity[0],
            (state.shares * bar.close)[0, 0] / state.equity[0],
            decision.weight[0, 0],
            submission.verdict.allowed[0, 0],
            submission.verdict.reasons[0, 0],
            decision.score[0, 0],
            decision.confidence[0],
            observation[0],
        )
        for name, value in zip(_KEPT, values, strict=True):
            kept[name].append(value)
        state = submission.state
    market = dataset.market.rows(rows.start, rows.stop)
    return _result(market, cash, kept, log_fills(fills), bars_per_year(dataset.interval))


_KEPT = (
    "equity",
    "position",
    "asked",
    "allowed",
    "reasons",
    "score",
    "confidence",
    "observations",
)


def _result(
    market: Market,
    cash: float,
    kept: Mapping[str, list[np.ndarray]],
    fills: FillLog,
    per_year: float,
) -> BacktestResult:
    arrays = {name: np.stack(values) for name, values in kept.items()}
    trades = tuple(trades_of(market, fills))
    return BacktestResult(
        market=market,
        opening_cash=cash,
        fills=fills,
        trades=trades,
        metrics=performance(
            np.append(cash, arrays["equity"]),
            per_year,
            trades,
            fills.traded_value,
            np.abs(arrays["position"]),
        ),
        **arrays,
    )
