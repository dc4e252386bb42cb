"""Ages: how many days of trading ago there was last news of each order.

Owns the count of days, so that a worker of many months remembers those of its newest days only.
Knows nothing of what an order is. Days are counted as they are seen, forwards: neither a weekend
nor a clock that is set back makes anything older.
"""

from collections.abc import Set
from dataclasses import dataclass, field

KEPT_DAYS = 3  # the day of the last news, and two after it


@dataclass(slots=True)
class Ages:
    """Not thread-safe: its owner locks."""

    _today: str = ""
    _days: int = 0  # so many have begun
    _newest: dict[str, int] = field(default_factory=dict)  # day of the last news, by order_ref

    def touch(self, order_ref: str) -> None:
        """There is news of an order today."""
        self._newest[order_ref] = self._days

    def over(self, today: str, needed: Set[str]) -> set[str]:
        """Return, once a day, what has had no news for so long and is not needed; forget it."""
        if today <= self._today:
            return set()
        self._today, self._days = today, self._days + 1
        oldest = self._days - KEPT_DAYS
        over = {ref for ref, day in self._newest.items() if day <= oldest and ref not in needed}
        for order_ref in over:
            del self._newest[order_ref]
        return over
