"""The sequential test: wealth by hand, errors as promised, an edge found, the future not known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.sequential import MARKETS, always_in, doubling, run, stream
from core.settings import Shadow
from registry import sequential
from registry.sequential import STAKES, judge, log_wealth, share_of, standardised

SETTINGS = Shadow()
Stream = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def test_wealth_is_the_mean_of_what_every_stake_came_to() -> None:
    expected = np.mean([(1 + s) * (1 - 2 * s) for s in STAKES])
    assert log_wealth(np.array([1.0, -2.0]))[-1] == pytest.approx(math.log(expected))
    # A loss of 3 deviations takes all of who staked 0.4; a gain of 50 counts as 5, of 0.4 as 2.5.
    left = np.mean([0.0 if s == 0.4 else 1 - 3 * s for s in STAKES])
    assert log_wealth(np.array([-3.0]))[-1] == pytest.approx(math.log(left))
    gained = np.mean([2.0 if s == 0.4 else 1 + 5 * s for s in STAKES])
    assert log_wealth(np.array([50.0]))[-1] == pytest.approx(math.log(gained))
    assert log_wealth(np.array([-100.0, 5.0]))[-1] == -math.inf


def test_the_unit_is_known_before_the_bar() -> None:
    differences = np.array([0.01, -0.03, 0.02, 0.05])
    deviation = np.array([0.02, 0.02, math.nan, 0.01])
    unit = math.sqrt((0.01**2 + 0.03**2) / 2)  # of the two before, where the market's is unknown
    own = math.sqrt((0.01**2 + 0.03**2 + 0.02**2) / 3)  # more than the market's
    expected = [0.5, -1.5, 0.02 / unit, 0.05 / own]
    assert standardised(differences, deviation) == pytest.approx(expected)
    assert standardised(np.zeros(3), np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_what_comes_later_changes_no_verdict() -> None:
    rng = np.random.default_rng(5)
    pairs, known = (array[0] for array in stream(MARKETS["normal"], 6.0, 1, 800, rng))
    whole = judge(pairs, known, 0.05, 0.05, 1_260)
    assert whole.verdict == "promote"
    end = whole.decided_after
    assert end is not None
    assert whole.evidence >= whole.needed == pytest.approx(20.0)
    assert judge(pairs[: end - 1], known[: end - 1], 0.05, 0.05, 1_260).verdict == "continue"
    worse = np.append(pairs[:end], np.full(200, -0.02)), np.append(known[:end], np.full(200, 0.01))
    assert judge(*worse, 0.05, 0.05, 1_260).verdict == "promote"


def test_a_challenger_that_does_the_same_is_dropped_when_its_time_is_up() -> None:
    same, known = np.zeros(50), np.full(50, 0.01)
    assert judge(same[:49], known[:49], 0.05, 0.05, 50).verdict == "continue"
    end = judge(same, known, 0.05, 0.05, 50)
    assert (end.verdict, end.evidence, end.reason) == ("drop", 1.0, "no better within 50 bars")
    assert judge(same[:0], known[:0], 0.05, 0.05, 50).bars == 0


def test_however_many_challengers_come_their_shares_add_up_to_alpha() -> None:
    assert [share_of(0.05, place) for place in (1, 2, 3)] == pytest.approx(
        [0.025, 0.05 / 6, 0.05 / 12]
    )
    assert sum(share_of(0.05, place) for place in range(1, 5_000)) < 0.05


@pytest.mark.parametrize("name", [*MARKETS, "always in", "doubling"])
def test_a_challenger_no_better_is_promoted_no_more_often_than_promised(name: str) -> None:
    """500 streams, looked at after every bar: at 2.5 %, 12.5 are expected at most, 24 are 3 sd."""
    rng, size = np.random.default_rng(11), (500, 500)
    if name == "always in":
        made = always_in(*size, rng)
    elif name == "doubling":
        made = doubling(*size, rng)
    else:
        made = stream(MARKETS[name], 0.0, *size, rng)
    end = run(*made, SETTINGS.model_copy(update={"longest_bars": 500}))
    assert end.promoted.times <= 0.05 * 500
    assert end.dropped.times == 500 - end.promoted.times


def test_a_worse_one_is_dropped_and_a_better_one_found() -> None:
    rng = np.random.default_rng(12)
    settings = SETTINGS.model_copy(update={"longest_bars": 600})
    worse = run(*stream(MARKETS["heavy tails"], -2.0, 200, 600, rng), settings)
    assert worse.promoted.times == 0
    better = run(*stream(MARKETS["normal"], 4.0, 200, 600, rng), settings)
    assert better.promoted.times >= 190
    assert better.median_bars < 252


def test_the_deviation_of_the_differences_alone_would_be_fooled() -> None:
    """Why the market's deviation is the unit: small gains, and losses that were not seen yet."""
    rng = np.random.default_rng(13)
    hit = rng.random((200, 400)) < 0.01
    pennies = 0.01 * (np.where(hit, -1.0, 0.01 / 0.99) + 0.03 * rng.normal(size=hit.shape))
    unknown = run(pennies, np.zeros(hit.shape), SETTINGS)
    market = run(pennies, np.full(hit.shape, 0.01), SETTINGS)
    assert unknown.promoted.share > 0.05
    assert market.promoted.share <= 0.05


def test_the_pairs_may_be_judged_side_by_side() -> None:
    rng = np.random.default_rng(14)
    pairs, known = stream(MARKETS["crashes"], 1.0, 3, 100, rng)
    together = log_wealth(standardised(pairs, known))
    alone = [log_wealth(sequential.standardised(p, k)) for p, k in zip(pairs, known, strict=True)]
    assert np.array_equal(together, np.stack(alone))
