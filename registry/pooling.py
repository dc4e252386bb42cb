"""Pooling: how many independent trials the trials of several studies amount to.

Owns the comparison of returns that were measured in different years. Knows no database, ledger or
threshold of the gate.

Studies of one agent are run months apart, so their validation windows overlap in part. Two trials
are compared on the n bars that both traded. What counts is how alike their *luck* is: the Sharpe
ratios of two trials whose returns correlate by ρ there, of T and U bars, correlate by ρ n / √(T U).
The same idea on other bars had another chance. Where fewer than LEAST_OVERLAP_BARS are shared
nothing is known of ρ, and the trials count as unlike: what cannot be compared is never taken for
the same, so the number of independent trials errs upwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.selection import correlation, independent, standardised

LEAST_OVERLAP_BARS = 63  # a correlation of 0 then passes for SAME_IDEA once in tens of thousands


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Returns of one study's trials, on the same bars."""

    returns: np.ndarray  # (N, T) simple, per bar, no NaN
    times: np.ndarray | None  # int64 (T,) seconds since 1970, rising; None: nobody kept them


def independent_trials(studies: Sequence[Series]) -> float:
    """Return how many independent trials all trials of all ``studies`` amount to, 0 where none."""
    known = [study for study in studies if len(study.returns)]
    return independent(pooled_correlation(known)) if known else 0.0


def pooled_correlation(studies: Sequence[Series]) -> np.ndarray:
    """Return the (N, N) correlation over all trials, in order of ``studies``.

    Inside a study over all its bars; between two over the bars they share, less what each has for
    itself.
    """
    starts = np.cumsum([0, *(len(study.returns) for study in studies)])
    found = np.zeros((starts[-1], starts[-1]))
    for one, study in enumerate(studies):
        own = slice(starts[one], starts[one + 1])
        found[own, own] = correlation(study.returns)
        for other in range(one):
            between = _between(study, studies[other])
            theirs = slice(starts[other], starts[other + 1])
            found[own, theirs], found[theirs, own] = between, between.T
    return found


def _between(one: Series, other: Series) -> np.ndarray:
    """Return the (N, M) correlation of two studies' trials on the bars both traded."""
    nothing = np.zeros((len(one.returns), len(other.returns)))
    if one.times is None or other.times is None:
        return nothing
    shared, mine, theirs = np.intersect1d(one.times, other.times, True, return_indices=True)
    if len(shared) < LEAST_OVERLAP_BARS:
        return nothing
    product = standardised(one.returns[:, mine]) @ standardised(other.returns[:, theirs]).T
    part = len(shared) / np.sqrt(len(one.times) * len(other.times))
    return np.asarray(np.clip(product, -1.0, 1.0) * part)
