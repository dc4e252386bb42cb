"""Rates come with the exact interval."""

import pytest
from scipy.stats import binomtest

from registry.rates import Rate


@pytest.mark.parametrize(("times", "count"), [(0, 200), (3, 200), (10, 20), (20, 20), (17, 20)])
def test_the_interval_is_that_of_clopper_and_pearson(times: int, count: int) -> None:
    theirs = binomtest(times, count).proportion_ci(0.95, method="exact")
    assert Rate(times, count).interval() == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_three_of_two_hundred_stay_below_five_percent_and_four_do_not() -> None:
    assert Rate(3, 200).interval()[1] < 0.05 < Rate(4, 200).interval()[1]
    assert str(Rate(3, 200)) == "3 of 200 (1.5%; 95 % interval 0.3% to 4.3%)"


def test_no_trials_say_nothing() -> None:
    assert Rate(0, 0).interval() == (0.0, 1.0)
