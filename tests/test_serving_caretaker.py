"""The caretaker: orders of a gateway that is gone, and a broker that does not do as it is told."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fake_tws.faults import Once
from ibkr_kit import FAST, SYMBOL, Trading, WatchedExchange, events, market
from serving_kit import params

from serving.brokers.ibkr import Access, IbkrBroker
from serving.caretaker import Caretaker
from serving.ledger import Ledger, LedgerReader, rows
from serving.switch import Press

PATIENCE_SECONDS = 60.0  # only ever spent by a run that fails
PRESS = Press(datetime(2026, 1, 5, tzinfo=UTC).isoformat(), "A. Turing", "drill", "flatten")


def held(exchange: WatchedExchange) -> float:
    return sum(one.shares for one in exchange.positions.values())


def test_shares_of_a_fill_that_crosses_the_cancel_are_sold_after_it(tmp_path: Path) -> None:
    settings = params(agents={"scripted": {"symbol": SYMBOL}})
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)
        trading.close_bar()  # the script buys: an order waits for the open
        trading.close()
        (entry,) = [one for one in found.exchange.orders.values() if not one.done]
        assert held(found.exchange) == 0.0
        found.remote.do(lambda tws: tws.trade(SYMBOL, 100.0))  # a price to fill at; no auction yet
        found.remote.do(lambda tws: tws.faults.once(Once.FILL_ON_CANCEL))
        with Ledger(tmp_path / "ledger.db") as ledger:
            broker = IbkrBroker(
                Access(port=found.remote.port, client_id=7), replace(FAST, patience=5.0)
            )
            keeper = Caretaker(ledger, broker, settings, PRESS, lambda: None)
            said = keeper.run("it hung", PATIENCE_SECONDS)
        assert said == "scripted: flatten"
        bought = held(found.exchange)
        assert bought == entry.ticket.quantity  # the cancel came too late
        (sale,) = [one for one in found.exchange.orders.values() if not one.done]
        assert (sale.ticket.action, sale.ticket.quantity) == ("SELL", bought)
        found.remote.do(lambda tws: tws.trade(SYMBOL, 100.0))
        assert held(found.exchange) == 0.0
        assert found.exchange.blind == []
        with LedgerReader(tmp_path / "ledger.db") as ledger_read:
            stops = ledger_read.rows(rows.Intervention)
        assert [one.policy for one in stops] == ["flatten", "flatten"]
        assert stops[1].detail == f"it hung; {bought:+,.0f} shares were left"
        assert any(one.startswith("kill switch") for one in events(tmp_path))
