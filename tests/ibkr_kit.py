"""A sleeve that trades through the real IBKR broker against the fake TWS, and the audit after it.

A script decides in place of a policy: many orders, few imports. The market is played in steps
that can be asked for again, as a process that died and came back does.
"""

import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from fake_tws import Exchange, FakeTws, Remote, Stock, Ticket, in_thread
from serving_kit import params

from core import settings
from core.accounts import State, open_accounts
from core.bars import Bar
from core.portfolio import AccountLimits
from core.rules import Rules
from core.settings import Costs, RiskLimits
from features.spec import spec_from
from serving.account import Account
from serving.agent import Answer, TradingAgent
from serving.books import replay_books
from serving.brokers.ibkr import Access, IbkrBroker, Pace
from serving.brokers.ibkr.book import base_of
from serving.history import FeedBar, History, Instrument
from serving.ledger import Ledger, LedgerReader, rows
from serving.sleeve import Sleeve

SYMBOL = "AAPL"
INSTRUMENT = Instrument("ibkr", SYMBOL, "1d")
FAST = Pace(
    retry=0.02,
    heartbeat=0.05,
    patience=1.0,
    connect=3.0,
    remind=0.2,
    look=0.1,
    messages_per_second=100_000,
)
CASH = 100_000.0
RULES = Rules.of(
    settings.Account(cash=CASH, no_trade_band=0.0),
    Costs(),
    RiskLimits(stop_loss=0.03, take_profit=0.05, reduce_drawdown=None, halt_drawdown=None),
)
WEIGHTS = (0.9, math.nan, 0.3, 0.9, 0.0, 0.6, 0.6, 0.0, 0.5, math.nan, 0.8, 0.0, 0.0, 0.0)
HISTORY_BARS = 30


def bars(count: int = HISTORY_BARS + len(WEIGHTS), seed: int = 5) -> pd.DataFrame:
    """Daily bars whose highs and lows reach stops and targets now and then; prices in cents."""
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2026-01-05", periods=count, tz="UTC", name="time", unit="ns")
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.015, count))), 2)
    opened = np.round(np.concatenate([[close[0]], close[:-1]]) * 1.001, 2)
    frame = pd.DataFrame({"open": opened, "close": close}, index=index)
    frame["high"] = np.round(frame.max(axis=1) * 1.012, 2)
    frame["low"] = np.round(frame[["open", "close"]].min(axis=1) * 0.988, 2)
    frame["volume"], frame["dividend"], frame["split_ratio"] = 1e6, 0.0, 1.0
    return frame[["open", "high", "low", "close", "volume", "dividend", "split_ratio"]]


class Script:
    """Stands for a trading agent: one target weight after the other, by the bar's place."""

    name, version = "scripted", "1"
    bundle = SimpleNamespace(spec=spec_from(params()), sha256="b" * 64)

    def __init__(self, traded: History, weights: Sequence[float] = WEIGHTS) -> None:
        self._traded = traded
        self._weights = weights

    def see(self) -> None:
        """Nothing to remember."""

    def decide(self, state: State, bar: Bar) -> Answer:
        place = len(self._traded) - HISTORY_BARS - 1
        weight = self._weights[place] if place < len(self._weights) else math.nan
        return Answer(b"", hashlib.sha256(b"").hexdigest(), weight, 0.0, 1.0, ())


@dataclass
class WatchedExchange(Exchange):
    """Looks into the ledger whenever an order of ours arrives: its intent must be there."""

    ledger: Path = Path()
    blind: list[str] = field(default_factory=list)

    def place(self, client_id: int, ticket: Ticket) -> Any:
        if ticket.order_ref.startswith("ratchet-") and not self._intended(ticket.order_ref):
            self.blind.append(ticket.order_ref)
        return super().place(client_id, ticket)

    def _intended(self, order_ref: str) -> bool:
        with sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True) as reader:
            found = reader.execute("SELECT 1 FROM intents WHERE order_ref = ?", (order_ref,))
            known = found.fetchone() is not None
        reader.close()
        return known


class Market:
    """The sessions of the fake TWS, step by step; a step that was taken is not taken again."""

    def __init__(self, root: Path, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.at = datetime(2026, 1, 5, 21, tzinfo=UTC)
        self.exchange = WatchedExchange(
            self.clock, (Stock(265598, SYMBOL),), ledger=root / "ledger.db"
        )
        self.tws = FakeTws(self.exchange)
        self.remote: Remote | None = None
        self._done = -1

    def clock(self) -> datetime:
        return self.at

    def play(self, place: int, phase: int) -> None:
        """Phase 0: the opening auction; phase 1: the day's range, and its close."""
        step = 2 * place + phase
        if step <= self._done:
            return
        self._done = step
        assert self.remote is not None
        self.remote.do(lambda tws: self._open(place) if phase == 0 else self._day(place))

    def _open(self, place: int) -> None:
        bar = self.frame.iloc[place]
        self.at = self.frame.index[place].to_pydatetime() + timedelta(hours=14, minutes=30)
        self.tws.auction(SYMBOL, float(bar["open"]))

    def _day(self, place: int) -> None:
        bar = self.frame.iloc[place]
        self.at += timedelta(hours=6)
        for name in ("low", "high", "close"):
            self.tws.trade(SYMBOL, float(bar[name]))


@contextmanager
def market(root: Path, frame: pd.DataFrame | None = None) -> Iterator[Market]:
    found = Market(root, bars() if frame is None else frame)
    with in_thread(found.tws) as found.remote:
        yield found


class Trading:
    """A sleeve at work, from its ledger: build it again and it goes on where it was."""

    def __init__(
        self,
        root: Path,
        port: int,
        frame: pd.DataFrame,
        weights: Sequence[float] = WEIGHTS,
        *,
        ledger: Callable[[Path], Ledger] = Ledger,
        broker: Callable[..., IbkrBroker] = IbkrBroker,
        pace: Pace = FAST,
        rules: Rules = RULES,
    ) -> None:
        self.frame = frame
        self.ledger = ledger(root / "ledger.db")
        self.broker = broker(Access(port=port, client_id=7), pace)
        if self.ledger.last(rows.Session) is None:
            with self.ledger.transaction():
                self.ledger.add(rows.Session(session=1, broker="ibkr", feed="test", mode="paper"))
        opening = open_accounts(1, 1, CASH)
        books = replay_books(self.ledger, 1, "scripted", opening, rules, self.broker)
        since = books.time or frame.index[HISTORY_BARS - 1].to_pydatetime()
        traded = History(INSTRUMENT, frame.loc[:since])
        self.place = len(traded)
        script: Any = Script(traded, weights)
        agent: TradingAgent = script
        self.sleeve = Sleeve(1, agent, books.state, traded, traded, rules, self.broker, self.ledger)
        self.account = Account(self.ledger, AccountLimits({}))
        if books.time is not None:
            self.sleeve.recover(books.time)
        self.broker.begin()
        self.hear()

    def hear(self) -> None:
        news = self.broker.news()
        with self.ledger.transaction():
            for kind, detail in news.events:
                self.ledger.add(
                    rows.RiskEvent(session=1, agent="", bar_time=None, kind=kind, detail=detail)
                )
        self.sleeve.hear(news.executions)
        self.sleeve.mind()

    def caught_up(self) -> None:
        """Hear everything the market has done so far; ``BrokerUnavailable`` without a link."""
        self.broker.ask()
        self.hear()

    def close_bar(self) -> None:
        """Close the session, and decide."""
        moment = self.frame.index[self.place].to_pydatetime()
        values = tuple(float(value) for value in self.frame.iloc[self.place])
        bar = FeedBar(INSTRUMENT, moment, values)
        sleeve = self.sleeve
        close = sleeve.weigh(bar, bar)
        self.account.conclude({sleeve.name: sleeve}, {sleeve.name: close}, {sleeve.name})
        self.place += 1

    def close(self) -> None:
        self.broker.close()
        self.ledger.close()


def audit(root: Path, exchange: WatchedExchange) -> list[str]:
    """Hold the ledger against the broker's own books; return every difference."""
    wrong = [f"{ref}: sent before its intent was written" for ref in exchange.blind]
    with LedgerReader(root / "ledger.db") as reader:
        orders = {order.order_ref: order for order in reader.rows(rows.Order)}
        fills = reader.rows(rows.Fill)
        books = reader.rows(rows.Equity)
    ours = [o for o in exchange.orders.values() if o.ticket.order_ref.startswith("ratchet-")]
    refs = [order.ticket.order_ref for order in ours]
    wrong += [f"{ref}: doubled" for ref in sorted({ref for ref in refs if refs.count(ref) > 1})]
    wrong += [f"{ref}: not in the ledger" for ref in refs if ref not in orders]
    wrong += [f"{o.order_ref}: fate unknown" for o in orders.values() if o.status == "intended"]
    newest = {base_of(one.exec_id): one for one in exchange.executions.values()}
    booked: dict[str, float] = {}
    for fill in fills:
        booked[base_of(fill.exec_id)] = booked.get(base_of(fill.exec_id), 0.0) + fill.shares
    told = {
        base: one.signed
        for base, one in newest.items()
        if one.order.ticket.order_ref.startswith("ratchet-")
    }
    for base in sorted(told.keys() | booked.keys()):
        if told.get(base, 0.0) != booked.get(base, 0.0):
            wrong.append(f"{base}: broker {told.get(base, 0.0)}, ledger {booked.get(base, 0.0)}")
    newest_books = {book.agent: book for book in books}
    held: dict[str, float] = {}
    for position in exchange.positions.values():
        held[position.symbol] = held.get(position.symbol, 0.0) + position.shares
    known = dict.fromkeys(held, 0.0)
    for book in newest_books.values():
        known[book.symbol] = known.get(book.symbol, 0.0) + book.shares
    for symbol, shares in known.items():
        if held.get(symbol, 0.0) != shares:
            wrong.append(f"{symbol}: broker {held.get(symbol, 0.0)} shares, ledger {shares}")
    wrong += [f"{name}: {n} shares, nobody sells short" for name, n in held.items() if n < 0.0]
    cash = exchange.cash_of(exchange.accounts[0])
    own = sum(book.cash for book in newest_books.values())
    if books and abs(own - cash) > 1e-6:
        wrong.append(f"cash: broker {cash!r}, ledger {own!r}")
    return wrong


def events(root: Path) -> list[str]:
    with LedgerReader(root / "ledger.db") as reader:
        return [f"{event.kind}: {event.detail}" for event in reader.rows(rows.RiskEvent)]
