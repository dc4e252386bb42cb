"""Rates: how often something happened, and what that says about how often it happens.

Owns the exact interval. Knows nothing of gates.
"""

from dataclasses import dataclass

from scipy.stats import beta


@dataclass(frozen=True, slots=True)
class Rate:
    """``times`` out of ``count`` independent trials."""

    times: int
    count: int

    @property
    def share(self) -> float:
        return self.times / self.count if self.count else float("nan")

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the exact two-sided interval of the probability; (0, 1) of no trials.

        Clopper and Pearson (1934), The use of confidence or fiducial limits, Biometrika 26.
        """
        tail = (1.0 - confidence) / 2.0
        low, high = 0.0, 1.0
        if self.times > 0:
            low = float(beta.ppf(tail, self.times, self.count - self.times + 1))
        if self.times < self.count:
            high = float(beta.ppf(1.0 - tail, self.times + 1, self.count - self.times))
        return low, high

    def __str__(self) -> str:
        low, high = self.interval()
        known = f"{self.share:.1%}; 95 % interval {low:.1%} to {high:.1%}"
        return f"{self.times} of {self.count} ({known})"
