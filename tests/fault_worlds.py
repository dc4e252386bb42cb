"""Faults of whole workers: agents in processes that misbehave, bars that fail, a second gateway.

Each function plays one of them at the IBKR broker, against the fake TWS, and returns what does not
hold. A misdeed strikes once, in the middle of trading.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import serving_kit as world
from fake_tws import FakeTws, Once, Stock, Ticket, in_thread
from fault_kit import Fault
from ibkr_kit import FAST, WatchedExchange, audit, events
from test_serving_gateway import HASTY, gateway
from test_serving_ibkr_live import BEGUN, differences, market
from test_serving_ibkr_live import Market as Live

from core.errors import RatchetError
from core.home import Home
from serving.brokers.ibkr import Access, IbkrBroker
from serving.feeds import ReplayFeed
from serving.history import Instrument
from serving.ledger import LedgerReader, rows
from serving.worker import Worker

AGENTS = ("solo", "pair")
PATIENT = replace(FAST, patience=10.0, connect=20.0)  # the link is not what is struck here
BARS = 9  # of trading: the misdeeds begin with the fifth


@dataclass
class NextOpen(WatchedExchange):
    """Fills an order for the open as it comes, at the open after its decision."""

    opens: dict[tuple[str, str], float] = field(default_factory=dict)  # by symbol and bar

    def place(self, client_id: int, ticket: Ticket) -> Any:
        told = super().place(client_id, ticket)
        moment = next((part for part in ticket.order_ref.split("-") if "T" in part), "")
        price = self.opens.get((ticket.symbol, moment))
        if ticket.tif == "OPG" and price is not None:
            told += self.auction(ticket.symbol, price)
        return told


def _frames() -> dict[Instrument, pd.DataFrame]:
    return {one: frame.assign(dividend=0.0) for one, frame in world.market().items()}


def _opens() -> dict[tuple[str, str], float]:
    """The open after each bar; the last bar has none, and its order goes on working."""
    return {
        (one.symbol, f"{moment:%Y%m%dT%H%M%S}"): round(float(opened), 2)
        for one, frame in _frames().items()
        for moment, opened in zip(frame.index[:-1], frame["open"].iloc[1:], strict=True)
    }


def misdeed(what: str) -> Callable[[Fault, Path], list[str]]:
    """Let the agent ``solo`` misbehave beside ``pair``, both at one account."""

    def run(fault: Fault, root: Path) -> list[str]:
        home, shelf = Home(root / "home"), world.shelf_with_both(root / "shelf", world.params())
        exchange = NextOpen(
            lambda: pd.Timestamp("2013-12-01", tz="UTC").to_pydatetime(),
            (Stock(1, "SOLO"), Stock(2, "FUND")),
            cash=200_000.0,
            ledger=home.ledger,
            opens=_opens(),
        )
        with in_thread(FakeTws(exchange)) as remote:
            worker = Worker(
                home,
                world.params(),
                AGENTS,
                ReplayFeed(_frames(), BARS),
                shelf=shelf,
                desk=gateway(home, shelf.root, what, HASTY),
                broker=IbkrBroker(Access(port=remote.port, client_id=7), PATIENT),
                environment={},
            )
            wrong = [] if worker.run().finished else ["the session did not end"]
        with LedgerReader(home.ledger) as ledger:
            silent = [d for d in ledger.rows(rows.Decision, agent="pair") if not d.observation]
        wrong += [f"pair was harmed at {one.bar_time}" for one in silent]
        return wrong + audit(home.root, exchange) + _untold(fault, home)

    return run


def _untold(fault: Fault, home: Home) -> list[str]:
    told = events(home.root)
    heard = any(re.search(fault.says, event) for event in told)
    return [] if heard else [f"nobody was told: no {fault.says!r} in {told}"]


def bars_fail(strike: Callable[[FakeTws], object]) -> Callable[[Fault, Path], list[str]]:
    """Let the link for bars break and something stand in its way for four minutes."""

    def run(fault: Fault, root: Path) -> list[str]:
        with market(root) as found:
            with found.trading():
                _minutes(found, BEGUN + 1, BEGUN + 5)
                found.remote.do(strike)
                found.remote.do(lambda tws: tws.drop(72))
                for number in range(BEGUN + 5, BEGUN + 9):
                    found.minute(number)
                found.until("word", lambda: not _untold(fault, found.home))
                if found.remote.do(lambda tws: tws._server) is None:
                    found.remote.listen()
                found.minute(BEGUN + 9)  # it is asked again as time goes on
                found.until("subscription", found.subscribed)
                found.closed(BEGUN + 8)
                _minutes(found, BEGUN + 10, BEGUN + 12)
            return differences(found) + _untold(fault, found.home)

    return run


def _minutes(found: Live, first: int, after: int) -> None:
    for number in range(first, after):
        found.minute(number)
        found.closed(number - 1)


def second_gateway(lease: bool) -> Callable[[Fault, Path], list[str]]:
    """Start another gateway on the account while one trades: in its home, or by a shared lease."""

    def run(fault: Fault, root: Path) -> list[str]:
        with market(root) as found:
            with found.trading():
                _minutes(found, BEGUN + 1, BEGUN + 5)
                home = Home(root / "other") if lease else found.home
                shared = {"RATCHET_LEASE": str(found.home.root / "lease")} if lease else {}
                other = replace(found, home=home).worker()
                other._environment = shared
                said, sent = "", len(found.exchange.orders)
                try:
                    other.run()
                except RatchetError as error:
                    said = str(error)
                grown = len(found.exchange.orders) - sent
                _minutes(found, BEGUN + 5, BEGUN + 9)
            wrong = [] if re.search(fault.says, said) else [f"it says {said!r}"]
            wrong += ["the second gateway ordered"] if grown else []
            return wrong + differences(found)

    return run


AGENT_FAULTS = [
    Fault("an agent is killed", says="agent died", run=misdeed("dies")),
    Fault("an agent hangs", says="no signal within 0.5 s", run=misdeed("hangs")),
    Fault("an agent sends nonsense", says="signal refused: .*confidence is nan",
          run=misdeed("invents")),
    Fault("an agent's signals come twice", says="signal refused: .*doubled for",
          run=misdeed("doubles")),
    Fault("an agent's signals come one bar late", says="signal refused: .*late for",
          run=misdeed("lags")),
]  # fmt: skip
FEED_FAULTS = [
    Fault("bars stop coming: no decision on a stale one", says="stale bar",
          run=bars_fail(lambda tws: tws.refuse_connections())),
    Fault("history is asked for too fast (162)", says="feed stale: .*pacing violation",
          run=bars_fail(lambda tws: tws.faults.once(Once.PACING))),
]  # fmt: skip
GATEWAY_FAULTS = [
    Fault("a second gateway is started in the same home", says="already serves this home",
          run=second_gateway(lease=False), refused=True),
    Fault("a second gateway is started elsewhere, with the same lease", says="trades this account",
          run=second_gateway(lease=True), refused=True),
]  # fmt: skip
