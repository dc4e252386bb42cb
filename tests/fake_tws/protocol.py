"""The socket protocol as a TWS reads it: framing, the handshake, and every request's fields.

A message is a big-endian length of four bytes and NUL-terminated text fields; the first field
names the kind. Field order is that of ``ib_async.client.Client``, which writes them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from fake_tws.orders import (
    Ticket,
)

HELLO = b"API\0"


class Request(IntEnum):
    """The kinds of message a client sends."""

    MARKET_DATA = 1
    CANCEL_MARKET_DATA = 2
    PLACE_ORDER = 3
    CANCEL_ORDER = 4
    OPEN_ORDERS = 5
    ACCOUNT_UPDATES = 6
    EXECUTIONS = 7
    IDS = 8
    CONTRACT_DETAILS = 9
    AUTO_OPEN_ORDERS = 15
    ALL_OPEN_ORDERS = 16
    MANAGED_ACCOUNTS = 17
    HISTORICAL_DATA = 20
    CANCEL_HISTORICAL_DATA = 25
    CURRENT_TIME = 49
    REAL_TIME_BARS = 50
    CANCEL_REAL_TIME_BARS = 51
    GLOBAL_CANCEL = 58
    MARKET_DATA_TYPE = 59
    POSITIONS = 61
    ACCOUNT_SUMMARY = 62
    CANCEL_ACCOUNT_SUMMARY = 63
    CANCEL_POSITIONS = 64
    START_API = 71
    ACCOUNT_UPDATES_MULTI = 76
    CANCEL_ACCOUNT_UPDATES_MULTI = 77
    PNL = 92
    CANCEL_PNL = 93
    COMPLETED_ORDERS = 99


class BadRequest(ValueError):
    """A request whose fields the fake does not read; TWS answers 320."""


def frame(fields: tuple[str, ...]) -> bytes:
    """Return a message as it goes on the wire."""
    body = "".join(f"{text}\0" for text in fields).encode()
    return struct.pack(">I", len(body)) + body


class Inbox:
    """Cuts the bytes of one connection into messages: after the hello, frames of fields."""

    def __init__(self) -> None:
        self._bytes = b""
        self._greeted = False

    def feed(self, data: bytes) -> Iterator[list[str]]:
        """Yield every whole message; the first is the version range, as one field."""
        self._bytes += data
        if not self._greeted:
            if len(self._bytes) < len(HELLO):
                return
            if not self._bytes.startswith(HELLO):
                raise BadRequest(f"expected {HELLO!r}, found {self._bytes[:8]!r}")
            self._bytes, self._greeted = self._bytes[len(HELLO) :], True
        while len(self._bytes) >= 4:
            end = 4 + struct.unpack(">I", self._bytes[:4])[0]
            if len(self._bytes) < end:
                return
            text, self._bytes = self._bytes[4:end].decode(), self._bytes[end:]
            yield text.removesuffix("\0").split("\0")


def newest_version(hello: str) -> int:
    """Return the newest version a client speaks: 178 of ``v157..178``."""
    return int(hello.split()[0].removeprefix("v").split("..")[-1])


class Fields:
    """Reads a message's fields one after the other."""

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._at = 0

    def text(self) -> str:
        if self._at >= len(self._fields):
            raise BadRequest(f"only {len(self._fields)} fields in {self._fields[:4]}")
        self._at += 1
        return self._fields[self._at - 1]

    def whole(self) -> int:
        return int(self.text() or 0)

    def number(self) -> float | None:
        text = self.text()
        return float(text) if text else None

    def flag(self) -> bool:
        return self.text() == "1"

    def skip(self, count: int) -> None:
        for _ in range(count):
            self.text()


@dataclass(frozen=True, slots=True)
class Asked:
    """The contract of a request, as far as it was filled in."""

    con_id: int
    symbol: str
    kind: str  # secType
    exchange: str
    currency: str


def read_contract(fields: Fields) -> Asked:
    con_id, symbol, kind = fields.whole(), fields.text(), fields.text()
    fields.skip(4)  # lastTradeDateOrContractMonth, strike, right, multiplier
    exchange, _, currency = fields.text(), fields.text(), fields.text()
    fields.skip(2)  # localSymbol, tradingClass
    return Asked(con_id, symbol, kind, exchange, currency)


def read_order(fields: Fields, version: int) -> tuple[Asked, Ticket]:
    """Read placeOrder after its kind; combinations and algorithms are not spoken here."""
    order_id = fields.whole()
    contract = read_contract(fields)
    fields.skip(2)  # secIdType, secId
    action, quantity, order_type = fields.text(), fields.number(), fields.text()
    limit_price, stop_price, tif = fields.number(), fields.number(), fields.text()
    oca_group, account = fields.text(), fields.text()
    fields.skip(2)  # openClose, origin
    order_ref, transmit, parent_id = fields.text(), fields.flag(), fields.whole()
    fields.skip(4)  # blockOrder, sweepToFill, displaySize, triggerMethod
    outside_rth = fields.flag()
    fields.skip(1)  # hidden
    if contract.kind == "BAG":
        raise BadRequest("combinations are not modelled")
    # "", discretionaryAmt, goodAfterTime, goodTillDate, faGroup, faMethod, faPercentage
    fields.skip(7 + (version < 177))  # and faProfile, before 177
    fields.skip(4)  # modelCode, shortSaleSlot, designatedLocation, exemptCode
    oca_type = fields.whole()
    what_if = _read_what_if(fields)
    ticket = Ticket(
        order_id=order_id,
        symbol=contract.symbol,
        action=action,
        quantity=quantity or 0.0,
        order_type=order_type,
        limit_price=limit_price,
        stop_price=stop_price,
        tif=tif or "DAY",
        account=account,
        order_ref=order_ref,
        parent_id=parent_id,
        oca_group=oca_group,
        oca_type=oca_type,
        transmit=transmit,
        outside_rth=outside_rth,
        what_if=what_if,
    )
    return contract, ticket


def _read_what_if(fields: Fields) -> bool:
    # rule80A, settlingFirm, allOrNone, minQty, percentOffset, eTradeOnly, firmQuoteOnly,
    # nbboPriceCap, auctionStrategy, startingPrice, stockRefPrice, delta, stockRangeLower,
    # stockRangeUpper, overridePercentageConstraints, volatility, volatilityType
    fields.skip(17)
    if fields.text():  # deltaNeutralOrderType
        raise BadRequest("delta-neutral orders are not modelled")
    fields.skip(1)  # deltaNeutralAuxPrice
    # continuousUpdate, referencePriceType, trailStopPrice, trailingPercent, scaleInitLevelSize,
    # scaleSubsLevelSize
    fields.skip(6)
    if (fields.number() or 0.0) > 0:  # scalePriceIncrement
        raise BadRequest("scale orders are not modelled")
    fields.skip(3)  # scaleTable, activeStartTime, activeStopTime
    if fields.text():  # hedgeType
        raise BadRequest("hedges are not modelled")
    fields.skip(4)  # optOutSmartRouting, clearingAccount, clearingIntent, notHeld
    if fields.flag():  # a delta-neutral contract follows
        raise BadRequest("delta-neutral contracts are not modelled")
    if fields.text():  # algoStrategy
        raise BadRequest("algorithms are not modelled")
    fields.skip(1)  # algoId
    return fields.flag()
