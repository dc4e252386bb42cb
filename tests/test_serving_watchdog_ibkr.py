"""What a hanging gateway left at Interactive Brokers, and what the watchdog does about it."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import serving_kit as world
from fake_tws import FakeTws, Remote, Stock, Ticket, in_thread
from ibkr_kit import WatchedExchange
from watchdog_kit import DEADLINE_SECONDS, Place, place_at, until

from serving import switch
from serving.alerts import KILLED
from serving.history import Instrument
from serving.ledger import rows
from serving.switch import POLICIES, Policy

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


@dataclass
class Auctions(WatchedExchange):
    """Holds an auction as soon as an order for it has come, while it is open."""

    opens: dict[str, float] = field(default_factory=dict)  # by the moment in an orderRef
    closed: bool = False

    def place(self, client_id: int, ticket: Ticket) -> Any:
        events = super().place(client_id, ticket)
        moment = ticket.order_ref.split("-")[3] if ticket.order_ref.count("-") > 3 else ""
        price = self.opens.get(moment)
        if ticket.tif == "OPG" and price is not None and not self.closed:
            events += self.auction(ticket.symbol, price)
        return events

    def working(self) -> dict[str, float]:
        """Return our open orders by leg, with the shares that are left."""
        found: dict[str, float] = {}
        for order in list(self.orders.values()):
            if not order.done and order.ticket.order_ref:
                leg = order.ticket.order_ref.split("-")[-2].partition(".")[0]
                found[leg] = found.get(leg, 0.0) + order.remaining
        return found


@pytest.fixture
def tws(place: Place) -> Iterator[Remote]:
    bars = world.market()[Instrument("bundled", "SOLO", "1d")]
    moments = [f"{moment:%Y%m%dT%H%M%S}" for moment in bars.index[:-1]]
    exchange = Auctions(
        lambda: NOW, (Stock(1, "SOLO"),), ledger=place.home.ledger,
        opens=dict(zip(moments, bars["open"].iloc[1:].round(2), strict=True)),
    )  # fmt: skip
    with in_thread(FakeTws(exchange)) as remote:
        place.port = str(remote.port)
        remote.do(lambda fake: fake.give("SOLO", 100.0, 50.0))  # somebody else's
        yield remote


def held(exchange: Auctions) -> float:
    return sum(one.shares for one in exchange.positions.values())


CASES = [*(("silence", policy) for policy in POLICIES), ("kill switch", "flatten")]


@pytest.mark.parametrize(("seen_by", "policy"), CASES)
def test_what_a_hanging_gateway_left_at_the_broker_is_seen_to_and_nothing_else(
    place: Place, tws: Remote, policy: Policy, seen_by: str
) -> None:
    exchange = tws.tws.exchange
    assert isinstance(exchange, Auctions)
    if seen_by == "silence":
        place.lease_seconds = "5"
    gateway = place.gateway()
    until("a bracket", lambda: {"stop", "target"} <= exchange.working().keys())
    exchange.closed = True
    until("an open order", lambda: "entry" in exchange.working())
    gateway.send_signal(signal.SIGSTOP)
    assert held(exchange) > 100.0
    typed = tws.do(lambda fake: fake.type_order(Ticket(0, "SOLO", "BUY", 50, "LMT", limit_price=1)))
    if seen_by == "kill switch":
        dog, watch = place.dog([], restart=False, kill=0.5)
        switch.press(place.home, "A. Turing", "drill", NOW, policy)
    else:
        dog, watch = place.dog([], policy, restart=False)
    until("the end", lambda: bool(dog.ended), dog.look)
    gateway.send_signal(signal.SIGCONT)
    assert gateway.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    left = {"hold": set(), "protect": {"stop", "target"}, "flatten": {"entry"}}
    assert exchange.working().keys() == left[policy]
    assert not typed.done
    assert [one for one in watch.kinds if one.startswith("gateway")] == [
        "gateway hangs", "gateway fenced",
    ]  # fmt: skip
    assert {"foreign order", "foreign position"} <= set(watch.kinds)
    assert (KILLED in watch.kinds) == (seen_by == "kill switch")
    assert [one.policy for one in place.rows(rows.Intervention)] == [policy]
    if policy == "flatten":
        tws.do(lambda fake: fake.trade("SOLO", 40.0))
        assert held(exchange) == 100.0
        assert exchange.working() == {}
    assert exchange.blind == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_standby_takes_over_in_the_middle_of_an_order(
    place: Place, tws: Remote, how: signal.Signals
) -> None:
    exchange = tws.tws.exchange
    assert isinstance(exchange, Auctions)
    place.lease_seconds = "5"
    first = place.gateway()
    until("a bracket", lambda: {"stop", "target"} <= exchange.working().keys())
    exchange.closed = True
    until("an open order", lambda: "entry" in exchange.working())
    first.send_signal(how)
    exchange.closed = False
    standby = place.gateway("0", "standby")
    _, problem = standby.communicate(timeout=DEADLINE_SECONDS)
    assert (standby.returncode, problem) == (0, "")
    assert first.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    orders = place.rows(rows.Order)
    refs = [one.ticket.order_ref for one in exchange.orders.values()]
    assert sorted(refs) == sorted(one.order_ref for one in orders)  # none lost, none doubled
    assert [one.order_ref for one in orders if one.status == "intended"] == []
    assert exchange.blind == []
    assert len(place.rows(rows.Decision)) == world.PAPER_BARS
    assert held(exchange) - 100.0 == place.rows(rows.Equity)[-1].shares
