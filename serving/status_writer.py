"""The status' writer: shows how a running worker stands, twice a second at most.

Owns when the status is written and from what. The file and its words are ``serving/status.py``'s.
"""

import os
import time
from collections.abc import Callable
from datetime import datetime

from core.errors import StorageError
from core.home import Home
from serving import status
from serving.floor import Floor

STATUS_SECONDS = 0.5


class StatusWriter:
    """Writes the status of one session's worker."""

    def __init__(self, home: Home, floor: Floor, broker: str, now: Callable[[], datetime]) -> None:
        """``broker``: its name."""
        self._home = home
        self._floor = floor
        self._broker = broker
        self._now = now
        self._shown = 0.0  # monotonic seconds of the newest status

    def show(self, phase: status.Phase, at_once: bool = False) -> None:
        """Write the status if it is time, or ``at_once``; where it cannot be, go on without."""
        if not at_once and time.monotonic() - self._shown < STATUS_SECONDS:
            return
        self._shown = time.monotonic()
        floor = self._floor
        open_alerts = floor.watch.open.newest_first()
        pids, ready = floor.desk.processes, floor.desk.ready
        shown = status.Status(
            phase=phase,
            pid=os.getpid(),
            session=floor.session,
            feed=floor.feed.name,
            broker=self._broker,
            updated_at=self._now().isoformat(),
            agents={
                name: status.of_sleeve(seat.sleeve, pids.get(name), ready is None or name in ready)
                for name, seat in floor.seats.items()
            },
            links=status.links_of(open_alerts),
            alerts=[alert.to_json() for alert in open_alerts],
            metrics=floor.watch.address,
        )
        try:
            status.write(self._home, shown)
        except StorageError as error:  # trading does not depend on being looked at
            floor.log.warning("no status", extra={"reason": str(error)})
