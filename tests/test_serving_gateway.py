"""The gateway: agents in processes of their own trade as one process does, and are not trusted."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import serving_kit as world
from serving_agent import HONEST

from core.errors import ConfigError, ExecutionError, NotAllowed
from core.home import PROJECT, Home
from serving.bus import Hub
from serving.feeds import ReplayFeed
from serving.gateway import Gateway, Limits, gateway_of
from serving.history import FeedBar, Instrument
from serving.ledger import LedgerReader, experience, rows
from serving.signals import Signal
from serving.steering import steer
from serving.worker import Worker

AGENTS = ("solo", "pair")
COMPARED: tuple[type[rows.Row], ...] = (
    rows.BarSeen, rows.Decision, rows.Verdict, rows.Order, rows.Fill, rows.Equity, rows.AliasChange,
)  # fmt: skip
PATIENT = Limits(answer=60.0, hang=60.0, start=120.0)
HASTY = Limits(answer=0.5, hang=60.0, start=120.0)


def gateway(home: Home, shelf: Path, misdeed: str = "none", limits: Limits = PATIENT) -> Gateway:
    program = str(PROJECT / "tests" / "serving_agent.py")
    path = f"{PROJECT}:{PROJECT / 'tests'}"
    return Gateway(
        home,
        hub=Hub(0),
        command=(sys.executable, program, str(shelf), misdeed),
        limits=limits,
        environment={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def trade(home: Home, shelf: world.FolderShelf, desk: Gateway | None) -> None:
    worker = Worker(
        home, world.params(), AGENTS, world.feed(), shelf=shelf, desk=desk, environment={}
    )
    assert worker.run().finished


def recorded(home: Home, row: type[rows.Row], agents: Sequence[str] = AGENTS) -> list[str]:
    """Return rows as text, to the last bit, without what differs between any two runs."""
    with LedgerReader(home.ledger) as ledger:
        found: list[Any] = [one for agent in agents for one in ledger.rows(row, agent=agent)]
    names = [f.name for f in dataclasses.fields(row) if f.name != "recorded_at"]
    return [repr([getattr(one, name) for name in names]) for one in found]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> world.FolderShelf:
    return world.shelf_with_both(tmp_path_factory.mktemp("shelf"), world.params())


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, shelf: world.FolderShelf) -> Home:
    home = Home(tmp_path_factory.mktemp("single"))
    trade(home, shelf, None)
    return home


def test_processes_leave_the_ledger_a_single_process_leaves(
    tmp_path: Path, shelf: world.FolderShelf, single: Home
) -> None:
    home = Home(tmp_path / "home")
    for agent in AGENTS:  # the cached copies the process lives on without a registry
        copy = home.bundles / shelf.production(agent).bundle_sha256
        shutil.copytree(shelf.root / agent / "1", copy)
    desk = Gateway(home, hub=Hub(0), limits=PATIENT, environment={"PYTHONPATH": str(PROJECT)})
    trade(home, shelf, desk)
    for row in COMPARED:
        expected = recorded(single, row)
        assert recorded(home, row) == expected, row.TABLE
        assert expected or row is rows.AliasChange
    assert recorded(home, rows.RiskEvent) == recorded(single, rows.RiskEvent)
    assert desk.processes == {}


@pytest.mark.parametrize(
    ("misdeed", "kind", "detail"),
    [
        ("dies", "agent died", "exit code -9"),
        ("hangs", "policy failed", "no signal within 0.5 s"),
        ("babbles", "signal refused", "KeyError: 'observation'"),
        ("invents", "signal refused", "confidence is nan"),
        ("doubles", "signal refused", "doubled for 20"),
        ("lags", "signal refused", "late for 20"),
        ("forges", "signal refused", "not signed by the process"),
        ("pretends", "signal refused", "decided by version 2, asked was 1"),
    ],
)
def test_what_an_agent_does_wrong_is_an_event_and_harms_no_other(
    tmp_path: Path, shelf: world.FolderShelf, single: Home, misdeed: str, kind: str, detail: str
) -> None:
    home = Home(tmp_path / "home")
    trade(home, shelf, gateway(home, shelf.root, misdeed, HASTY))
    for row in COMPARED:
        assert recorded(home, row, ["pair"]) == recorded(single, row, ["pair"]), row.TABLE
    with LedgerReader(home.ledger) as ledger:
        events = ledger.rows(rows.RiskEvent, agent="solo")
        decisions = ledger.rows(rows.Decision, agent="solo")
    assert any(one.kind == kind and detail in one.detail for one in events), events
    assert len(decisions) == world.PAPER_BARS
    if misdeed == "doubles":
        assert recorded(home, rows.Decision) == recorded(single, rows.Decision)
    else:
        holds = [one for one in decisions if not one.observation]
        assert holds
        assert all(one.weight != one.weight for one in holds)  # NaN: holds what it has
        assert len(experience(home.ledger, "solo")) == world.PAPER_BARS


class PatientFeed(ReplayFeed):
    """Waits, before the twentieth step, until the agent ``solo`` runs in another process."""

    desk: Gateway

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        first = self.desk.processes["solo"]
        for step, bars in enumerate(super().stream(after, stop)):
            while step == 20 and not stop.wait(0.02):
                if "solo" in self.desk.ready and self.desk.processes["solo"] != first:
                    break
            yield bars


@pytest.mark.parametrize(("misdeed", "kind"), [("dies", "agent died"), ("hangs", "agent hangs")])
def test_an_agent_that_died_or_hangs_is_started_anew_and_decides_as_before(
    tmp_path: Path, shelf: world.FolderShelf, misdeed: str, kind: str
) -> None:
    home = Home(tmp_path / "home")
    feed = PatientFeed(world.market(), world.PAPER_BARS)
    limits = Limits(answer=0.5, hang=0.1, start=120.0)
    feed.desk = gateway(home, shelf.root, misdeed, limits)
    Worker(
        home, world.params(), AGENTS, feed, shelf=shelf, desk=feed.desk, environment={}
    ).run()  # fmt: skip
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, agent="solo")
        kinds = [event.kind for event in ledger.rows(rows.RiskEvent, agent="solo")]
    answered = [number for number, one in enumerate(decisions) if one.observation]
    assert answered[:HONEST] == [0, 1, 2, 3]
    assert len(answered) == 2 * HONEST  # each process answers as often before its misdeed
    assert answered[HONEST] > HONEST
    assert kind in kinds


class SteeredFeed(ReplayFeed):
    """Has the agent ``pair`` paused before the tenth step, and resumed before the thirtieth."""

    home: Home
    said: list[str]

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        for step, bars in enumerate(super().stream(after, stop)):
            if step == 10:
                self.refused()
                self.said.append(steer(self.home, "pause", "pair", "A. Turing"))
            if step == 30:
                self.said.append(steer(self.home, "resume", "pair", "A. Turing"))
            yield bars

    def refused(self) -> None:
        path = self.home.root / "gateway.json"
        assert path.stat().st_mode & 0o777 == 0o600
        whole = path.read_text()
        path.write_text(whole.replace('"secret": "', '"secret": "0'))
        with pytest.raises(ExecutionError, match="not asked by the owner"):
            steer(self.home, "pause", "solo", "a stranger")
        path.write_text(whole)
        with pytest.raises(ExecutionError, match="no agent 'nobody' trades here"):
            steer(self.home, "pause", "nobody", "A. Turing")


def test_an_agent_is_paused_and_resumed_from_another_process(
    tmp_path: Path, shelf: world.FolderShelf, single: Home
) -> None:
    home = Home(tmp_path / "home")
    feed = SteeredFeed(world.market(), world.PAPER_BARS)
    feed.home, feed.said = home, []
    desk = gateway(home, shelf.root)
    Worker(home, world.params(), AGENTS, feed, shelf=shelf, desk=desk, environment={}).run()
    assert feed.said == [f"pair: {word} from its next bar on" for word in ("paused", "resumed")]
    with LedgerReader(home.ledger) as ledger:
        paused = ["paused: holds what it has" in v.words
                  for v in ledger.rows(rows.Verdict, agent="pair")]  # fmt: skip
        events = [(e.kind, e.detail) for e in ledger.rows(rows.RiskEvent, agent="pair")]
    assert 10 <= sum(paused) <= 30
    assert not paused[0]
    assert not paused[-1]
    assert ("paused", "A. Turing") in events
    assert ("resumed", "A. Turing") in events
    assert recorded(home, rows.Equity, ["solo"]) == recorded(single, rows.Equity, ["solo"])
    with pytest.raises(NotAllowed, match="no gateway runs here that could pause pair"):
        steer(home, "pause", "pair", "A. Turing")


def sound(**changes: object) -> bytes:
    """Return a signal of sound form, but for ``changes``."""
    content = {
        "agent": "solo", "token": "t", "bar_time": "2020-01-02T00:00:00+00:00", "version": "1",
        "bundle_sha256": "b", "observation": "AACAPw==", "weight": None, "score": 0.5,
        "confidence": 0.5, "contributions": [], "problem": "",
    }  # fmt: skip
    return json.dumps(content | changes).encode()


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (b"\xff\xff\xff\xff", "no signal: UnicodeDecodeError"),
        (b"[" * 200_000, "no signal: RecursionError"),
        (sound(weight=10**400), "no signal: OverflowError"),
        (sound(weight="all"), "weight is 'all', expected a finite number"),
        (sound(bar_time="2020-01-02"), "a time without a zone"),
        (sound(observation="AAAA"), "half a number observed"),
        (sound(token="\ud800"), "no signal: UnicodeEncodeError"),
        (sound(confidence=1.5), "confidence 1.5, expected 0 to 1"),
        (sound(score=None), "no score, and no problem named"),
        (b"[]", "no signal: TypeError"),
        (b'{"observation": "****"}', "no signal: Error"),
    ],
)
def test_bytes_that_are_no_signal_are_refused(message: bytes, detail: str) -> None:
    with pytest.raises(ExecutionError, match=detail):
        Signal.decode(message)
    assert Signal.decode(sound()).answer.observation == b"\x00\x00\x80\x3f"


def test_a_port_that_is_taken_or_no_number_is_said(tmp_path: Path) -> None:
    hub = Hub(0)
    port = int(hub.addresses["bars"].rpartition(":")[2])
    try:
        with pytest.raises(ConfigError, match=f"port {port} of the bus cannot be bound"):
            Hub(port)
    finally:
        hub.close()
    with pytest.raises(ConfigError, match="RATCHET_BUS_PORT=high"):
        gateway_of(Home(tmp_path), {"RATCHET_BUS_PORT": "high"})
