"""What a live feed lacks: named while it lasts, and its end when nothing is lacking any more.

Owns which lacks were told. One alert stands for all of them, so the end of one must not look like
the end of all. Knows neither bars nor links; any thread may tell.
"""

import threading
from collections.abc import Callable, Hashable

STALE, BACK = "feed stale", "feed back"


class Lacking:
    """Tells ``note`` the events ``feed stale`` and ``feed back``."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._lock = threading.Lock()
        self._told: dict[Hashable, str] = {}

    def tell(self, what: Hashable, message: str, end: str) -> None:
        """Say once that ``what`` is lacking; an empty ``message``: no more, in ``end``'s words."""
        with self._lock:
            if message == self._told.get(what, ""):
                return
            self._told.pop(what, None)
            if message:
                self._told[what] = message
                self._note(STALE, message)
            elif self._told:
                self._note(STALE, f"{end}; but {next(iter(self._told.values()))}")
            else:
                self._note(BACK, end)

    def came_back(self, detail: str) -> None:
        """Say that the link is there again, and what is lacking all the same."""
        with self._lock:
            self._note(BACK, detail)
            for message in self._told.values():
                self._note(STALE, message)
