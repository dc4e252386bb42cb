"""The bundled bars: what they say of splits, dividends and the synthetic fund."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from core.errors import UnknownSymbol
from sources.bundled import LISTINGS, Bundled, leveraged
from sources.planted import planted_bars, rule

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz=UTC)


@pytest.mark.parametrize(
    ("symbol", "splits"),
    [("AAPL", {"2000-06-21": 2.0, "2005-02-28": 2.0}), ("MSFT", {"2003-02-18": 2.0}), ("IBM", {})],
)
def test_splits_are_the_ones_that_happened(symbol: str, splits: dict[str, float]) -> None:
    bars = LISTINGS[symbol].load()
    found = bars.split_ratio[bars.split_ratio != 1.0]
    assert {str(time.date()): ratio for time, ratio in found.items()} == splits


def test_dividends_are_the_ones_that_were_paid() -> None:
    apple, ibm = LISTINGS["AAPL"].load().dividend, LISTINGS["IBM"].load().dividend
    assert apple[apple > 0].tolist() == [2.65, 2.65, 2.65]
    assert ibm[day("2012-05-08")] == 0.85
    assert apple[day("2012-08-09")] == 2.65


def test_the_fund_moves_three_times_the_index_less_its_costs() -> None:
    index, fund = LISTINGS["IXIC"].load(), LISTINGS["IXIC3X"].load()
    t = 1_000  # no split on that day
    assert fund.split_ratio.iloc[t] == 1.0
    moved = fund.close.iloc[t] / fund.close.iloc[t - 1] - 1
    expected = 3 * (index.close.iloc[t] / index.close.iloc[t - 1] - 1) - (0.0095 + 2 * 0.02) / 252
    assert moved == pytest.approx(expected, abs=1e-5)


def test_the_value_of_a_fund_share_is_continuous_across_its_reverse_split() -> None:
    flat = pd.DataFrame(
        {name: np.full(3, 90.0) for name in ("open", "high", "low", "close")},
        index=pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06"], tz=UTC),
    ).assign(volume=1e6)
    flat.iloc[1:, :4] = 62.0  # 31 % lost, thrice: the fund keeps 6.65 of 100, below ten
    fund = leveraged(flat)
    assert fund.split_ratio.tolist() == [1.0, 1.0, 0.1]
    assert fund.open.iloc[2] == pytest.approx(10 * fund.close.iloc[1], rel=1e-5)


def test_an_unknown_symbol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownSymbol, match=r"no TSLA at 1d; it has AAPL"):
        Bundled().fetch("TSLA", "1d", None, NOW)


def test_the_planted_rule_earns_far_more_than_holding() -> None:
    bars = planted_bars()
    opened = bars.open.to_numpy()
    held = opened[2:] / opened[1:-1] - 1  # decided at close t, held from open t+1 to open t+2
    position = rule(bars.close.to_numpy())[:-2]
    earned = position * held - np.abs(np.diff(position, prepend=0.0)) * 0.0003

    def sharpe(returns: np.ndarray) -> float:
        return float(returns.mean() / returns.std() * np.sqrt(252))

    assert sharpe(earned) > 2.5
    assert sharpe(held) < 1.0
