"""Everything a TWS says: one function per message, in the field order ``ib_async.decoder`` reads.

Each returns the message as text fields; a field the fake has nothing for is empty, which the
client reads as unset. Versions 176 to 178 are spoken.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from fake_tws.orders import (
    ZONE,
    Execution,
    Order,
    Position,
    Stock,
)

UNSET = "1.7976931348623157E308"  # the largest double: "no value" in a number's place

Message = tuple[str, ...]


class Reply(IntEnum):
    """The kinds of message a TWS sends."""

    TICK_PRICE = 1
    TICK_SIZE = 2
    ORDER_STATUS = 3
    ERROR = 4
    OPEN_ORDER = 5
    ACCOUNT_VALUE = 6
    PORTFOLIO_VALUE = 7
    ACCOUNT_TIME = 8
    NEXT_VALID_ID = 9
    CONTRACT_DETAILS = 10
    EXECUTION = 11
    MANAGED_ACCOUNTS = 15
    HISTORICAL_DATA = 17
    CURRENT_TIME = 49
    REAL_TIME_BAR = 50
    CONTRACT_DETAILS_END = 52
    OPEN_ORDER_END = 53
    ACCOUNT_DOWNLOAD_END = 54
    EXECUTION_END = 55
    MARKET_DATA_TYPE = 58
    COMMISSION_REPORT = 59
    POSITION = 61
    POSITION_END = 62
    ACCOUNT_SUMMARY = 63
    ACCOUNT_SUMMARY_END = 64
    ACCOUNT_UPDATE_MULTI = 73
    ACCOUNT_UPDATE_MULTI_END = 74
    HISTORICAL_DATA_UPDATE = 90
    PNL = 94
    COMPLETED_ORDER = 101
    COMPLETED_ORDERS_END = 102


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a stock."""

    start: datetime  # aware; midnight of its date in the exchange's zone for a daily bar
    open: float  # USD
    high: float
    low: float
    close: float
    volume: float  # shares
    average: float = 0.0  # USD, volume-weighted
    trades: int = 1


def _message(kind: Reply, *fields: object) -> Message:
    return tuple(_text(field) for field in (int(kind), *fields))


def _text(field: object) -> str:
    if field is None:
        return ""
    if isinstance(field, bool):
        return "1" if field else "0"
    if isinstance(field, float) and field.is_integer() and abs(field) < 1e15:
        return str(int(field))
    return str(field)


def handshake(version: int, at: datetime) -> Message:
    """Not a numbered message: the version agreed on, and when."""
    return str(version), at.astimezone(ZONE).strftime("%Y%m%d %H:%M:%S EST")


def managed_accounts(accounts: tuple[str, ...]) -> Message:
    return _message(Reply.MANAGED_ACCOUNTS, 1, ",".join(accounts))


def next_valid_id(order_id: int) -> Message:
    return _message(Reply.NEXT_VALID_ID, 1, order_id)


def current_time(at: datetime) -> Message:
    return _message(Reply.CURRENT_TIME, 1, int(at.timestamp()))


def error(request_id: int, code: int, text: str) -> Message:
    # version, reqId, errorCode, errorString, advancedOrderRejectJson
    return _message(Reply.ERROR, 2, request_id, code, text, "")


def _contract(stock: Stock, exchange: str = "SMART") -> tuple[object, ...]:
    # conId, symbol, secType, lastTradeDateOrContractMonth, strike, right, multiplier, exchange,
    # currency, localSymbol, tradingClass
    listed = (stock.currency, stock.symbol, stock.primary_exchange[:3])
    return (stock.con_id, stock.symbol, "STK", "", 0, "?", "", exchange, *listed)


def contract_details(request_id: int, stock: Stock) -> Message:
    place = stock.primary_exchange
    # reqId, symbol, secType, lastTimes, strike, right, exchange, currency, localSymbol, marketName,
    # tradingClass, conId, minTick
    head = (request_id, stock.symbol, "STK", "", 0, "", "SMART", stock.currency, stock.symbol)
    named = (place[:3], place[:3], stock.con_id, 0.01)
    # multiplier, orderTypes, validExchanges, priceMagnifier, underConId, longName, primaryExchange,
    # contractMonth, industry, category, subcategory
    market = (
        "",
        "ACTIVETIM,LMT,MKT,STP",
        f"SMART,{place}",
        1,
        0,
        stock.name,
        place,
        "",
        "",
        "",
        "",
    )
    # timeZoneId, tradingHours, liquidHours, evRule, evMultiplier, numSecIds
    hours = ("US/Eastern", "", "", "", 0, 0)
    # aggGroup, underSymbol, underSecType, marketRuleIds, realExpirationDate, stockType, minSize,
    # sizeIncrement, suggestedSizeIncrement
    rest = (1, "", "", "26", "", "COMMON", 0.0001, 0.0001, 100)
    return _message(Reply.CONTRACT_DETAILS, *head, *named, *market, *hours, *rest)


def contract_details_end(request_id: int) -> Message:
    return _message(Reply.CONTRACT_DETAILS_END, 1, request_id)


def order_status(order: Order, *, perm_id: int | None = None, status: str = "") -> Message:
    shown_perm_id = order.perm_id if perm_id is None else perm_id
    # orderId, status, filled, remaining, avgFillPrice, permId, parentId, lastFillPrice, clientId,
    # whyHeld, mktCapPrice
    return _message(
        Reply.ORDER_STATUS,
        order.ticket.order_id,
        status or order.status,
        order.filled,
        order.remaining if order.status not in ("Cancelled", "Inactive") else 0,
        order.average_price,
        shown_perm_id,
        order.ticket.parent_id,
        order.last_price,
        order.client_id,
        "",
        0,
    )


def open_order(order: Order, stock: Stock, version: int, *, margin: float | None = None) -> Message:
    """The order and its state; a margin (USD) makes it the answer to a what-if."""
    ticket = order.ticket
    # orderId, contract
    head = (ticket.order_id, *_contract(stock))
    # ocaGroup, account, openClose, origin, orderRef, clientId, permId, outsideRth, hidden,
    # discretionaryAmt, goodAfterTime, (obsolete), faGroup, faMethod, faPercentage, faProfile < 177
    owner = (ticket.oca_group, ticket.account, "", 0, ticket.order_ref, order.client_id)
    kept = (order.perm_id, ticket.outside_rth, False, 0, "", "", "", "", "")
    profile = ("",) if version < 177 else ()
    # modelCode, goodTillDate, rule80A, percentOffset, settlingFirm, shortSaleSlot,
    # designatedLocation, exemptCode, auctionStrategy, startingPrice, stockRefPrice, delta,
    # stockRangeLower, stockRangeUpper, displaySize, blockOrder, sweepToFill, allOrNone, minQty
    style = ("", "", "", "", "", 0, "", -1, 0, "", "", "", "", "", "", False, False, False, "")
    # ocaType, eTradeOnly, firmQuoteOnly, nbboPriceCap, parentId, triggerMethod, volatility,
    # volatilityType, deltaNeutralOrderType, deltaNeutralAuxPrice
    group = (ticket.oca_type, False, False, "", ticket.parent_id, 0, "", 0, "", "")
    # continuousUpdate, referencePriceType, trailStopPrice, trailingPercent, basisPoints,
    # basisPointsType, comboLegsDescrip, numLegs, numOrderLegs, numParams, scaleInitLevelSize,
    # scaleSubsLevelSize, scalePriceIncrement, hedgeType
    none = (0, 0, "", "", "", "", "", 0, 0, 0, "", "", "", "")
    # optOutSmartRouting, clearingAccount, clearingIntent, notHeld, dncPresent, algoStrategy
    clearing = (False, "", "IB", False, 0, "")
    # solicited, whatIf, status, then margin before, change and after (init, maint, equity each)
    known = UNSET if margin is None else margin
    margins = (UNSET,) * 3 + (known,) * 3 + (UNSET,) * 3
    # commission, minCommission, maxCommission, commissionCurrency, warningText
    fees = (1.0 if margin is not None else "", "", "", stock.currency, "")
    # randomizeSize, randomizePrice, numConditions, adjustedOrderType, triggerPrice,
    # trailStopPrice, lmtPriceOffset, adjustedStopPrice, adjustedStopLimitPrice,
    # adjustedTrailingAmount, adjustableTrailingUnit, softDollarTier (name, val, displayName)
    adjusted = (False, False, 0, "", *("",) * 6, 0, "", "", "")
    # cashQty, dontUseAutoPriceForHedge, isOmsContainer, discretionaryUpToLimitPrice,
    # usePriceMgmtAlgo, duration, postToAts, autoCancelParent, minTradeQty, minCompeteSize,
    # competeAgainstBestOffset, midOffsetAtWhole, midOffsetAtHalf
    tail = (0, False, False, False, False, "", "", False, "", "", "", "", "")
    return _message(
        Reply.OPEN_ORDER,
        *(*head, *_terms(order, ticket.quantity), *owner, *kept, *profile, *style, *group, *none),
        *(*clearing, False, margin is not None, order.status, *margins, *fees, *adjusted, *tail),
    )


def _terms(order: Order, quantity: float) -> tuple[object, ...]:
    # action, totalQuantity, orderType, lmtPrice, auxPrice, tif
    ticket = order.ticket
    prices = (ticket.limit_price or 0.0, ticket.stop_price or 0.0)
    return (ticket.action, quantity, ticket.order_type, *prices, ticket.tif)


def open_order_end() -> Message:
    return _message(Reply.OPEN_ORDER_END, 1)


def completed_order(order: Order, stock: Stock, version: int) -> Message:
    """An order that ended: without its orderId and client, and with a quantity of 0."""
    ticket = order.ticket
    # ocaGroup, account, openClose, origin, orderRef, permId, outsideRth, hidden, discretionaryAmt,
    # goodAfterTime, faGroup, faMethod, faPercentage, faProfile < 177
    owner = (ticket.oca_group, ticket.account, "", 0, ticket.order_ref, order.perm_id)
    kept = (ticket.outside_rth, False, 0, "", "", "", "")
    profile = ("",) if version < 177 else ()
    # modelCode, goodTillDate, rule80A, percentOffset, settlingFirm, shortSaleSlot,
    # designatedLocation, exemptCode, startingPrice, stockRefPrice, delta, stockRangeLower,
    # stockRangeUpper, displaySize, sweepToFill, allOrNone, minQty, ocaType, triggerMethod,
    # volatility, volatilityType, deltaNeutralOrderType, deltaNeutralAuxPrice
    style = ("", "", "", "", "", 0, "", -1, "", "", "", "", "", "", False, False, "")
    group = (ticket.oca_type, 0, "", 0, "", "")
    # continuousUpdate, referencePriceType, trailStopPrice, trailingPercent, comboLegsDescrip,
    # numLegs, numOrderLegs, numParams, scaleInitLevelSize, scaleSubsLevelSize,
    # scalePriceIncrement, hedgeType, clearingAccount, clearingIntent, notHeld, dncPresent,
    # algoStrategy, solicited
    none = (0, 0, "", "", "", 0, 0, 0, "", "", "", "", "", "IB", False, 0, "", False)
    ended = order.completed_at or datetime.now(UTC)
    filled = f"Filled Size: {_text(order.filled)}"
    why = filled if order.status == "Filled" else "Cancelled by Trader"
    # status, randomizeSize, randomizePrice, numConditions, trailStopPrice, lmtPriceOffset, cashQty,
    # dontUseAutoPriceForHedge, isOmsContainer, autoCancelDate, filledQuantity, refFuturesConId,
    # autoCancelParent, shareholder, imbalanceOnly, routeMarketableToBbo, parentPermId
    state = (order.status, False, False, 0, "", "", 0, False, False, "", order.filled)
    more = ("", False, "Not an insider or substantial shareholder", False, False, "")
    # completedTime, completedStatus, minTradeQty, minCompeteSize, competeAgainstBestOffset,
    # midOffsetAtWhole, midOffsetAtHalf
    tail = (stamp(ended), why, "", "", "", "", "")
    return _message(
        Reply.COMPLETED_ORDER,
        *(*_contract(stock), *_terms(order, 0.0), *owner, *kept, *profile, *style, *group),
        *(*none, *state, *more, *tail),
    )


def completed_orders_end() -> Message:
    return _message(Reply.COMPLETED_ORDERS_END)


def execution(request_id: int, fill: Execution, stock: Stock, version: int) -> Message:
    order = fill.order
    side = "BOT" if order.ticket.action == "BUY" else "SLD"
    # reqId, orderId, contract, execId, time, acctNumber, exchange, side, shares, price, permId,
    # clientId, liquidation, cumQty, avgPrice, orderRef, evRule, evMultiplier, modelCode,
    # lastLiquidity, pendingPriceRevision >= 178
    return _message(
        Reply.EXECUTION,
        *(request_id, order.ticket.order_id, *_contract(stock, stock.primary_exchange)),
        *(fill.exec_id, stamp(fill.at), order.ticket.account, stock.primary_exchange, side),
        *(fill.shares, fill.price, order.perm_id, order.client_id, 0, order.filled),
        *(order.average_price, order.ticket.order_ref, "", 0, "", 2),
        *((False,) if version >= 178 else ()),
    )


def execution_end(request_id: int) -> Message:
    return _message(Reply.EXECUTION_END, 1, request_id)


def commission_report(fill: Execution, currency: str = "USD") -> Message:
    # version, execId, commission, currency, realizedPNL, yield, yieldRedemptionDate
    realized = UNSET if fill.realized is None else fill.realized
    fee = (fill.exec_id, fill.commission, currency, realized, UNSET, "")
    return _message(Reply.COMMISSION_REPORT, 1, *fee)


def position(at: Position, stock: Stock) -> Message:
    # version, account, contract, position, avgCost
    contract = _contract(stock, stock.primary_exchange)
    return _message(Reply.POSITION, 3, at.account, *contract, at.shares, at.average_cost)


def position_end() -> Message:
    return _message(Reply.POSITION_END, 1)


def portfolio_value(at: Position, stock: Stock, price: float) -> Message:
    value, gain = at.shares * price, at.shares * (price - at.average_cost)
    # version, contract, position, marketPrice, marketValue, averageCost, unrealizedPNL,
    # realizedPNL, accountName
    contract = _contract(stock, stock.primary_exchange)
    worth = (at.shares, price, value, at.average_cost, gain, at.realized, at.account)
    return _message(Reply.PORTFOLIO_VALUE, 8, *contract, *worth)


def account_value(account: str, tag: str, value: str, currency: str) -> Message:
    return _message(Reply.ACCOUNT_VALUE, 2, tag, value, currency, account)


def account_time(at: datetime) -> Message:
    return _message(Reply.ACCOUNT_TIME, 1, at.astimezone(ZONE).strftime("%H:%M"))


def account_download_end(account: str) -> Message:
    return _message(Reply.ACCOUNT_DOWNLOAD_END, 1, account)


def account_update_multi(
    request_id: int, account: str, tag: str, value: str, currency: str
) -> Message:
    # version, reqId, account, modelCode, tag, value, currency
    return _message(Reply.ACCOUNT_UPDATE_MULTI, 1, request_id, account, "", tag, value, currency)


def account_update_multi_end(request_id: int) -> Message:
    return _message(Reply.ACCOUNT_UPDATE_MULTI_END, 1, request_id)


def account_summary(request_id: int, account: str, tag: str, value: str, currency: str) -> Message:
    return _message(Reply.ACCOUNT_SUMMARY, 1, request_id, account, tag, value, currency)


def account_summary_end(request_id: int) -> Message:
    return _message(Reply.ACCOUNT_SUMMARY_END, 1, request_id)


def pnl(request_id: int, daily: float, unrealized: float, realized: float) -> Message:
    return _message(Reply.PNL, request_id, daily, unrealized, realized)


def historical_data(request_id: int, bars: list[Bar], daily: bool, epoch: bool) -> Message:
    ends = (stamp(bars[0].start), stamp(bars[-1].start)) if bars else ("", "")
    # reqId, startDate, endDate, count, then each bar: date, open, high, low, close, volume,
    # average, barCount
    rows = [
        field
        for bar in bars
        for field in (
            *(bar_date(bar, daily, epoch), bar.open, bar.high, bar.low, bar.close),
            *(bar.volume, bar.average, bar.trades),
        )
    ]
    return _message(Reply.HISTORICAL_DATA, request_id, *ends, len(bars), *rows)


def historical_data_update(request_id: int, bar: Bar, daily: bool, epoch: bool) -> Message:
    # reqId, barCount, date, open, close, high, low, average, volume
    date = bar_date(bar, daily, epoch)
    values = (bar.open, bar.close, bar.high, bar.low, bar.average, bar.volume)
    return _message(Reply.HISTORICAL_DATA_UPDATE, request_id, bar.trades, date, *values)


def real_time_bar(request_id: int, bar: Bar) -> Message:
    # version, reqId, time, open, high, low, close, volume, wap, count
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.average, bar.trades)
    return _message(Reply.REAL_TIME_BAR, 3, request_id, int(bar.start.timestamp()), *values)


def market_data_type(request_id: int, kind: int) -> Message:
    return _message(Reply.MARKET_DATA_TYPE, 1, request_id, kind)


def tick_price(request_id: int, kind: int, price: float, size: float) -> Message:
    # version, reqId, tickType (1 bid, 2 ask, 4 last), price, size, attributes
    return _message(Reply.TICK_PRICE, 6, request_id, kind, price, size, 0)


def tick_size(request_id: int, kind: int, size: float) -> Message:
    # version, reqId, tickType (0 bid, 3 ask, 5 last, 8 volume), size
    return _message(Reply.TICK_SIZE, 6, request_id, kind, size)


def stamp(at: datetime) -> str:
    return at.astimezone(ZONE).strftime("%Y%m%d %H:%M:%S US/Eastern")


def bar_date(bar: Bar, daily: bool, epoch: bool) -> str:
    if daily:
        return bar.start.astimezone(ZONE).strftime("%Y%m%d")
    return str(int(bar.start.timestamp())) if epoch else stamp(bar.start)


def window(bars: list[Bar], end: datetime, duration: str) -> list[Bar]:
    """Return the bars before ``end`` within an IBKR duration ("5 D" counts days with bars)."""
    count, unit = int(duration.split()[0]), duration.split()[1]
    before = [bar for bar in bars if bar.start < end]
    if unit == "D":
        days = sorted({bar.start.astimezone(ZONE).date() for bar in before})[-count:]
        return [bar for bar in before if bar.start.astimezone(ZONE).date() in days]
    length = {"S": 1, "W": 604_800, "M": 31 * 86_400, "Y": 366 * 86_400}[unit]
    return [bar for bar in before if bar.start >= end - timedelta(seconds=count * length)]
