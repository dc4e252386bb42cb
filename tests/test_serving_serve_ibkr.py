"""`ratchet serve --broker ibkr` as a user runs it, against a fake TWS: what it does to the account.

The market fills every order of a decision at the next bar's open, by the bar its reference names;
the order of the last bar finds no next open and keeps working.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import retrain_kit as kit
import yaml
from fake_tws import Bar, FakeTws, Remote, Request, Stock, Ticket, in_thread
from fake_tws.orders import ZONE
from ibkr_kit import WatchedExchange

from core.calendar import sessions
from core.errors import ConfigError, NotAllowed, SchemaMismatch
from core.home import PROJECT, Home
from flows import verbs
from pipelines.enrolment import enrol
from pipelines.featurize import validated_path
from serving.brokers.choice import BrokerName, make_broker
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.ibkr.access import named
from serving.ledger import Ledger, LedgerReader, rows
from serving.lock import lock_holder
from serving.session import open_session
from sources.files import read_parquet

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
DEADLINE_SECONDS = 60.0  # only ever spent by a test that fails
PAPER_BARS = 40
NARRATED = re.compile(r"\d\d:\d\d:\d\d  | +… ")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose Production model is a random baseline, as `ratchet register` leaves it."""
    home = kit.home_with_data(tmp_path_factory.mktemp("home"))
    home.params_file.write_text(yaml.safe_dump(dict(kit.SECTIONS)))
    enrol(home, kit.settings(), "planted", "random", seed=1, by="A. Turing", now=NOW)
    return home


@dataclass
class NextOpen(WatchedExchange):
    """Holds an auction as soon as an order for it has come, at the open its decision waits for."""

    opens: dict[str, float] = field(default_factory=dict)  # by the moment in an orderRef

    def place(self, client_id: int, ticket: Ticket) -> Any:
        events = super().place(client_id, ticket)
        moment = ticket.order_ref.split("-")[3] if ticket.order_ref.count("-") > 3 else ""
        price = self.opens.get(moment)
        if ticket.tif == "OPG" and price is not None:
            events += self.auction(ticket.symbol, price)
        return events


@contextmanager
def gateway(home: Home) -> Iterator[Remote]:
    """A gateway nobody traded through yet, and a home that remembers none."""
    for path in home.root.glob("ledger.db*"):
        path.unlink()
    bars: pd.DataFrame = read_parquet(validated_path(home, "PLANTED"), remedy="")[0]
    moments = [f"{moment:%Y%m%dT%H%M%S}" for moment in bars.index[:-1]]
    exchange = NextOpen(
        lambda: NOW,
        (Stock(1, "PLANTED"),),
        ledger=home.ledger,
        opens=dict(zip(moments, bars["open"].iloc[1:].round(2), strict=True)),
    )
    with in_thread(FakeTws(exchange)) as remote:
        yield remote


@contextmanager
def serve(
    home: Home, port: int, *arguments: str, feed: tuple[str, ...] = ("--feed", "replay")
) -> Iterator["subprocess.Popen[str]"]:
    """Start the command line; nobody sits at a terminal. Killed at the end if it still runs."""
    with ratchet(port, home, "serve", *BROKER, *feed, *arguments) as process:
        yield process


BROKER = ("--broker", "ibkr", "--agents", "planted")


@contextmanager
def ratchet(port: int, home: Home, *command: str) -> Iterator["subprocess.Popen[str]"]:
    access = {"IB_PORT": str(port), "IB_CLIENT_ID": "7", "IB_ACCOUNT": "", "TRADING_MODE": ""}
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *command],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | access | {"RATCHET_HOME": str(home.root), "RATCHET_BUS_PORT": "0"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return the result a process printed, and what it said that is no line of narration."""
    told, said = process.communicate(timeout=DEADLINE_SECONDS)
    lines = said.splitlines(keepends=True)
    return told, "".join(line for line in lines if not NARRATED.match(line))


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


def count(home: Home, kind: type[rows.Row]) -> int:
    if not home.ledger.exists():
        return 0
    try:
        with LedgerReader(home.ledger) as ledger:
            return len(ledger.rows(kind))
    except SchemaMismatch:  # it is being made
        return 0


def links(home: Home) -> set[int]:
    """Return the client ids whose links the ledger says came up."""
    if not count(home, rows.RiskEvent):
        return set()
    with LedgerReader(home.ledger) as ledger:
        events = ledger.rows(rows.RiskEvent)
    trading = {7 for one in events if one.kind == "link up"}
    return trading | {72 for one in events if one.detail.startswith("link for bars")}


def differences(home: Home, exchange: NextOpen, session: int) -> list[str]:
    """Hold the books of a session with one agent against the broker's own."""
    with LedgerReader(home.ledger) as ledger:
        orders = [order.order_ref for order in ledger.rows(rows.Order, session=session)]
        fills = {f.exec_id: f.shares for f in ledger.rows(rows.Fill, session=session) if f.shares}
        book = ledger.rows(rows.Equity, session=session)[-1]
        unsure = [o.order_ref for o in ledger.rows(rows.Order, session=session)
                  if o.status == "intended"]  # fmt: skip
    theirs = [order.ticket.order_ref for order in exchange.orders.values()]
    told = {one.exec_id: one.signed for one in exchange.executions.values()}
    account = exchange.accounts[0]
    held = sum(at.shares for at in exchange.positions.values())
    found = [f"{ref}: sent blind" for ref in exchange.blind]
    found += [f"{ref}: fate unknown" for ref in unsure]
    if sorted(theirs) != sorted(orders):
        found.append(f"orders: broker {theirs}, ledger {orders}")
    if told != fills:
        found.append(f"fills: broker {told}, ledger {fills}")
    if held != book.shares:
        found.append(f"shares: broker {held}, ledger {book.shares}")
    if abs(exchange.cash_of(account) - book.cash) > 1e-6:
        found.append(f"cash: broker {exchange.cash_of(account)}, ledger {book.cash}")
    return found


def test_the_watchdog_starts_again_what_was_killed_and_nothing_is_doubled(home: Home) -> None:
    with gateway(home) as remote:
        paced = ("--feed", "replay", "--bars-per-second", "8")
        with ratchet(remote.port, home, "watchdog", "--", *BROKER, *paced) as dog:
            until("orders", lambda: dog.poll() is not None or count(home, rows.Intent) > 4)
            worker = lock_holder(home)
            assert worker is not None
            assert worker != dog.pid == lock_holder(home, "watchdog")
            os.kill(worker, signal.SIGKILL)
            told, problem = ended(dog)
        assert (dog.returncode, problem) == (0, ""), problem
        assert told == "the gateway ended as it was asked to\n"
        assert lock_holder(home) is lock_holder(home, "watchdog") is None
        with LedgerReader(home.ledger) as ledger:
            starts = [one.kind for one in ledger.rows(rows.SessionEvent)]
            events = {one.kind for one in ledger.rows(rows.RiskEvent)}
        assert starts == ["started", "started", "closed"]
        assert "gateway died" in events
        assert count(home, rows.Decision) == PAPER_BARS
        assert isinstance(remote.tws.exchange, NextOpen)
        assert differences(home, remote.tws.exchange, 1) == []


def test_a_session_trades_stops_and_goes_on_with_nothing_doubled(home: Home) -> None:
    more = ("--processes",)
    with gateway(home) as remote:
        with serve(home, remote.port, "--bars-per-second", "8", *more) as first:
            until("orders", lambda: first.poll() is not None or count(home, rows.Intent) > 4)
            first.send_signal(signal.SIGTERM)
            told, problem = ended(first)
        assert (first.returncode, problem) == (0, ""), problem
        assert "stopped" in told
        decided = count(home, rows.Decision)
        assert 4 < decided < PAPER_BARS
        with LedgerReader(home.ledger) as ledger:
            session = ledger.rows(rows.Session)[-1]
            bound = ledger.rows(rows.RiskEvent, session=session.session, kind="account")
        assert (session.broker, session.mode) == ("ibkr", "paper")
        assert [one.detail for one in bound] == [named("DU1234567")]

        with serve(home, remote.port, "--bars-per-second", "0", *more) as second:
            told, problem = ended(second)
        assert (second.returncode, problem) == (0, ""), problem
        assert f"session {session.session}, finished" in told
        assert count(home, rows.Decision) == PAPER_BARS
        assert isinstance(remote.tws.exchange, NextOpen)
        assert len(remote.tws.exchange.executions) > 4
        assert differences(home, remote.tws.exchange, session.session) == []


def test_live_bars_are_the_default_and_a_session_waits_for_them(home: Home) -> None:
    now = datetime.now(UTC)
    known = [Bar(day.replace(tzinfo=ZONE), 100.0, 101.0, 99.0, 100.0, 1e6)
             for day in sessions("XNYS", now - timedelta(days=900), now - timedelta(days=1))
             ]  # fmt: skip
    with gateway(home) as remote:
        remote.tws.history["PLANTED", "1 day"] = known
        with serve(home, remote.port, feed=()) as process:
            until("both links", lambda: process.poll() is not None or links(home) == {7, 72})
            process.send_signal(signal.SIGTERM)
            told, problem = ended(process)
        assert (process.returncode, problem) == (0, ""), problem
        assert told.startswith("session 1, stopped")
        with LedgerReader(home.ledger) as ledger:
            assert [one.feed for one in ledger.rows(rows.Session)] == ["ibkr"]
        assert not remote.tws.exchange.orders
    assert remote.tws.count(Request.HISTORICAL_DATA) >= 1


def test_another_account_than_the_sessions_is_refused(home: Home) -> None:
    with gateway(home) as remote:
        broker = IbkrBroker(Access(port=remote.port))
        try:
            with pytest.raises(NotAllowed, match=r"trades DU\*\*\*\*\*21 .* --fresh"):
                broker.begin(account=named("DU7654321"))
            with pytest.raises(NotAllowed, match="the session trades"):
                broker.news()
        finally:
            broker.close()


def test_an_account_of_another_mode_starts_nothing(home: Home) -> None:
    with gateway(home) as remote:
        remote.tws.exchange.accounts = ("U1234567",)
        with serve(home, remote.port) as process:
            _, problem = ended(process)
        assert process.returncode == NotAllowed.exit_code
        assert problem.startswith("error: TRADING_MODE=paper, but U1****67 is a live account")
        assert problem.count("\n") == 1
        assert not remote.tws.exchange.orders


LIVE = {"TRADING_MODE": "live", "IB_ACCOUNT": "U1234567"}


@pytest.mark.parametrize(
    ("environment", "feed", "error", "said"),
    [
        ({"IB_ACCOUNT": "U1234567"}, "yfinance", NotAllowed, "is a live account"),
        (LIVE | {"IB_ACCOUNT": "DU1234567"}, "yfinance", NotAllowed, "is a paper account"),
        (LIVE | {"IB_ACCOUNT": ""}, "yfinance", NotAllowed, "needs IB_ACCOUNT"),
        (LIVE, "yfinance", NotAllowed, "typed to confirm"),
        (LIVE, "replay", NotAllowed, "bars of the past"),
        ({"TRADING_MODE": "practice"}, "yfinance", ConfigError, "`paper` or `live`"),
    ],
)
def test_mode_account_and_consent_that_do_not_fit_make_no_broker(
    environment: dict[str, str], feed: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make_broker("ibkr", environment, feed=feed)


def test_a_person_who_types_the_account_allows_live_orders() -> None:
    asked: list[str] = []

    def person(question: str) -> str:
        asked.append(question)
        return "U1234567\n"

    broker = make_broker("ibkr", LIVE, person, feed="yfinance")
    assert (broker.name, broker.mode) == ("ibkr", "live")
    assert "real money" in asked[0]


def test_a_session_of_another_mode_is_not_continued(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        opened = [
            open_session(ledger, "ibkr", "feed", fresh=False, mode=mode)
            for mode in ("paper", "paper", "live")
        ]
        assert opened == [1, 1, 2]
        assert [one.mode for one in ledger.rows(rows.Session)] == ["paper", "live"]


def test_the_command_line_knows_every_broker() -> None:
    assert get_args(BrokerName) == verbs.BROKERS
