"""IBKR's pace for historical data: how long the next request has to wait.

Owns the limits of https://interactivebrokers.github.io/tws-api/historical_limitations.html: at most
60 requests within ten minutes, no identical one within 15 seconds, fewer than six for one
contract within two. Pure: time comes in, nothing sleeps here.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Pacer:
    """Remembers what was asked; all times are seconds of one clock that only goes forwards."""

    most: int = 60
    within: float = 600.0
    same: float = 15.0
    burst: int = 5  # of one contract
    burst_within: float = 2.0
    _asked: deque[tuple[float, Hashable, Hashable]] = field(default_factory=deque)

    def delay(self, contract: Hashable, request: Hashable, now: float) -> float:
        """Return the seconds until a request may be sent; 0: now."""
        while self._asked and now - self._asked[0][0] >= max(self.within, self.same):
            self._asked.popleft()
        free = [now]
        if len(self._asked) >= self.most:
            free.append(self._asked[-self.most][0] + self.within)
        free += [at + self.same for at, _, known in self._asked if known == request]
        of_contract = [at for at, known, _ in self._asked if known == contract]
        if len(of_contract) >= self.burst:
            free.append(of_contract[-self.burst] + self.burst_within)
        return max(free) - now

    def sent(self, contract: Hashable, request: Hashable, now: float) -> None:
        """Take note of a request."""
        self._asked.append((now, contract, request))
