"""The backtest: one policy over past bars, through the very engine that trades.

Owns the loop (settle, observe, decide, submit: a worker's bar) and what is kept of it. A run over
bars gives, bar by bar, what the paper worker gives on them; ``pipelines/parity.py`` holds the two
against each other. Knows neither where a policy comes from nor what its result decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from core.accounts import State, joined, open_accounts
from core.bars import Market
from core.calendar import bars_per_year
from core.engine import PackedMarket, settle, submit
from core.errors import NotEnoughData
from core.fills import Fills
from core.metrics import bar_returns, performance
from core.risk import Reason, Verdict
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

    @property
    def interventions(self) -> np.ndarray:
        """Return where risk changed a decision, bool (T,); the no-trade band is the policy's."""
        return np.asarray((self.reasons.astype(np.int64) & ~int(Reason.NO_TRADE_BAND)) != 0)

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
    market = PackedMarket.of(dataset.market)
    state = open_accounts(1, len(dataset.market.symbols), cash)
    bars: list[_Bar] = []
    for row in range(rows.start, rows.stop):
        at = np.array([row])
        bar = market.at(at)
        settled, fills = settle(state, bar, rules)
        account = account_features(settled, bar)
        observation = observe_rows(scaled, at, dataset.spec.window, account)
        decision = policy.decide(observation)
        state, verdict = submit(settled, decision.weight, bar, rules)
        bars.append(_Bar(settled, fills, observation, decision, verdict))
    traded = dataset.market.rows(rows.start, rows.stop)
    return _result(traded, cash, bars, bars_per_year(dataset.interval))


class _Bar(NamedTuple):
    """What one bar leaves behind."""

    state: State
    fills: Fills
    observation: np.ndarray
    decision: Decision
    verdict: Verdict


def _result(market: Market, cash: float, bars: Sequence[_Bar], per_year: float) -> BacktestResult:
    fills = log_fills([bar.fills for bar in bars])
    trades = tuple(trades_of(market, fills))
    # The bars of one account, joined, read like as many accounts.
    states = joined([bar.state for bar in bars])
    asked = np.concatenate([bar.decision.weight for bar in bars])
    verdict = Verdict(asked, np.concatenate([bar.verdict.block for bar in bars]))
    position = (states.shares * market.close)[:, 0] / states.equity
    return BacktestResult(
        market=market,
        opening_cash=cash,
        equity=states.equity,
        position=position,
        asked=asked[:, 0],
        allowed=verdict.allowed[:, 0],
        reasons=verdict.reasons[:, 0],
        score=np.concatenate([bar.decision.score[:, 0] for bar in bars]),
        confidence=np.concatenate([bar.decision.confidence for bar in bars]),
        observations=np.concatenate([bar.observation for bar in bars]),
        fills=fills,
        trades=trades,
        metrics=performance(
            np.append(cash, states.equity), per_year, trades, fills.traded_value, np.abs(position)
        ),
    )
