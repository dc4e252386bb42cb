"""The opening auction: until when an order for it may be sent.

Owns the cut-off. Nasdaq takes market-on-open orders until 09:28 New York time, two minutes before
its cross; NYSE takes them a little longer, and the stricter rule is kept for both. Later, an order
for the open would wait for the auction of the day after, as another order than was decided.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from core.calendar import next_session, session_open
from serving.brokers.port import Ticket

CUT_OFF = timedelta(minutes=2)  # before the open
EXCHANGE_ZONE = ZoneInfo("America/New_York")

TooLate = Callable[[Ticket, datetime], str]


def cut_off(calendar: str) -> TooLate:
    """Return what says why an order must not be sent any more; an empty text: it may."""

    def too_late(ticket: Ticket, now: datetime) -> str:
        if ticket.kind != "market_on_open":
            return ""
        opens = session_open(calendar, next_session(calendar, ticket.bar_time))
        last = opens - CUT_OFF
        if now < last:
            return ""
        return (
            f"the auction of {opens.astimezone(EXCHANGE_ZONE):%Y-%m-%d} took orders until "
            f"{last.astimezone(EXCHANGE_ZONE):%H:%M %Z}, now it is "
            f"{now.astimezone(EXCHANGE_ZONE):%Y-%m-%d %H:%M %Z}; not sent, the next close decides"
        )

    return too_late


def never(ticket: Ticket, now: datetime) -> str:
    """Let every order go: for bars of the past, whose auctions are over anyway."""
    return ""
