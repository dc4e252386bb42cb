import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, random_bars

from core.errors import BadBars
from features.adjust import adjust_forward, factors


def test_the_first_row_has_factor_one_even_on_an_ex_date():
    price, shares = factors(np.array([10.0, 11.0]), np.array([5.0, 0.0]), np.array([2.0, 1.0]))
    assert price.tolist() == [1.0, 1.0]
    assert shares.tolist() == [1.0, 1.0]


def test_a_split_with_a_dividend_by_hand():
    close = np.array([100.0, 50.0, 51.0])
    price, shares = factors(close, np.array([0.0, 1.0, 0.0]), np.array([1.0, 2.0, 1.0]))
    # One old share is two new ones, which pay 2.0 together: 2 % of the close of 100 before.
    assert price.tolist() == [1.0, 2.0 / 0.98, 2.0 / 0.98]
    assert shares.tolist() == [1.0, 2.0, 2.0]


def test_adjusted_returns_are_those_of_a_holder_across_a_reverse_split():
    bars = pd.DataFrame(
        {
            "open": [1.0, 10.2], "high": [1.0, 10.5], "low": [1.0, 10.0], "close": [1.0, 10.5],
            "volume": [1000.0, 100.0], "dividend": [0.0, 0.0], "split_ratio": [1.0, 0.1],
        },
        index=daily_index(2),
    )  # fmt: skip
    adjusted = adjust_forward(bars)
    assert adjusted.returns[1] == pytest.approx(0.05)
    assert adjusted.volume.tolist() == [1000.0, 1000.0]
    assert adjusted.factor.tolist() == [1.0, 0.1]


def test_a_later_action_alters_no_earlier_number():
    bars = random_bars(daily_index(300), seed=1)
    later = bars.copy()
    later.iloc[200:, later.columns.get_loc("split_ratio")] = 2.0
    later.iloc[200:, later.columns.get_loc("dividend")] = 0.01
    before, after = adjust_forward(bars), adjust_forward(later)
    for name in ("open", "high", "low", "close", "volume", "factor"):
        assert getattr(before, name)[:200].tobytes() == getattr(after, name)[:200].tobytes()
        assert getattr(before, name)[200:].tobytes() != getattr(after, name)[200:].tobytes()


def test_a_dividend_as_large_as_the_price_is_refused():
    with pytest.raises(BadBars, match=r"row 1: dividend 12 .* \(10\)"):
        factors(np.array([10.0, 10.0]), np.array([0.0, 12.0]), np.ones(2))


def test_the_given_frame_is_not_changed():
    bars = random_bars(daily_index(50), seed=2)
    copy = bars.copy(deep=True)
    adjust_forward(bars)
    pd.testing.assert_frame_equal(bars, copy)
