"""What can go wrong, on demand: a script the fake TWS consults at every step.

A test names a fault, then lets the client walk into it. Nothing here waits or reads a clock:
a delay is a kind of message held back until it is released.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from fake_tws.protocol import Request
from fake_tws.replies import Reply


class Point(Enum):
    """Where a connection can drop."""

    ORDER_ARRIVED = auto()  # the order never reaches the broker
    ORDER_ACCEPTED = auto()  # the broker has it, the client hears nothing
    ORDER_ACKNOWLEDGED = auto()  # the client heard so
    CANCEL_ARRIVED = auto()
    CANCEL_ACCEPTED = auto()
    BEFORE_FILL = auto()  # the fill happens, told to nobody


class Once(Enum):
    """What goes wrong once for each time it was asked for."""

    REJECT = auto()  # 201: Cancelled, then Inactive
    REJECT_AMID = auto()  # 201 at once, its end (Inactive) amid the next answer about open orders
    CANCEL_AMID = auto()  # 202 at once, its end (Cancelled) the same way
    INVALID = auto()  # 321: the order is dead, nothing more is said
    PRESET = auto()  # 10349: a live order is called cancelled, then goes on
    STUCK = auto()  # the broker has the order and says nothing of it
    UNSHOWN = auto()  # an order's change is told by its status alone, without openOrder
    NO_PERM_ID = auto()  # a first status without permId
    IGNORE_CANCEL = auto()
    FILL_ON_CANCEL = auto()  # the fill crosses the cancel on its way
    PACING = auto()  # 162
    BUSY = auto()  # 322: contract details are refused, for now
    PARTIAL = auto()  # an auction takes a few shares only
    CORRECT = auto()  # a fill is corrected as soon as it was told
    BY_HAND = auto()  # a person cancels a new order in TWS
    WARN = auto()  # 399 about an order that has filled


SYSTEM_TEXTS = {
    1100: "Connectivity between IB and Trader Workstation has been lost.",
    1101: "Connectivity between IB and Trader Workstation has been restored - data lost.",
    1102: "Connectivity between IB and Trader Workstation has been restored - data maintained.",
    1300: "TWS socket port has been reset and this connection is being dropped. "
    "Please reconnect on the new port",
    2103: "Market data farm connection is broken:usfarm",
    2104: "Market data farm connection is OK:usfarm",
    2106: "HMDS data farm connection is OK:ushmds",
    2110: "Connectivity between Trader Workstation and server is broken. "
    "It will be restored automatically.",
    2158: "Sec-def data farm connection is OK:secdefnj",
}
PARTIAL_SHARES = 10.0
CORRECTION = 0.05  # USD
WARNING_TEXT = "Order Message: your order was held until the opening."
PRESET_TEXT = "Order TIF was set to DAY based on order preset."
BUSY_TEXT = "Error processing request."
PACING_TEXT = (
    "Historical Market Data Service error message:Historical data request pacing violation"
)


@dataclass
class Faults:
    """The script. All off at the start."""

    hang_handshake: bool = False  # a socket opens, nothing is said
    hang_up: bool = False  # a socket opens and is closed as soon as the client names itself
    logged_out: bool = False  # a session begins without accounts, as before a log-in
    taken: set[int] = field(default_factory=set)  # client ids that another program uses
    cut_off: bool = False  # who connects is told that IBKR is away (1100)
    enforce_pacing: bool = False  # 162 on the sixty-first request in 10 min or a repeat in 15 s
    unanswered: set[Request] = field(default_factory=set)  # requests that get no answer
    held: set[Reply] = field(default_factory=set)  # kinds kept back until released
    doubled: set[Reply] = field(default_factory=set)  # kinds that are sent twice
    reason: str = "YOUR ACCOUNT IS NOT ALLOWED TO TRADE"  # of the next rejections
    _drops: Counter[Point] = field(default_factory=Counter)
    _once: Counter[Once] = field(default_factory=Counter)

    def drop_at(self, point: Point, times: int = 1) -> None:
        """Drop the connection when a client next gets there."""
        self._drops[point] += times

    def once(self, fault: Once, times: int = 1) -> None:
        """Let it go wrong the next time, or the next few."""
        self._once[fault] += times

    def drops(self, point: Point) -> bool:
        """Return whether to drop here, and use that up."""
        return _take(self._drops, point)

    def takes(self, fault: Once) -> bool:
        """Return whether this goes wrong now, and use that up."""
        return _take(self._once, fault)


def _take(left: Counter[Any], kind: Enum) -> bool:
    if left[kind] <= 0:
        return False
    left[kind] -= 1
    return True
