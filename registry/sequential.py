"""The sequential test of a shadow: is a challenger better than Production, looked at after every
bar, for as long as it takes?

Owns the bets and when they end. Takes the paired differences of log returns bar by bar; knows
neither versions nor the ledger, runs nothing, keeps nothing.

**Betting.** A bettor begins with a wealth of 1 and stakes, before each bar, a fraction λ of it on
the challenger: wealth × (1 + λ·x), x the difference in units of a deviation known before the bar.
Where the expected x, given the past, is never above 0, this wealth is a supermartingale that is
never negative, so it *ever* reaches 1/α with a probability of at most α (Ville's inequality): one
may look after every bar and stop when one likes. No distribution is assumed, and the variance may
change from bar to bar. Several fixed λ share the first wealth; their sum is again such a bet.
A second bettor stakes on Production; if it wins, the challenger is dropped.

**Clipping.** A stake can be lost once: a loss beyond 1/λ deviations counts as 1/λ (2.5 to 50, by
λ). A gain counts as 5 deviations at most, and as 1/λ where that is less. What is tested is the mean
of differences so cut. Rare losses that were never seen could hide behind the cut, were the
deviation that of the differences themselves. It is that of the market, from its own long history:
what two policies in one market can differ by in a bar is what its price does, times what their
weights differ by, and that is known before.

Sources: Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49 (2021); Waudby-Smith, Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 86 (2024).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["promote", "drop", "continue"]

# Fractions of wealth. The best one is the mean of x over its variance: 0.4 suits two policies whose
# weights differ by a third, and that differ in Sharpe ratio by 2 a year on daily bars.
STAKES = (0.02, 0.05, 0.1, 0.2, 0.4)
MOST_GAIN = 5.0  # deviations that one bar may count for the bettor


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a comparison stands after some bars."""

    bars: int  # pairs looked at
    evidence: float  # wealth staked on the challenger
    needed: float  # of it, for the challenger to be promoted
    against: float  # wealth staked on Production
    needed_against: float
    verdict: Verdict
    decided_after: int | None  # bars; what came later changes nothing
    reason: str


def standardised(differences: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return ``differences`` (…, T) in units of a deviation known before each bar, (…, T).

    ``deviation`` (…, T): of the market's return in each bar, as known before it. Where the
    differences so far have deviated more, theirs is taken. 0, nothing staked, where neither is
    known. ``differences`` must not hold NaN.
    """
    before = np.cumsum(np.square(differences), axis=-1) - np.square(differences)
    bars = np.maximum(np.arange(differences.shape[-1]), 1)
    own = np.sqrt(np.maximum(before, 0.0) / bars)
    known = np.maximum(np.where(np.isfinite(deviation), deviation, 0.0), own)
    return np.where(known > 0.0, differences / np.where(known > 0.0, known, 1.0), 0.0)


def log_wealth(standard: np.ndarray) -> np.ndarray:
    """Return the logarithm of the bettor's wealth after each bar of ``standard`` (…, T), (…, T)."""
    with np.errstate(divide="ignore"):  # the logarithm of nothing left is -inf
        paths = np.stack([_log_path(standard, stake) for stake in STAKES])
        most = np.maximum(paths.max(axis=0), -1e300)
        together: np.ndarray = most + np.log(np.mean(np.exp(paths - most), axis=0))
    return together


def _log_path(standard: np.ndarray, stake: float) -> np.ndarray:
    gains = np.minimum(standard, min(MOST_GAIN, 1.0 / stake))
    return np.cumsum(np.log(np.maximum(1.0 + stake * gains, 0.0)), axis=-1)


def share_of(alpha: float, place: int) -> float:
    """Return the part of ``alpha`` for the ``place``-th challenger of one Production version.

    α / (n (n + 1)): however many come one after the other, the parts add up to at most α.
    """
    return alpha / (place * (place + 1))


def judge(
    differences: np.ndarray,
    deviation: np.ndarray,
    alpha: float,
    drop_alpha: float,
    longest_bars: int,
) -> Standing:
    """Return where a comparison stands, (T,) differences of log returns, challenger first.

    ``deviation`` (T,): of the market's log return in each bar, as known before it. ``alpha``: how
    often a challenger that is no better may ever be promoted; ``drop_alpha``: how often one that is
    no worse may be dropped by the second bettor. After ``longest_bars`` bars an undecided
    challenger is dropped, which costs power and never truth.
    """
    paired = np.asarray(differences, dtype=np.float64)[:longest_bars]
    needed, needed_against = 1.0 / alpha, 1.0 / drop_alpha
    standard = standardised(paired, np.asarray(deviation, dtype=np.float64)[:longest_bars])
    wins, loses = log_wealth(standard), log_wealth(-standard)
    promoted, dropped = _first(wins, needed), _first(loses, needed_against)
    verdict: Verdict = "continue"
    decided: int | None = None
    if promoted is not None and (dropped is None or promoted <= dropped):
        verdict, decided = "promote", promoted
        reason = f"better than Production: wealth {needed:.4g} reached"
    elif dropped is not None:
        verdict, decided = "drop", dropped
        reason = f"worse than Production: wealth {needed_against:.4g} reached against it"
    elif len(paired) >= longest_bars:
        verdict, decided = "drop", longest_bars
        reason = f"no better within {longest_bars} bars"
    else:
        reason = "neither better nor worse so far"
    at = (decided or len(paired)) - 1
    return Standing(
        bars=len(differences),
        evidence=_wealth(wins, at),
        needed=needed,
        against=_wealth(loses, at),
        needed_against=needed_against,
        verdict=verdict,
        decided_after=decided,
        reason=reason,
    )


def _first(wealth: np.ndarray, needed: float) -> int | None:
    """Return after how many bars ``needed`` was reached first."""
    there = np.flatnonzero(wealth >= math.log(needed))
    return int(there[0]) + 1 if len(there) else None


def _wealth(path: np.ndarray, at: int) -> float:
    return math.exp(min(float(path[at]), 700.0)) if at >= 0 else 1.0
