"""The wire: tickets as IBKR's orders, and what ``ib_async`` delivers in our own words.

Owns the mapping of order types. Daily decisions go into the opening auction (market, OPG); stops
and targets are good till cancelled and share a group in which a fill of one reduces the other.
"""

from datetime import UTC

from ib_async import Contract, Fill, Order, Position, Stock, Trade
from ib_async.util import UNSET_DOUBLE

from core.errors import BrokerError
from serving.brokers.ibkr.book import Answer, Seen, Told
from serving.brokers.port import Ticket

REDUCE = 3  # ocaType: the others of the group shrink with each fill; no block on overfill
TRADED = ("STK", "USD")  # an option on a stock has the stock's symbol
KINDS = {  # kind of a ticket: orderType, tif
    "market_on_open": ("MKT", "OPG"),
    "market": ("MKT", "DAY"),
    "stop": ("STP", "GTC"),
    "limit": ("LMT", "GTC"),
}


def stock(symbol: str) -> Contract:
    return Stock(symbol, "SMART", "USD")


def order_of(ticket: Ticket, account: str, order_id: int) -> Order:
    """Return IBKR's order for a ticket."""
    if ticket.kind not in KINDS:
        raise BrokerError(f"{ticket.order_ref}: kind {ticket.kind!r}, expected {', '.join(KINDS)}")
    order_type, tif = KINDS[ticket.kind]
    order = Order(
        orderId=order_id,
        action="BUY" if ticket.shares > 0.0 else "SELL",
        totalQuantity=abs(ticket.shares),
        orderType=order_type,
        tif=tif,
        account=account,
        orderRef=ticket.order_ref,
    )
    if ticket.kind == "stop":
        order.auxPrice = ticket.price
    elif ticket.kind == "limit":
        order.lmtPrice = ticket.price
    if ticket.leg != "entry":
        order.ocaGroup = group_of(ticket)
        order.ocaType = REDUCE
    return order


def group_of(ticket: Ticket) -> str:
    """Stop and target of one moment share it."""
    return ticket.order_ref.replace(f"-{ticket.part}-", f"-exit.{ticket.replica}-")


def seen_of(trade: Trade) -> Seen:
    order = trade.order
    shares = f"{order.totalQuantity:g} " if order.totalQuantity else ""
    text = f"{order.action} {shares}{trade.contract.symbol} {order.orderType}"
    return Seen(
        order_ref=order.orderRef,
        perm_id=order.permId,
        order_id=order.orderId,
        client_id=order.clientId,
        symbol=trade.contract.symbol,
        text=text,
    )


def told_of(fill: Fill) -> Told:
    execution, report = fill.execution, fill.commissionReport
    known = bool(report.execId) and report.commission != UNSET_DOUBLE
    sign = 1.0 if execution.side == "BOT" else -1.0
    return Told(
        exec_id=execution.execId,
        order_ref=execution.orderRef,
        symbol=fill.contract.symbol,
        shares=sign * float(execution.shares),
        price=float(execution.price),
        commission=float(report.commission) if known else float("nan"),
        time=execution.time.astimezone(UTC),
    )


def with_fees(told: list[Fill], kept: list[Fill]) -> list[Fill]:
    """Return the fills of an answer as the client keeps them.

    It puts a fee on the fill that it heard of first, and raises no event where the order was never
    shown to it; an answer that tells a fill again has it without.
    """
    known = {fill.execution.execId: fill for fill in kept}
    return [known.get(fill.execution.execId, fill) for fill in told]


def said_of(trades: list[Trade]) -> dict[str, float]:
    """Return the shares that the newest status of each order says have filled, at least.

    Completed orders come without quantities, and the other of a group may have made one smaller.
    """
    said: dict[str, float] = {}
    for trade in trades:
        least = 1.0 if trade.orderStatus.status == "Filled" else 0.0
        ref = trade.order.orderRef
        said[ref] = max(said.get(ref, 0.0), float(trade.orderStatus.filled), least)
    return said


def answer_of(
    open_orders: list[Trade],
    completed: list[Trade],
    fills: list[Fill],
    positions: list[Position],
    account: str,
    trades: list[Trade],
) -> Answer:
    """Return complete answers as one; of the account that is traded alone."""
    return Answer(
        open_orders=tuple(seen_of(t) for t in open_orders if t.order.account == account),
        completed=tuple(seen_of(t) for t in completed if t.order.account == account),
        executions=tuple(told_of(f) for f in fills if f.execution.acctNumber == account),
        positions={
            at.contract.symbol: float(at.position)
            for at in positions
            if at.account == account and (at.contract.secType, at.contract.currency) == TRADED
        },
        said=said_of([trade for trade in trades if trade.order.account == account]),
    )
