"""After a session: the flow `parity` is asked to run, once for every session that ended.

Owns which sessions of the ledger are over, and the question to Prefect's API. What the flow does is
``flows/certifying.py``'s. Nothing is remembered here: Prefect knows what was asked of it.
"""

import json
import urllib.request
from collections.abc import Collection, Mapping
from typing import Any

from core.errors import RatchetError
from core.home import Home

MOST = 20  # newest sessions that are looked at
LOOK_SECONDS = 5.0
SECONDS = 10.0  # to answer
DEPLOYMENT = "deployments/name/parity/parity-all"


class SessionWatch:
    """Asks for the certificate of each session that is over; call ``look`` now and then."""

    def __init__(self, home: Home, api: str) -> None:
        self._home, self._api = home, api
        self._asked: set[int] = set()
        self._next_look = 0.0

    def look(self, now: float) -> list[int]:
        """Return the sessions whose certificate was asked for; ``now``: monotonic seconds.

        Prefect that does not answer or has no deployment yet, and a ledger that cannot be read
        now, are asked again at the next look.
        """
        if now < self._next_look:
            return []
        self._next_look = now + LOOK_SECONDS
        try:
            waiting = over(self._home, but=self._asked)
            found = self._call(DEPLOYMENT) if waiting else {}
            for session in waiting:
                self._ask(str(found["id"]), session)
                self._asked.add(session)
        except (OSError, ValueError, RatchetError):
            return []
        return waiting

    def _ask(self, deployment: str, session: int) -> None:
        # Prefect makes one run of one key: whoever asks again is told of the first.
        key = f"parity of session {session} in {self._home.ledger}"
        wanted = {"parameters": {"session": session}, "idempotency_key": key}
        self._call(f"deployments/{deployment}/create_flow_run", wanted)

    def _call(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._api}/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return json.load(reply)


def over(home: Home, but: Collection[int] = ()) -> list[int]:
    """Return the newest sessions that nothing will be added to, the oldest of them first.

    A session is over when its feed ended, or another was opened after it. One in which nothing was
    decided has nothing to certify; ``but`` are left out.
    """
    if not home.ledger.exists():
        return []
    from serving.ledger import LedgerReader, rows

    with LedgerReader(home.ledger) as ledger:
        known = [one.session for one in ledger.rows(rows.Session, newest=MOST)]
        closed = {one.session for one in ledger.rows(rows.SessionEvent, kind="closed")}
        return [
            session
            for session in sorted(known)
            if session not in but
            and (session in closed or session < max(known))
            and ledger.rows(rows.Decision, session=session, newest=1)
        ]
