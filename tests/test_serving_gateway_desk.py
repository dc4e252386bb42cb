"""The gateway's desk by itself: what it says, whom it waits for, what it makes of processes."""

import json
import os
import signal as signals
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import serving_kit as world
from core_kit import flat

from core.accounts import open_accounts
from core.bars import BAR_COLUMNS
from core.compiled import by_arrays
from core.errors import ConfigError, ExecutionError, SpecMismatch
from core.home import Home
from features.account import account_features
from serving import gateway
from serving.agent import Answer
from serving.bus import Hub, Line, ask_gateway
from serving.gateway import Gateway, Limits, gateway_of
from serving.history import FeedBar, History, Instrument
from serving.signals import Ask, Signal
from serving.timer import Tick

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
TUESDAY, WEDNESDAY = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)
AAPL = Instrument("bundled", "AAPL", "1d")
DAILY = SimpleNamespace(interval="1d", anchor=2, look_back_rows=0)
UNHURRIED = Limits(answer=60.0, hang=10.0, start=0.0)
# An agent's process says which token it was started with, and nothing more.
WAITS = 'echo "$RATCHET_AGENT_TOKEN" >> "$RATCHET_HOME/$0"; exec sleep 300'
STAYS = WAITS.replace("exec sleep 300", "for _ in $(seq 3000); do sleep 0.02; done")
DIES = 'echo "$RATCHET_AGENT_TOKEN" >> "$RATCHET_HOME/$0"; echo "no model"; exit 3'


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends, pause = time.monotonic() + seconds, Event()
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        pause.wait(0.002)


class Clock:
    """Stands still unless it is moved."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(gateway, "time", found)
    return found


def history(days: int = 0, forgotten: datetime | None = None) -> History:
    """Return so many bars up to Monday."""
    index = pd.date_range(end=MONDAY, periods=days, name="time", unit="ns")
    bars = pd.DataFrame([[1.0] * len(BAR_COLUMNS)] * days, index, list(BAR_COLUMNS))
    return History(AAPL, bars, forgotten=forgotten)


@dataclass
class Seated:
    """A desk whose agents the test plays; their processes are real."""

    home: Home
    hub: Hub
    desk: Gateway
    line: Line  # the agent solo's end of the bus
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    steered: list[tuple[str, bool, str]] = field(default_factory=list)

    def take(
        self, agent: str, spec: Any = DAILY, signal: History | None = None,
        traded: History | None = None,
    ) -> Any:  # fmt: skip
        bundle: Any = SimpleNamespace(spec=spec, sha256="b")
        signal = signal or history()
        vix = lambda: pd.Series([20.0], index=[pd.Timestamp(MONDAY)])  # noqa: E731
        return self.desk.trader(agent, "1", bundle, signal, traded or signal, vix)

    def begin(self, *agents: str) -> None:
        traders = {agent: self.take(agent) for agent in agents}
        self.desk.begin(
            traders, lambda *note: self.notes.append(note), lambda *how: self.steered.append(how)
        )

    def tokens(self, agent: str = "solo") -> list[str]:
        """Return what each of the agent's processes was given to sign with."""
        file = self.home.root / agent
        return file.read_text().split("\n")[:-1] if file.exists() else []

    def request(self, **content: object) -> Any:
        """Ask as another process does, while the desk looks around."""
        answers: list[Any] = []
        address = self.hub.addresses["requests"]
        asking = Thread(target=lambda: answers.append(ask_gateway(address, content, 60.0)))
        asking.start()
        while asking.is_alive():
            self.desk.tend()
        return answers[0]

    def heard(self, socket: Any) -> Any:
        """Return the next thing that was said to the agent solo."""
        while not (message := self.line.next(socket, 60.0)):
            assert message is not None, "waited in vain"
        return message

    def readied(self, start: int = 1, agent: str = "solo") -> str:
        """Have the newest process of an agent say that it is ready; return its token.

        What was noted before is forgotten.
        """
        until(lambda: len(self.tokens(agent)) == start)
        token = self.tokens(agent)[-1]
        assert self.request(kind="ready", agent=agent, token=token) == {"ready": True}
        self.notes.clear()
        return token


Seat = Callable[..., Seated]


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    seated: list[Seated] = []

    def one(program: str = WAITS, limits: Limits = UNHURRIED) -> Seated:
        hub, home = Hub(0), Home(tmp_path / "home")
        home.make(home.root)
        desk = Gateway(home, hub=hub, command=("sh", "-c", program), limits=limits)
        line = Line(hub.addresses, "solo")
        seated.append(Seated(home, hub, desk, line))
        for role, topic, socket in (
            ("feedback", "solo ", line.feedback), ("bars", "bars ", line.bars)
        ):  # fmt: skip
            while line.next(socket, 0.01) is None:  # until the subscription has arrived
                hub.publish(role, topic, b"{}")
        return seated[-1]

    yield one
    for each in seated:
        each.line.close()
        each.desk.end()


def asked(day: datetime) -> Ask:
    return Ask("solo", day, "1", "b", (0.25,))


def signal(token: str, day: datetime, weight: float = 0.5) -> bytes:
    """Return a sound answer to ``asked(day)``."""
    observation = np.array([1.0, 0.25], "<f4").tobytes()
    answer = Answer(observation, "", weight, 0.5, 0.5, (), "")
    return Signal("solo", token, day, "1", "b", answer).encode()


def test_trading_begins_once_every_agent_is_ready(seat: Seat) -> None:
    one = seat(limits=Limits(start=120.0))

    def ready(agent: str) -> None:
        until(lambda: bool(one.tokens(agent)))
        request = {"kind": "ready", "agent": agent, "token": one.tokens(agent)[0]}
        ask_gateway(one.hub.addresses["requests"], request, 60.0)

    agents = [Thread(target=ready, args=[agent]) for agent in ("solo", "pair")]
    for agent in agents:
        agent.start()
    one.begin("solo", "pair")
    for agent in agents:
        agent.join()
    assert one.desk.ready == {"solo", "pair"}
    assert one.notes == []
    for pid in one.desk.processes.values():  # a Ctrl-C is the worker's, which ends its agents
        assert os.getsid(pid) == pid


def test_an_agent_that_is_gone_before_trading_began_is_not_waited_for(seat: Seat) -> None:
    one = seat(DIES, Limits(start=1e6))
    one.begin("solo", "pair")
    assert one.notes == [
        (agent, "agent absent", "not ready when trading began; it holds")
        for agent in ("solo", "pair")
    ]
    assert one.desk.processes == {}
    assert one.desk.ready == frozenset()


def test_a_signal_is_the_answer_to_the_question_it_names(seat: Seat) -> None:
    one = seat()
    one.begin("solo")
    token = one.readied()
    one.line.signal(signal(token, MONDAY, weight=0.75))
    answer = one.desk.ask(asked(MONDAY), 2)
    assert (answer.weight, answer.problem) == (0.75, "")
    messages = [one.heard(one.line.feedback) for _ in range(2)]
    assert messages == [
        {"kind": "model", "version": "1", "bundle_sha256": "b"},
        {"kind": "ask", "agent": "solo", "bar_time": "2026-03-02T00:00:00+00:00", "version": "1",
         "bundle_sha256": "b", "account": [0.25]},
    ]  # fmt: skip


def test_what_is_no_answer_to_the_question_is_refused_and_said_why(seat: Seat) -> None:
    one = seat()
    one.begin("solo", "pair")
    token = one.readied()
    one.line.signal(signal(token, MONDAY))  # before anything was asked
    until(lambda: one.desk.tend() or bool(one.notes))  # type: ignore[func-returns-value]
    for message in (
        signal(token, WEDNESDAY),
        signal(token, MONDAY),
        signal("t" * 32, TUESDAY),
        signal(token, TUESDAY).replace(b"solo", b"pair"),  # solo signs for another
        signal(token, TUESDAY).replace(b"solo", b"nobody"),
        signal(token, TUESDAY).replace(b'"version":"1"', b'"version":"2"'),
        b"nonsense of nobody",
        b'{"agent": "pair", "weight": 1.0}',
        signal(token, TUESDAY, weight=0.75),
        signal(token, TUESDAY, weight=0.25),
    ):
        one.line.signal(message)
    assert one.desk.ask(asked(TUESDAY), 2).weight == 0.75
    until(lambda: one.desk.tend() or len(one.notes) == 8)  # type: ignore[func-returns-value]
    forged = "not signed by the process that was started for this agent"
    assert one.notes == [
        ("solo", "signal refused", "for 2026-03-02T00:00:00+00:00, which nobody asked for"),
        ("solo", "signal refused", "for 2026-03-04T00:00:00+00:00, which nobody asked for"),
        ("solo", "signal refused", "late for 2026-03-02T00:00:00+00:00"),
        ("solo", "signal refused", forged),
        ("pair", "signal refused", forged),
        ("solo", "signal refused", "decided by version 2, asked was 1"),
        (
            "pair",
            "signal refused",
            "no signal: KeyError: 'observation'; it begins "
            """'{"agent": "pair", "weight": 1.0}'""",
        ),
        ("solo", "signal refused", "doubled for 2026-03-03T00:00:00+00:00"),
    ]


def test_an_agent_that_is_silent_is_waited_for_once_until_it_has_caught_up(seat: Seat) -> None:
    one = seat(limits=Limits(answer=0.05, hang=1e6, start=0.0))
    one.begin("solo")
    token = one.readied()
    assert one.desk.ask(asked(MONDAY), 2).problem == "no signal within 0.05 s"
    assert one.desk.ready == frozenset()
    waited, serve = [], one.hub.serve
    one.hub.serve = lambda seconds, reply: (waited.append(seconds), serve(seconds, reply))[1]  # type: ignore[method-assign]
    answer = one.desk.ask(asked(TUESDAY), 2)
    assert answer.problem == "no signal since an earlier bar"
    assert np.isnan(answer.weight)
    assert (answer.confidence, answer.observation) == (0.0, b"")
    assert waited == [0.0]
    one.notes.clear()
    one.line.signal(signal(token, MONDAY))
    until(lambda: one.desk.tend() or bool(one.notes))  # type: ignore[func-returns-value]
    assert one.desk.ready == frozenset()  # that was not the newest question
    one.line.signal(signal(token, TUESDAY))
    until(lambda: one.desk.tend() or len(one.notes) == 2)  # type: ignore[func-returns-value]
    assert one.notes == [
        ("solo", "signal refused", f"late for 2026-03-0{day}T00:00:00+00:00") for day in (2, 3)
    ]
    assert one.desk.ready == {"solo"}
    one.line.signal(signal(token, TUESDAY))
    until(lambda: one.desk.tend() or len(one.notes) == 3)  # type: ignore[func-returns-value]
    assert one.notes[2][2] == "doubled for 2026-03-03T00:00:00+00:00"


def test_ten_refusals_between_two_questions_are_noted_and_no_more(seat: Seat) -> None:
    one = seat()
    one.begin("solo")
    token = one.readied()
    for day in (MONDAY, TUESDAY):
        one.notes.clear()
        for _ in range(12):
            one.line.signal(signal("t" * 32, day))
        one.line.signal(signal(token, day))
        assert one.desk.ask(asked(day), 2).problem == ""
        assert len(one.notes) == 10


def test_an_agent_that_keeps_dying_is_started_anew_after_ever_longer_pauses(
    seat: Seat, clock: Clock
) -> None:
    one = seat(DIES)
    one.begin("solo")
    one.notes.clear()
    pauses = [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 60.0, 60.0]
    for start, pause in enumerate(pauses, 1):
        until(lambda: one.desk.processes == {})
        one.desk.tend()
        said = ("solo", "agent died", f"exit code 3; started anew in {pause:g} s")
        assert one.notes == [said]
        if pause:
            clock.seconds += pause - 0.5
            one.desk.tend()
            assert len(one.tokens()) == start
            clock.seconds += 0.5
            one.desk.tend()
        until(lambda start=start: len(one.tokens()) == start + 1)  # type: ignore[misc]
        one.notes.clear()
    assert len(set(one.tokens())) == len(pauses) + 1  # none can sign for the next
    said = (one.home.logs / "agent-solo.log").read_text()
    until(lambda: one.desk.processes == {})
    assert said.splitlines()[: len(pauses)] == ["no model"] * len(pauses)


def test_an_agent_that_is_silent_too_long_is_ended_and_started_anew(
    seat: Seat, clock: Clock
) -> None:
    one = seat(limits=Limits(answer=0.0, hang=10.0, start=0.0))
    one.begin("solo")
    token = one.readied()
    first = one.desk.processes["solo"]
    assert one.desk.ask(asked(MONDAY), 2).problem == "no signal within 0 s"
    one.notes.clear()
    clock.seconds += 10.0
    one.desk.tend()
    assert one.notes == []
    clock.seconds += 0.5
    one.desk.tend()
    assert one.notes == [
        ("solo", "agent hangs", "silent for 10 s; ended"),
        ("solo", "agent died", "exit code -9; started anew in 0 s"),
    ]
    assert one.desk.processes["solo"] != first
    assert one.desk.ready == frozenset()  # before it says so
    refused = one.request(kind="ready", agent="solo", token=token)
    assert refused == {"error": "ValueError: another process was started for this agent"}
    one.readied(start=2)
    assert one.desk.ready == {"solo"}


def test_an_agent_that_hangs_again_is_ended_and_said_to_once_before_it_is_started_anew(
    seat: Seat, clock: Clock
) -> None:
    one = seat(limits=Limits(answer=0.0, hang=10.0, start=0.0))
    one.begin("solo")
    for start in (1, 2):
        one.readied(start=start)
        one.desk.ask(asked(MONDAY + start * timedelta(days=1)), 2)
        clock.seconds += 10.5
        one.desk.tend()
    clock.seconds += 0.5  # the second pause is a second
    one.desk.tend()
    assert [kind for _, kind, _ in one.notes] == ["agent hangs", "agent died"]
    clock.seconds += 0.5
    one.desk.tend()
    assert len(one.notes) == 2
    until(lambda: len(one.tokens()) == 3)


def test_an_agent_whose_process_is_gone_is_not_waited_for(seat: Seat) -> None:
    one = seat(DIES)
    one.begin("solo")
    until(lambda: one.desk.processes == {})
    assert one.desk.ask(asked(MONDAY), 2).problem == "the agent's process is not there"


def test_an_agent_that_dies_while_it_is_asked_is_waited_for_no_longer(seat: Seat) -> None:
    one = seat()
    one.begin("solo")
    one.readied()

    def dies() -> None:
        while one.heard(one.line.feedback)["kind"] != "ask":
            pass
        os.kill(one.desk.processes["solo"], signals.SIGKILL)

    dying = Thread(target=dies)
    dying.start()
    assert one.desk.ask(asked(MONDAY), 2).problem == "the agent's process is not there"
    dying.join()


def test_one_agent_never_answers_for_another(seat: Seat) -> None:
    one = seat(limits=Limits(answer=0.2, hang=1e6, start=0.0))
    one.begin("solo", "pair")
    token = one.readied()
    one.readied(agent="pair")
    os.kill(one.desk.processes["solo"], signals.SIGKILL)
    until(lambda: "solo" not in one.desk.processes)
    assert one.desk.ask(asked(MONDAY), 2).problem == "the agent's process is not there"
    one.line.signal(signal(token, MONDAY))  # it had been on its way
    found = one.desk.ask(replace(asked(MONDAY), agent="pair"), 2)
    assert found.problem == "no signal within 0.2 s"
    assert np.isnan(found.weight)


def test_an_agent_has_two_seconds_unless_told_otherwise_and_hangs_after_ten() -> None:
    assert Limits() == Limits(answer=2.0, hang=10.0, start=60.0)


def test_an_agent_has_all_the_time_it_is_given(seat: Seat, clock: Clock) -> None:
    one = seat(limits=Limits(answer=0.5, start=0.0))
    one.begin("solo")
    one.line.signal(signal(one.readied(), MONDAY))
    assert one.desk.ask(asked(MONDAY), 2).problem == ""


def test_requests_are_answered_to_the_process_that_was_started_and_to_the_owner(
    seat: Seat,
) -> None:
    one = seat()
    one.begin("solo")
    token = one.readied()
    nanoseconds = 1_772_409_600_000_000_000
    assert one.request(kind="vix", agent="solo") == {"times": [nanoseconds], "values": [20.0]}
    briefed = one.request(kind="brief", agent="solo", token=token)
    assert (briefed["version"], briefed["bundle_sha256"], briefed["signal"]) == ("1", "b", None)
    assert briefed["traded"]["instrument"] == ["bundled", "AAPL", "1d", 0]
    wrong = {"agent": "solo", "token": "t" * 32}
    for kind in ("ready", "brief"):
        assert "another process was started" in one.request(kind=kind, **wrong)["error"]
    unknown = one.request(kind="sell", agent="solo", token=token)
    assert unknown == {"error": "ValueError: unknown request 'sell'"}
    assert one.request(kind="vix", agent="nobody") == {"error": "KeyError: 'nobody'"}
    assert one.steered == []
    secret = json.loads((one.home.root / "gateway.json").read_text())["secret"]
    owned = {"by": "A. Turing", "secret": secret}
    for kind in ("pause", "resume"):
        assert one.request(kind=kind, agent="solo", **owned) == {"done": kind}
        refused = one.request(kind=kind, agent="solo", **owned | {"secret": "0"})
        assert refused == {"error": "ValueError: not asked by the owner of this home"}
        refused = one.request(kind=kind, agent="nobody", **owned)
        assert refused == {"error": "ValueError: no agent 'nobody' trades here"}
    assert one.steered == [("solo", True, "A. Turing"), ("solo", False, "A. Turing")]


def test_when_trading_ends_the_agents_end_and_one_that_is_silent_at_once(seat: Seat) -> None:
    told = 'trap "echo $0 >> $RATCHET_HOME/ended; exit" TERM; '
    one = seat(told + STAYS)
    one.begin("solo", "pair")
    one.readied()  # and pair never says that it is
    until(lambda: bool(one.tokens("pair")))
    assert (one.home.root / "gateway.json").exists()
    one.desk.end()
    assert (one.home.root / "ended").read_text() == "solo\n"
    assert one.desk.processes == {}
    assert not (one.home.root / "gateway.json").exists()
    (one.home.root / "gateway.json").write_text("of the next gateway")
    one.desk.end()  # once more, and nothing more comes of it
    assert (one.home.root / "gateway.json").exists()


def test_an_agent_that_does_not_end_when_it_is_told_to_is_ended(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "PARTING_SECONDS", 0.05)
    one = seat('trap "" TERM; ' + STAYS)
    one.begin("solo")
    one.readied()
    one.desk.end()
    assert one.desk.processes == {}


def test_bars_ticks_and_what_became_of_a_decision_are_published(seat: Seat) -> None:
    one = seat()
    one.desk.bars([FeedBar(AAPL, MONDAY, (1.0, 2.0, 0.5, 1.5, 100.0, 0.0, 1.0))])
    assert one.heard(one.line.bars) == {"bars": [
        [["bundled", "AAPL", "1d", 0], "2026-03-02T00:00:00+00:00", None,
         1.0, 2.0, 0.5, 1.5, 100.0, 0.0, 1.0]
    ]}  # fmt: skip
    one.line.bars.subscribe("ticks AAPL ")
    tick = {"symbol": "AAPL", "at": "2026-03-02T00:00:00+00:00", "price": 1.5, "shares": 3.0}
    while not (heard := one.line.next(one.line.bars, 0.01)):
        one.desk.ticks([Tick("AAPL", MONDAY, 1.5, 3.0)])
    assert heard == tick
    execution = SimpleNamespace(exec_id="e1", shares=-3.0, price=1.5)
    for ticket, order_ref in ((SimpleNamespace(order_ref="ratchet-1"), "ratchet-1"), (None, "")):
        close: Any = SimpleNamespace(
            agent="solo", time=MONDAY, action="sell", ticket=ticket,
            settled=SimpleNamespace(executions=[execution]),
            after=SimpleNamespace(equity=np.array([1000.0])),
        )  # fmt: skip
        one.desk.closed(close)
        assert one.heard(one.line.feedback) == {
            "kind": "closed", "bar_time": "2026-03-02T00:00:00+00:00", "action": "sell",
            "order_ref": order_ref, "fills": [["e1", -3.0, 1.5]], "equity": 1000.0,
        }  # fmt: skip


def test_a_version_that_cannot_decide_here_is_refused(seat: Seat) -> None:
    one = seat()
    with pytest.raises(SpecMismatch, match=r"solo version 1 decides on 1h bars, .*gives it 1d"):
        one.take("solo", SimpleNamespace(interval="1h"))
    whole, short = history(2), history(2, forgotten=MONDAY - timedelta(days=9))
    for signal, traded in ((whole, short), (short, whole)):
        with pytest.raises(SpecMismatch, match="2 sessions before"):
            one.take("solo", signal=signal, traded=traded)
    with pytest.raises(ExecutionError, match="solo: asked to decide before any bar"):
        one.take("solo").decide(None, None)


def test_a_decision_is_asked_of_the_newest_bar_and_of_the_books_after_it(seat: Seat) -> None:
    one = seat()
    one.begin("solo")
    token = one.readied()
    spec = world.spec_of(world.params())
    trader = one.take("solo", spec, traded=history(1))
    state, bar = open_accounts(1, 1, 10_000.0), flat(100.0)
    with by_arrays():  # the same bits, without compiling first
        account = account_features(state, bar).astype("<f4")[0]
    observation = np.concatenate([np.zeros(len(spec.columns)), account]).astype("<f4").tobytes()
    answer = Answer(observation, "", 0.5, 0.5, 0.5, (), "")
    one.line.signal(Signal("solo", token, MONDAY, "1", "b", answer).encode())
    with by_arrays():
        found = trader.decide(state, bar)
    assert (found.weight, found.problem) == (0.5, "")
    assert found.observation == observation
    while (asked := one.heard(one.line.feedback))["kind"] != "ask":
        pass
    assert asked["bar_time"] == "2026-03-02T00:00:00+00:00"
    assert (asked["version"], asked["bundle_sha256"]) == ("1", "b")
    assert asked["account"] == account.tolist()


def test_the_bus_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "Hub", lambda *ports: ports)
    assert gateway_of(Home(tmp_path), {"RATCHET_BUS_PORT": "7001"})._hub == (7001,)
    assert gateway_of(Home(tmp_path), {})._hub == ()
    with pytest.raises(ConfigError, match="RATCHET_BUS_PORT=-7001: expected the first of four"):
        gateway_of(Home(tmp_path), {"RATCHET_BUS_PORT": "-7001"})
