"""The records of a broker: contract, order, fill, position, and the events that tell of them.

Plain values; what changes them is the exchange.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("US/Eastern")  # the account's: executions are kept for its day
DONE = frozenset({"Filled", "Cancelled", "Inactive"})


@dataclass(frozen=True, slots=True)
class Stock:
    """A contract; IBKR routes it by SMART and names its primary exchange."""

    con_id: int
    symbol: str
    primary_exchange: str = "NASDAQ"
    currency: str = "USD"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order as its client asks for it."""

    order_id: int  # the client's own; 0 when typed into TWS
    symbol: str
    action: str  # BUY or SELL
    quantity: float  # shares
    order_type: str = "MKT"  # MKT, LMT, STP or STP LMT
    limit_price: float | None = None  # USD
    stop_price: float | None = None  # USD; the protocol's auxPrice
    tif: str = "DAY"  # DAY, GTC, or OPG: for the opening auction only
    account: str = ""
    order_ref: str = ""
    parent_id: int = 0  # order_id of the bracket's entry
    oca_group: str = ""
    oca_type: int = 0  # 1 cancels the others at any fill, 2 and 3 reduce them
    transmit: bool = True
    outside_rth: bool = False
    what_if: bool = False  # asks for margin and commission, places nothing


@dataclass(slots=True)
class Order:
    """An order at the broker."""

    ticket: Ticket
    client_id: int
    perm_id: int
    status: str = "PendingSubmit"
    filled: float = 0.0  # shares
    paid: float = 0.0  # USD, shares times price over its fills
    last_price: float = 0.0  # USD
    charged: float = 0.0  # USD of commission
    triggered: bool = False  # a stop whose price was touched
    completed_at: datetime | None = None

    @property
    def remaining(self) -> float:
        return self.ticket.quantity - self.filled

    @property
    def average_price(self) -> float:
        return self.paid / self.filled if self.filled else 0.0

    @property
    def done(self) -> bool:
        return self.status in DONE


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill, as execDetails and commissionReport tell it."""

    exec_id: str  # ends in .01; a correction repeats the rest and ends in .02
    order: Order  # as it stood after the fill
    shares: float
    price: float  # USD
    at: datetime
    commission: float  # USD
    realized: float | None  # USD after commission; None when the fill opened

    @property
    def signed(self) -> float:
        return self.shares if self.order.ticket.action == "BUY" else -self.shares


@dataclass(frozen=True, slots=True)
class Position:
    """Shares of one account; the average cost holds commission, as IBKR's does."""

    account: str
    symbol: str
    shares: float = 0.0
    average_cost: float = 0.0  # USD per share
    realized: float = 0.0  # USD

    def after(
        self, signed: float, price: float, commission: float
    ) -> tuple["Position", float | None]:
        """Return the position after a fill, and what the fill realized (None when it opened)."""
        sign = math.copysign(1.0, signed)
        closing = min(abs(signed), abs(self.shares)) if self.shares * signed < 0 else 0.0
        opening = abs(signed) - closing
        closing_fee = commission * closing / abs(signed)
        realized = closing * -sign * (price - self.average_cost) - closing_fee if closing else None
        shares = self.shares + signed
        cost = self.average_cost
        if opening:
            held = 0.0 if closing else abs(self.shares)
            fee = sign * (commission - closing_fee)
            cost = (held * cost + opening * price + fee) / (held + opening)
        if shares == 0:
            cost = 0.0
        moved = replace(
            self, shares=shares, average_cost=cost, realized=self.realized + (realized or 0.0)
        )
        return moved, realized


@dataclass(frozen=True, slots=True)
class Reported:
    """An order was acknowledged or changed: openOrder and orderStatus."""

    order: Order


@dataclass(frozen=True, slots=True)
class Executed:
    """A fill happened: execDetails, and once the order is reported, commissionReport."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class Charged:
    """The commission of a fill is known."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class Moved:
    """A position changed."""

    position: Position


@dataclass(frozen=True, slots=True)
class Refused:
    """A request failed, or TWS has something to say about an order."""

    client_id: int
    request_id: int
    code: int
    text: str


Event = Reported | Executed | Charged | Moved | Refused


def fixed_commission(shares: float, price: float) -> float:
    """Return IBKR's fixed fee of a US stock order, USD: 0.005 a share, at least 1, at most 1 %."""
    return min(max(1.0, 0.005 * shares), 0.01 * shares * price)
