"""Small markets for the tests of sources and pipelines."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from core import calendar
from core.bars import BAR_COLUMNS
from core.settings import Interval
from sources.port import Convention, Delivery

NOW = datetime(2024, 7, 1, tzinfo=UTC)


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz=UTC)


def market(
    first: str = "2024-01-02",
    last: str = "2024-06-28",
    interval: Interval = "1d",
    splits: dict[str, float] | None = None,
    dividends: dict[str, float] | None = None,
    seed: int = 7,
) -> pd.DataFrame:
    """Return bars as traded: a 1 % random walk from 100, divided at each split."""
    index = calendar.expected_bars("XNYS", interval, day(first), day(last))
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(index))))
    opened = np.append(close[0], close[:-1]) * np.exp(rng.normal(0.0, 0.002, len(index)))
    ratio = pd.Series(1.0, index=index)
    dividend = pd.Series(0.0, index=index)
    for time, value in (splits or {}).items():
        ratio[day(time)] = value
    for time, value in (dividends or {}).items():
        dividend[day(time)] = value
    held = ratio.cumprod().to_numpy()
    frame = pd.DataFrame(
        {
            "open": opened / held,
            "high": np.maximum(opened, close) * 1.004 / held,
            "low": np.minimum(opened, close) * 0.996 / held,
            "close": close / held,
            "volume": np.round(1e6 * np.exp(rng.normal(0.0, 0.2, len(index))) * held),
            "dividend": dividend,
            "split_ratio": ratio,
        },
        index=index,
    )
    return frame[list(BAR_COLUMNS)]


def delivered(
    bars: pd.DataFrame,
    now: datetime = NOW,
    convention: Convention = "as_traded",
    symbol: str = "ABC",
    interval: str = "1d",
) -> Delivery:
    """Deliver bars (as traded) the way a vendor of that convention would at ``now``."""
    frame = bars.copy()
    if convention == "split_adjusted":
        later = np.array([bars["split_ratio"].iloc[row + 1 :].prod() for row in range(len(bars))])
        for name in ("open", "high", "low", "close", "dividend"):
            frame[name] = (frame[name] / later).astype(np.float32).astype(np.float64)
        frame["volume"] = (frame["volume"] * later).round()
    return Delivery(symbol, interval, frame, convention, now)


def csv_text(bars: pd.DataFrame) -> str:
    """Write bars the way a user's file has them."""
    daily = bool((bars.index == bars.index.normalize()).all())
    stamps = bars.index.strftime("%Y-%m-%d" if daily else "%Y-%m-%dT%H:%M:%S+00:00")
    lines = [("Date" if daily else "Datetime") + ",Open,High,Low,Close,Volume"]
    for stamp, row in zip(stamps, bars.itertuples(index=False), strict=True):
        prices = ",".join(f"{value:.4f}" for value in (row.open, row.high, row.low, row.close))
        lines.append(f"{stamp},{prices},{row.volume:.0f}")
    return "\n".join(lines) + "\n"
