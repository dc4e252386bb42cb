"""Choosing among trials is measured: how often it overfits, how many trials there really are."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata

from registry.selection import Split, effective_trials, overfitting
from registry.significance import expected_maximum_sharpe, sharpe_ratio
from training.splits import Window, combinatorial


def halves(bars: int, groups: int) -> list[Split]:
    splits = combinatorial(Window(0, bars), groups, groups // 2, 0)
    return [(split.known_rows, split.tested_rows) for split in splits]


def by_the_paper(performance: np.ndarray, groups: int) -> tuple[float, float]:
    """CSCV as its paper writes it down, step by step on the (T, N) matrix, with SciPy's ranks."""
    blocks = np.array_split(performance, groups)
    logits, losses = [], []
    for chosen in combinations(range(groups), groups // 2):
        inside = np.vstack([blocks[i] for i in chosen])
        outside = np.vstack([blocks[i] for i in range(groups) if i not in chosen])
        r = inside.mean(axis=0) / inside.std(axis=0, ddof=1)
        r_bar = outside.mean(axis=0) / outside.std(axis=0, ddof=1)
        best = int(r.argmax())
        omega = rankdata(r_bar)[best] / (len(r_bar) + 1)
        logits.append(np.log(omega / (1 - omega)))
        losses.append(r_bar[best] <= 0)
    return float(np.mean(np.array(logits) <= 0)), float(np.mean(losses))


@pytest.mark.parametrize(("trials", "skill"), [(2, 0.0), (7, 0.05), (20, 0.0), (12, 0.2)])
def test_the_probability_of_overfitting_is_that_of_the_papers_steps(
    trials: int, skill: float
) -> None:
    rng = np.random.default_rng(trials)
    returns = rng.normal(size=(trials, 480)) + skill * rng.random((trials, 1))
    found = overfitting(returns, halves(480, 8))
    assert found.splits == 70  # of 8 groups, 4 are known
    assert (found.probability, found.loss_probability) == by_the_paper(returns.T, 8)


def test_without_skill_the_choice_is_a_coin_and_with_skill_it_is_not() -> None:
    rng = np.random.default_rng(1)
    splits = halves(240, 8)
    noise = [overfitting(rng.normal(size=(10, 240)), splits) for _ in range(60)]
    assert abs(np.mean([one.probability for one in noise]) - 0.5) < 0.12
    assert abs(np.mean([one.loss_probability for one in noise]) - 0.5) < 0.12
    assert all(one.known_sharpe > one.tested_sharpe for one in noise)
    skilled = rng.normal(size=(10, 240))
    skilled[3] += 0.4
    found = overfitting(skilled, splits)
    assert found.probability < 0.05
    assert found.loss_probability < 0.05


def test_equally_good_trials_end_below_their_median_yet_never_lose() -> None:
    # Why the gate asks for the loss: among equals the best here is by construction worse there.
    rng = np.random.default_rng(2)
    equals = [overfitting(rng.normal(0.3, 1.0, (10, 400)), halves(400, 8)) for _ in range(20)]
    assert np.mean([one.probability for one in equals]) > 0.4
    assert max(one.loss_probability for one in equals) < 0.05


def test_two_families_of_equal_trials_are_two() -> None:
    rng = np.random.default_rng(3)
    ideas = rng.normal(size=(2, 500))
    families = np.vstack([np.repeat(ideas[:1], 9, axis=0), np.repeat(ideas[1:], 3, axis=0)])
    assert effective_trials(families) == pytest.approx(2.0)


def test_independent_and_motionless_trials_count_one_each() -> None:
    trials = np.random.default_rng(4).normal(size=(15, 2_000))
    trials[7] = 0.0
    assert effective_trials(trials) == 15.0
    assert effective_trials(trials[:1]) == 1.0


def test_a_cluster_counts_as_the_papers_formula() -> None:
    rng = np.random.default_rng(5)
    trials = np.sqrt(0.7) * rng.normal(size=4_000) + np.sqrt(0.3) * rng.normal(size=(20, 4_000))
    shared = (np.corrcoef(trials).sum() - 20) / (20 * 19)
    assert effective_trials(trials) == pytest.approx(shared + (1 - shared) * 20)
    assert shared == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.6, 0.9])
def test_the_effective_number_never_understates_luck(shared: float) -> None:
    # The best of 20 skill-less trials of mutual correlation ``shared``, by simulation.
    rng = np.random.default_rng(6)
    best, counts = [], []
    for _ in range(150):
        common, own = rng.normal(size=250), rng.normal(size=(20, 250))
        trials = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        best.append(sharpe_ratio(trials).max())
        counts.append(effective_trials(trials))
    luck = expected_maximum_sharpe(int(np.ceil(np.mean(counts))), 1 / 249)
    error = np.std(best) / np.sqrt(len(best))
    assert luck > np.mean(best) - 3 * error
