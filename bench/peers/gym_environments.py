"""gym-anytrading, gym-trading-env and FinRL's StockTradingEnv: one environment, stepped.

    python -m bench.peers.gym_environments gym-anytrading --folder DIR --seconds 5

Each trades the bars of ``market.npz`` with actions drawn beforehand, resets where an episode ends
and pays ``COST`` per trade. None of them knows stops, drawdown limits, volume limits, dividends or
splits; Ratchet's engine runs beside them with all of those on.
"""

import importlib.util
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from bench.speak import Asked, Work, serve

COST = 0.0005  # of the value traded
STEPS = 500
WINDOW = 50  # bars that gym-anytrading shows: two numbers each


def anytrading(bars: dict[str, np.ndarray]) -> Any:
    """Return gym-anytrading's StocksEnv; observation (50, 2)."""
    from gym_anytrading.envs import StocksEnv

    frame = pd.DataFrame({"Close": bars["close"]})
    env = StocksEnv(df=frame, window_size=WINDOW, frame_bound=(WINDOW, len(frame)))
    env.trade_fee_bid_percent = env.trade_fee_ask_percent = COST
    return env


def trading_env(bars: dict[str, np.ndarray]) -> Any:
    """Return gym-trading-env's TradingEnv; its observation: the table and two of its own."""
    from gym_trading_env.environments import TradingEnv

    warnings.resetwarnings()  # it turns every warning of the process into an error
    warnings.simplefilter("ignore")
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame({name: bars[name] for name in names}, index=_days(len(bars["close"])))
    table = pd.DataFrame(bars["table"], index=frame.index).add_prefix("feature_")
    return TradingEnv(
        df=pd.concat([frame, table], axis=1),
        positions=[0, 1],
        trading_fees=COST,
        borrow_interest_rate=0,
        portfolio_initial_value=100_000,
        max_episode_duration=252,
        verbose=0,
    )


def finrl(bars: dict[str, np.ndarray]) -> Any:
    """Return FinRL's StockTradingEnv of one stock, without turbulence; shares as ``hmax`` has it.

    Its file is loaded by itself: its package imports the SDKs of brokers and clouds.
    """
    days = _days(len(bars["close"]))
    columns = {f"f{n}": column for n, column in enumerate(bars["table"].T)}
    frame = pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "tic": "TEST", **columns})
    frame["close"] = bars["close"]
    return _finrl_module().StockTradingEnv(
        df=frame,
        stock_dim=1,
        hmax=100,
        initial_amount=100_000,
        num_stock_shares=[0],
        buy_cost_pct=[COST],
        sell_cost_pct=[COST],
        reward_scaling=1e-4,
        state_space=3 + len(columns),
        action_space=1,
        tech_indicator_list=list(columns),
        print_verbosity=10**9,
    )


def _finrl_module() -> ModuleType:
    found = metadata.distribution("finrl").locate_file("finrl/meta/env_stock_trading")
    path = Path(str(found)) / "env_stocktrading.py"
    spec = importlib.util.spec_from_file_location("finrl_stock_trading", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not there; finrl is installed otherwise than expected")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _days(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2000-01-03", periods=count, freq="D")


MAKE = {"gym-anytrading": anytrading, "gym-trading-env": trading_env, "finrl": finrl}


def load(folder: Path, table_columns: int | None = None) -> dict[str, np.ndarray]:
    """Return the bars of ``market.npz``, with the first columns of its table only."""
    bars = dict(np.load(folder / "market.npz"))
    bars["table"] = bars["table"][:, :table_columns]
    return bars


def prepare(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return what steps the environment asked for."""
    # The engine makes no observation: the least that each of them can.
    env = MAKE[told.contender](load(told.folder, 1))
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, (STEPS, 1)).astype(np.float32)
    actions = list(drawn) if told.contender == "finrl" else rng.integers(0, 2, STEPS).tolist()

    def work() -> float:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return STEPS

    return work, {}


if __name__ == "__main__":
    serve(prepare, (sys.argv[1], "gymnasium", "numpy", "pandas"))
