"""Pairing: an agent decides when it has the same bar of what it trades and what it looks at.

Owns the wait for the later of the two. Knows nothing of decisions.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from serving.history import FeedBar, Instrument


@dataclass(frozen=True, slots=True)
class Pair:
    """Both bars of one moment; the same bar twice where an agent looks at what it trades."""

    traded: FeedBar
    signal: FeedBar


@dataclass(frozen=True, slots=True)
class Lone:
    """A bar whose counterpart never came: the other instrument did not trade then."""

    bar: FeedBar


class Pairing:
    """Bars of one agent, on their way to become pairs."""

    def __init__(self, traded: Instrument, signal: Instrument) -> None:
        self.traded = traded
        self.signal = signal
        self._waiting: dict[Instrument, deque[FeedBar]] = {traded: deque(), signal: deque()}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        return tuple(self._waiting)

    def put(self, bar: FeedBar) -> Iterator[Pair | Lone]:
        """Take a bar and yield what it completes, oldest first."""
        if bar.instrument.decide and bar.row is None:
            yield Lone(bar)  # history only
            return
        if self.traded == self.signal:
            yield Pair(bar, bar)
            return
        self._waiting[bar.instrument].append(bar)
        other = self._waiting[self.signal if bar.instrument == self.traded else self.traded]
        if not any(one.time == bar.time for one in other):
            return
        early = [one for queue in self._waiting.values() for one in queue if one.time < bar.time]
        for one in sorted(early, key=lambda one: one.time):
            yield Lone(one)
        for queue in self._waiting.values():
            while queue and queue[0].time < bar.time:
                queue.popleft()
        yield Pair(self._waiting[self.traded].popleft(), self._waiting[self.signal].popleft())
