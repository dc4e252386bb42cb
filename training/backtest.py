"""The backtest: one policy over past bars, through the very engine that trades.

Owns what is kept of the loop in ``training/trading.py``. A run over bars gives, bar by bar, what
the paper worker gives on them; ``pipelines/parity.py`` holds the two against each other. Runs that
go side by side give what each gives alone. Knows neither where a policy comes from nor what its
result decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.accounts import State
from core.bars import Market
from core.calendar import bars_per_year
from core.metrics import bar_returns, performance
from core.risk import Reason, Verdict
from core.rules import Rules
from core.trades import FillLog, Trade, log_fills, trades_of
from features.dataset import Dataset
from features.scaler import Scaler
from training.splits import Window
from training.trading import Decides, Imposed, Seat, Traded, trade

__all__ = ["BacktestResult", "Decides", "Imposed", "Seat", "run", "run_all"]


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
    policy: Decides,
    dataset: Dataset,
    scaler: Scaler,
    rules: Rules,
    rows: Window,
    cash: float,
    imposed: Imposed | None = None,
) -> BacktestResult:
    """Open an account with ``cash`` before row ``rows.start`` and trade to the end of ``rows``.

    The first decision falls at the close of the first row, so the first fill at the next open.
    ``imposed`` is what a recorded session obeyed besides its policy.
    Raises ``NotEnoughData`` where the rows lie in the warm-up or outside the dataset.
    """
    seat = Seat(policy, dataset, scaler, rows.start)
    return run_all([seat], len(rows), rules, cash, imposed)[0]


def run_all(
    seats: Sequence[Seat], bars: int, rules: Rules, cash: float, imposed: Imposed | None = None
) -> list[BacktestResult]:
    """Return, seat by seat, what ``run`` gives over ``bars`` bars, to the last bit; much faster."""
    lived = list(trade(seats, bars, rules, cash, imposed=imposed))
    books = _Books.of(lived)
    places = [
        (desk, place)
        for desk, observed in enumerate(lived[0].observations)
        for place in range(len(observed))
    ]
    return [
        _result(seat, account, cash, books, lived, *places[account])
        for account, seat in enumerate(seats)
    ]


class _Books(NamedTuple):
    """What the bars of all accounts leave behind; arrays (T, n, …)."""

    account: np.ndarray
    position: np.ndarray
    asked: np.ndarray
    verdict: np.ndarray
    score: np.ndarray
    confidence: np.ndarray

    @classmethod
    def of(cls, lived: Sequence[Traded]) -> "_Books":
        return cls(
            np.stack([bar.state.account for bar in lived]),
            np.stack([bar.state.position for bar in lived]),
            np.stack([bar.decision.weight for bar in lived]),
            np.stack([bar.verdict.block for bar in lived]),
            np.stack([bar.decision.score for bar in lived]),
            np.stack([bar.decision.confidence for bar in lived]),
        )


def _result(
    seat: Seat,
    account: int,
    cash: float,
    books: _Books,
    lived: Sequence[Traded],
    desk: int,
    place: int,
) -> BacktestResult:
    bars = len(lived)
    market = seat.dataset.market.rows(seat.start, seat.start + bars)
    fills = log_fills([bar.fills for bar in lived], account)
    trades = tuple(trades_of(market, fills))
    # The bars of one account read like as many accounts.
    last = lived[-1].state
    states = State(last.clock, books.account[:, account], books.position[:, account], np.empty(0))
    verdict = Verdict(books.asked[:, account], books.verdict[:, account])
    equity = np.ascontiguousarray(states.equity)
    position = (states.shares * market.close)[:, 0] / equity
    per_year = bars_per_year(seat.dataset.interval)
    return BacktestResult(
        market=market,
        opening_cash=cash,
        equity=equity,
        position=position,
        asked=np.ascontiguousarray(books.asked[:, account, 0]),
        allowed=verdict.allowed[:, 0],
        reasons=verdict.reasons[:, 0],
        score=np.ascontiguousarray(books.score[:, account, 0]),
        confidence=np.ascontiguousarray(books.confidence[:, account]),
        observations=_stacked([bar.observations[desk][place] for bar in lived]),
        fills=fills,
        trades=trades,
        metrics=performance(
            np.append(cash, equity), per_year, trades, fills.traded_value, np.abs(position)
        ),
    )


def _stacked(observations: Sequence[np.ndarray]) -> np.ndarray:
    """Return observations bar by bar; an array of arrays where versions see different columns."""
    if len({len(one) for one in observations}) == 1:
        return np.stack(observations)
    stacked = np.empty(len(observations), dtype=object)
    stacked[:] = observations
    return stacked
