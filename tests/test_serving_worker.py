"""The worker: parity with the engine run offline, aliases followed, one per home, paper only."""

import json
import math
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import serving_kit as world

from core.accounts import open_accounts
from core.bars import Market, bar_at
from core.engine import settle, submit
from core.errors import (
    BadBars,
    BadBundle,
    ConfigError,
    NotAllowed,
    StorageError,
    UnknownVersion,
)
from core.home import Home
from core.settings import Params
from features.account import account_features
from features.observation import observe
from features.table import build_table, risk_columns
from serving import status
from serving.feeds import ReplayFeed
from serving.history import FeedBar, Instrument
from serving.ledger import LedgerReader, experience, lineage, read, rows
from serving.results import SessionResult
from serving.session import rules_of
from serving.worker import Worker
from sources.actions import carry_actions

AGENTS = ("solo", "pair")
Shelf = world.FolderShelf


@dataclass
class Lived:
    """A finished session."""

    home: Home
    settings: Params
    shelf: Shelf
    result: SessionResult


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    root, settings = tmp_path_factory.mktemp("lived"), world.params()
    shelf, home = world.shelf_with_both(root / "shelf", settings), Home(root / "home")
    worker = Worker(home, settings, AGENTS, world.feed(), shelf=shelf, environment={})
    return Lived(home, settings, shelf, worker.run())


def rows_of(home: Home, row: type[rows.RowType], **equals: Any) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(row, **equals)


@dataclass
class Offline:
    """What the engine does with the same bars when features come from the whole table."""

    observations: list[bytes]
    weights: list[float]
    equity: list[float]
    open_shares: dict[datetime, float]
    exit_shares: dict[datetime, float]
    commission: float


def offline(settings: Params, shelf: Shelf, agent: str) -> Offline:
    entry = settings.agent(agent)
    frames = world.market()
    traded = frames[Instrument("bundled", entry.symbol, "1d")]
    signal_bars = frames[Instrument("bundled", entry.signal_symbol, "1d")]
    bundle = shelf.load(agent, shelf.production(agent))
    table = build_table(signal_bars, bundle.spec, "1d")
    risk = risk_columns(traded, bundle.spec, "1d")
    clock = traded.index.intersection(signal_bars.index)
    joined = carry_actions(traded.join(risk), traded.index.isin(clock))
    market = Market.from_frames({"X": joined})
    scaled = bundle.scaler.transform(table.loc[clock].to_numpy())
    rules, state = rules_of(settings, agent), open_accounts(1, 1, settings.account.cash)
    done = Offline([], [], [], {}, {}, 0.0)
    for row in range(len(clock) - world.PAPER_BARS, len(clock)):
        bar, moment = bar_at(market, row), clock[row].to_pydatetime()
        settlement = settle(state, bar, rules)
        state, fills = settlement.state, settlement.fills
        observation = observe(scaled[row][None, None], account_features(state, bar))
        decision = bundle.decide(observation)
        done.observations.append(np.asarray(observation, "<f4").tobytes())
        done.weights.append(float(decision.weight[0, 0]))
        done.equity.append(float(state.equity[0]))
        done.commission += float(fills.commission[0, 0])
        for found, shares in (
            (done.open_shares, fills.open_shares), (done.exit_shares, fills.exit_shares)
        ):  # fmt: skip
            if shares[0, 0]:
                found[moment] = float(shares[0, 0])
        state = submit(state, decision.weight, bar, rules).state
    return done


@pytest.mark.parametrize("agent", AGENTS)
def test_paper_equals_the_engine_run_offline_to_the_last_bit(lived: Lived, agent: str) -> None:
    expected = offline(lived.settings, lived.shelf, agent)
    decisions = rows_of(lived.home, rows.Decision, agent=agent)
    assert [d.observation for d in decisions] == expected.observations
    assert [d.weight for d in decisions] == expected.weights
    assert [e.equity for e in rows_of(lived.home, rows.Equity, agent=agent)] == expected.equity
    fills = rows_of(lived.home, rows.Fill, agent=agent)
    inside = {f.bar_time: f.shares for f in fills if f.leg != "entry"}
    assert expected.exit_shares.items() <= inside.items()
    opened = [f for f in fills if f.bar_time not in expected.exit_shares or f.leg == "entry"]
    assert {f.bar_time: f.shares for f in opened} == expected.open_shares
    assert math.fsum(f.commission for f in fills) == pytest.approx(expected.commission, rel=1e-12)


def test_the_small_world_has_everything_that_can_happen(lived: Lived) -> None:
    legs = {fill.leg for fill in rows_of(lived.home, rows.Fill)}
    statuses = {one.status for one in rows_of(lived.home, rows.OrderStatus)}
    kinds = {event.kind for event in rows_of(lived.home, rows.RiskEvent)}
    bars = rows_of(lived.home, rows.BarSeen)
    assert {"entry"} < legs
    assert statuses == {"submitted", "partial", "filled", "cancelled"}
    assert {"partial fill", "order cut", "risk", "bar skipped"} <= kinds
    assert any(bar.split_ratio == 2.0 for bar in bars)
    assert any(bar.dividend == 0.25 for bar in bars)


@pytest.mark.parametrize("agent", AGENTS)
def test_shares_cash_and_fills_add_up(lived: Lived, agent: str) -> None:
    """Independent of the engine: fills, splits and dividends alone give the books."""
    fills = rows_of(lived.home, rows.Fill, agent=agent)
    bars = {b.bar_time: b for b in rows_of(lived.home, rows.BarSeen, agent=agent)
            if b.symbol == lived.settings.agent(agent).symbol}  # fmt: skip
    cash, shares = lived.settings.account.cash, 0.0
    for book in rows_of(lived.home, rows.Equity, agent=agent):
        bar = bars[book.bar_time]
        shares *= bar.split_ratio
        cash += shares * bar.dividend
        for fill in (f for f in fills if f.bar_time == book.bar_time):
            cash -= fill.shares * fill.price + fill.commission
            shares += fill.shares
        assert book.shares == shares
        assert book.cash == pytest.approx(cash, rel=1e-12)
        assert book.equity == pytest.approx(cash + shares * bar.close, rel=1e-12)


def test_every_decision_says_why(lived: Lived) -> None:
    for decision in rows_of(lived.home, rows.Decision):
        named = [feature["name"] for feature in decision.rationale["features"]]
        assert len(named) == len(set(named)) == 3
        assert 0.0 <= decision.confidence <= 1.0
        assert named[0] in decision.rationale["text"]
    verdicts = rows_of(lived.home, rows.Verdict)
    changed = [v for v in verdicts if v.asked != v.allowed]
    assert changed
    assert all(v.words for v in changed)


def test_every_order_is_traced_to_data_and_code(lived: Lived) -> None:
    for order in read(lived.home.ledger, "orders"):
        assert isinstance(order, rows.Order)
        traced = lineage(lived.home.ledger, order.order_ref)
        assert (traced.trial, traced.dataset_sha256, traced.commit) == (7, "d" * 64, "c" * 40)
        assert traced.decision.bar_time == order.bar_time
        assert len(traced.features) > 44
        assert math.fsum(f.shares for f in traced.fills) == order.filled


def test_experience_is_ready_for_the_next_retraining(lived: Lived) -> None:
    frame = experience(lived.home.ledger, "solo")
    assert len(frame) == world.PAPER_BARS
    closes = world.market()[Instrument("bundled", "SOLO", "1d")]["close"].iloc[-world.PAPER_BARS :]
    pd.testing.assert_series_equal(
        frame["price"], closes, check_names=False, check_freq=False, check_index=True
    )
    gained = math.exp(frame["reward"].iloc[:-1].sum()) - 1.0
    result = next(s for s in lived.result.sleeves if s.agent == "solo")
    assert gained == pytest.approx(result.total_return)


def test_the_result_counts_what_happened(lived: Lived) -> None:
    assert [sleeve.agent for sleeve in lived.result.sleeves] == list(AGENTS)
    assert lived.result.finished
    assert lived.result.latency.bars == 2 * world.PAPER_BARS
    for sleeve in lived.result.sleeves:
        equity = [e.equity for e in rows_of(lived.home, rows.Equity, agent=sleeve.agent)]
        assert sleeve.decisions == sleeve.bars == world.PAPER_BARS
        assert sleeve.final_equity == equity[-1]
        assert sleeve.total_return == equity[-1] / 100_000.0 - 1.0
        falls = [1.0 - e / max(equity[: i + 1]) for i, e in enumerate(equity)]
        assert sleeve.max_drawdown == pytest.approx(max(falls))


def test_the_log_is_json_with_the_ids_that_join_it_to_the_ledger(lived: Lived) -> None:
    lines = (lived.home.logs / "worker.jsonl").read_text().splitlines()
    closed = [entry for entry in map(json.loads, lines) if entry["message"] == "close"]
    assert len(closed) == 2 * world.PAPER_BARS
    sent = {entry["order_ref"] for entry in closed if entry["order_ref"]}
    assert sent <= {intent.order_ref for intent in rows_of(lived.home, rows.Intent)}


def test_status_says_how_each_sleeve_stands(lived: Lived) -> None:
    shown = status.read(lived.home)
    assert shown.phase == "closed"
    last = rows_of(lived.home, rows.Equity, agent="pair")[-1]
    assert shown.agents["pair"].equity == last.equity
    assert shown.agents["pair"].model_version == "1"
    json.dumps(shown.to_json())


class SteppedFeed(ReplayFeed):
    """A replay that shows its next step when told to."""

    def __init__(self) -> None:
        super().__init__(world.market(), world.PAPER_BARS)
        self._steps = threading.Semaphore(0)

    def show(self, steps: int) -> None:
        self._steps.release(steps)

    def stream(
        self, after: Mapping[Instrument, datetime], stop: threading.Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        for bars in super().stream(after, stop):
            while not self._steps.acquire(timeout=0.02):
                if stop.is_set():
                    return
            yield bars


def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait for another thread to get there; return how long it took."""
    began, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        pause.wait(0.002)
    return time.monotonic() - began


@dataclass
class Running:
    """A worker in a thread of the test."""

    home: Home
    settings: Params
    shelf: Shelf
    feed: SteppedFeed
    worker: Worker
    thread: threading.Thread
    results: list[SessionResult]

    def closes(self, agent: str = "solo") -> int:
        return len(rows_of(self.home, rows.Equity, agent=agent))

    def show(self, steps: int) -> None:
        """Show bars and wait until the solo agent has closed them."""
        expected = self.closes() + steps
        self.feed.show(steps)
        until(lambda: self.closes() == expected)

    def finish(self) -> SessionResult:
        self.feed.show(world.PAPER_BARS)
        self.thread.join(timeout=60.0)
        return self.results[0]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    feed, results = SteppedFeed(), list[SessionResult]()
    worker = Worker(home, settings, ["solo"], feed, shelf=shelf, environment={})
    thread = threading.Thread(target=lambda: results.append(worker.run()), daemon=True)
    thread.start()
    one = Running(home, settings, shelf, feed, worker, thread, results)
    until(lambda: home.ledger.exists() and status.read(home).phase == "running")
    yield one
    worker.stop()
    thread.join(timeout=60.0)


def test_a_moved_alias_is_followed_within_a_second_and_misses_no_bar(running: Running) -> None:
    running.show(5)
    running.shelf.publish(running.settings, "solo", "2", seed=99)
    running.shelf.point("solo", "2")
    changes = lambda: rows_of(running.home, rows.AliasChange)  # noqa: E731
    assert until(lambda: len(changes()) == 2) < 1.0
    assert changes()[1].previous_version == "1"
    running.show(3)
    running.shelf.point("solo", "1")  # a rollback is an alias that moves as well
    assert until(lambda: len(changes()) == 3) < 1.0
    result = running.finish()
    decisions = rows_of(running.home, rows.Decision)
    assert [d.model_version for d in decisions] == (
        ["1"] * 5 + ["2"] * 3 + ["1"] * (world.PAPER_BARS - 8)
    )
    assert result.sleeves[0].model_versions == ("1", "2")
    assert "Production is version 2, was 1" in {e.detail for e in rows_of(running.home, rows.Event)}


def test_a_damaged_new_version_is_refused_and_the_present_one_goes_on(running: Running) -> None:
    running.show(2)
    running.shelf.publish(running.settings, "solo", "2", seed=99)
    policy = running.shelf.root / "solo" / "2" / "policy.onnx"
    policy.write_bytes(policy.read_bytes()[:-1] + b"x")
    running.shelf.point("solo", "2")
    refused = lambda: rows_of(running.home, rows.RiskEvent, kind="alias refused")  # noqa: E731
    until(lambda: bool(refused()))
    assert "version 2" in refused()[0].detail
    assert "altered" in refused()[0].detail
    running.finish()
    assert {d.model_version for d in rows_of(running.home, rows.Decision)} == {"1"}


def test_with_the_registry_away_a_running_worker_goes_on(running: Running) -> None:
    running.show(2)
    running.shelf.away.set()
    looks = running.shelf.looks
    until(lambda: running.shelf.looks > looks + 1)
    assert running.finish().sleeves[0].bars == world.PAPER_BARS
    log = (running.home.logs / "worker.jsonl").read_text()
    assert log.count("registry away") == 1


def test_a_paused_agent_holds_until_it_is_resumed(running: Running) -> None:
    running.show(3)
    running.worker.pause("solo", by="an operator")
    paused = lambda kind: rows_of(running.home, rows.RiskEvent, kind=kind)  # noqa: E731
    until(lambda: bool(paused("paused")))
    running.show(2)
    running.worker.resume("solo")
    until(lambda: bool(paused("resumed")))
    running.show(1)
    verdicts = rows_of(running.home, rows.Verdict)
    assert [math.isnan(v.asked) for v in verdicts[3:6]] == [True, True, False]
    assert "paused" in verdicts[3].words[0]


def test_a_second_worker_is_refused_and_told_who_serves(running: Running) -> None:
    second = Worker(
        running.home, running.settings, ["solo"], SteppedFeed(), shelf=running.shelf,
        environment={},
    )  # fmt: skip
    with pytest.raises(NotAllowed, match=rf"process {os.getpid()}"):
        second.run()


def test_a_stopped_worker_resumes_where_it_was(running: Running) -> None:
    running.show(7)
    running.worker.stop("for a break")
    running.thread.join(timeout=60.0)
    assert not running.results[0].finished
    assert status.read(running.home).phase == "stopped"
    again = Worker(
        running.home, running.settings, ["solo"], world.feed(), shelf=running.shelf, environment={}
    )
    result = again.run()
    assert result.session == 1
    assert result.latency.bars == world.PAPER_BARS - 7
    expected = offline(running.settings, running.shelf, "solo")
    assert [e.equity for e in rows_of(running.home, rows.Equity)] == expected.equity


def test_with_the_registry_away_a_restarted_worker_lives_on_its_verified_copy(
    running: Running,
) -> None:
    running.show(2)
    running.worker.stop()
    running.thread.join(timeout=60.0)
    running.shelf.away.set()
    again = Worker(
        running.home, running.settings, ["solo"], SteppedFeed(), shelf=running.shelf,
        environment={},
    )  # fmt: skip
    policy = running.shelf.root / "solo" / "1" / "policy.onnx"
    whole = policy.read_bytes()
    policy.write_bytes(whole[:-1] + b"x")
    with pytest.raises(BadBundle, match="altered"):
        again.run()
    policy.write_bytes(whole)
    third = Worker(
        running.home, running.settings, ["solo"], world.feed(), shelf=running.shelf, environment={}
    )
    assert third.run().sleeves[0].bars == world.PAPER_BARS


def without_snapshots(home: Home) -> None:
    """So that every recorded bar is lived through again."""
    connection = sqlite3.connect(home.ledger)
    connection.execute("DELETE FROM snapshots")
    connection.commit()
    connection.close()


def test_changed_rules_do_not_rewrite_recorded_bars(running: Running) -> None:
    running.show(9)
    running.worker.stop()
    running.thread.join(timeout=60.0)
    without_snapshots(running.home)
    before = rows_of(running.home, rows.Equity)
    dear = replace_costs(running.settings)
    worker = Worker(running.home, dear, ["solo"], world.feed(), shelf=running.shelf, environment={})
    assert worker.run().sleeves[0].bars == world.PAPER_BARS
    assert rows_of(running.home, rows.Equity)[:9] == before
    first, second = rows_of(running.home, rows.RuleChange)
    assert (first.bar_time, first.changes) == (None, {})
    assert (second.bar_time, second.changes) == (before[-1].bar_time,
                                                 {"slippage_rate": [0.0002, 0.005]})  # fmt: skip
    (event,) = rows_of(running.home, rows.RiskEvent, kind="settings")
    assert event.detail == "since the restart: slippage_rate 0.0002 -> 0.005"


def test_books_that_replay_to_another_equity_are_refused(running: Running) -> None:
    running.show(9)
    running.worker.stop()
    running.thread.join(timeout=60.0)
    without_snapshots(running.home)
    account = running.settings.account.model_copy(update={"cash": 90_000.0})
    poorer = running.settings.model_copy(update={"account": account})
    worker = Worker(
        running.home, poorer, ["solo"], world.feed(), shelf=running.shelf, environment={}
    )
    with pytest.raises(StorageError, match="replays to an equity of"):
        worker.run()


def replace_costs(settings: Params) -> Params:
    costs = settings.costs.model_copy(update={"slippage_bps": 50.0})
    return settings.model_copy(update={"costs": costs})


@pytest.mark.parametrize(("mode", "error", "words"), [
    ("live", NotAllowed, "TRADING_MODE=live"), ("demo", ConfigError, "TRADING_MODE=demo"),
])  # fmt: skip
def test_anything_but_paper_is_refused(
    tmp_path: Path, mode: str, error: type[Exception], words: str
) -> None:
    shelf = Shelf(tmp_path / "shelf")
    with pytest.raises(error, match=words):
        Worker(
            Home(tmp_path), world.params(), ["solo"], world.feed(), shelf=shelf,
            environment={"TRADING_MODE": mode},
        )  # fmt: skip
    assert not (tmp_path / "ledger.db").exists()


def test_agents_without_production_are_left_out_and_none_is_an_error(tmp_path: Path) -> None:
    settings, shelf = world.params(), Shelf(tmp_path / "shelf")
    worker = Worker(
        Home(tmp_path / "home"), settings, AGENTS, world.feed(), shelf=shelf, environment={}
    )
    with pytest.raises(UnknownVersion, match="solo, pair: no version is Production"):
        worker.run()


def test_a_broken_feed_stops_the_worker_with_its_error(tmp_path: Path) -> None:
    settings = world.params()
    shelf = world.shelf_with_both(tmp_path / "shelf", settings)

    class Broken(ReplayFeed):
        def stream(
            self, after: Mapping[Instrument, datetime], stop: threading.Event
        ) -> Iterator[tuple[FeedBar, ...]]:
            steps = super().stream(after, stop)
            yield next(steps)
            raise BadBars("SOLO: high below low at 2013-11-04")

    feed = Broken(world.market(), world.PAPER_BARS)
    home = Home(tmp_path / "home")
    with pytest.raises(BadBars, match="2013-11-04"):
        Worker(home, settings, ["solo"], feed, shelf=shelf, environment={}).run()
    assert len(rows_of(home, rows.Equity)) == 1
    assert rows_of(home, rows.SessionEvent)[-1].detail.startswith("BadBars")
    assert status.read(home).phase == "stopped"


def test_sigterm_ends_the_worker_after_the_bar_at_hand(tmp_path: Path) -> None:
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")

    class Signalling(SteppedFeed):
        def stream(
            self, after: Mapping[Instrument, datetime], stop: threading.Event
        ) -> Iterator[tuple[FeedBar, ...]]:
            for step, bars in enumerate(ReplayFeed.stream(self, after, stop)):
                yield bars
                if step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                    stop.wait(10.0)

    before = signal.getsignal(signal.SIGTERM)
    result = Worker(home, settings, ["solo"], Signalling(), shelf=shelf, environment={}).run()
    assert not result.finished
    assert result.latency.bars == 3
    assert rows_of(home, rows.SessionEvent)[-1].detail == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_closed_replay_is_traded_anew_in_a_session_of_its_own(lived: Lived) -> None:
    again = Worker(
        lived.home, lived.settings, ["pair"], world.feed(), shelf=lived.shelf, environment={}
    ).run()
    assert again.session == 2
    first = rows_of(lived.home, rows.Equity, session=1, agent="pair")
    second = rows_of(lived.home, rows.Equity, session=2, agent="pair")
    assert [replace(row, session=1) for row in second] == first
