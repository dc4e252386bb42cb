"""The floor: what everybody who works in one session of a worker has in common.

Owns nothing but the words: where the seats are, which ledger they write, who feeds and watches.
"""

import logging
from dataclasses import dataclass

from serving.deciding import Desk
from serving.feeds import Feed
from serving.ledger import Ledger
from serving.session import Seat
from serving.watch import Watch


@dataclass(frozen=True, slots=True)
class Floor:
    """One session at work."""

    session: int
    ledger: Ledger
    seats: dict[str, Seat]  # by agent; empty until they are open
    feed: Feed
    desk: Desk
    watch: Watch
    log: logging.Logger
