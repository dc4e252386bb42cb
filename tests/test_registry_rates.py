"""Rates come with the exact interval."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from registry.rates import Rate


@pytest.mark.parametrize(("times", "count"), [(0, 200), (3, 200), (10, 20), (20, 20), (17, 20)])
def test_the_interval_is_that_of_clopper_and_pearson(times: int, count: int) -> None:
    theirs = binomtest(times, count).proportion_ci(0.95, method="exact")
    assert Rate(times, count).interval() == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("truth", [0.005, 0.02, 0.05, 0.3, 0.8])
def test_it_holds_the_truth_in_at_least_95_of_100_cases(truth: float) -> None:
    intervals = [Rate(times, 200).interval() for times in range(201)]
    holds = np.array([low <= truth <= high for low, high in intervals])
    assert binom.pmf(np.arange(201), 200, truth)[holds].sum() >= 0.95


def test_three_of_two_hundred_stay_below_five_percent_and_four_do_not() -> None:
    assert Rate(3, 200).interval()[1] < 0.05 < Rate(4, 200).interval()[1]
    assert str(Rate(3, 200)) == "3 of 200 (1.5%; 95 % interval 0.3% to 4.3%)"


def test_no_trials_say_nothing() -> None:
    assert Rate(0, 0).interval() == (0.0, 1.0)
