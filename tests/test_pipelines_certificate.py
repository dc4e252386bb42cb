"""Certificates of sessions in which people, clocks and the registry stepped in."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import serving_kit as world
from test_serving_parity import dataset_of

from core.home import Home
from core.settings import Params
from features.dataset import Dataset
from pipelines import certificate
from pipelines.certificate import Certificate, Part, certificates_of, certify, recorded
from registry.bundle import Bundle
from serving import switch
from serving.agent import Answer
from serving.closing import Close
from serving.deciding import LocalDesk, Trader
from serving.feeds import ReplayFeed
from serving.following import AliasMoved, Published
from serving.history import FeedBar, Instrument
from serving.ledger import LedgerReader, rows
from serving.messages import Pause
from serving.session import rules_of
from serving.worker import Worker


class Directed(ReplayFeed):
    """Does what it is told before it shows a step."""

    acts: Mapping[int, Callable[[], None]]

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        for number, bars in enumerate(super().stream(after, stop)):
            if number in self.acts:
                self.acts[number]()
            yield bars


def session(
    root: Path,
    settings: Params,
    acts: Callable[[Worker, Home, world.FolderShelf], Mapping[int, Callable[[], None]]],
    desk: LocalDesk | None = None,
) -> tuple[Home, world.FolderShelf]:
    shelf, home = world.shelf_with_both(root / "shelf", settings), Home(root / "home")
    shelf.publish(settings, "solo", "2", 21)
    feed = Directed(world.market(), world.PAPER_BARS, 0.0)
    worker = Worker(home, settings, ("solo",), feed, shelf=shelf, desk=desk, environment={})
    feed.acts = acts(worker, home, shelf)
    worker.run()
    return home, shelf


def certified(home: Home, settings: Params, shelf: world.FolderShelf) -> list[Certificate]:
    (found,) = recorded(home, 1)

    def material(part: Part) -> tuple[Bundle, Dataset]:
        bundle = shelf.load("solo", Published(part.version, part.bundle_sha256))
        return bundle, dataset_of(settings, bundle, "solo")

    cash = settings.account.cash
    return certificates_of(home, found, material, rules_of(settings, "solo"), cash)


def rows_of(home: Home, kind: type[rows.RowType]) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(kind)


def tamper(home: Home, sql: str, *values: Any) -> int:
    """Change the ledger as somebody would who got around its triggers."""
    with closing(sqlite3.connect(home.ledger)) as database:
        for table in ("verdicts", "risk_events", "decisions"):
            for verb in ("update", "delete"):
                database.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        changed = database.execute(sql, values).rowcount
        database.commit()
    return changed


def swapped(worker: Worker, home: Home, shelf: world.FolderShelf) -> dict[int, Callable[[], None]]:
    def swap() -> None:
        shelf.point("solo", "2")
        published = shelf.production("solo")
        worker._queue.put(AliasMoved("solo", published, shelf.load("solo", published)))

    return {15: swap}


def test_a_session_with_a_swap_is_certified_each_part_by_its_own_version(tmp_path: Path) -> None:
    settings = world.params(paper={"alias_poll_seconds": 1.0, "snapshot_seconds": 60.0})
    home, shelf = session(tmp_path, settings, swapped)
    first, second = certified(home, settings, shelf)
    assert [one.passed for one in (first, second)] == [True, True], (str(first), str(second))
    assert (first.version, second.version) == ("1", "2")
    assert first.bars + second.bars == world.PAPER_BARS
    assert min(first.bars, second.bars) > 5
    assert first.fills + second.fills == len(recorded(home, 1)[0].fills)
    # The second part by the first's version is another thing, and found at its first bar.
    changed = tamper(home, "UPDATE decisions SET model_version = '1', bundle_sha256 = ?",
                     recorded(home, 1)[0].decisions[0].bundle_sha256)  # fmt: skip
    assert changed == world.PAPER_BARS
    (whole,) = certified(home, settings, shelf)
    assert whole.difference is not None
    assert whole.difference.bar_time == recorded(home, 1)[0].times[first.bars]


class Silent(LocalDesk):
    """Its trader does not answer at some bars, as a process that misses its deadline; behind a
    late close that has ordered something, a person presses the kill switch."""

    def __init__(self, press: Callable[[], None]) -> None:
        self._press, self._closes = press, 0

    def closed(self, close: Close) -> None:
        self._closes += 1
        if self._closes >= 28 and close.ticket is not None:
            self._press()

    def trader(self, *arguments: Any) -> Trader:
        trader = super().trader(*arguments)
        decide, asked = trader.decide, iter(range(world.PAPER_BARS))

        def answer(state: Any, bar: Any) -> Answer:
            if next(asked) in (5, 6):
                return Answer(b"", "0" * 64, float("nan"), float("nan"), 0.0, (), "no signal")
            return decide(state, bar)

        trader.decide = answer  # type: ignore[method-assign]
        return trader


def steered(worker: Worker, home: Home, shelf: world.FolderShelf) -> dict[int, Callable[[], None]]:
    return {
        12: lambda: worker._queue.put(Pause("solo", True, "a person")),
        18: lambda: worker._queue.put(Pause("solo", False, "a person")),
    }


def test_paused_stopped_and_unanswered_bars_are_replayed_as_such(tmp_path: Path) -> None:
    settings = world.params()

    def press() -> None:
        moment = datetime(2026, 3, 2, tzinfo=UTC)
        switch.press(Home(tmp_path / "home"), "a person", "a test", moment, "flatten")

    home, shelf = session(tmp_path, settings, steered, Silent(press))
    (one,) = certified(home, settings, shelf)
    assert one.passed, str(one)
    asked = recorded(home, 1)[0].weights()
    assert {5, 6} <= set(asked)
    assert len(asked) >= 10
    assert 0.0 in asked.values()
    (stop,) = recorded(home, 1)[0].stops
    orders = [one for one in rows_of(home, rows.Order) if one.bar_time == stop.bar_time]
    assert any(one.status == "cancelled" for one in orders)
    assert "pauses, stops and missing answers, as recorded" in str(one)
    # Without the word of a person, a pause is a verdict nobody can explain.
    changed = tamper(home, "DELETE FROM risk_events WHERE kind = 'paused'")
    assert changed == 1
    (one,) = certified(home, settings, shelf)
    assert one.difference is not None
    assert one.difference.what == "asked"


def test_a_false_intervention_is_found(tmp_path: Path) -> None:
    settings = world.params()
    home, shelf = session(tmp_path, settings, lambda *_: {})
    (found,) = recorded(home, 1)
    time = next(d.bar_time for d in found.decisions[10:] if d.weight == d.weight)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    words = '["paused: holds what it has"]'
    sql = "UPDATE verdicts SET asked = NULL, words = ? WHERE bar_time = ?"
    assert tamper(home, sql, words, moment) == 1
    (one,) = certified(home, settings, shelf)
    assert one.difference is not None
    assert (one.difference.bar_time, one.difference.what) == (time, "asked")


def test_a_sleeve_that_reduces_and_halts_is_certified(tmp_path: Path) -> None:
    risk = {"reduce_drawdown": 0.004, "halt_drawdown": 0.012}
    settings = world.params(risk=risk)
    home, shelf = session(tmp_path, settings, lambda *_: {})
    (one,) = certified(home, settings, shelf)
    assert one.passed, str(one)
    states = {event.detail for event in recorded(home, 1)[0].events if event.kind == "risk state"}
    assert any("HALTED" in detail for detail in states)


def test_one_agents_failure_does_not_stop_the_others_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    agents = ("pair", "solo")
    Worker(home, settings, agents, world.feed(), shelf=shelf, environment={}).run()
    tags: dict[str, str] = {}

    class Registry:
        """The registry, as far as certificates know it; it has no version of ``pair``."""

        @staticmethod
        def version(home: Home, agent: str, number: int) -> Any:
            if agent == "pair":
                raise certificate.ExecutionError(f"{agent}: version {number} is gone")
            return agent, number

        @staticmethod
        def fetch(home: Home, made: tuple[str, int]) -> Any:
            return type("Copy", (), {"folder": shelf.root / made[0] / str(made[1])})

        @staticmethod
        def set_tag(home: Home, agent: str, number: int, name: str, text: str) -> None:
            tags[agent] = text

    monkeypatch.setattr(certificate, "models", Registry)
    monkeypatch.setattr(
        certificate,
        "load_dataset",
        lambda home, params, agent, spec: dataset_of(
            settings, shelf.load(agent, shelf.production(agent)), agent
        ),
    )
    found = {one.agent: one for one in certify(home, settings, 1)}
    assert not found["pair"].passed
    assert "NOT REPLAYED: pair: version 1 is gone" in tags["pair"]
    assert found["solo"].passed
    assert "equal to the last bit" in tags["solo"]
