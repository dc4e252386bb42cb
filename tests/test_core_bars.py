"""Markets from frames, and bars from markets."""

import numpy as np
import pandas as pd
import pytest

from core.bars import BAR_COLUMNS, RISK_COLUMNS, Market, bar_at
from core.errors import BadBars


def frame(first: float, rows: int = 4) -> pd.DataFrame:
    index = pd.date_range("2024-01-02", periods=rows, tz="UTC", name="time")
    names = BAR_COLUMNS + RISK_COLUMNS
    values = {name: first + i + np.arange(rows, dtype=float) for i, name in enumerate(names)}
    return pd.DataFrame(values, index=index)


def test_frames_on_one_clock_become_a_market() -> None:
    market = Market.from_frames({"A": frame(10.0), "B": frame(20.0)})
    assert market.symbols == ("A", "B")
    assert len(market) == 4
    assert market.open.tolist() == [[10, 20], [11, 21], [12, 22], [13, 23]]
    assert str(market.time[0]) == "2024-01-02T00:00:00.000000000"
    assert market.rows(1, 3).close[:, 0].tolist() == [14, 15]


def test_frames_on_two_clocks_are_refused() -> None:
    with pytest.raises(BadBars, match="B: bars are not on the same clock as A"):
        Market.from_frames({"A": frame(1.0), "B": frame(1.0, rows=3)})


def test_a_bar_is_one_row_or_one_row_each() -> None:
    market = Market.from_frames({"A": frame(10.0), "B": frame(20.0)})
    assert bar_at(market, 2).open.tolist() == [12, 22]
    assert bar_at(market, np.array([0, 3, 3])).open.tolist() == [[10, 20], [13, 23], [13, 23]]
