"""Conventions: what a vendor quotes becomes what the tape printed."""

import numpy as np
import pytest
from data_kit import day, delivered, market

from core.errors import UnknownSymbol
from sources.actions import actions_from_adjusted
from sources.port import as_traded, symbol_name


def test_split_adjusted_prices_return_to_what_the_tape_printed() -> None:
    bars = market(splits={"2024-02-01": 2.0, "2024-05-01": 0.1}, dividends={"2024-01-10": 0.5})
    quoted = delivered(bars, convention="split_adjusted")
    before, between = day("2024-01-10"), day("2024-03-01")
    # 2:1 and 1:10 later: one share of January is a fifth of a share today.
    assert quoted.frame.close[before] == pytest.approx(bars.close[before] * 5, rel=1e-6)
    assert quoted.frame.close[between] == pytest.approx(bars.close[between] * 10, rel=1e-6)
    found = as_traded(quoted.frame, quoted.convention)
    assert np.allclose(found, bars, rtol=1e-5)
    assert found.dividend[before] == pytest.approx(0.5, rel=1e-6)


def test_a_conversion_leaves_the_given_frame_alone() -> None:
    quoted = delivered(market(splits={"2024-02-01": 2.0}), convention="split_adjusted")
    copy = quoted.frame.copy()
    as_traded(quoted.frame, "split_adjusted")
    assert quoted.frame.equals(copy)


def test_the_value_of_a_holding_is_continuous_across_splits() -> None:
    bars = market(splits={"2024-02-01": 2.0, "2024-05-01": 0.1})
    shares = bars.split_ratio.cumprod() * 100
    value = (shares * bars.close).to_numpy()
    assert np.abs(np.diff(np.log(value))).max() < 0.05  # the walk moves 1 % a day


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("AAPL", "AAPL"),
        ("^VIX", "^VIX"),
        ("BRK-B", "BRK-B"),
        ("BTC/USDT", "BTC_USDT"),
        ("EURUSD=X", "EURUSD=X"),
    ],
)
def test_a_symbol_becomes_a_file_name(symbol: str, name: str) -> None:
    assert symbol_name(symbol) == name


@pytest.mark.parametrize(
    "symbol", ["", "../AAPL", "A B", "A;ls", "$(ls)", "'", ".hidden", "x" * 50]
)
def test_what_is_no_symbol_is_refused(symbol: str) -> None:
    with pytest.raises(UnknownSymbol, match="is no symbol"):
        symbol_name(symbol)


@pytest.mark.parametrize("ratio", [2.0, 1.5, 0.1, 7.0])
def test_splits_are_found_by_the_adjusted_close(ratio: float) -> None:
    bars = market(splits={"2024-03-01": ratio})
    bars["adj_close"] = bars.close * bars.split_ratio.cumprod()
    found = actions_from_adjusted(bars.drop(columns=["dividend", "split_ratio"]), "close_before")
    assert found.split_ratio[found.split_ratio != 1.0].to_dict() == {day("2024-03-01"): ratio}
    assert (found.dividend == 0.0).all()


def test_a_dividend_is_found_by_an_adjusted_close_rounded_to_cents() -> None:
    bars = market()
    ex_date = day("2024-03-01")
    paid = 0.8
    before = bars.close.shift()[ex_date]
    factor = np.where(bars.index < ex_date, 1.0 - paid / before, 1.0)  # as Yahoo adjusts
    bars["adj_close"] = (bars.close * factor).round(2)
    found = actions_from_adjusted(bars, "close_before", decimals=2)
    assert found.dividend[ex_date] == pytest.approx(paid, abs=0.02)
    assert (found.dividend.drop(ex_date) == 0.0).all()  # rounding pays nobody
