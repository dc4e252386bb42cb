from datetime import UTC, datetime

import ib_async
from ib_async import IB, CommissionReport, Contract, Execution, Order, OrderState, Stock

from serving.brokers.ibkr.forgetting import forget

STOCK: Contract = Stock("X", "SMART", "USD")
CLIENT = 7


def ordered(ib: IB, number: int, status: str) -> None:
    """Let the real client hear of an order, through the methods its decoder calls."""
    order = Order(orderId=number, clientId=CLIENT, permId=1000 + number, totalQuantity=1.0)
    ib.wrapper.openOrder(number, STOCK, order, OrderState(status="Submitted"))
    ib.wrapper.orderStatus(number, status, 1.0, 0.0, 9.0, 1000 + number, 0, 9.0, CLIENT, "")


def executed(ib: IB, number: int) -> None:
    one = Execution(
        execId=f"{number}.01", orderId=number, clientId=CLIENT, permId=1000 + number, shares=1.0
    )
    ib.wrapper.execDetails(-1, STOCK, one)
    ib.wrapper.commissionReport(CommissionReport(execId=f"{number}.01", commission=1.0))


def client() -> IB:
    ib = IB()
    ib.wrapper.clientId, ib.wrapper.lastTime = CLIENT, datetime(2026, 1, 5, tzinfo=UTC)
    return ib


def numbers(ib: IB) -> set[int]:
    by_key = {trade.order.orderId for trade in ib.wrapper.trades.values()}
    assert {trade.order.orderId for trade in ib.wrapper.permId2Trade.values()} == by_key
    return by_key


def test_of_five_hundred_orders_that_are_over_the_client_keeps_the_newest_ten():
    ib = client()
    ordered(ib, 1, "Submitted")  # just sent: in no answer yet
    ordered(ib, 2, "Cancelled")  # but IBKR calls it open
    for number in range(3, 503):
        ordered(ib, number, "Filled")
        executed(ib, number)
        forget(ib, working={1002}, told={"3.01"}, kept=10)
    assert numbers(ib) == {1, 2, *range(493, 503)}
    assert set(ib.wrapper.fills) == {"3.01", *(f"{number}.01" for number in range(493, 503))}


def test_a_late_word_on_a_forgotten_order_is_no_error_and_on_a_kept_one_an_event():
    ib = client()
    heard: list[str] = []
    ib.execDetailsEvent += lambda trade, fill: heard.append(fill.execution.execId)
    for number in (1, 2):
        ordered(ib, number, "Filled")
    forget(ib, working=(), told=(), kept=1)
    ib.wrapper.orderStatus(1, "Filled", 1.0, 0.0, 9.0, 1001, 0, 9.0, CLIENT, "")
    executed(ib, 1)
    executed(ib, 2)
    assert heard == ["2.01"]
    assert "1.01" in ib.wrapper.fills  # told with the next answer


def test_the_client_is_the_one_whose_private_state_was_looked_at():
    assert ib_async.__version__ == "2.1.0"
