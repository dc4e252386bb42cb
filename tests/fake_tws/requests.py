"""What the fake TWS answers to each request: one function per kind.

A function reads the fields after the kind, asks the exchange, and sends; requests that come with
a version number skip it. What goes wrong on purpose is asked of the faults.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias
from zoneinfo import ZoneInfo

from fake_tws import replies
from fake_tws.connection import Bars, Connection
from fake_tws.faults import BUSY_TEXT, PACING_TEXT, PRESET_TEXT, SYSTEM_TEXTS, Once, Point
from fake_tws.orders import (
    Order,
)
from fake_tws.protocol import Asked, Fields, Request, read_contract, read_order

if TYPE_CHECKING:
    from fake_tws.server import FakeTws

Handler: TypeAlias = "Callable[[FakeTws, Connection, Fields], None]"
BASE = "USD"


def answer(tws: "FakeTws", connection: Connection, kind: Request, fields: list[str]) -> None:
    """Answer a request, or raise BadRequest."""
    reader = Fields(fields)
    reader.skip(1)
    HANDLERS[kind](tws, connection, reader)


def start_api(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    client_id, faults = fields.whole(), tws.faults
    if faults.hang_up:
        connection.drop()
        return
    if faults.logged_out:
        connection.send(replies.managed_accounts(()))
        return
    if tws.of(client_id) or client_id in faults.taken:
        text = "Unable to connect as the client id is already in use. "
        tws.refuse(connection, -1, 326, f"{text}Retry with a unique client id.")
        connection.drop()
        return
    connection.client_id = client_id
    connection.send(replies.managed_accounts(tws.exchange.accounts))
    connection.send(replies.next_valid_id(tws.exchange.next_order_id(client_id)))
    for code in (1100,) if faults.cut_off else (2104, 2106, 2158):
        tws.refuse(connection, -1, code, SYSTEM_TEXTS[code])


def ids(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    connection.send(replies.next_valid_id(tws.exchange.next_order_id(_client(connection))))


def managed_accounts(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    connection.send(replies.managed_accounts(tws.exchange.accounts))


def current_time(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    connection.send(replies.current_time(tws.exchange.now()))


# -- orders


def place_order(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    contract, ticket = read_order(fields, connection.version)
    client_id, faults = _client(connection), tws.faults
    symbol = _symbol(tws, contract)
    ticket = ticket if symbol is None else replace(ticket, symbol=symbol)
    if faults.drops(Point.ORDER_ARRIVED):
        connection.drop()
    elif ticket.what_if:
        order = Order(ticket, client_id, 0, "PreSubmitted")
        margin = 0.25 * ticket.quantity * tws.exchange.prices.get(ticket.symbol, 0.0)
        stock = tws.stock(ticket.symbol)
        connection.send(replies.open_order(order, stock, connection.version, margin=margin))
    elif faults.takes(Once.REJECT):
        tws.tell(tws.exchange.reject(client_id, ticket, faults.reason))
    elif faults.takes(Once.REJECT_AMID):
        tws.tell_amid_answer(tws.exchange.reject(client_id, ticket, faults.reason))
    elif faults.takes(Once.INVALID):
        text = "Error validating request.-'bO' : cause - The order is not valid."
        tws.refuse(connection, ticket.order_id, 321, text)
    else:
        events = tws.exchange.place(client_id, ticket)
        if faults.takes(Once.STUCK):
            return
        if faults.drops(Point.ORDER_ACCEPTED):
            connection.drop()
        if faults.takes(Once.PRESET):
            tws.refuse(connection, ticket.order_id, 10349, PRESET_TEXT)
        tws.tell(events)
        taken = tws.exchange.order(client_id, ticket.order_id)
        if taken and not taken.done and faults.takes(Once.BY_HAND):
            tws.cancel_by_hand(taken.perm_id)
        if faults.drops(Point.ORDER_ACKNOWLEDGED):
            connection.drop()


def cancel_order(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    order_id, client_id, faults = fields.whole(), _client(connection), tws.faults
    if faults.drops(Point.CANCEL_ARRIVED):
        connection.drop()
        return
    if faults.takes(Once.IGNORE_CANCEL):
        return
    order = tws.exchange.order(client_id, order_id)
    if order and faults.takes(Once.FILL_ON_CANCEL):
        tws.tell(tws.exchange.fill(order))
    events = tws.exchange.cancel(client_id, order_id)
    if faults.drops(Point.CANCEL_ACCEPTED):
        connection.drop()
    if faults.takes(Once.CANCEL_AMID):
        tws.tell_amid_answer(events)
        return
    tws.tell(events)


def global_cancel(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    tws.tell(tws.exchange.cancel_all())


def open_orders(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    """Own orders; client 0 sees those typed into TWS too."""
    for order in tws.exchange.open_orders():
        if order.client_id == connection.client_id:
            tws.show_order(connection, order)
    connection.send(replies.open_order_end())


def all_open_orders(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    tws.tell(tws.amid_answer())
    for order in tws.exchange.open_orders():
        tws.show_order(connection, order)
    connection.send(replies.open_order_end())


def auto_open_orders(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    if connection.client_id != 0:
        text = "Only the default client (i.e 0) can auto bind orders."
        tws.refuse(connection, -1, 327, text)
        return
    connection.auto_bind = fields.flag()


def completed_orders(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    api_only = fields.flag()
    for order in tws.exchange.completed_orders():
        if order.ticket.order_id or not api_only:
            stock = tws.stock(order.ticket.symbol)
            connection.send(replies.completed_order(order, stock, connection.version))
    connection.send(replies.completed_orders_end())


def executions(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    """Today's fills of every client, each with its commission, unless filtered."""
    fields.skip(1)
    request_id, client_id, account = fields.whole(), fields.whole(), fields.text()
    fields.skip(1)  # time
    symbol = fields.text()
    for fill in tws.exchange.executions_today():
        order = fill.order
        if client_id not in (0, order.client_id) or account not in ("", order.ticket.account):
            continue
        if symbol in ("", order.ticket.symbol):
            stock = tws.stock(order.ticket.symbol)
            connection.send(replies.execution(request_id, fill, stock, connection.version))
            connection.push(replies.commission_report(fill))
    connection.send(replies.execution_end(request_id))


# -- the account


def positions(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    connection.positions = True
    for at in tws.exchange.positions.values():
        if at.shares:
            connection.send(replies.position(at, tws.stock(at.symbol)))
    connection.send(replies.position_end())


def cancel_positions(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    connection.positions = False


def account_updates(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    subscribe, account = fields.flag(), fields.text() or tws.exchange.accounts[0]
    connection.account_updates = account if subscribe else None
    if not subscribe:
        return
    for tag, value in _account_values(tws, account):
        connection.send(replies.account_value(account, tag, value, BASE))
    for at in tws.exchange.positions.values():
        if at.account == account and at.shares:
            price = tws.exchange.prices.get(at.symbol, at.average_cost)
            connection.send(replies.portfolio_value(at, tws.stock(at.symbol), price))
    connection.send(replies.account_time(tws.exchange.now()))
    connection.send(replies.account_download_end(account))


def account_updates_multi(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    request_id, account = fields.whole(), fields.text()
    for tag, value in _account_values(tws, account):
        connection.send(replies.account_update_multi(request_id, account, tag, value, BASE))
    connection.send(replies.account_update_multi_end(request_id))


def account_summary(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    request_id, _, tags = fields.whole(), fields.text(), fields.text().split(",")
    for account in tws.exchange.accounts:
        for tag, value in _account_values(tws, account):
            if tag in tags:
                connection.send(replies.account_summary(request_id, account, tag, value, BASE))
    connection.send(replies.account_summary_end(request_id))


def pnl(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    request_id, account = fields.whole(), fields.text()
    held = [at for at in tws.exchange.positions.values() if at.account == account]
    realized = sum(at.realized for at in held)
    unrealized = sum(tws.exchange.value_of(at) - at.shares * at.average_cost for at in held)
    connection.send(replies.pnl(request_id, realized + unrealized, unrealized, realized))


# -- the market


def contract_details(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    request_id, contract = fields.whole(), read_contract(fields)
    if tws.faults.takes(Once.BUSY):
        tws.refuse(connection, request_id, 322, BUSY_TEXT)
        return
    symbol = _symbol(tws, contract)
    if symbol is None:
        text = "No security definition has been found for the request"
        tws.refuse(connection, request_id, 200, text)
        return
    connection.send(replies.contract_details(request_id, tws.stock(symbol)))
    connection.send(replies.contract_details_end(request_id))


def historical_data(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    request_id, contract = fields.whole(), read_contract(fields)
    fields.skip(1)  # includeExpired
    end, size, duration, _, what = (fields.text() for _ in range(5))
    epoch, keep = fields.text() == "2", fields.flag()
    symbol = _symbol(tws, contract)
    if symbol is None:
        text = "No security definition has been found for the request"
        tws.refuse(connection, request_id, 200, text)
    elif _too_fast(tws, connection, (symbol, end, size, duration, what)):
        tws.refuse(connection, request_id, 162, PACING_TEXT)
    elif keep and end:
        text = "Error validating request.-'bC' : cause - End time cannot be set if keepUpToDate"
        tws.refuse(connection, request_id, 321, text)
    else:
        known = tws.history.get((symbol, size), [])
        last = _moment(end) if end else tws.exchange.now() + timedelta(seconds=1)
        bars = replies.window(known, last, duration)
        daily = size.endswith("day")
        if not bars and not keep:
            text = "Historical Market Data Service error message:HMDS query returned no data"
            tws.refuse(connection, request_id, 162, text)
            return
        connection.send(replies.historical_data(request_id, bars, daily, epoch))
        if keep:
            connection.history[request_id] = Bars(symbol, size, epoch)


def cancel_historical_data(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    connection.history.pop(fields.whole(), None)


def real_time_bars(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    request_id, contract = fields.whole(), read_contract(fields)
    symbol = _symbol(tws, contract)
    if symbol is None:
        tws.refuse(connection, request_id, 200, "No security definition has been found")
        return
    connection.real_time[request_id] = Bars(symbol, "5 secs")


def cancel_real_time_bars(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    connection.real_time.pop(fields.whole(), None)


def market_data(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    request_id, contract = fields.whole(), read_contract(fields)
    symbol = _symbol(tws, contract)
    if symbol is None:
        tws.refuse(connection, request_id, 200, "No security definition has been found")
        return
    connection.tickers[request_id] = symbol
    connection.send(replies.market_data_type(request_id, 1))
    if symbol in tws.exchange.prices:
        connection.send(replies.tick_price(request_id, 4, tws.exchange.prices[symbol], 100))


def cancel_market_data(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    fields.skip(1)
    connection.tickers.pop(fields.whole(), None)


def nothing(tws: "FakeTws", connection: Connection, fields: Fields) -> None:
    """A request without an answer."""


# -- inside


def _client(connection: Connection) -> int:
    if connection.client_id is None:
        raise LookupError("a request before startApi")
    return connection.client_id


def _symbol(tws: "FakeTws", contract: Asked) -> str | None:
    for stock in tws.exchange.stocks:
        by_symbol = contract.symbol == stock.symbol and contract.kind in ("STK", "IND", "")
        if stock.con_id == contract.con_id or (not contract.con_id and by_symbol):
            return stock.symbol
    return None


def _account_values(tws: "FakeTws", account: str) -> list[tuple[str, str]]:
    equity, cash = tws.exchange.equity_of(account), tws.exchange.cash_of(account)
    numbers = {
        "NetLiquidation": equity,
        "TotalCashValue": cash,
        "AvailableFunds": cash,
        "BuyingPower": 4 * cash,
        "EquityWithLoanValue": equity,
        "GrossPositionValue": equity - cash,
    }
    return [("AccountReady", "true"), *((tag, f"{value:.2f}") for tag, value in numbers.items())]


def _too_fast(tws: "FakeTws", connection: Connection, asked: tuple[str, ...]) -> bool:
    """IBKR's limits: no identical request within 15 s, at most 60 within 10 min."""
    now = tws.exchange.now().timestamp()
    recent = [(at, what) for at, what in connection.historical_at if now - at < 600]
    connection.historical_at = [*recent, (now, asked)]
    repeated = any(what == asked and now - at < 15 for at, what in recent)
    limited = tws.faults.enforce_pacing and (repeated or len(recent) >= 60)
    return tws.faults.takes(Once.PACING) or limited


def _moment(end: str) -> datetime:
    date, time, *zone = end.replace("-", " ").split(" ")
    moment = datetime.strptime(date + time, "%Y%m%d%H:%M:%S")
    return moment.replace(tzinfo=ZoneInfo(zone[0] if zone else "UTC"))


HANDLERS: dict[Request, Handler] = {
    Request.MARKET_DATA: market_data,
    Request.CANCEL_MARKET_DATA: cancel_market_data,
    Request.PLACE_ORDER: place_order,
    Request.CANCEL_ORDER: cancel_order,
    Request.OPEN_ORDERS: open_orders,
    Request.ACCOUNT_UPDATES: account_updates,
    Request.EXECUTIONS: executions,
    Request.IDS: ids,
    Request.CONTRACT_DETAILS: contract_details,
    Request.AUTO_OPEN_ORDERS: auto_open_orders,
    Request.ALL_OPEN_ORDERS: all_open_orders,
    Request.MANAGED_ACCOUNTS: managed_accounts,
    Request.HISTORICAL_DATA: historical_data,
    Request.CANCEL_HISTORICAL_DATA: cancel_historical_data,
    Request.CURRENT_TIME: current_time,
    Request.REAL_TIME_BARS: real_time_bars,
    Request.CANCEL_REAL_TIME_BARS: cancel_real_time_bars,
    Request.GLOBAL_CANCEL: global_cancel,
    Request.MARKET_DATA_TYPE: nothing,
    Request.POSITIONS: positions,
    Request.CANCEL_POSITIONS: cancel_positions,
    Request.ACCOUNT_SUMMARY: account_summary,
    Request.CANCEL_ACCOUNT_SUMMARY: nothing,
    Request.START_API: start_api,
    Request.ACCOUNT_UPDATES_MULTI: account_updates_multi,
    Request.CANCEL_ACCOUNT_UPDATES_MULTI: nothing,
    Request.PNL: pnl,
    Request.CANCEL_PNL: nothing,
    Request.COMPLETED_ORDERS: completed_orders,
}
