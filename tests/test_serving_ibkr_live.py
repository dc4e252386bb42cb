"""A worker on live 1-minute bars of IBKR, with two sleeves on one account: bars in, orders out.

Both random baselines trade the same stock; the clock is the test's own, market orders fill at the
last price as they arrive.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from fake_tws import Bar, FakeTws, Remote, Stock, in_thread
from ibkr_kit import FAST, WatchedExchange
from registry_kit import CARD

from core.calendar import expected_bars
from core.errors import SchemaMismatch
from core.home import Home
from core.settings import Params, parse_params
from features.scaler import Scaler
from features.spec import spec_from
from features.table import build_table
from registry.baselines import make_baseline
from registry.bundle import Bundle, load_bundle, save_bundle
from serving.auction import cut_off
from serving.brokers.ibkr import Access, IbkrBroker
from serving.following import Published
from serving.ibkr_feed import IbkrFeed, Tempo
from serving.ledger import LedgerReader, rows
from serving.ledger.shadow_rows import ShadowBar
from serving.worker import Worker
from sources.ibkr import values_of
from sources.pacing import Pacer

AGENTS = {"one": 3, "two": 4}  # seeds
OPENED = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
BEGUN = 30  # minutes of the session before the worker starts
PATIENCE_SECONDS = 60.0  # only ever spent by a test that fails
PACE = replace(FAST, patience=2.0)


def params(decide: str | None = None) -> Params:
    agent = {"symbol": "AAPL", "source": "ibkr", "interval": "1m", "decide": decide}
    return parse_params(
        {
            "agents": dict.fromkeys(AGENTS, agent),
            "account": {"cash": 40_000.0, "no_trade_band": 0.0},
            "features": {
                "indicators": ["return_1", "return_5", "rsi_14"],
                "include_vix": False,
                "anchor_sessions": 2,
            },
            "paper": {"snapshot_seconds": 0.01},
        }
    )


def minutes(now: datetime) -> list[Bar]:
    """Every bar of four sessions that has begun; a slow wave in cents."""
    times = expected_bars("XNYS", "1m", pd.Timestamp("2026-02-25"), now)
    begun = [one.to_pydatetime() for one in times if one <= pd.Timestamp(now)]
    return [bar(start, 100.0 + round(abs(n % 80 - 40) / 50.0, 2)) for n, start in enumerate(begun)]


def bar(start: datetime, close: float) -> Bar:
    return Bar(start, round(close - 0.03, 2), close + 0.05, close - 0.05, close, 50_000.0)


class Bundles:
    """A shelf with one version of each agent."""

    def __init__(self, root: Path, known: list[Bar]) -> None:
        self._root = root
        spec = spec_from(params(), "1m")
        index = pd.DatetimeIndex([one.start for one in known], name="time").as_unit("ns")
        table = pd.DataFrame(
            [(b.open, b.high, b.low, b.close, b.volume, 0.0, 1.0) for b in known],
            index=index,
            columns=["open", "high", "low", "close", "volume", "dividend", "split_ratio"],
        )
        scaler = Scaler.fit(build_table(table, spec, "1m").dropna().to_numpy(), spec)
        for name, seed in AGENTS.items():
            policy = make_baseline("random", spec, scaler, seed)
            card = replace(CARD, agent=name, interval="1m", algorithm="random", seed=seed)
            save_bundle(root / name, policy, spec, scaler, card)

    def production(self, agent: str) -> Published:
        manifest = self._root / agent / "manifest.json"
        return Published("1", hashlib.sha256(manifest.read_bytes()).hexdigest())

    def load(self, agent: str, published: Published) -> Bundle:
        return load_bundle(self._root / agent, published.bundle_sha256)

    def named(self, agent: str) -> tuple[Published, ...]:
        """Production's own network runs beside it as version 2."""
        return (replace(self.production(agent), version="2"),)

    def promote(self, agent: str, version: str, over: str, figures: str) -> str:
        raise AssertionError("nothing is better than itself")

    def drop(self, agent: str, version: str, figures: str) -> str:
        raise AssertionError("21 bars decide nothing")


class Free(Pacer):
    """Lets everything through at once."""

    def delay(self, contract: object, request: object, now: float) -> float:
        return 0.0


@dataclass
class Market:
    """The gateway, its clock, and the worker's home."""

    remote: Remote
    home: Home
    shelf: Bundles
    at: datetime
    exchange: WatchedExchange
    decide: str | None = None
    feed: IbkrFeed = field(init=False)  # of the newest worker

    def worker(self) -> Worker:
        def now() -> datetime:
            return self.at

        access = Access(port=self.remote.port, client_id=7)
        tempo = Tempo(look=0.01, retry=1.0, answer=2.0, history=20.0)
        feed = IbkrFeed(replace(access, client_id=72), "XNYS", PACE, tempo, Free(), now)
        self.feed = feed
        broker = IbkrBroker(access, PACE, now, cut_off("XNYS"))
        return Worker(
            self.home,
            params(self.decide),
            list(AGENTS),
            feed,
            shelf=self.shelf,
            broker=broker,
            challengers=self.shelf,
            environment={},
        )

    @contextmanager
    def trading(self) -> Iterator[None]:
        """Run a worker until the block ends; raise what it ended with."""
        worker, problems, links = self.worker(), [], self.links()

        def running() -> None:
            try:
                worker.run()
            except BaseException as problem:  # noqa: BLE001 (raised below)
                problems.append(problem)

        thread = threading.Thread(target=running)
        thread.start()
        try:
            self.until("start", lambda: self.links() > links and self.subscribed())
            yield
        finally:
            worker.stop("the test is over")
            thread.join(PATIENCE_SECONDS)
            if problems:
                raise problems[0]

    def links(self) -> int:
        """How often a link to trade through came up: then the main loop runs."""
        return sum(one.kind == "link up" for one in self.read(rows.RiskEvent))

    def minute(self, number: int) -> None:
        """A minute begins, and the one before is complete."""
        self.at = OPENED + timedelta(minutes=number)
        opened = bar(self.at, 100.0 + round(abs(number % 20 - 10) / 20.0, 2))

        def begins(tws: FakeTws) -> None:
            tws.exchange.prices["AAPL"] = opened.open
            tws.update_history("AAPL", "1 min", opened)

        self.remote.do(begins)

    def closed(self, number: int) -> None:
        """Wait until both sleeves have lived through a minute, orders and all."""
        moment = OPENED + timedelta(minutes=number)

        def lived() -> bool:
            books = self.read(rows.Equity)
            unsure = [one for one in self.read(rows.Order) if one.status == "intended"]
            return sum(one.bar_time == moment for one in books) == len(AGENTS) and not unsure

        self.until(f"close of minute {number}", lived)

    def read(self, kind: type[rows.RowType]) -> list[rows.RowType]:
        if not self.home.ledger.exists():
            return []
        try:
            with LedgerReader(self.home.ledger) as ledger:
                return ledger.rows(kind)
        except SchemaMismatch:  # it is being made
            return []

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"no {what}"
            time.sleep(0.01)

    def subscribed(self) -> bool:
        return any(one.history for one in self.remote.tws.connections)


@contextmanager
def market(root: Path) -> Iterator[Market]:
    begun = OPENED + timedelta(minutes=BEGUN)
    known, home = minutes(begun), Home(root / "home")
    found: list[Market] = []
    exchange = WatchedExchange(
        lambda: found[0].at if found else begun,
        (Stock(265598, "AAPL"),),
        fill_markets=True,
        prices={"AAPL": known[-1].open},
        ledger=home.ledger,
    )
    with in_thread(FakeTws(exchange)) as remote:
        remote.tws.history["AAPL", "1 min"] = known
        found.append(Market(remote, home, Bundles(root / "shelf", known), begun, exchange))
        yield found[0]


def differences(found: Market) -> list[str]:
    """Hold the ledger of both sleeves against the broker's books of their one account."""
    exchange = found.exchange
    told = {one.exec_id: one.signed for one in exchange.executions.values()}
    heard = {one.exec_id: one.shares for one in found.read(rows.Executed)}
    sent = sorted(order.ticket.order_ref for order in exchange.orders.values())
    written = sorted(one.order_ref for one in found.read(rows.Intent))
    wrong = [f"{ref}: sent blind" for ref in exchange.blind]
    if told != heard:
        wrong.append(f"executions: broker {told}, ledger {heard}")
    if sent != written:
        wrong.append(f"orders: broker {sent}, ledger {written}")
    for name in AGENTS:
        mine = [f for f in found.read(rows.Fill) if f.agent == name]
        books = [one for one in found.read(rows.Equity) if one.agent == name]
        cash = 40_000.0 - sum(f.shares * f.price + f.commission for f in mine)
        if abs(books[-1].cash - cash) > 1e-6 or books[-1].shares != sum(f.shares for f in mine):
            wrong.append(f"{name}: books {books[-1]}, fills make {cash}")
    return wrong


def test_two_sleeves_trade_minutes_and_hold_on_bars_that_came_too_late(tmp_path: Path) -> None:
    with market(tmp_path) as found:
        with found.trading():
            for number in range(BEGUN + 1, BEGUN + 11):
                found.minute(number)
                found.closed(number - 1)
            found.remote.do(lambda tws: tws.refuse_connections())
            found.remote.do(lambda tws: tws.drop(72))
            before = len(found.exchange.orders)
            for number in range(BEGUN + 11, BEGUN + 16):
                found.minute(number)
            found.remote.listen()
            found.until("subscription", found.subscribed)
            found.closed(BEGUN + 14)
            found.until("shadows", lambda: bool(found.read(ShadowBar)))  # they go on below
        late = [one for one in found.read(rows.RiskEvent) if one.kind == "stale bar"]
        moments = [OPENED + timedelta(minutes=number) for number in range(BEGUN + 10, BEGUN + 14)]
        assert sorted(one.bar_time for one in late) == sorted(moments * len(AGENTS))
        decided = {one.bar_time for one in found.read(rows.Intent)}
        assert before > 6
        assert not decided & set(moments)
        assert decided <= {OPENED + timedelta(minutes=n) for n in range(BEGUN, BEGUN + 15)}

        found.minute(BEGUN + 16)  # while nobody trades
        with found.trading():  # the same session goes on
            found.closed(BEGUN + 15)
            for number in range(BEGUN + 17, BEGUN + 22):
                found.minute(number)
                found.closed(number - 1)
            shadowed = len(AGENTS) * 21
            found.until("shadows", lambda: len(found.read(ShadowBar)) == shadowed)
        beside = found.read(ShadowBar)
        assert [one.equity for one in beside] == [one.production_equity for one in beside]
        assert {one.bar_time for one in beside if one.stale} == set(moments)
        assert len({one.equity for one in beside}) > 10
        assert len(found.read(rows.Session)) == 1
        assert len(found.read(rows.Equity)) == len(AGENTS) * 21
        assert len(found.exchange.orders) > before
        assert differences(found) == []


def test_a_bar_of_ibkr_without_volume_has_none() -> None:
    from ib_async import BarData

    assert values_of(BarData(OPENED, 1.0, 2.0, 0.5, 1.5, -1)) == (1.0, 2.0, 0.5, 1.5, 0.0, 0.0, 1.0)
