"""The fake TWS against the real ``ib_async`` client: what users of that library see, told by it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fake_tws import (
    Bar,
    Exchange,
    FakeTws,
    Once,
    Point,
    Reply,
    Request,
    Stock,
    Ticket,
    in_thread,
    running,
)
from ib_async import IB, LimitOrder, MarketOrder, StopOrder, Trade
from ib_async import Stock as Wanted

NEW_YORK = ZoneInfo("America/New_York")
MONDAY = datetime(2026, 3, 2, 10, 0, tzinfo=NEW_YORK)
AAPL = Wanted("AAPL", "SMART", "USD", conId=265598)
PATIENCE_SECONDS = 10.0  # only ever spent by a test that fails


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.at = MONDAY

    def __call__(self) -> datetime:
        return self.at


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own; nothing in it may wait for ever."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 2 * PATIENCE_SECONDS))

    return run


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[FakeTws]:
    stocks = (Stock(265598, "AAPL", name="APPLE INC"), Stock(272093, "MSFT"))
    async with running(FakeTws(Exchange(Clock(), stocks), **settings)) as tws:
        yield tws


async def connect(tws: FakeTws, client_id: int = 1, timeout: float = 5.0) -> IB:
    ib = IB()
    ib.RaiseRequestErrors = True
    await ib.connectAsync(
        "127.0.0.1", tws.port, clientId=client_id, timeout=timeout, raiseSyncErrors=True
    )
    return ib


@asynccontextmanager
async def connected(client_id: int = 1, **settings: Any) -> AsyncIterator[tuple[FakeTws, IB]]:
    async with gateway(**settings) as tws:
        ib = await connect(tws, client_id)
        try:
            yield tws, ib
        finally:
            ib.disconnect()


async def until(ib: IB, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, looking after every packet and at a lost link."""
    held = asyncio.get_running_loop().create_future()

    def look(*_: object) -> None:
        if not held.done() and condition():
            held.set_result(None)

    events = (ib.updateEvent, ib.disconnectedEvent)
    for event in events:
        event += look
    look()
    try:
        await soon(held)
    finally:
        for event in events:
            event -= look


async def soon(awaited: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaited, PATIENCE_SECONDS)


def errors(ib: IB) -> list[int]:
    """Return a list that collects the codes of the errors to come."""
    codes: list[int] = []
    ib.errorEvent += lambda request_id, code, text, contract: codes.append(code)
    return codes


def statuses(trade: Trade) -> list[str]:
    return [entry.status for entry in trade.log]


async def submitted(ib: IB, order: Any) -> Trade:
    trade = ib.placeOrder(AAPL, order)
    await until(ib, lambda: trade.orderStatus.status in ("Submitted", "PreSubmitted"))
    return trade


def bar(start: datetime, close: float) -> Bar:
    return Bar(start, 100.0, 102.0, 99.0, close, 1000.0, 100.5, 7)


# -- connection, contracts, data


@pytest.mark.parametrize("version", [176, 177, 178])
@in_loop
async def test_a_client_connects_synchronizes_and_reads_the_time(version: int) -> None:
    async with connected(version=version) as (_tws, ib):
        assert ib.client.serverVersion() == version
        assert ib.managedAccounts() == ["DU1234567"]
        assert ib.client.getReqId() >= 1
        assert await soon(ib.reqCurrentTimeAsync()) == MONDAY.astimezone(UTC)
        values = {at.tag: at.value for at in ib.accountValues("DU1234567")}
        assert values["NetLiquidation"] == "100000.00"
        summary = await soon(ib.accountSummaryAsync())
        assert {at.tag: at.value for at in summary}["TotalCashValue"] == "100000.00"


@in_loop
async def test_a_contract_is_qualified_and_an_unknown_one_is_not() -> None:
    async with connected() as (_tws, ib):
        (stock,) = await soon(ib.qualifyContractsAsync(Wanted("AAPL", "SMART", "USD")))
        assert (stock.conId, stock.primaryExchange) == (265598, "NASDAQ")
        (details,) = await soon(ib.reqContractDetailsAsync(AAPL))
        assert (details.longName, details.minTick) == ("APPLE INC", 0.01)
        with pytest.raises(Exception, match="200: No security definition"):
            await soon(ib.reqContractDetailsAsync(Wanted("NOPE", "SMART", "USD")))


@in_loop
async def test_daily_history_is_cut_to_the_days_asked_for() -> None:
    days = [bar(datetime(2026, 2, day, tzinfo=NEW_YORK), float(day)) for day in (25, 26, 27)]
    async with connected(history={("AAPL", "1 day"): days}) as (_tws, ib):
        request = ib.reqHistoricalDataAsync(AAPL, "", "2 D", "1 day", "TRADES", True)
        bars = await soon(request)
        assert [(str(at.date), at.close) for at in bars] == [
            ("2026-02-26", 26.0),
            ("2026-02-27", 27.0),
        ]
        assert (bars[0].open, bars[0].volume, bars[0].average, bars[0].barCount) == (
            *(100.0, 1000.0, 100.5),
            7,
        )


@in_loop
async def test_a_history_kept_up_to_date_renews_its_last_bar_and_grows() -> None:
    opened = MONDAY - timedelta(minutes=1)
    async with connected(history={("AAPL", "1 min"): [bar(opened, 100.0)]}) as (tws, ib):
        bars = await soon(
            ib.reqHistoricalDataAsync(
                AAPL, "", "1 D", "1 min", "TRADES", True, 2, keepUpToDate=True
            )
        )
        assert [(at.date, at.close) for at in bars] == [(opened, 100.0)]
        tws.update_history("AAPL", "1 min", bar(opened, 101.0))
        await until(ib, lambda: bars[-1].close == 101.0)
        assert len(bars) == 1
        tws.update_history("AAPL", "1 min", bar(MONDAY, 102.0))
        await until(ib, lambda: len(bars) == 2)
        assert (bars[-1].date, bars[-1].close) == (MONDAY, 102.0)


@in_loop
async def test_five_second_bars_and_ticks_arrive_until_they_are_cancelled() -> None:
    async with connected() as (tws, ib):
        bars = ib.reqRealTimeBars(AAPL, 5, "TRADES", True)
        ticker = ib.reqMktData(AAPL)
        await soon(tws.received(Request.MARKET_DATA))
        tws.bar("AAPL", bar(MONDAY, 101.0))
        tws.tick("AAPL", 1, 100.9, 300)
        tws.tick("AAPL", 2, 101.1, 200)
        await until(ib, lambda: ticker.askSize == 200)
        assert (bars[0].time, bars[0].close) == (MONDAY, 101.0)
        assert (ticker.bid, ticker.bidSize, ticker.ask) == (100.9, 300, 101.1)
        ib.cancelMktData(AAPL)
        ib.cancelRealTimeBars(bars)
        await soon(tws.received(Request.CANCEL_REAL_TIME_BARS))
        assert not tws.connections[0].tickers
        assert not tws.connections[0].real_time


# -- orders


@in_loop
async def test_a_market_order_is_acknowledged_fills_in_parts_and_is_charged() -> None:
    async with connected() as (tws, ib):
        trade = ib.placeOrder(AAPL, MarketOrder("BUY", 300, orderRef="a-1"))
        assert (trade.orderStatus.status, trade.order.permId) == ("PendingSubmit", 0)
        await until(ib, lambda: trade.orderStatus.status == "Submitted")
        assert trade.order.permId == 1_800_000_001

        tws.trade("AAPL", 100.0, 100)
        await until(ib, lambda: trade.orderStatus.filled == 100)
        assert (trade.orderStatus.status, trade.orderStatus.remaining) == ("Submitted", 200)
        tws.trade("AAPL", 103.0)
        await until(ib, lambda: bool(ib.positions()) and ib.positions()[0].position == 300)

        assert trade.orderStatus.status == "Filled"
        assert trade.orderStatus.avgFillPrice == pytest.approx(102.0)  # (100·100 + 200·103) / 300
        assert [fill.execution.shares for fill in trade.fills] == [100, 200]
        assert [fill.execution.execId[-3:] for fill in trade.fills] == [".01", ".01"]
        assert {fill.execution.orderRef for fill in trade.fills} == {"a-1"}
        # 0.005 · 100 is under the dollar an order costs at least; 300 shares cost 1.50 in all
        assert [fill.commissionReport.commission for fill in trade.fills] == [1.0, 0.5]
        # (100·100 + 1) and (200·103 + 0.50) over 300 shares
        assert ib.positions()[0].avgCost == pytest.approx(30601.5 / 300)


@in_loop
async def test_a_sale_reports_the_profit_after_both_commissions() -> None:
    async with connected() as (tws, ib):
        await submitted(ib, MarketOrder("BUY", 100))
        tws.trade("AAPL", 100.0)
        sale = await submitted(ib, MarketOrder("SELL", 100))
        tws.trade("AAPL", 110.0)
        await until(ib, lambda: bool(sale.fills) and sale.fills[0].commissionReport.commission > 0)
        assert sale.fills[0].commissionReport.realizedPNL == pytest.approx(998.0)  # 1000 - 1 - 1
        await until(ib, lambda: not ib.positions())
        assert tws.exchange.cash_of("DU1234567") == pytest.approx(100_998.0)


@in_loop
async def test_limits_and_stops_wait_for_their_price() -> None:
    async with connected() as (tws, ib):
        limit = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        stop = await submitted(ib, StopOrder("SELL", 10, 95.0, tif="GTC"))
        assert stop.orderStatus.status == "PreSubmitted"
        tws.trade("AAPL", 99.5)
        tws.trade("AAPL", 98.5)
        await until(ib, limit.isDone)
        assert limit.orderStatus.avgFillPrice == 98.5
        assert not stop.isDone()
        tws.trade("AAPL", 94.0)
        await until(ib, stop.isDone)
        assert stop.orderStatus.avgFillPrice == 94.0


@in_loop
async def test_an_order_for_the_open_fills_in_the_auction_alone() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, MarketOrder("BUY", 10, tif="OPG"))
        tws.trade("AAPL", 90.0)
        tws.auction("AAPL", 101.0)
        await until(ib, trade.isDone)
        assert trade.orderStatus.avgFillPrice == 101.0


@in_loop
async def test_day_orders_end_with_the_session_and_standing_ones_do_not() -> None:
    async with connected() as (tws, ib):
        day = await submitted(ib, LimitOrder("BUY", 10, 50.0))
        standing = await submitted(ib, LimitOrder("BUY", 10, 50.0, tif="GTC"))
        tws.end_session()
        await until(ib, day.isDone)
        assert (day.orderStatus.status, standing.isDone()) == ("Cancelled", False)


@in_loop
async def test_a_bracket_is_sent_whole_and_one_exit_cancels_the_other() -> None:
    async with connected() as (tws, ib):
        bracket = ib.bracketOrder("BUY", 100, 100.0, 110.0, 90.0)
        entry, target, stop = (ib.placeOrder(AAPL, order) for order in bracket)
        await until(ib, lambda: stop.orderStatus.status == "PreSubmitted")
        assert entry.orderStatus.status == "Submitted"
        tws.trade("AAPL", 111.0)  # beyond the target, but the entry has not filled
        assert not tws.exchange.executions
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: target.orderStatus.status == "Submitted")
        tws.trade("AAPL", 110.0, 40)
        await until(ib, lambda: stop.order.totalQuantity == 60)
        tws.trade("AAPL", 110.0)
        await until(ib, stop.isDone)
        assert [at.orderStatus.status for at in (entry, target, stop)] == [
            *("Filled", "Filled"),
            "Cancelled",
        ]
        await until(ib, lambda: not ib.positions())


@in_loop
async def test_an_order_of_a_group_cancels_the_others() -> None:
    async with connected() as (tws, ib):
        low = await submitted(ib, LimitOrder("BUY", 10, 99.0, ocaGroup="g", ocaType=1))
        lower = await submitted(ib, LimitOrder("BUY", 10, 98.0, ocaGroup="g", ocaType=1))
        tws.trade("AAPL", 99.0, 1)
        await until(ib, lower.isDone)
        assert (low.orderStatus.filled, lower.orderStatus.status) == (1, "Cancelled")


@in_loop
async def test_a_cancelled_order_says_202_and_cannot_be_cancelled_again() -> None:
    async with connected() as (_tws, ib):
        codes = errors(ib)
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        ib.cancelOrder(trade.order)
        await until(ib, lambda: 202 in codes)
        assert trade.orderStatus.status == "Cancelled"
        ib.client.cancelOrder(trade.order.orderId)
        await until(ib, lambda: 10148 in codes)
        ib.client.cancelOrder(999)
        await until(ib, lambda: 10147 in codes)


@in_loop
async def test_an_open_order_is_modified_and_a_used_id_refused() -> None:
    async with connected() as (tws, ib):
        codes = errors(ib)
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        trade.order.lmtPrice = 101.0
        ib.placeOrder(AAPL, trade.order)
        await until(ib, lambda: tws.count(Request.PLACE_ORDER) == 2)
        tws.trade("AAPL", 101.0)
        await until(ib, trade.isDone)
        assert len(tws.exchange.orders) == 1
        ib.client.placeOrder(trade.order.orderId, AAPL, MarketOrder("BUY", 1))
        await until(ib, lambda: 104 in codes)


@in_loop
async def test_a_what_if_places_nothing() -> None:
    async with connected() as (tws, ib):
        tws.trade("AAPL", 100.0)
        state = await soon(ib.whatIfOrderAsync(AAPL, MarketOrder("BUY", 100)))
        assert float(state.initMarginChange) == 2500.0  # a quarter of 100 · 100
        assert not tws.exchange.orders


# -- reconnecting, and other clients


@in_loop
async def test_a_reconnect_replays_orders_executions_and_positions_in_new_objects() -> None:
    async with connected() as (tws, ib):
        old = await submitted(ib, MarketOrder("BUY", 100, orderRef="done"))
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: bool(ib.positions()))
        left = await submitted(ib, LimitOrder("SELL", 50, 120.0, tif="GTC", orderRef="open"))
        ib.disconnect()
        assert ib.trades() == []
        charged: list[float] = []
        ib.commissionReportEvent += lambda trade, fill, report: charged.append(report.commission)

        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)

        done, resting = sorted(ib.trades(), key=lambda trade: trade.order.permId)
        assert done is not old
        assert (done.order.orderRef, done.orderStatus.status) == ("done", "Filled")
        assert (done.order.orderId, done.order.totalQuantity) == (0, 0)
        assert done.order.filledQuantity == 100
        assert done.order.permId == old.order.permId
        assert (resting.order.orderRef, resting.order.totalQuantity) == ("open", 50)
        assert (resting.order.orderId, resting.order.clientId) == (left.order.orderId, 1)
        (fill,) = ib.fills()
        assert fill.execution.permId == old.order.permId
        assert (fill.execution.time, fill.commissionReport.commission) == (MONDAY, 1.0)
        assert charged == [1.0]
        assert [at.position for at in ib.positions()] == [100]
        assert ib.client.getReqId() > resting.order.orderId


@in_loop
async def test_yesterday_is_forgotten_but_for_positions_and_open_orders() -> None:
    async with connected() as (tws, ib):
        await submitted(ib, MarketOrder("BUY", 100))
        tws.trade("AAPL", 100.0)
        await submitted(ib, LimitOrder("SELL", 50, 120.0, tif="GTC"))
        clock = tws.exchange.now
        assert isinstance(clock, Clock)
        clock.at = MONDAY + timedelta(days=1)
        ib.disconnect()
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert ib.fills() == []
        assert [trade.orderStatus.status for trade in ib.trades()] == ["Submitted"]
        assert [at.position for at in ib.positions()] == [100]


@in_loop
async def test_two_clients_see_each_others_orders_only_on_request() -> None:
    async with connected(1) as (tws, ib):
        other = await connect(tws, 2)
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        assert await soon(other.reqOpenOrdersAsync()) == []
        (seen,) = await soon(other.reqAllOpenOrdersAsync())
        assert (seen.order.clientId, seen.order.permId) == (1, trade.order.permId)
        codes = errors(other)
        other.client.cancelOrder(seen.order.orderId)
        await until(other, lambda: 10147 in codes)
        tws.trade("AAPL", 99.0)
        await until(other, lambda: bool(other.positions()))  # both see positions
        assert other.fills() == []  # the execution is told to the one that placed it
        (fill,) = await soon(other.reqExecutionsAsync())
        assert (fill.execution.clientId, fill.execution.shares) == (1, 10)
        await submitted(ib, LimitOrder("BUY", 10, 99.0))
        other.reqGlobalCancel()
        await until(ib, lambda: not ib.openTrades())
        other.disconnect()


@in_loop
async def test_an_order_typed_into_tws_is_told_to_client_0_and_listed_for_all() -> None:
    async with connected(0) as (tws, ib):
        other = await connect(tws, 5)
        typed = tws.type_order(Ticket(0, "MSFT", "BUY", 7, "LMT", 300.0))
        await until(ib, lambda: len(ib.openTrades()) == 1)
        assert ib.openTrades()[0].order.permId == typed.perm_id
        (seen,) = await soon(other.reqAllOpenOrdersAsync())
        assert (seen.order.orderId, seen.order.permId) == (0, typed.perm_id)
        tws.cancel_by_hand(typed.perm_id)
        await until(ib, lambda: not ib.openTrades())
        other.disconnect()


@in_loop
async def test_the_master_client_hears_of_every_order() -> None:
    async with connected(1, master_client=9) as (tws, ib):
        master = await connect(tws, 9)
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 99.0)
        await until(master, lambda: bool(master.fills()))
        assert master.fills()[0].execution.permId == trade.order.permId
        master.disconnect()


# -- faults


@in_loop
async def test_a_port_that_refuses_or_hangs_fails_the_connection() -> None:
    async with gateway() as tws:
        tws.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            await connect(tws)
        await tws.listen()
        tws.faults.hang_handshake = True
        with pytest.raises(TimeoutError):
            await connect(tws, timeout=0.1)
        tws.faults.hang_handshake = False
        ib = await connect(tws)
        ib.disconnect()


@in_loop
async def test_a_client_id_in_use_is_refused_with_326() -> None:
    async with connected(1) as (tws, ib):
        second, codes = IB(), []
        second.errorEvent += lambda request_id, code, text, contract: codes.append(code)
        with pytest.raises(TimeoutError):
            await second.connectAsync("127.0.0.1", tws.port, clientId=1, timeout=0.1)
        assert codes == [326]
        assert ib.isConnected()


@in_loop
async def test_a_start_up_sync_without_an_answer_raises() -> None:
    async with gateway() as tws:
        tws.faults.unanswered.add(Request.COMPLETED_ORDERS)
        with pytest.raises(ConnectionError, match="completed orders request timed out"):
            await connect(tws, timeout=0.2)


@in_loop
async def test_a_frozen_gateway_looks_connected_and_goes_on_when_it_thaws() -> None:
    async with connected() as (tws, ib):
        tws.freeze()
        asked = asyncio.ensure_future(ib.reqCurrentTimeAsync())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.05)
        assert ib.isConnected()
        tws.thaw()
        assert await soon(asked) == MONDAY.astimezone(UTC)


@in_loop
async def test_an_idle_drop_fires_the_event_and_freezes_old_trades() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        tws.drop()
        await until(ib, lambda: not ib.isConnected())
        tws.trade("AAPL", 99.0)
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert trade.orderStatus.status == "Submitted"  # nobody told it
        assert [at.orderStatus.status for at in ib.trades()] == ["Filled"]


@pytest.mark.parametrize(
    ("point", "known"),
    [(Point.ORDER_ARRIVED, 0), (Point.ORDER_ACCEPTED, 1), (Point.ORDER_ACKNOWLEDGED, 1)],
)
@in_loop
async def test_a_drop_around_an_order_tells_what_the_broker_has_on_return(
    point: Point, known: int
) -> None:
    async with connected() as (tws, ib):
        tws.faults.drop_at(point)
        trade = ib.placeOrder(AAPL, LimitOrder("BUY", 10, 99.0, orderRef="once"))
        await until(ib, lambda: not ib.isConnected())
        heard = point is Point.ORDER_ACKNOWLEDGED
        assert trade.orderStatus.status == ("Submitted" if heard else "PendingSubmit")
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert [at.order.orderRef for at in ib.openTrades()] == ["once"] * known


@in_loop
async def test_a_drop_between_acknowledgement_and_fill_hides_the_fill_until_return() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.faults.drop_at(Point.BEFORE_FILL)
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: not ib.isConnected())
        assert trade.fills == []
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert [fill.execution.shares for fill in ib.fills()] == [10]


@pytest.mark.parametrize(
    ("point", "status"),
    [(Point.CANCEL_ARRIVED, "Submitted"), (Point.CANCEL_ACCEPTED, "Cancelled")],
)
@in_loop
async def test_a_drop_around_a_cancel_leaves_its_fate_open(point: Point, status: str) -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        tws.faults.drop_at(point)
        ib.cancelOrder(trade.order)
        await until(ib, lambda: not ib.isConnected())
        assert trade.orderStatus.status == "PendingCancel"
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert [at.orderStatus.status for at in ib.trades()] == [status]


@in_loop
async def test_1100_keeps_the_socket_1102_the_data_and_1101_loses_it() -> None:
    async with connected() as (tws, ib):
        codes = errors(ib)
        bars = ib.reqRealTimeBars(AAPL, 5, "TRADES", True)
        await soon(tws.received(Request.REAL_TIME_BARS))
        for code in (1100, 2110, 1102):
            tws.announce(code)
        tws.bar("AAPL", bar(MONDAY, 101.0))
        await until(ib, lambda: len(bars) == 1)
        tws.announce(1101)
        tws.bar("AAPL", bar(MONDAY + timedelta(seconds=5), 102.0))
        tws.announce(2104)
        await until(ib, lambda: codes[-1:] == [2104])
        assert codes == [1100, 2110, 1102, 1101, 2104]
        assert (len(bars), ib.isConnected()) == (1, True)
        await soon(tws.received(Request.ACCOUNT_SUMMARY))  # what ib_async asks after a 1102


@in_loop
async def test_1300_says_so_and_drops() -> None:
    async with connected() as (tws, ib):
        codes = errors(ib)
        tws.announce(1300)
        await until(ib, lambda: not ib.isConnected())
        assert codes == [1300]


@in_loop
async def test_the_daily_restart_refuses_then_returns_on_the_same_port() -> None:
    async with connected() as (tws, ib):
        await submitted(ib, LimitOrder("BUY", 10, 99.0, tif="GTC"))
        tws.stop()
        await until(ib, lambda: not ib.isConnected())
        with pytest.raises(ConnectionRefusedError):
            await connect(tws)
        await tws.listen()
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        assert len(ib.openTrades()) == 1


@in_loop
async def test_a_rejection_goes_cancelled_then_inactive() -> None:
    async with connected() as (tws, ib):
        codes = errors(ib)
        tws.faults.once(Once.REJECT)
        trade = ib.placeOrder(AAPL, MarketOrder("BUY", 10))
        await until(ib, lambda: trade.orderStatus.status == "Inactive")
        assert codes == [201]
        assert statuses(trade) == ["PendingSubmit", "Cancelled", "Inactive"]


@in_loop
async def test_321_leaves_a_dead_order_that_looks_active() -> None:
    async with connected() as (tws, ib):
        tws.faults.once(Once.INVALID)
        trade = ib.placeOrder(AAPL, MarketOrder("BUY", 10))
        await until(ib, lambda: trade.orderStatus.status == "ValidationError")
        assert trade.isActive()
        assert tws.exchange.open_orders() == []


@in_loop
async def test_10349_calls_a_live_order_cancelled_which_then_fills() -> None:
    async with connected() as (tws, ib):
        tws.faults.once(Once.PRESET)
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: trade.orderStatus.status == "Filled")
        assert statuses(trade)[:3] == ["PendingSubmit", "Cancelled", "Submitted"]


@in_loop
async def test_a_warning_after_a_fill_reopens_the_trade() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        await until(ib, trade.isDone)
        tws.warn(1, trade.order.orderId, 399, "Order Message: late")
        await until(ib, trade.isActive)
        assert trade.filled() == 10  # and yet nothing is left of it


@in_loop
async def test_a_stuck_order_is_at_the_broker_and_says_nothing() -> None:
    async with connected() as (tws, ib):
        tws.faults.once(Once.STUCK)
        trade = ib.placeOrder(AAPL, LimitOrder("BUY", 10, 99.0))
        await soon(tws.received(Request.PLACE_ORDER))
        await soon(ib.reqCurrentTimeAsync())
        assert trade.orderStatus.status == "PendingSubmit"
        (found,) = await soon(ib.reqOpenOrdersAsync())
        assert found.order.permId == 1_800_000_001


@in_loop
async def test_an_order_has_no_perm_id_until_it_is_acknowledged() -> None:
    async with connected() as (tws, ib):
        tws.faults.once(Once.NO_PERM_ID)
        trade = ib.placeOrder(AAPL, LimitOrder("BUY", 10, 99.0))
        seen: list[tuple[str, int]] = []
        trade.statusEvent += lambda at: seen.append((at.orderStatus.status, at.orderStatus.permId))
        await until(ib, lambda: trade.orderStatus.status == "Submitted")
        assert seen == [("ApiPending", 0), ("Submitted", 1_800_000_001)]


@in_loop
async def test_an_ignored_cancel_stays_pending() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        tws.faults.once(Once.IGNORE_CANCEL)
        ib.cancelOrder(trade.order)
        await soon(ib.reqCurrentTimeAsync())
        assert trade.orderStatus.status == "PendingCancel"
        ib.cancelOrder(trade.order)
        await until(ib, trade.isDone)


@in_loop
async def test_a_fill_crosses_the_cancel_and_wins() -> None:
    async with connected() as (tws, ib):
        codes = errors(ib)
        trade = await submitted(ib, LimitOrder("BUY", 10, 99.0))
        tws.faults.once(Once.FILL_ON_CANCEL)
        ib.cancelOrder(trade.order)
        await until(ib, lambda: 10148 in codes)
        assert (trade.orderStatus.status, trade.filled()) == ("Filled", 10)


@in_loop
async def test_a_correction_is_counted_as_a_second_fill() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: len(trade.fills) == 1)
        tws.correct(trade.fills[0].execution.execId, price=100.5, shares=8)
        await until(ib, lambda: len(trade.fills) == 2)
        first, second = (fill.execution.execId for fill in trade.fills)
        assert (first[:-2], first[-2:], second[-2:]) == (second[:-2], "01", "02")
        assert trade.filled() == 18  # the broker says 8
        await until(ib, lambda: ib.positions()[0].position == 8)
        assert ib.positions()[0].avgCost == pytest.approx(805.0 / 8)  # 8 · 100.5 and 1 of fees


@in_loop
async def test_duplicated_executions_reach_the_client_once() -> None:
    async with connected() as (tws, ib):
        tws.faults.doubled.update({Reply.EXECUTION, Reply.ORDER_STATUS})
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        await until(ib, trade.isDone)
        assert (trade.filled(), ib.client.connectionStats().numMsgRecv > 0) == (10, True)


@in_loop
async def test_held_messages_arrive_late_and_in_reverse() -> None:
    async with connected() as (tws, ib):
        trade = await submitted(ib, MarketOrder("BUY", 30))
        tws.faults.held.add(Reply.EXECUTION)
        tws.trade("AAPL", 100.0, 10)
        tws.trade("AAPL", 101.0)
        await until(ib, trade.isDone)
        assert trade.fills == []  # called filled before any execution
        tws.release(newest_first=True)
        await until(ib, lambda: len(trade.fills) == 2)
        assert [fill.execution.cumQty for fill in trade.fills] == [30, 10]


@in_loop
async def test_history_asked_too_often_is_a_pacing_violation() -> None:
    days = [bar(datetime(2026, 2, 27, tzinfo=NEW_YORK), 27.0)]
    async with connected(history={("AAPL", "1 day"): days}) as (tws, ib):

        async def ask() -> int:
            request = ib.reqHistoricalDataAsync(AAPL, "", "1 D", "1 day", "TRADES", True)
            return len(await soon(request))

        tws.faults.once(Once.PACING)
        with pytest.raises(Exception, match=r"162: .*pacing violation"):
            await ask()
        clock = tws.exchange.now
        assert isinstance(clock, Clock)
        tws.faults.enforce_pacing = True
        with pytest.raises(Exception, match=r"162: .*pacing violation"):
            await ask()  # the same within 15 s
        clock.at += timedelta(seconds=15)
        assert await ask() == 1


@in_loop
async def test_an_order_id_is_given_out_again_after_a_reset() -> None:
    async with connected() as (tws, ib):
        first = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        ib.disconnect()
        tws.exchange.forget_order_ids()
        await ib.connectAsync("127.0.0.1", tws.port, clientId=1, raiseSyncErrors=True)
        tws.trade("AAPL", 100.0)
        again = MarketOrder("BUY", 5, orderId=first.order.orderId)
        second = await submitted(ib, again)
        assert second.order.orderId == first.order.orderId
        assert second.order.permId != first.order.permId


@in_loop
async def test_a_split_changes_shares_and_not_equity() -> None:
    async with connected() as (tws, ib):
        await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        equity = tws.exchange.equity_of("DU1234567")
        tws.split("AAPL", 4.0)
        await until(ib, lambda: bool(ib.positions()) and ib.positions()[0].position == 40)
        assert tws.exchange.equity_of("DU1234567") == pytest.approx(equity)


@in_loop
async def test_a_correction_leaves_shares_alone_that_no_order_brought() -> None:
    async with connected() as (tws, ib):
        tws.give("AAPL", 5, 50.0)
        await until(ib, lambda: bool(ib.positions()))
        trade = await submitted(ib, MarketOrder("BUY", 10))
        tws.trade("AAPL", 100.0)
        await until(ib, lambda: len(trade.fills) == 1)
        exec_id = trade.fills[0].execution.execId
        tws.correct(exec_id, shares=9)
        await until(ib, lambda: ib.positions()[0].position == 14)
        tws.split("AAPL", 2.0)
        with pytest.raises(ValueError, match="is from before a split"):
            tws.correct(exec_id, shares=8)


@in_loop
async def test_a_request_that_is_not_spoken_is_answered_320() -> None:
    async with connected() as (_tws, ib):
        codes = errors(ib)
        ib.client.reqNewsProviders()
        await until(ib, lambda: bool(codes))
        assert codes == [320]


def test_it_serves_from_a_thread_beside_processes_under_test() -> None:
    with in_thread(FakeTws(Exchange(Clock()))) as remote:

        async def buy() -> Trade:
            ib = await connect(remote.tws)
            trade = ib.placeOrder(AAPL, MarketOrder("BUY", 10))
            await asyncio.to_thread(remote.received, Request.PLACE_ORDER)
            remote.do(lambda tws: tws.trade("AAPL", 100.0))
            await until(ib, trade.isDone)
            ib.disconnect()
            return trade

        assert asyncio.run(soon(buy())).filled() == 10
