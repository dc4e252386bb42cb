"""The engine: order tables worked out by hand."""

import numpy as np

from core import settings
from core.accounts import open_accounts
from core.bars import Bar
from core.engine import settle, submit
from core.risk import Rules

FREE = settings.Costs(
    commission_per_share=0.0,
    commission_minimum=0.0,
    commission_bps=0.0,
    slippage_bps=0.0,
    volume_participation=1.0,
)


def bar(open_: float, high: float, low: float, close: float, volume: float = 1e6) -> Bar:
    one = np.ones(1)
    return Bar(
        one * open_, one * high, one * low, one * close, one * volume, one * 0, one, one * np.nan,
        one * np.nan,
    )  # fmt: skip


def test_a_decision_at_the_close_fills_at_the_next_open() -> None:
    rules = Rules.of(settings.Account(), FREE, settings.RiskLimits())
    state = open_accounts(1, 1, 10_000.0)
    # 10,000 / 100 = 100 shares asked; at 104 only 96 can be paid: 10,000 - 96 × 104 = 16.
    state = submit(state, np.array([[1.0]]), bar(99, 101, 98, 100), rules).state
    state = settle(state, bar(104, 105, 101, 102), rules).state
    assert state.shares[0, 0] == 96.0
    assert state.cash[0] == 16.0
    assert state.equity[0] == 16.0 + 96 * 102
