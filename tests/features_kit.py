"""Bars made from a seed: random walks with splits, dividends, flat spells and empty sessions."""

import numpy as np
import pandas as pd

from core.bars import Market
from core.settings import Params, parse_params
from features.dataset import Dataset
from features.spec import FeatureSpec, spec_from
from features.table import build_table, risk_columns

AGENTS = {"aapl": {"symbol": "AAPL"}}


def params(**sections: object) -> Params:
    return parse_params({"agents": AGENTS, **sections})


def spec(interval: str = "1d", vix: bool = False, **features: object) -> FeatureSpec:
    return spec_from(params(features=features), interval, vix)  # type: ignore[arg-type]


def daily_index(days: int, start: str = "2000-01-03") -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.bdate_range(start, periods=days, tz="UTC"), name="time")


def intraday_index(days: int, minutes: int, start: str = "2024-03-04") -> pd.DatetimeIndex:
    """Regular US hours (14:30 to 21:00 UTC), five days a week."""
    opens = pd.bdate_range(start, periods=days, tz="UTC") + pd.Timedelta(hours=14, minutes=30)
    steps = pd.to_timedelta(np.arange(0, 390, minutes), unit="min")
    times = np.add.outer(opens.to_numpy("datetime64[ns]"), steps.to_numpy()).ravel()
    return pd.DatetimeIndex(times, name="time").tz_localize("UTC")


def random_bars(index: pd.DatetimeIndex, seed: int, actions: bool = True) -> pd.DataFrame:
    """As-traded bars: about every 250th bar splits, every 60th pays, some stand still."""
    rng = np.random.default_rng(seed)
    n = len(index)
    moves = rng.standard_t(4, n) * 0.01
    still = rng.random(n) < 0.02
    moves[still] = 0.0
    split = np.where(rng.random(n) < (0.004 if actions else 0.0), rng.choice([2, 3, 0.1], n), 1.0)
    split[:1] = 1.0
    close = 50.0 * np.exp(np.cumsum(moves)) / np.cumprod(split)
    dividend = np.where(rng.random(n) < (0.016 if actions else 0.0), 0.004 * close, 0.0)
    opened = np.where(still, close, close * (1 + rng.normal(0, 0.004, n)))
    wide = np.where(still, 0.0, np.abs(rng.normal(0, 0.006, n)))
    volume = np.where(still, 0.0, np.round(rng.lognormal(13, 0.5, n) * np.cumprod(split)))
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1 + wide),
            "low": np.minimum(opened, close) * (1 - wide),
            "close": close,
            "volume": volume,
            "dividend": dividend,
            "split_ratio": split,
        },
        index=index,
    )


def constant_bars(index: pd.DatetimeIndex, price: float, volume: float) -> pd.DataFrame:
    """Bars on which nothing ever happens."""
    values = dict.fromkeys(("open", "high", "low", "close"), price)
    return pd.DataFrame(
        values | {"volume": volume, "dividend": 0.0, "split_ratio": 1.0}, index=index
    )


def dataset_of(bars: pd.DataFrame, spec: FeatureSpec, symbol: str = "AAPL") -> Dataset:
    table = build_table(bars, spec, spec.interval)
    risk = risk_columns(bars, spec, spec.interval)
    market = Market.from_frames({symbol: bars.join(risk)})
    return Dataset.of(symbol, symbol, market, table.to_numpy(), spec)
