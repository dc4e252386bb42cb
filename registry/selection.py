"""Selection: what choosing the best of many trials does to the evidence for it.

Owns the probability of backtest overfitting and the effective number of trials, on the trials'
validation returns. Knows no thresholds, models or files; Sharpe ratios are per bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.significance import STILL, sharpe_ratio

SAME_IDEA = 0.5  # trials whose returns correlate more than this, on average, are one cluster

Split = tuple[np.ndarray, np.ndarray]  # rows known to the choice, rows it is tested on


@dataclass(frozen=True, slots=True)
class Overfitting:
    """How the trial that looks best on some rows does on the others, over all splits."""

    trials: int
    chosen: tuple[int, ...]  # trial, by split
    probability: float  # of ending below the median of the trials on the tested rows
    loss_probability: float  # of a Sharpe ratio of 0 or less on the tested rows
    known_sharpe: float  # per bar, mean over splits, where it was chosen
    tested_sharpe: float  # per bar, mean over splits, where it was not

    @property
    def splits(self) -> int:
        return len(self.chosen)


def overfitting(returns: np.ndarray, splits: Sequence[Split]) -> Overfitting:
    """Return the cross-validation of *choosing* among trials; ``returns`` (N, T), N >= 2, no NaN.

    Bailey, Borwein, López de Prado and Zhu (2017), The Probability of Backtest Overfitting,
    Journal of Computational Finance 20(4). With ``splits`` of equal halves without a gap it is
    their CSCV; with a gap it is purged and embargoed (López de Prado 2018, chapter 12). Their
    logit of the relative rank rank / (N + 1) is at most 0 where the rank is at most the median.
    """
    trials = len(returns)
    below, lost = 0, 0
    choices, known_sharpes, tested_sharpes = [], [], []
    for known, tested in splits:
        first = sharpe_ratio(returns[:, known])
        chosen = int(np.argmax(first))
        second = sharpe_ratio(returns[:, tested])
        rank = (
            np.count_nonzero(second < second[chosen])
            + (np.count_nonzero(second == second[chosen]) + 1) / 2
        )
        below += int(rank / (trials + 1) <= 0.5)
        lost += int(second[chosen] <= 0.0)
        choices.append(chosen)
        known_sharpes.append(first[chosen])
        tested_sharpes.append(second[chosen])
    return Overfitting(
        trials=trials,
        chosen=tuple(choices),
        probability=float(below / len(splits)),
        loss_probability=float(lost / len(splits)),
        known_sharpe=float(np.mean(known_sharpes)),
        tested_sharpe=float(np.mean(tested_sharpes)),
    )


def effective_trials(returns: np.ndarray) -> float:
    """Return how many independent trials the trials of ``returns`` (N, T) amount to, 1 … N."""
    return independent(correlation(returns))


def independent(alike: np.ndarray) -> float:
    """Return how many independent trials those of a correlation matrix (N, N) amount to, 1 … N.

    Trials are joined, the most alike first, while two clusters correlate by more than SAME_IDEA
    on average. A cluster of m trials with mean correlation ρ counts ρ + (1 - ρ) m: Bailey and
    López de Prado (2014), The Deflated Sharpe Ratio, appendix 3. The whole would be one number of
    theirs; by cluster, two families of equal trials count two, whatever their sizes. A trial that
    never moves counts 1, like any unlike the others.
    """
    count = 0.0
    for members in _clusters(alike):
        size = len(members)
        if size == 1:
            count += 1.0
            continue
        block = alike[np.ix_(members, members)]
        shared = (block.sum() - size) / (size * (size - 1))
        count += shared + (1.0 - shared) * size
    return float(count)


def correlation(returns: np.ndarray) -> np.ndarray:
    """Return the (N, N) correlation; 0 with a series that does not move."""
    unit = standardised(returns)
    found = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def standardised(returns: np.ndarray) -> np.ndarray:
    """Return (N, T) with mean 0 and length 1 by row; 0 where a series does not move."""
    centred = returns - returns.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1))
    moves = length > STILL
    unit = np.where(moves[:, None], centred / np.where(moves, length, 1.0)[:, None], 0.0)
    return np.asarray(unit)


def _clusters(correlation: np.ndarray) -> list[list[int]]:
    """Join by average linkage while the closest two correlate by more than SAME_IDEA."""
    alike = correlation.copy()
    np.fill_diagonal(alike, -np.inf)
    members: dict[int, list[int]] = {i: [i] for i in range(len(correlation))}
    while len(members) > 1:
        one, other = (int(i) for i in np.unravel_index(np.argmax(alike), alike.shape))
        if alike[one, other] <= SAME_IDEA:
            break
        sizes = len(members[one]), len(members[other])
        joined = (sizes[0] * alike[one] + sizes[1] * alike[other]) / sum(sizes)
        alike[one], alike[:, one] = joined, joined
        alike[one, one] = -np.inf
        alike[other], alike[:, other] = -np.inf, -np.inf
        members[one] += members.pop(other)
    return list(members.values())
