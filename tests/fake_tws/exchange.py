"""The broker behind the fake TWS: accounts, contracts, orders, executions, positions, commission.

A pure model: no sockets, no waiting, the time comes from a clock it is given. Every call returns
the events it caused, in order; whoever calls decides who hears of them. It knows nothing of
messages, client connections or faults.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from fake_tws.orders import (
    ZONE,
    Charged,
    Event,
    Executed,
    Execution,
    Moved,
    Order,
    Position,
    Refused,
    Reported,
    Stock,
    Ticket,
    fixed_commission,
)


@dataclass
class Exchange:
    """The books. ``fill_markets`` fills market orders at the last price as they arrive."""

    now: Callable[[], datetime]  # aware
    stocks: tuple[Stock, ...] = (Stock(265598, "AAPL", name="APPLE INC"),)
    accounts: tuple[str, ...] = ("DU1234567",)
    cash: float = 100_000.0  # USD of each account at the start
    commission: Callable[[float, float], float] = fixed_commission
    fill_markets: bool = False
    prices: dict[str, float] = field(default_factory=dict)  # last trade, USD
    orders: dict[int, Order] = field(default_factory=dict)  # by permId, all there ever were
    executions: dict[str, Execution] = field(default_factory=dict)  # by execId, in order
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    _own_ids: dict[tuple[int, int], int] = field(default_factory=dict)  # client, order to permId
    _open: dict[int, Order] = field(default_factory=dict)
    _given: dict[tuple[str, str], Position] = field(default_factory=dict)  # before any fill
    _settled: set[str] = field(default_factory=set)  # execIds that can be corrected no more
    _spent: dict[str, float] = field(default_factory=dict)  # USD by account
    _next_perm_id: int = 1_800_000_001
    _next_exec: int = 1

    # -- what is asked

    def stock(self, symbol: str) -> Stock | None:
        return next((stock for stock in self.stocks if stock.symbol == symbol), None)

    def next_order_id(self, client_id: int) -> int:
        return max((order for client, order in self._own_ids if client == client_id), default=0) + 1

    def order(self, client_id: int, order_id: int) -> Order | None:
        perm_id = self._own_ids.get((client_id, order_id))
        return None if perm_id is None else self.orders[perm_id]

    def open_orders(self) -> list[Order]:
        """Return the transmitted orders that can still fill."""
        return [order for order in self._open.values() if order.status != "PendingSubmit"]

    def completed_orders(self) -> list[Order]:
        """Return the orders completed today."""
        return [order for order in self.orders.values() if self._today(order.completed_at)]

    def executions_today(self) -> list[Execution]:
        """Return the fills of the current day in the account's zone, corrections included."""
        return [fill for fill in self.executions.values() if self._today(fill.at)]

    def cash_of(self, account: str) -> float:
        return self.cash - self._spent.get(account, 0.0)

    def value_of(self, position: Position) -> float:
        return position.shares * self.prices.get(position.symbol, position.average_cost)

    def equity_of(self, account: str) -> float:
        held = (self.value_of(at) for at in self.positions.values() if at.account == account)
        return self.cash_of(account) + sum(held)

    # -- what clients do

    def place(self, client_id: int, ticket: Ticket) -> list[Event]:
        """Take a new order, or change an open one of the same client and id."""
        known = self.order(client_id, ticket.order_id) if ticket.order_id else None
        if known and not known.done:
            return self._modify(known, ticket)
        problem = self._problem(client_id, ticket, known)
        if problem:
            return [Refused(client_id, ticket.order_id, *problem)]
        order = self._book(client_id, ticket)
        if not ticket.transmit:
            return []
        return list(self._transmit(order))

    def reject(self, client_id: int, ticket: Ticket, reason: str, code: int = 201) -> list[Event]:
        """Refuse a new order after taking its permId: an error, then Inactive."""
        order = self._book(client_id, ticket)
        text = f"Order rejected - reason:{reason}"
        return [Refused(client_id, ticket.order_id, code, text), *self._end(order, "Inactive")]

    def cancel(self, client_id: int, order_id: int) -> list[Event]:
        """Cancel a client's own order: only the client that placed it can."""
        order = self.order(client_id, order_id)
        if order is None:
            text = f"OrderId {order_id} that needs to be cancelled is not found."
            return [Refused(client_id, order_id, 10147, text)]
        if order.done:
            text = f"OrderId {order_id} that needs to be cancelled cannot be cancelled, "
            return [Refused(client_id, order_id, 10148, f"{text}state: {order.status}.")]
        return list(self._cancel(order))

    def cancel_perm_id(self, perm_id: int) -> list[Event]:
        """Cancel any open order, as TWS itself can."""
        return list(self._cancel(self.orders[perm_id]))

    def cancel_all(self) -> list[Event]:
        """Cancel every open order, whoever placed it."""
        return [
            event
            for order in list(self._open.values())
            if not order.done
            for event in self._cancel(order)
        ]

    # -- what the market does

    def trade(self, symbol: str, price: float, volume: float = math.inf) -> list[Event]:
        """Print a trade: working orders it reaches fill at its price, oldest first."""
        self.prices[symbol] = price
        return list(self._match(symbol, price, volume, auction=False))

    def fill(self, order: Order) -> list[Event]:
        """Fill what is left of one order at its limit, or the last price."""
        price = order.ticket.limit_price or self.prices[order.ticket.symbol]
        return [] if order.done else list(self._fill(order, order.remaining, price))

    def auction(self, symbol: str, price: float, volume: float = math.inf) -> list[Event]:
        """Hold the opening auction: orders for the open (OPG) fill, what is left is cancelled."""
        self.prices[symbol] = price
        events = list(self._match(symbol, price, volume, auction=True))
        for order in [at for at in self._open.values() if at.ticket.symbol == symbol]:
            if order.ticket.tif == "OPG" and not order.done:
                events += self._cancel(order)
        return events

    def end_session(self) -> list[Event]:
        """Close the day: day orders that are left are cancelled."""
        left = [order for order in self._open.values() if order.ticket.tif == "DAY"]
        return [event for order in left if not order.done for event in self._cancel(order)]

    def correct(
        self, exec_id: str, *, price: float | None = None, shares: float | None = None
    ) -> list[Event]:
        """Replace a fill by one with the next number at the end of its execId."""
        if exec_id in self._settled:
            raise ValueError(f"{exec_id} is from before a split; expected a later fill")
        wrong = self.executions[exec_id]
        base, number = exec_id.rsplit(".", 1)
        order = wrong.order
        new_shares = wrong.shares if shares is None else shares
        new_price = wrong.price if price is None else price
        right = replace(
            wrong, exec_id=f"{base}.{int(number) + 1:02}", shares=new_shares, price=new_price
        )
        at_broker = self.orders[order.perm_id]
        at_broker.filled += new_shares - wrong.shares
        at_broker.paid += new_shares * new_price - wrong.shares * wrong.price
        self._spent[order.ticket.account] += right.signed * new_price - wrong.signed * wrong.price
        right = replace(right, order=replace(at_broker))
        self.executions[right.exec_id] = right
        moved = self._rebuild(order.ticket.account, order.ticket.symbol)
        return [Executed(right), Charged(right), Moved(moved)]

    def give(self, symbol: str, shares: float, average_cost: float) -> list[Event]:
        """Put shares on the first account that no order here brought, and say so."""
        key = (self.accounts[0], symbol)
        if key in self.positions:
            raise ValueError(f"{key} is held already; give before it is traded")
        given = Position(*key, shares=shares, average_cost=average_cost)
        self._given[key] = self.positions[key] = given
        return [Moved(given)]

    def split(self, symbol: str, ratio: float) -> list[Event]:
        """Split a stock, new shares for one old: positions change, equity does not."""
        if symbol in self.prices:
            self.prices[symbol] /= ratio
        self._settled |= {
            fill.exec_id for fill in self.executions.values() if fill.order.ticket.symbol == symbol
        }
        moved: list[Event] = []
        for key, at in self.positions.items():
            if at.symbol == symbol:
                after = replace(at, shares=at.shares * ratio, average_cost=at.average_cost / ratio)
                self._given[key] = self.positions[key] = after
                moved.append(Moved(after))
        return moved

    def forget_order_ids(self) -> None:
        """Let ids of the past be given out again ("Reset API order ID sequence")."""
        self._own_ids = {key: perm for key, perm in self._own_ids.items() if perm in self._open}

    # -- inside

    def _today(self, at: datetime | None) -> bool:
        today = self.now().astimezone(ZONE).date()
        return at is not None and at.astimezone(ZONE).date() == today

    def _problem(
        self, client_id: int, ticket: Ticket, known: Order | None
    ) -> tuple[int, str] | None:
        if known:
            filled = known.status == "Filled"
            return (104, "Cannot modify a filled order.") if filled else (103, "Duplicate order id")
        if self.stock(ticket.symbol) is None:
            return 200, "No security definition has been found for the request"
        if ticket.quantity <= 0:
            return 434, "The order size cannot be zero."
        if ticket.account and ticket.account not in self.accounts:
            return 321, f"Error validating request.-'bO' : cause - Invalid account {ticket.account}"
        if ticket.parent_id and self.order(client_id, ticket.parent_id) is None:
            return 10006, f"Missing parent order: {ticket.parent_id}"
        return None

    def _book(self, client_id: int, ticket: Ticket) -> Order:
        ticket = replace(ticket, account=ticket.account or self.accounts[0])
        parent = self.order(client_id, ticket.parent_id) if ticket.parent_id else None
        if parent and not ticket.oca_group:  # attached orders reduce one another
            ticket = replace(ticket, oca_group=str(parent.perm_id), oca_type=3)
        order = Order(ticket, client_id, self._next_perm_id)
        self._next_perm_id += 1
        self.orders[order.perm_id] = self._open[order.perm_id] = order
        if ticket.order_id:
            self._own_ids[client_id, ticket.order_id] = order.perm_id
        return order

    def _transmit(self, order: Order) -> Iterator[Event]:
        parent = self._parent(order)
        if parent and parent.status == "PendingSubmit":
            yield from self._transmit(parent)
            return
        waiting = [order, *self._children(order)] if not parent else self._children(parent)
        for each in (at for at in waiting if at.status == "PendingSubmit"):
            each.status = "Submitted" if self._is_live(each) else "PreSubmitted"
            yield Reported(replace(each))
        if self.fill_markets and order.ticket.order_type == "MKT" and order.ticket.tif != "OPG":
            price = self.prices.get(order.ticket.symbol)
            if price is not None and not parent:
                yield from self._fill(order, order.remaining, price)

    def _modify(self, order: Order, ticket: Ticket) -> list[Event]:
        old = order.ticket
        changed = {
            "quantity": ticket.quantity,
            "limit_price": ticket.limit_price,
            "stop_price": ticket.stop_price,
            "order_type": ticket.order_type,
            "tif": ticket.tif,
            "transmit": ticket.transmit,
            "order_ref": ticket.order_ref,
        }
        if ticket.action != old.action or ticket.symbol != old.symbol:
            text = "Order being modified does not match original order"
            return [Refused(order.client_id, old.order_id, 105, text)]
        order.ticket = replace(old, **changed)
        if order.status == "PendingSubmit":
            return list(self._transmit(order)) if ticket.transmit else []
        return [Reported(replace(order))]

    def _parent(self, order: Order) -> Order | None:
        parent_id = order.ticket.parent_id
        return self.order(order.client_id, parent_id) if parent_id else None

    def _children(self, parent: Order) -> list[Order]:
        own = (order for order in self._open.values() if order.client_id == parent.client_id)
        order_id = parent.ticket.order_id
        return [order for order in own if order_id and order.ticket.parent_id == order_id]

    def _is_live(self, order: Order) -> bool:
        parent = self._parent(order)
        if order.ticket.tif == "OPG" or (parent and parent.status != "Filled"):
            return False
        return order.triggered or not order.ticket.order_type.startswith("STP")

    def _match(self, symbol: str, price: float, volume: float, auction: bool) -> Iterator[Event]:
        for order in [at for at in self._open.values() if at.ticket.symbol == symbol]:
            if order.done or order.status == "PendingSubmit" or volume <= 0:
                continue
            if (order.ticket.tif == "OPG") != auction:
                continue
            parent = self._parent(order)
            if (parent and parent.status != "Filled") or not self._reached(order, price):
                continue
            shares = min(order.remaining, volume)
            volume -= shares
            yield from self._fill(order, shares, price)

    @staticmethod
    def _reached(order: Order, price: float) -> bool:
        ticket, side = order.ticket, 1.0 if order.ticket.action == "BUY" else -1.0
        if ticket.order_type.startswith("STP") and not order.triggered:
            order.triggered = side * (price - (ticket.stop_price or 0.0)) >= 0
            if not order.triggered:
                return False
        if "LMT" in ticket.order_type:
            return side * (price - (ticket.limit_price or 0.0)) <= 0
        return True

    def _fill(self, order: Order, shares: float, price: float) -> Iterator[Event]:
        ticket = order.ticket
        order.filled += shares
        order.paid += shares * price
        order.last_price = price
        fee = self.commission(order.filled, order.average_price) - order.charged
        order.charged += fee
        order.status = "Submitted" if order.remaining > 0 else "Filled"
        if order.status == "Filled":
            self._open.pop(order.perm_id)
            order.completed_at = self.now()
        exec_id = f"0000e0d5.{self._next_exec:08x}.01.01"
        self._next_exec += 1
        fill = Execution(exec_id, replace(order), shares, price, self.now(), fee, None)
        moved, realized = self._position(ticket.account, ticket.symbol).after(
            fill.signed, price, fee
        )
        fill = replace(fill, realized=realized)
        self.executions[exec_id] = fill
        self.positions[ticket.account, ticket.symbol] = moved
        spent = self._spent.get(ticket.account, 0.0)
        self._spent[ticket.account] = spent + fill.signed * price + fee
        yield from (Executed(fill), Reported(replace(order)), Charged(fill), Moved(moved))
        yield from self._tell_relatives(order, shares)

    def _tell_relatives(self, order: Order, shares: float) -> Iterator[Event]:
        if order.status == "Filled":
            for child in self._children(order):
                child.status = "Submitted" if self._is_live(child) else "PreSubmitted"
                yield Reported(replace(child))
        ticket = order.ticket
        for other in list(self._open.values()) if ticket.oca_group else []:
            if other is order or other.ticket.oca_group != ticket.oca_group:
                continue
            left = other.ticket.quantity - shares
            if ticket.oca_type == 1 or left <= other.filled:
                yield from self._cancel(other)
            else:
                other.ticket = replace(other.ticket, quantity=left)
                yield Reported(replace(other))

    def _cancel(self, order: Order) -> Iterator[Event]:
        yield from self._end(order, "Cancelled")
        order_id = order.ticket.order_id
        yield Refused(order.client_id, order_id, 202, "Order Canceled - reason:")
        for child in self._children(order):
            yield from self._cancel(child)

    def _end(self, order: Order, status: str) -> Iterator[Event]:
        order.status, order.completed_at = status, self.now()
        self._open.pop(order.perm_id, None)
        yield Reported(replace(order))

    def _position(self, account: str, symbol: str) -> Position:
        return self.positions.get((account, symbol)) or Position(account, symbol)

    def _rebuild(self, account: str, symbol: str) -> Position:
        """Fold the fills again, the last correction of each in place of what it corrects."""
        latest: dict[str, Execution] = {}
        for fill in self.executions.values():
            if fill.exec_id in self._settled:
                continue
            if (fill.order.ticket.account, fill.order.ticket.symbol) == (account, symbol):
                latest[fill.exec_id.rsplit(".", 1)[0]] = fill
        position = self._given.get((account, symbol)) or Position(account, symbol)
        for fill in latest.values():
            position, _ = position.after(fill.signed, fill.price, fill.commission)
        self.positions[account, symbol] = position
        return position
