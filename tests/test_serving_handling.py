"""Handling: in which order a message of the worker concerns feed, broker, desk and sleeves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import serving_kit as world
from features_kit import spec
from test_serving_forgetting import lived

from core.errors import SpecMismatch
from core.home import Home
from core.settings import Params
from serving.brokers.port import News
from serving.bus import Hub
from serving.deciding import LocalDesk
from serving.feeds import ReplayFeed
from serving.following import AliasMoved, Published
from serving.gateway import Gateway
from serving.handling import Handler
from serving.history import FeedBar, History, Instrument
from serving.ledger import LedgerReader, rows
from serving.messages import BarsArrived, Filled, Message, Pause, Reload
from serving.worker import Worker

NOW = datetime(2026, 3, 2, tzinfo=UTC)
BAR = FeedBar(Instrument("bundled", "SOLO", "1d"), NOW, (1.0,) * 7)


@dataclass
class Told:
    """Stands for all that a message concerns, and remembers who was told what."""

    said: list[str] = field(default_factory=list)
    notes: list[tuple[str, ...]] = field(default_factory=list)

    def does(self, what: str, answer: Any = None) -> Callable[..., Any]:
        def act(*_: Any) -> Any:
            self.said.append(what)
            return answer

        return act

    def noted(self, *what: str) -> None:
        self.notes.append(what)


def handler(told: Told, *, remote: bool = True, desk: Any = None) -> Handler:
    """Two sleeves, of which ``quick`` closes with every step and ``slow`` does not."""
    seats = {
        name: SimpleNamespace(
            sleeve=SimpleNamespace(
                hear=told.does(f"hear {name}"), mind=told.does(f"mind {name}"), paused=False,
                trader="before", signal=None, traded=SimpleNamespace(newest=NOW),
            )
        )
        for name in ("quick", "slow")
    }  # fmt: skip
    floor = SimpleNamespace(
        seats=seats,
        feed=SimpleNamespace(
            events=told.does("feed", [("feed stale", "SOLO")]),
            ticks=told.does("ticks", ()),
            vix=None,
        ),
        desk=desk or SimpleNamespace(bars=told.does("desk"), ticks=told.does("desk's ticks")),
        ledger=SimpleNamespace(tidy=told.does("tidy")),
    )  # fmt: skip
    notes = SimpleNamespace(account=told.noted, agent=told.noted)
    steps = SimpleNamespace(live=told.does("live", {"quick"}), prepare=told.does("prepare"))
    broker = SimpleNamespace(news=told.does("broker", News(events=(("link up", "again"),))))
    made: Any = Handler
    return cast(
        Handler, made(floor, notes, steps, None, broker if remote else None, world.params(), None)
    )


def test_before_a_bar_is_lived_through_executions_are_heard_and_no_order_is_minded() -> None:
    """A decision waits for no order but its own; who does not decide minds his afterwards."""
    told = Told()
    handler(told).handle(BarsArrived((BAR,)))
    assert told.said == [
        "broker", "feed", "ticks", "desk's ticks", "hear quick", "hear slow",
        "desk", "live", "mind slow", "tidy", "prepare",
    ]  # fmt: skip
    assert told.notes == [("feed stale", "SOLO"), ("link up", "again")]


@pytest.mark.parametrize("message", [BarsArrived(()), Filled(), Pause("quick", True, "A. Turing")])
def test_whatever_else_comes_every_order_is_minded(message: Message) -> None:
    told = Told()
    handler(told).handle(message)
    heard = ["broker", "feed", "ticks", "desk's ticks", "hear quick", "hear slow"]
    assert told.said[:8] == [*heard, "mind quick", "mind slow"]


def test_on_paper_there_is_nothing_to_hear_of_a_broker() -> None:
    told = Told()
    handler(told, remote=False).handle(BarsArrived((BAR,)))
    assert told.said == ["feed", "ticks", "desk's ticks", "desk", "live", "tidy", "prepare"]


def test_a_version_that_the_desk_refuses_is_named_and_the_present_one_goes_on() -> None:
    def refuse(*_: object) -> None:
        raise SpecMismatch("quick version 2 decides on 1h bars")

    told = Told()
    at = handler(told, desk=SimpleNamespace(trader=refuse, ticks=told.does("desk's ticks")))
    bundle: Any = None
    at.handle(AliasMoved("quick", Published("2", "b" * 64), bundle))
    refused = ("quick", "alias refused", "version 2: quick version 2 decides on 1h bars")
    assert told.notes[-1] == refused
    assert at._floor.seats["quick"].sleeve.trader == "before"


def made_by(desk: str, home: Home) -> tuple[Any, Callable[[], None]]:
    if desk == "processes":
        gateway = Gateway(home, hub=Hub(0), environment={})
        return gateway, gateway.end
    return LocalDesk(), lambda: None


@pytest.mark.parametrize("desk", ["processes", "one process"])
@pytest.mark.parametrize("forgetful", ["signal", "traded"])
def test_a_version_that_needs_forgotten_bars_is_refused_by_either_desk(
    tmp_path: Path, desk: str, forgetful: str
) -> None:
    forgets, bars = lived()
    keeps = History(forgets.instrument, bars)
    of = {"signal": keeps, "traded": keeps} | {forgetful: forgets}
    further: Any = SimpleNamespace(spec=spec("15m", anchor_sessions=30), sha256="b" * 64)
    made, end = made_by(desk, Home(tmp_path))
    try:
        with pytest.raises(SpecMismatch, match=r"X: a row is computed from 30 .* are forgotten"):
            made.trader("quick", "2", further, of["signal"], of["traded"], lambda: None)
        other: Any = SimpleNamespace(spec=spec("1h"), sha256="b" * 64)
        with pytest.raises(SpecMismatch, match=r"quick version 3 decides on 1h bars.*it 15m"):
            made.trader("quick", "3", other, keeps, keeps, lambda: None)
    finally:
        end()


# -- settings that may change in flight


def params(speed: float) -> Params:
    return world.params(
        paper={"alias_poll_seconds": 0.05, "snapshot_seconds": 1e6, "bars_per_second": speed}
    )


class Reloads(Worker):
    """Reads its settings again after the third step."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named, desk=world.CountingDesk(self._lived))

    def _lived(self, steps: int) -> None:
        if steps == 3:
            self._handler.handle(Reload("A. Turing"))


class Paced(ReplayFeed):
    paces: tuple[float, ...] = ()

    def pace(self, bars_per_second: float) -> None:
        self.paces += (bars_per_second,)


@pytest.mark.parametrize("speed", [0.0, 10_000.0])
def test_a_replay_goes_on_at_the_pace_that_was_reloaded(tmp_path: Path, speed: float) -> None:
    shelf = world.shelf_with_both(tmp_path / "shelf", params(0.0))
    feed = Paced(world.market(), 8)
    Reloads(
        Home(tmp_path / "home"), params(0.0), ["solo"], feed, shelf=shelf, environment={},
        settings=lambda: params(speed),
    ).run()  # fmt: skip
    assert feed.paces == ((speed,) if speed else ())


def test_settings_of_a_program_cannot_be_reloaded_and_it_is_said(tmp_path: Path) -> None:
    shelf, home = world.shelf_with_both(tmp_path / "shelf", params(0.0)), Home(tmp_path / "home")
    feed = Paced(world.market(), 8)
    Reloads(home, params(0.0), ["solo"], feed, shelf=shelf, environment={}).run()
    with LedgerReader(home.ledger) as ledger:
        (event,) = ledger.rows(rows.RiskEvent, kind="settings refused")
    said = "these settings were given by a program, not read from a file; the old ones stay"
    assert event.detail == said
