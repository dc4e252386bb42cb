"""Trials: every one ever run is counted, whoever forgot it, and alike ones by their worth."""

import numpy as np
import pytest

from registry.pooling import LEAST_OVERLAP_BARS, Series, independent_trials, pooled_correlation
from registry.significance import deflated_sharpe, expected_maximum_sharpe, sharpe_ratio
from registry.trials import Counted, Recorded, Tried, joined

DAY = 86_400
BARS = 400


def series(returns: np.ndarray, first: int = 0) -> Series:
    """Return the returns of trials on the days from ``first`` on."""
    return Series(returns, (first + np.arange(returns.shape[1])) * DAY)


def tried(name: str, returns: np.ndarray, first: int = 0) -> Tried:
    ratios = [float(ratio) for ratio in sharpe_ratio(returns)]
    return Tried(name, tuple(ratios), series(returns, first))


def test_two_studies_are_compared_on_the_bars_that_both_traded() -> None:
    rng = np.random.default_rng(1)
    whole = rng.normal(size=(3, 500))
    early, late = series(whole[:, :400]), series(whole[:, 100:], first=100)
    found = pooled_correlation([early, late])
    assert found[:3, :3] == pytest.approx(np.corrcoef(whole[:, :400]))
    assert found[3:, 3:] == pytest.approx(np.corrcoef(whole[:, 100:]))
    # 300 bars are shared, of 400 each: three quarters of their luck.
    assert found[:3, 3:] == pytest.approx(0.75 * np.corrcoef(whole[:, 100:400]))
    assert found == pytest.approx(found.T)
    # Each late trial is an early one again on other bars: between three and six.
    assert independent_trials([early, late]) == pytest.approx(3 * (0.75 + 0.25 * 2))


def test_the_same_trials_on_the_same_bars_are_worth_no_more() -> None:
    one = series(np.random.default_rng(9).normal(size=(3, BARS)))
    assert independent_trials([one, one]) == pytest.approx(3.0)


def test_luck_is_alike_as_far_as_the_formula_says() -> None:
    # An idea tried on 400 bars, and again 150 bars later: 250 shared.
    rng = np.random.default_rng(10)
    whole = rng.normal(size=(4_000, 550))
    early, late = sharpe_ratio(whole[:, :400]), sharpe_ratio(whole[:, 150:])
    assert np.corrcoef(early, late)[0, 1] == pytest.approx(250 / 400, abs=4 / np.sqrt(4_000))


@pytest.mark.parametrize(("overlap", "likeness"), [(LEAST_OVERLAP_BARS, 1.0), (62, 0.0)])
def test_where_too_few_bars_are_shared_trials_count_as_unlike(
    overlap: int, likeness: float
) -> None:
    one = np.random.default_rng(2).normal(size=(1, 70))
    early, late = series(one), series(one[:, 70 - overlap :], first=70 - overlap)
    found = pooled_correlation([early, late])[0, 1]
    assert found == pytest.approx(likeness and np.sqrt(overlap / 70))


def test_returns_whose_days_nobody_kept_are_compared_within_their_study_alone() -> None:
    idea = np.random.default_rng(3).normal(size=BARS)
    twins = np.stack([idea, idea])
    assert independent_trials([Series(twins, None), series(twins)]) == pytest.approx(2.0)
    assert independent_trials([]) == 0.0


def test_one_study_counts_as_it_counts_by_itself() -> None:
    rng = np.random.default_rng(4)
    returns = rng.normal(size=BARS) * 0.9 + rng.normal(size=(5, BARS)) * 0.4
    alone = independent_trials([series(returns)])
    ever = joined({"one": Recorded(tuple(sharpe_ratio(returns)), alone)}, [tried("one", returns)])
    assert (ever.count, ever.effective) == (5, alone)
    assert ever.sharpe_variance == pytest.approx(np.var(sharpe_ratio(returns), ddof=1))


def test_what_the_database_forgot_is_counted_by_the_ledger_and_said() -> None:
    rng = np.random.default_rng(5)
    kept, gone = rng.normal(size=(4, BARS)), rng.normal(size=(3, BARS))
    ledger = {
        "gone": Recorded(tuple(sharpe_ratio(gone)), 2.5),
        "kept": Recorded((*sharpe_ratio(kept), None, 0.1), 6.0),  # two more than the database has
    }
    ever = joined(ledger, [tried("kept", kept)])
    assert ever.studies == (Counted("gone", 3, 3), Counted("kept", 6, 2))
    assert ever.count == 9
    # 2.5 as the lost study had found, 4 clustered, 2 without returns.
    assert ever.effective == pytest.approx(8.5)
    assert str(ever) == (
        "9, worth 8.5 independent ones: gone (3, 3 of them gone from the study database), "
        "kept (6, 2 of them gone from the study database)"
    )


def test_a_study_the_ledger_never_heard_of_counts() -> None:
    ideas = np.random.default_rng(6).normal(size=(2, BARS))
    ever = joined({}, [tried("a", ideas[:1]), tried("b", ideas)])
    assert [(study.study, study.trials) for study in ever.studies] == [("a", 1), ("b", 2)]
    assert ever.effective == pytest.approx(2.0)  # the first of b is that of a


def test_a_trial_without_returns_counts_for_itself() -> None:
    one = tried("a", np.random.default_rng(7).normal(size=(1, BARS)))
    pruned = Tried("a", (*one.sharpes, 0.02, None), one.series)
    assert (joined({}, [pruned]).count, joined({}, [pruned]).effective) == (3, 3.0)


def test_the_level_holds_where_trials_are_spread_over_three_studies() -> None:
    """Worthless trials, twelve a study, in families; the best of all of them is brought forward.

    Windows of 400 bars, each 150 later than the one before. Eight families a study: four that all
    studies try again, and four of its own.
    """
    rng, rounds = np.random.default_rng(8), 200
    wrong, best, luck, last_alone = 0, [], [], []
    for _ in range(rounds):
        again, studies = rng.normal(size=(4, 700)), []
        for number in range(3):
            first = 150 * number
            ideas = np.vstack([again[:, first : first + BARS], rng.normal(size=(4, BARS))])
            own = rng.normal(size=(12, BARS))
            members = ideas[[0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]]
            returns = np.sqrt(0.8) * members + np.sqrt(0.2) * own
            studies.append(tried(str(number), returns, first))
        ever = joined({}, studies)
        shown = np.vstack([study.series.returns for study in studies])
        chosen = shown[int(sharpe_ratio(shown).argmax())]
        luck.append(expected_maximum_sharpe(int(np.ceil(ever.effective)), 1 / (BARS - 1)))
        last = joined({}, studies[-1:])
        last_alone.append(expected_maximum_sharpe(int(np.ceil(last.effective)), 1 / (BARS - 1)))
        best.append(float(sharpe_ratio(chosen)))
        wrong += deflated_sharpe(chosen, luck[-1]) >= 0.95
    assert wrong / rounds < 0.05
    # What luck is said to reach is what it reaches; counting the last study alone falls short.
    error = np.std(best) / np.sqrt(rounds)
    assert np.mean(luck) > np.mean(best) - 3 * error
    assert np.mean(luck) < 1.15 * np.mean(best)
    assert np.mean(last_alone) < np.mean(best) - 6 * error
