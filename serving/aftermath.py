"""Aftermath: what stands in the ledger about orders while nobody trades.

Owns one sentence, for a person who stops the trading of a home without a worker. Reads only.
"""

from core.errors import SchemaMismatch, StorageError
from core.home import Home
from serving.ledger import LedgerReader, rows

ALONE = "no worker runs here: orders that are at a broker stay there until one is started"


def aftermath(home: Home) -> str:
    """Return what became of the orders of a home in which no worker runs."""
    if not home.ledger.exists():
        return ALONE
    try:
        with LedgerReader(home.ledger) as ledger:
            session = ledger.newest_session()
            events = ledger.rows(rows.Event, session=session, agent="")
    except (StorageError, SchemaMismatch) as error:
        return f"{ALONE}; what the watchdog did cannot be read: {error}"
    for event in reversed(events):
        if event.kind == "session started":
            return ALONE
        if event.kind == "gateway fenced":
            when = event.recorded_at.isoformat(timespec="seconds")
            return f"no worker runs here; the watchdog saw to its orders at {when}: {event.detail}"
    return ALONE
