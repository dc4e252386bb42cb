"""Steps: how the sleeves of a session live through one step of the feed.

Owns who closes which bar with whom, and who is told of a close once its orders have left. What a
sleeve does with a bar is the sleeve's own; knows neither queues nor threads.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence

from serving.account import Account
from serving.closing import Close
from serving.floor import Floor
from serving.history import FeedBar
from serving.pairing import Lone, Pair
from serving.results import Durations
from serving.shadow import Shadows


class Steps:
    """Lets every sleeve live through the bars that concern it."""

    def __init__(
        self, floor: Floor, account: Account, shadows: Shadows, snapshot_seconds: float
    ) -> None:
        """``snapshot_seconds``: so long at least lies between two snapshots of one sleeve."""
        self.durations = Durations()
        self._floor = floor
        self._account = account
        self._shadows = shadows
        self._snapshot_seconds = snapshot_seconds
        self._snapshots: dict[str, float] = {}  # monotonic seconds, by agent

    def live(self, bars: Sequence[FeedBar]) -> set[str]:
        """Let every sleeve live through one step of the feed; those that can decide, together.

        Returns whose sleeves closed a bar.
        """
        closed: set[str] = set()
        ready: dict[str, deque[Pair]] = {}
        for bar in bars:
            for name, seat in self._floor.seats.items():
                if bar.instrument not in seat.pairing.instruments or bar.time <= seat.since:
                    continue
                for found in seat.pairing.put(bar):
                    if isinstance(found, Lone):
                        self._finish(ready.pop(name, deque()), name)
                        seat.sleeve.skip(found.bar)
                    else:
                        ready.setdefault(name, deque()).append(found)
        while ready:
            closed |= ready.keys()
            self._close({name: pairs.popleft() for name, pairs in ready.items()})
            ready = {name: pairs for name, pairs in ready.items() if pairs}
        return closed

    def prepare(self) -> None:
        """Between two steps: do what would hold up a later one."""
        for seat in self._floor.seats.values():
            seat.sleeve.traded.prepare()
            if seat.sleeve.signal is not seat.sleeve.traded:
                seat.sleeve.signal.prepare()

    def _finish(self, pairs: deque[Pair], name: str) -> None:
        """Close what a sleeve has ready before a bar of it is skipped."""
        for pair in pairs:
            self._close({name: pair})

    def _close(self, pairs: Mapping[str, Pair]) -> None:
        """Let some sleeves close a bar: one after the other, or, under limits that lie across
        them, all up to the verdict first."""
        if self._account.limits.off:
            for name, pair in pairs.items():
                self._close_together({name: pair})
        else:
            self._close_together(pairs)

    def _close_together(self, pairs: Mapping[str, Pair]) -> None:
        began = time.perf_counter()
        floor = self._floor
        sleeves = {name: seat.sleeve for name, seat in floor.seats.items()}
        now, keep = time.monotonic(), self._snapshot_seconds
        due = frozenset(n for n in pairs if now - self._snapshots.get(n, -1e9) >= keep)
        weighed = {
            name: sleeves[name].weigh(pair.traded, pair.signal, floor.feed.too_old(pair.traded))
            for name, pair in pairs.items()
        }
        closes = self._account.conclude(sleeves, weighed, due)
        self._snapshots |= dict.fromkeys(due, time.monotonic())
        milliseconds = 1e3 * (time.perf_counter() - began)
        for name, close in closes.items():
            floor.desk.closed(close)
            self._shadows.hear(close, sleeves[name], floor.feed.vix)
            self.durations.add(milliseconds)
            floor.watch.timed(name, milliseconds / 1e3)
            self._note(close, milliseconds)

    def _note(self, close: Close, milliseconds: float) -> None:
        self._floor.log.info(
            "close",
            extra={
                "session": close.session,
                "agent": close.agent,
                "bar_time": close.time,
                "version": close.model_version,
                "action": close.action,
                "equity": float(close.after.equity[0]),
                "order_ref": close.ticket.order_ref if close.ticket else "",
                "milliseconds": round(milliseconds, 3),
            },
        )
