"""The watchdog: what dies is started again, what hangs is ended, and its orders are seen to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import serving_kit as world
from fake_tws import FakeTws, Remote, Stock, Ticket, in_thread
from ibkr_kit import FAST, WatchedExchange

from core.errors import SchemaMismatch, StorageError
from core.home import Home
from core.settings import Params
from serving import switch
from serving.alerts import KILLED
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker
from serving.history import Instrument
from serving.ledger import LedgerReader, rows
from serving.metrics import Meters
from serving.switch import POLICIES, Policy
from serving.watch import Watch
from serving.watchdog import Limits, Watchdog

HERE = Path(__file__).parent
DEADLINE_SECONDS = 180.0  # only ever spent by a test that fails
NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)


class Told(Watch):
    """Remembers what a person is told."""

    def __init__(self, params: Params) -> None:
        super().__init__(params.alerts, Meters())
        self.kinds: list[str] = []

    def notice(self, kind: str, detail: str, agent: str = "") -> None:
        self.kinds.append(kind)
        super().notice(kind, detail, agent)

    def see(self, row: rows.Row) -> None:
        if isinstance(row, rows.RiskEvent):
            self.kinds.append(row.kind)
        super().see(row)


class Place:
    """A home, and gateways of it in processes of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, Home(root / "home")
        self.port = ""  # of a fake TWS; empty: on paper
        self.lease_seconds = "60"
        self.dogs: list[Watchdog] = []
        self.started: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        own = {"RATCHET_LEASE_SECONDS": self.lease_seconds, "PYTHONPATH": path}
        return dict(os.environ) | own | ({"IB_PORT": self.port} if self.port else {})

    def command(self, speed: str) -> list[str]:
        if not (self.root / "shelf").exists():
            world.shelf_with_both(self.root / "shelf", world.params())
        script = str(HERE / "standby_process.py")
        return [sys.executable, script, str(self.home.root), str(self.root / "shelf"), speed]

    def gateway(self, speed: str = "4") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            self.command(speed), env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    def dog(
        self, command: list[str], policy: Policy = "protect", restart: bool = True, **limits: Any
    ) -> tuple[Watchdog, Told]:
        solo = {"symbol": "SOLO", "limits": {"stop_loss": 0.03}, "when_stopped": policy}
        params = world.params(agents={"solo": solo})
        watch = Told(params)
        made = Watchdog(
            self.home, params, command, self._broker, watch, self.environment,
            restart=restart, limits=Limits(**({"longest_pause": 0.01} | limits)),
        )  # fmt: skip
        self.dogs.append(made)
        return made, watch

    def _broker(self, session: rows.Session) -> Broker:
        if session.broker == "paper":
            return PaperBroker()
        return IbkrBroker(Access(port=int(self.port), client_id=7), FAST)

    def rows(self, kind: type[rows.RowType], **equals: Any) -> list[rows.RowType]:
        try:
            with LedgerReader(self.home.ledger) as ledger:
                return ledger.rows(kind, **equals)
        except (StorageError, SchemaMismatch):  # it is being made
            return []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for dog in made.dogs:
        dog.close()
    for process in made.started:
        process.kill()
        process.communicate()


def until(what: str, condition: Callable[[], bool], look: Callable[[], None] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        if look:
            look()
        time.sleep(0.02)


def test_a_gateway_that_keeps_failing_is_given_up_with_an_alert(place: Place) -> None:
    counting = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    starts = place.root / "starts"
    dog, watch = place.dog([sys.executable, "-c", counting, str(starts)], failures=3)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert starts.read_text() == "xxx"
    assert dog.gave_up
    assert "3 failures in a row, the last: exit code 3" in dog.ended
    assert watch.kinds == ["gateway died"] * 3 + ["watchdog gave up"]


def test_a_gateway_that_is_asked_to_stop_is_not_started_again(place: Place) -> None:
    dog, watch = place.dog(place.command("4"))
    until("decisions", lambda: len(place.rows(rows.Decision)) > 0, dog.look)
    assert dog._child is not None
    dog._child.terminate()
    until("the end", lambda: bool(dog.ended), dog.look)
    assert (dog.ended, watch.kinds) == ("the gateway ended as it was asked to", [])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_gateway_that_dies_or_hangs_is_ended_and_its_session_goes_on(
    place: Place, how: signal.Signals
) -> None:
    if how == signal.SIGSTOP:
        place.lease_seconds = "10"
    first = place.gateway()
    until("orders", lambda: len(place.rows(rows.Fill)) > 0)
    dog, watch = place.dog(place.command("0"), policy="flatten")
    dog.look()
    first.send_signal(how)
    until("the end", lambda: bool(dog.ended), dog.look)
    assert first.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert dog.ended == "the gateway ended as it was asked to"
    assert len(place.rows(rows.Decision)) == world.PAPER_BARS
    assert {one.session for one in place.rows(rows.Decision)} == {1}
    kinds = [one.kind for one in place.rows(rows.SessionEvent)]
    assert kinds == ["started", "started", "closed"]
    told = [one.kind for one in place.rows(rows.RiskEvent, agent="")]
    stops = [one.policy for one in place.rows(rows.Intervention)]
    hung = how == signal.SIGSTOP
    assert stops == (["flatten"] if hung else [])
    assert ("gateway fenced" in told) == hung
    assert ("gateway hangs" if hung else "gateway died") in watch.kinds


# -- at Interactive Brokers


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
        yield remote


def held(exchange: Auctions) -> float:
    return sum(one.shares for one in exchange.positions.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seen_by", ["silence", "kill switch"])
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
    ours = held(exchange)
    assert ours > 0.0
    tws.do(lambda fake: fake.give("SOLO", 100.0, 50.0))
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
