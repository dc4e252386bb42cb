"""Small bars, free rules and random markets for the tests of ``core``."""

from typing import Any

import numpy as np

from core import settings
from core.accounts import State, open_accounts
from core.bars import Bar, Market
from core.engine import Settlement, settle, submit
from core.rules import Rules

FREE = settings.Costs(
    commission_per_share=0.0,
    commission_minimum=0.0,
    commission_bps=0.0,
    slippage_bps=0.0,
    volume_participation=1.0,
)
NO_LIMITS = settings.RiskLimits(reduce_drawdown=None, halt_drawdown=None)


def free_rules(**changes: Any) -> Rules:
    """Return rules that cost nothing and limit nothing but weight and leverage to 1."""
    account = settings.Account(no_trade_band=0.0)
    return Rules.of(account, FREE, NO_LIMITS).but(**changes)


def bar(
    open_: Any,
    high: Any,
    low: Any,
    close: Any,
    volume: Any = 1e6,
    dividend: Any = 0.0,
    split: Any = 1.0,
    atr: Any = np.nan,
    volatility: Any = np.nan,
) -> Bar:
    """Return one bar, (1,) for numbers, (k,) for lists."""
    values = (open_, high, low, close, volume, dividend, split, atr, volatility)
    arrays = [np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values]
    return Bar(*np.broadcast_arrays(*arrays))


def flat(price: Any, **more: Any) -> Bar:
    """Return a bar that stands still at ``price``."""
    return bar(price, price, price, price, **more)


def live(rules: Rules, *bars: Bar, asks: list[Any], cash: float = 10_000.0) -> list[Settlement]:
    """Open one account, ask ``asks[i]`` at the close of ``bars[i]``, settle ``bars[i + 1]``."""
    state = open_accounts(1, len(bars[0].open), cash)
    settlements = []
    for ask, here, after in zip(asks, bars[:-1], bars[1:], strict=True):
        weight = np.atleast_1d(np.asarray(ask, dtype=np.float64))[None, :]
        settlements.append(settle(submit(state, weight, here, rules).state, after, rules))
        state = settlements[-1].state
    return settlements


def held(state: State) -> tuple[float, float]:
    """Return shares and cash of an account with one symbol."""
    return float(state.shares[0, 0]), float(state.cash[0])


def random_market(rng: np.random.Generator, rows: int, symbols: int = 1) -> Market:
    """Return a wild market: gaps, splits, dividends, thin and empty bars, unknown volatility."""
    shape = (rows, symbols)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.04, shape), axis=0))
    split = np.where(rng.random(shape) < 0.02, rng.choice([2.0, 0.1, 1.5], shape), 1.0)
    close = close / np.cumprod(split, axis=0)
    open_ = close * np.exp(rng.normal(0.0, 0.03, shape))
    volume = np.where(rng.random(shape) < 0.1, 0.0, np.round(rng.uniform(10, 50_000, shape)))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.02, shape))),
        "low": np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.02, shape))),
        "close": close,
        "volume": volume,
        "dividend": np.where(rng.random(shape) < 0.05, 0.01 * close, 0.0),
        "split_ratio": split,
        "atr": np.where(rng.random(shape) < 0.1, np.nan, 0.04 * close),
        "volatility": np.where(rng.random(shape) < 0.1, np.nan, rng.uniform(0.1, 0.8, shape)),
    }
    time = np.datetime64("2020-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    return Market(tuple(f"S{i}" for i in range(symbols)), time, **columns)


def every_rule(**changes: Any) -> Rules:
    """Return rules of which none is switched off."""
    limits = settings.RiskLimits(
        max_weight=0.9,
        max_exposure=1.2,
        max_leverage=1.1,
        volatility_target=0.4,
        stop_loss=0.05,
        take_profit=0.08,
        stop_loss_atr=1.0,
        take_profit_atr=2.0,
        cooldown_bars=2,
        reduce_drawdown=0.05,
        halt_drawdown=0.25,
        drawdown_window_bars=16,
    )
    account = settings.Account(fraction=0.97, allow_short=True, no_trade_band=0.02)
    costs = settings.Costs(commission_bps=1.0, slippage_bps=5.0, commission_minimum=0.35)
    return Rules.of(account, costs, limits).but(**changes)


def random_weights(rng: np.random.Generator, steps: int, accounts: int, symbols: int) -> np.ndarray:
    """Return (steps, accounts, symbols) target weights from -1.5 to 1.5; a third holds."""
    weights = rng.uniform(-1.5, 1.5, (steps, accounts, symbols))
    kind = rng.integers(0, 3, weights.shape)
    return np.where(kind == 0, np.nan, np.where(kind == 1, weights, np.round(weights)))
