"""The caretaker: orders of a gateway that is gone, and a broker that does not do as it is told."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_tws.faults import Once
from ibkr_kit import FAST, SYMBOL, Trading, WatchedExchange, events, market
from serving_kit import params

from core.errors import BrokerUnavailable, Fenced
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.paper import PaperBroker
from serving.caretaker import Caretaker
from serving.ledger import Ledger, LedgerReader, rows
from serving.switch import Press

BRIEF = replace(FAST, connect=0.2, patience=0.2)
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


def test_without_a_link_the_orders_are_left_and_it_is_said_after_a_while(tmp_path: Path) -> None:
    settings = params(agents={"scripted": {"symbol": SYMBOL}})
    with market(tmp_path) as found:
        assert found.remote is not None
        port = found.remote.port
        trading = Trading(tmp_path, port, found.frame)
        trading.close_bar()
        trading.close()
        found.remote.do(lambda tws: tws.refuse_connections())
        beats: list[int] = []
        with Ledger(tmp_path / "ledger.db") as ledger:
            broker = IbkrBroker(Access(port=port, client_id=7), BRIEF)
            keeper = Caretaker(ledger, broker, settings, PRESS, lambda: beats.append(1))
            with pytest.raises(BrokerUnavailable, match="a link to the broker: not there in time"):
                keeper.run("it hung", 0.5)
            assert ledger.rows(rows.Intervention) == []
        assert beats, "a term that is not renewed would expire meanwhile"
        assert [one.done for one in found.exchange.orders.values()] == [False]


def test_a_caretaker_that_is_fenced_does_nothing_more(tmp_path: Path) -> None:
    def fenced() -> None:
        raise Fenced("epoch 2: another holds the lease")

    settings = params(agents={"scripted": {"symbol": SYMBOL}})
    with market(tmp_path) as found:
        assert found.remote is not None
        port = found.remote.port
        trading = Trading(tmp_path, port, found.frame)
        trading.close_bar()
        trading.close()
        found.remote.do(lambda tws: tws.refuse_connections())
        with Ledger(tmp_path / "ledger.db") as ledger:
            broker = IbkrBroker(Access(port=port, client_id=7), BRIEF)
            with pytest.raises(Fenced, match="epoch 2"):
                Caretaker(ledger, broker, settings, PRESS, fenced).run("it hung", PATIENCE_SECONDS)


def test_where_nobody_traded_there_is_nothing_to_take_care_of(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        with ledger.transaction():
            ledger.add(rows.Session(session=1, broker="paper", feed="replay", mode="paper"))
        keeper = Caretaker(ledger, PaperBroker(), params(), PRESS, lambda: None)
        assert keeper.run("it hung", PATIENCE_SECONDS) == "no agent has traded in this session"
        assert ledger.rows(rows.RiskEvent) == []
