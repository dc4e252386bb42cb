"""Pacing: how often one thing is said.

Owns the rule: of one event and agent a message at most every ``quiet`` seconds, unless it got
worse; what was held back is told, counted, when the quiet is over; what lasts and must not be
forgotten is told again and again until it ends. Pure: time is an argument, in seconds of any clock.
"""

import math
from dataclasses import dataclass, replace

from serving.alerts import LEVELS, REPEATED, Alert


@dataclass(slots=True)
class _Said:
    """What was said of one event and agent."""

    at: float = -math.inf  # when a message was sent last
    level: int = -1  # of that message
    waiting: Alert | None = None  # held back, to be told when the quiet is over
    held_back: int = 0
    open: Alert | None = None  # lasts
    told: bool = False  # ``open`` was


class Pacing:
    """Decides which alerts go out now."""

    def __init__(self, quiet_seconds: float, repeat_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self.repeat_seconds = repeat_seconds
        self._said: dict[tuple[str, str], _Said] = {}

    def admit(self, alert: Alert, at: float) -> Alert | None:
        """Return what to send now; None: it is held back, or known already."""
        said = self._said.setdefault(alert.key, _Said())
        if alert.ends:
            return self._end(said, alert, at)
        rank = LEVELS.index(alert.level)
        if alert.lasts:
            known = said.open
            began = known.since if known else alert.time
            said.open = replace(alert, since=began)
            if known and alert.event in REPEATED and rank <= LEVELS.index(known.level):
                return None  # its turn comes with the repetition
        if at - said.at < self.quiet_seconds and rank <= said.level:
            said.held_back += said.waiting is not None
            said.waiting = alert
            return None
        return self._send(said, alert, at)

    def due(self, at: float) -> list[Alert]:
        """Return what has to be said by now of what was held back or lasts."""
        found = []
        for said in self._said.values():
            if said.waiting is not None and at - said.at >= self.quiet_seconds:
                found.append(self._send(said, said.waiting, at))
            elif self._repeats(said) and at - said.at >= self.repeat_seconds:
                found.append(self._send(said, said.open, at))  # type: ignore[arg-type]
        return found

    def seconds_to_next(self, at: float) -> float:
        """Return how long ``due`` stays empty if nothing happens."""
        times = [said.at + self.quiet_seconds for said in self._said.values() if said.waiting]
        times += [said.at + self.repeat_seconds for said in self._said.values()
                  if self._repeats(said)]  # fmt: skip
        return max(min(times, default=math.inf) - at, 0.0)

    @staticmethod
    def _repeats(said: _Said) -> bool:
        return said.open is not None and said.told and said.open.event in REPEATED

    def _end(self, said: _Said, alert: Alert, at: float) -> Alert | None:
        known, told = said.open, said.told
        said.open, said.told = None, False
        if known is None:
            return None  # nothing was wrong
        if said.waiting is not None and said.waiting.lasts:
            said.waiting = None
        if not told:
            return None  # began and ended unsaid
        sent = replace(alert, since=known.since)
        said.at, said.level = at, LEVELS.index(known.level)
        return sent

    @staticmethod
    def _send(said: _Said, alert: Alert, at: float) -> Alert:
        sent = replace(alert, held_back=said.held_back)
        said.at, said.level = at, LEVELS.index(alert.level)
        said.waiting, said.held_back = None, 0
        said.told = said.told or alert.lasts
        return sent
