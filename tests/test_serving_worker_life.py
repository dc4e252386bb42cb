"""A worker's life: what it begins with, looks after while nothing comes, and leaves behind."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as threads
from typing import Any

import pytest
import serving_kit as world

from core.errors import ConfigError, Fenced, NotAllowed, ServiceUnavailable, StorageError
from core.home import Home
from serving import status, switch
from serving.alerts import KILLED
from serving.brokers.paper import PaperBroker
from serving.brokers.port import News, Report, Ticket
from serving.deciding import LocalDesk
from serving.feeds import ReplayFeed
from serving.history import FeedBar, Instrument
from serving.lease import Holder, LeaseFolder, lease_path
from serving.ledger import Ledger, LedgerReader, rows
from serving.metrics import Meters
from serving.results import SessionResult
from serving.session import session_event
from serving.watch import Watch
from serving.worker import Worker

BARS = 3


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends, pause = time.monotonic() + seconds, Event()
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        pause.wait(0.002)


class Acting(ReplayFeed):
    """Shows so many bars, and does something before each; ``acts`` by step, at its end too."""

    def __init__(self, bars: int, acts: Mapping[int, Callable[[], object]]) -> None:
        super().__init__(world.market(), max(bars, 1))
        self._shown = bars
        self._acts = acts
        self.stop = Event()
        self.closed = False

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        self.stop = stop
        steps = super().stream(after, stop)
        for step in range(self._shown):
            self._acts.get(step, lambda: None)()
            bars = next(steps, None)
            if bars is None:
                return
            yield bars
        self._acts.get(self._shown, lambda: None)()

    def close(self) -> None:
        self.closed = True


class Far(PaperBroker):
    """Plays a broker across a network, and remembers in which order it was spoken to."""

    remote = True

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.abandoned: Mapping[str, str] = {}
        self.filled: Callable[[], None] = lambda: None
        self.asked = 0
        self.events: list[tuple[str, str]] = []

    def abandon(self, orders: Mapping[str, str]) -> None:
        self.said.append("abandon")
        self.abandoned = orders

    def begin(self, account: str = "") -> None:
        self.said.append(f"begin {account}")

    def listen(self, filled: Callable[[], None]) -> None:
        self.said.append("listen")
        self.filled = filled

    def close(self) -> None:
        self.said.append("close")

    def news(self) -> News:
        self.asked += 1
        told, self.events = tuple(self.events), []
        return News(events=told)

    def lost(self, agent: str) -> str:
        return ""

    def remember(self, *told: object) -> None: ...


class Desk(LocalDesk):
    def __init__(self) -> None:
        self.tended = self.ended = 0
        self.seated: list[str] = []

    def begin(self, traders: Mapping[str, Any], note: Any, steer: Any) -> None:
        self.seated = list(traders)

    def tend(self) -> None:
        self.tended += 1

    def end(self) -> None:
        self.ended += 1


class Watching(Watch):
    def __init__(self) -> None:
        super().__init__(world.params().alerts, Meters(["solo"]))
        self.beats = 0
        self.noticed: list[tuple[str, str]] = []

    def beat(self) -> None:
        self.beats += 1
        super().beat()

    def notice(self, kind: str, detail: str, agent: str = "") -> None:
        self.noticed.append((kind, detail))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> world.FolderShelf:
    return world.shelf_with_both(tmp_path_factory.mktemp("shelf"), world.params())


@dataclass
class Life:
    """A worker to be, and what is around it."""

    home: Home
    shelf: world.FolderShelf
    acts: dict[int, Callable[[], object]] = field(default_factory=dict)
    bars: int = BARS
    broker: PaperBroker = field(default_factory=PaperBroker)
    desk: Desk = field(default_factory=Desk)
    environment: dict[str, str] = field(default_factory=dict)

    def worker(self, **more: Any) -> Worker:
        self.feed, self.watch = Acting(self.bars, self.acts), Watching()
        return Worker(
            self.home, world.params(), ["solo"], self.feed, shelf=self.shelf, broker=self.broker,
            desk=self.desk, watch=self.watch, environment=self.environment, **more,
        )  # fmt: skip

    def run(self, **more: Any) -> SessionResult:
        return self.worker(**more).run()

    def rows(self, row: type[rows.RowType], **equals: object) -> list[rows.RowType]:
        with LedgerReader(self.home.ledger) as ledger:
            return ledger.rows(row, **equals)

    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.detail) for event in self.rows(rows.SessionEvent)]

    def logged(self) -> list[dict[str, Any]]:
        lines = (self.home.logs / "worker.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def life(tmp_path: Path, shelf: world.FolderShelf) -> Life:
    return Life(Home(tmp_path / "home"), shelf)


def test_a_broker_far_away_knows_what_is_left_over_before_it_connects_and_is_left_at_the_end(
    life: Life,
) -> None:
    far = life.broker = Far()
    life.home.make(life.home.root)
    moment = datetime(2020, 1, 2, tzinfo=UTC)
    with Ledger(life.home.ledger) as ledger, ledger.transaction():
        ledger.add(rows.Session(session=1, broker="paper", feed="an earlier one", mode="paper"))
        ledger.add(session_event(1, "started"))
        ledger.add(rows.Intent(
            session=1, agent="solo", bar_time=moment, symbol="SOLO", order_ref="old", leg="entry",
            shares=5.0, kind="market_on_open", model_version="1",
        ))  # fmt: skip
        ledger.add(rows.OrderStatus(
            session=1, bar_time=moment, order_ref="old", status="submitted", filled=0.0,
            remaining=5.0, broker_id="77",
        ))  # fmt: skip
    life.bars = 0
    assert life.run().session == 2
    assert far.said == ["abandon", "begin ", "listen", "close"]
    assert far.abandoned == {"77": "old"}


def test_a_fill_far_away_is_heard_of_without_waiting_for_anything_else(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.worker.WAIT_SECONDS", 600.0)
    far = life.broker = Far()

    def fills() -> None:
        asked = far.asked
        far.filled()
        until(lambda: far.asked > asked)

    life.acts, life.bars = {0: fills}, 0
    assert life.run().finished


def test_while_nothing_comes_the_worker_looks_after_everything(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.worker.WAIT_SECONDS", 0.005)
    monkeypatch.setattr("serving.status_writer.STATUS_SECONDS", 0.0)
    life.environment = {"RATCHET_LEASE_SECONDS": "0.5"}
    far = life.broker = Far()

    def idles() -> None:
        def looks() -> tuple[int, int, int]:
            return life.desk.tended, far.asked, life.watch.beats

        before = looks()
        until(lambda: all(now > was + 2 for now, was in zip(looks(), before, strict=True)))
        until(lambda: status.read(life.home).phase == "waiting")
        folder = LeaseFolder(lease_path(life.home, life.environment))
        term = folder.newest()
        assert term is not None
        until(lambda: folder.newest() != term)  # it is renewed
        os.kill(os.getpid(), signal.SIGUSR1)  # presses the kill switch
        until(lambda: bool(life.rows(rows.RiskEvent, kind=KILLED)))

    life.acts, life.bars = {0: idles}, 0
    assert life.run().finished


def test_between_two_bars_the_agents_are_looked_after_too(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.worker.WAIT_SECONDS", 600.0)
    life.acts = {0: lambda: until(lambda: status.read(life.home).phase == "running")}
    life.run()
    messages = [one["message"] for one in life.logged()]
    assert [one for one in messages if one in ("connecting", "session", "close", "closed")] == (
        ["connecting", "session", *["close"] * BARS, "closed"]
    )
    assert life.desk.seated == ["solo"]
    assert life.desk.tended == BARS + 1  # before each bar, and before the end
    assert life.watch.beats == BARS + 1
    assert life.desk.ended == 1
    assert life.feed.closed
    assert life.feed.stop.is_set()  # or a feed that waits for bars would go on


def test_a_feed_that_ends_because_the_worker_is_stopped_closes_no_session(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waking(Event):
        """The feed hears of it first, whatever the threads' luck."""

        def set(self) -> None:
            super().set()
            worker._feeding.join(60.0)

    monkeypatch.setattr("serving.worker.Event", Waking)
    life.acts = {1: lambda: (Thread(target=worker.stop).start(), life.feed.stop.wait(60.0))}
    worker = life.worker()
    assert not worker.run().finished
    assert life.told()[-1] == ("stopped", "asked to")
    life.acts = {}
    assert life.run().session == 1  # it goes on where it was


@pytest.mark.parametrize("ends", ["closed", "stopped"])
def test_what_a_broker_told_last_is_in_the_ledger_before_the_end(life: Life, ends: str) -> None:
    far = life.broker = Far()

    def tells() -> None:
        far.events.append(("account", "DU1"))
        if ends == "stopped":
            os.kill(os.getpid(), signal.SIGINT)
            life.feed.stop.wait(60.0)

    life.acts, life.bars = {0: tells}, 0
    result = life.run()
    assert result.finished == (ends == "closed")
    (event,) = life.rows(rows.RiskEvent, kind="account")
    assert event.detail == "DU1"
    said = {"closed": "the feed has no more bars", "stopped": "SIGINT"}[ends]
    assert life.told() == [("started", ""), (ends, said)]
    assert status.read(life.home).phase == ends
    again = Life(life.home, life.shelf, bars=0, broker=Far())
    again.run()
    assert isinstance(again.broker, Far)
    # A session that goes on keeps to its account; a new one has none yet.
    assert again.broker.said[1] == ("begin " if ends == "closed" else "begin DU1")


def test_a_worker_waits_for_its_threads_before_it_closes_what_they_use(life: Life) -> None:
    happened: list[str] = []

    class Slow(Acting):
        def close(self) -> None:
            happened.append("closed")

    def ends() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        life.feed.stop.wait(60.0)
        Event().wait(0.2)  # it takes its time, and is waited for however long that is
        happened.append("ended")

    before = set(threads())
    life.worker()
    life.feed = Slow(1, {1: ends})
    Worker(life.home, world.params(), ["solo"], life.feed, shelf=life.shelf, environment={}).run()
    assert happened == ["ended", "closed"]
    assert not [one.name for one in set(threads()) - before if one.is_alive()]


def test_a_worker_that_stays_goes_on_after_the_feed_until_it_is_stopped(life: Life) -> None:
    def ends() -> None:
        until(lambda: ("closed", "the feed has no more bars") in life.told())
        worker.pause("solo", "an operator")
        until(lambda: bool(life.rows(rows.RiskEvent, kind="paused")))
        worker.resume("solo", "an operator")
        until(lambda: bool(life.rows(rows.RiskEvent, kind="resumed")))
        worker.stop("enough")

    ending = Thread(target=ends)
    life.acts = {BARS: ending.start}
    worker = life.worker(stay=True)
    assert worker.run().finished
    ending.join()
    assert life.told()[-1] == ("stopped", "enough")
    assert life.feed.stop.is_set()


def test_a_fresh_worker_opens_a_session_of_its_own(life: Life) -> None:
    life.acts = {1: lambda: (os.kill(os.getpid(), signal.SIGTERM), life.feed.stop.wait(60.0))}
    assert [life.run(fresh=fresh).session for fresh in (False, False, True)] == [1, 1, 2]


def test_the_snapshot_at_the_end_spares_a_restart_every_bar(life: Life) -> None:
    life.acts = {2: lambda: (os.kill(os.getpid(), signal.SIGTERM), life.feed.stop.wait(60.0))}
    life.run()
    last = life.rows(rows.Equity)[-1].bar_time
    assert [one.bar_time for one in life.rows(rows.Snapshot)][-1] == last


def test_why_a_worker_ended_is_told_everywhere_and_without_secrets(life: Life) -> None:
    def fails() -> None:
        raise ServiceUnavailable("no answer to key-0123456789 within 5 s")

    life.environment = {"RATCHET_API_TOKEN": "key-0123456789"}
    life.broker = Far()
    life.acts, life.bars = {0: fails}, 0
    with pytest.raises(ServiceUnavailable):
        life.run()
    reason = "ServiceUnavailable: no answer to **** within 5 s"
    assert life.told()[-1] == ("stopped", reason)
    assert life.watch.noticed == [("failed", reason)]
    assert [one["reason"] for one in life.logged() if one["message"] == "failed"] == [reason]
    assert status.read(life.home).phase == "stopped"
    assert life.feed.closed
    assert life.desk.ended == 1
    assert isinstance(life.broker, Far)
    assert life.broker.said[-1] == "close"


def test_a_worker_that_was_replaced_writes_nothing_more_into_the_ledger(life: Life) -> None:
    def fails() -> None:
        raise Fenced("epoch 2 has begun")

    life.acts, life.bars = {0: fails}, 0
    with pytest.raises(Fenced):
        life.run()
    assert life.told() == [("started", "")]
    assert life.watch.noticed == [("failed", "Fenced: epoch 2 has begun")]


def replaced(life: Life) -> None:
    """Let another gateway take the lease."""
    other = Holder("gateway", "elsewhere", 7, "/another/home")
    folder = LeaseFolder(lease_path(life.home, life.environment))
    assert folder.claim(other, 60.0, gone=lambda _: True)


def test_no_order_leaves_a_worker_that_was_replaced(life: Life) -> None:
    placed: list[str] = []

    class Counting(PaperBroker):
        def place(self, ticket: Ticket) -> Report:
            placed.append(ticket.order_ref)
            return super().place(ticket)

    life.broker = Counting()
    life.run()
    assert placed
    placed.clear()
    life.acts = {0: lambda: replaced(life)}
    with pytest.raises(Fenced, match="elsewhere holds the lease"):
        life.run(fresh=True)
    assert placed == []


def test_a_worker_that_was_replaced_while_its_agents_began_does_not_begin(life: Life) -> None:
    class Slow(Desk):
        def begin(self, traders: Mapping[str, Any], note: Any, steer: Any) -> None:
            replaced(life)

    streamed: list[int] = []
    life.desk, life.acts = Slow(), {0: lambda: streamed.append(1)}
    with pytest.raises(Fenced, match="elsewhere holds the lease"):
        life.run()
    assert streamed == []


def test_what_still_holds_after_a_restart_is_an_open_alert_again(life: Life) -> None:
    def stops() -> None:
        switch.press(life.home, "an operator", "a test", datetime(2026, 3, 2, tzinfo=UTC))
        until(lambda: bool(life.rows(rows.RiskEvent, kind=KILLED)))
        os.kill(os.getpid(), signal.SIGTERM)
        life.feed.stop.wait(60.0)

    life.acts = {1: stops}
    life.run()
    life.acts = {}
    assert life.run().session == 1
    assert [one.event for one in life.watch.open.newest_first()] == ["kill_switch"]
    assert len(life.rows(rows.RiskEvent, kind=KILLED)) == 1  # it was not pressed anew


def test_a_signal_has_the_settings_read_again(life: Life) -> None:
    asked: list[int] = []

    def reloads() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: bool(asked))

    life.acts, life.bars = {0: reloads}, 0
    assert life.run(settings=lambda: asked.append(1) or world.params()).finished  # type: ignore[func-returns-value]


def test_an_end_that_cannot_be_recorded_hides_no_error(life: Life) -> None:
    class Full(Worker):
        def _end(self, kind: str, detail: str) -> None:
            raise StorageError("ledger.db: no space left")

    def fails() -> None:
        raise ServiceUnavailable("no answer")

    life.acts, life.bars = {0: fails}, 0
    life.worker()
    worker = Full(life.home, world.params(), ["solo"], life.feed, shelf=life.shelf, environment={})
    with pytest.raises(ServiceUnavailable, match="no answer"):
        worker.run()
    (said,) = [one for one in life.logged() if one["message"] == "end not recorded"]
    assert said["reason"] == "ledger.db: no space left"


def test_a_desk_that_cannot_begin_ends_the_worker_with_its_own_error(life: Life) -> None:
    class Closed(Desk):
        def begin(self, traders: Mapping[str, Any], note: Any, steer: Any) -> None:
            raise ConfigError("port 5557 of the bus cannot be bound")

    life.desk = Closed()
    with pytest.raises(ConfigError, match="port 5557"):
        life.run()
    assert life.desk.ended == 1


def test_trading_mode_is_no_matter_of_a_broker_that_holds_it_itself(life: Life) -> None:
    life.environment = {"TRADING_MODE": "live"}
    with pytest.raises(NotAllowed, match="TRADING_MODE=live"):
        life.worker()
    life.broker, life.bars = Far(), 0
    assert life.run().finished
