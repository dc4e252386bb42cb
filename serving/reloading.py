"""Reloading: a running session lives by the settings that may change in flight.

Owns the way of new settings to ledger, sleeves and the rest. Which may change is decided in
``core/inflight.py``; where they are read from is the caller's.
"""

from collections.abc import Callable

from core.errors import ConfigError, RatchetError
from core.inflight import Takeover, take_over
from core.portfolio import AccountLimits
from core.settings import Params
from serving.account import Account
from serving.feeds import ReplayFeed
from serving.floor import Floor
from serving.noting import Notes, account_event
from serving.rulebook import note_rules
from serving.session import rules_of


def found_settings(old: Params, read: Callable[[], Params] | None, notes: Notes) -> Takeover | None:
    """Read the settings again; None, and a note, where they cannot be lived by."""
    try:
        if read is None:
            raise ConfigError("these settings were given by a program, not read from a file")
        return take_over(old, read())
    except RatchetError as error:
        notes.account("settings refused", f"{error}; the old ones stay")
        return None


def live_by(found: Takeover, by: str, floor: Floor, account: Account) -> None:
    """Live by new settings from the next bar on; old and new are in the ledger, bar by bar."""
    params = found.params
    with floor.ledger.transaction():
        for name, seat in floor.seats.items():
            rules, sleeve = rules_of(params, name), seat.sleeve
            note_rules(floor.ledger, floor.session, name, rules, sleeve.traded.newest)
            sleeve.live_by(rules)
        floor.ledger.add(account_event(floor.session, "settings", f"{found} ({by})"))
    account.limits = AccountLimits.of(params.portfolio)
    floor.watch.change(params.alerts)
    if "paper.bars_per_second" in found.taken and isinstance(floor.feed, ReplayFeed):
        floor.feed.pace(params.paper.bars_per_second)
    floor.log.info("settings", extra={"detail": str(found), "by": by})
