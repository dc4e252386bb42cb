"""Notes: what happens out of the ordinary while a worker trades, in the ledger and in the log.

Owns how such an event is written down. Knows not what it means.
"""

from serving.floor import Floor
from serving.ledger import rows


class Notes:
    """Writes events of one session down, each in a transaction of its own."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def account(self, kind: str, detail: str) -> None:
        """Write down what concerns the whole account."""
        with self._floor.ledger.transaction():
            self._floor.ledger.add(account_event(self._floor.session, kind, detail))
        self._floor.log.warning(kind, extra={"detail": detail})

    def agent(self, agent: str, kind: str, detail: str) -> None:
        """Write down what concerns one agent, at the newest bar it knows."""
        floor, newest = self._floor, self._floor.seats[agent].sleeve.traded.newest
        event = rows.RiskEvent(
            session=floor.session, agent=agent, bar_time=newest, kind=kind, detail=detail
        )
        with floor.ledger.transaction():
            floor.ledger.add(event)
        ids = {"session": floor.session, "agent": agent, "bar_time": newest}
        floor.log.warning(kind, extra={**ids, "detail": detail})


def account_event(session: int, kind: str, detail: str) -> rows.RiskEvent:
    """Return the row of an event of the whole account."""
    return rows.RiskEvent(session=session, agent="", bar_time=None, kind=kind, detail=detail)
