"""The gateway's desk: every agent in a process of its own, asked across the bus.

Owns the agents' processes and their deadlines. Trusts none of them: a signal that is refused, late,
doubled or missing is an event, and the sleeve holds. An agent that missed a deadline is asked but
not waited for until it has caught up, so it holds up the others once. Runs in the worker's main
loop, so there is still one writer; knows neither orders nor brokers.
"""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from core.accounts import State
from core.bars import Bar
from core.errors import ConfigError, ExecutionError, SpecMismatch
from core.home import Home
from features.account import account_features
from features.observation import observation_columns
from registry.bundle import Bundle
from serving.agent import Answer
from serving.briefing import of_bars, of_history, of_series
from serving.bus import BARS, TICKS, Hub
from serving.closing import Close
from serving.deciding import Note, Steer, Trader
from serving.history import FeedBar, History
from serving.signals import NONSENSE, Ask, Signal, account_of, encode
from serving.steering import announce, withdraw
from serving.timer import Tick

COMMAND = (sys.executable, "-m", "serving.agent_process")
SLICE_SECONDS = 0.05  # between two looks whether the process asked still lives
LONGEST_PAUSE = 60.0  # seconds between two restarts of an agent that keeps dying
PARTING_SECONDS = 5.0  # for an agent that was told to end
REFUSED_AT_MOST = 10  # signals of one agent noted between two questions to it


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the gateway waits, in seconds."""

    answer: float = 2.0  # from question to signal
    hang: float = 10.0  # silent for so long: ended and started anew
    start: float = 60.0  # until an agent is ready, before the first bar


@dataclass(slots=True)
class Member:
    """An agent's process, and how it behaves."""

    name: str
    token: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    ready: bool = False
    silent_since: float | None = None  # monotonic seconds of the first question not answered
    asked: Ask | None = None  # the newest question
    answered: datetime | None = None  # bar of the newest accepted signal
    refused: int = 0
    starts: int = 0
    restart_at: float | None = None  # monotonic seconds

    @property
    def waited_for(self) -> bool:
        return self.ready and self.silent_since is None


@dataclass(frozen=True, slots=True)
class RemoteTrader:
    """Stands in a sleeve for an agent's process."""

    name: str
    version: str
    bundle: Bundle
    signal: History
    traded: History
    vix: Callable[[], pd.Series | None]
    gateway: "Gateway" = field(repr=False)

    def see(self) -> None:
        """The process builds its own features from the bars that were published."""

    def decide(self, state: State, bar: Bar) -> Answer:
        newest = self.traded.newest
        if newest is None:
            raise ExecutionError(f"{self.name}: asked to decide before any bar")
        account = account_of(np.asarray(account_features(state, bar), np.float32))
        ask = Ask(self.name, newest, self.version, self.bundle.sha256, account)
        return self.gateway.ask(ask, len(observation_columns(self.bundle.spec)))


class Gateway:
    """Implements ``serving.deciding.Desk`` over processes."""

    def __init__(
        self,
        home: Home,
        *,
        hub: Hub,
        command: Sequence[str] = COMMAND,
        limits: Limits = Limits(),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """``command`` starts an agent, whose name is appended; it takes the bus's addresses from
        RATCHET_BUS and what it signs its signals with from RATCHET_AGENT_TOKEN."""
        self._home = home
        self._hub = hub
        self._command = tuple(command)
        self._limits = limits
        self._environment = dict(environment)
        self._members: dict[str, Member] = {}
        self._traders: dict[str, RemoteTrader] = {}
        self._note: Note = lambda agent, kind, detail: None
        self._steer: Steer = lambda agent, paused, by: None
        self._secret = secrets.token_hex(16)
        self._ended = False

    @property
    def processes(self) -> dict[str, int]:
        """Return the process id of every agent that runs."""
        running = self._members.values()
        return {m.name: m.process.pid for m in running if m.process and m.process.poll() is None}

    @property
    def ready(self) -> frozenset[str]:
        """Return the agents that are waited for when they are asked."""
        return frozenset(m.name for m in self._members.values() if m.waited_for and self._runs(m))

    def trader(
        self,
        name: str,
        version: str,
        bundle: Bundle,
        signal: History,
        traded: History,
        vix: Callable[[], pd.Series | None],
    ) -> Trader:
        if bundle.spec.interval != signal.instrument.interval:
            raise SpecMismatch(
                f"{name} version {version} decides on {bundle.spec.interval} bars, params.yaml "
                f"gives it {signal.instrument.interval}; retrain it or restore its interval"
            )
        for history in (signal, traded):
            history.needs(bundle.spec.anchor, bundle.spec.look_back_rows)
        trader = RemoteTrader(name, version, bundle, signal, traded, vix, self)
        self._traders[name] = trader
        model = {"kind": "model", "version": version, "bundle_sha256": bundle.sha256}
        self._hub.publish("feedback", f"{name} ", encode(model))
        return trader

    def begin(self, traders: Mapping[str, Trader], note: Note, steer: Steer) -> None:
        """Start every agent and wait until all are ready, or the time for it is over."""
        self._note, self._steer = note, steer
        self._members = {name: Member(name) for name in traders}
        for member in self._members.values():
            self._start(member)
        until = time.monotonic() + self._limits.start
        while time.monotonic() < until and not all(m.ready for m in self._members.values()):
            self._listen(SLICE_SECONDS)
            if all(m.ready or not self._runs(m) for m in self._members.values()):
                break
        announce(self._home, self._hub.addresses["requests"], self._secret)
        for member in self._members.values():
            if not member.ready:
                self._note(member.name, "agent absent", "not ready when trading began; it holds")

    def bars(self, bars: Sequence[FeedBar]) -> None:
        self._hub.publish("bars", BARS, encode(of_bars(bars)))

    def ticks(self, ticks: Sequence[Tick]) -> None:
        """Publish them beside the bars, under a topic of their own; agents do not wait for them."""
        for one in ticks:
            content = asdict(one) | {"at": one.at.isoformat()}
            self._hub.publish("bars", f"{TICKS} {one.symbol} ", encode(content))

    def closed(self, close: Close) -> None:
        content = {
            "kind": "closed",
            "bar_time": close.time.isoformat(),
            "action": close.action,
            "order_ref": close.ticket.order_ref if close.ticket else "",
            "fills": [[e.exec_id, e.shares, e.price] for e in close.settled.executions],
            "equity": float(close.after.equity[0]),
        }
        self._hub.publish("feedback", f"{close.agent} ", encode(content))

    def ask(self, ask: Ask, numbers: int) -> Answer:
        """Return the agent's answer, or one that holds and says why there is none."""
        member = self._members[ask.agent]
        member.asked, member.refused = ask, 0
        message = json.loads(ask.encode()) | {"kind": "ask"}
        self._hub.publish("feedback", f"{ask.agent} ", encode(message))
        until = time.monotonic() + self._limits.answer
        while member.waited_for and self._runs(member):
            left = until - time.monotonic()
            if left <= 0.0:
                member.silent_since = time.monotonic()
                return _silence(f"no signal within {self._limits.answer:g} s")
            answer = self._listen(min(left, SLICE_SECONDS), ask, numbers)
            if answer is not None:
                return answer
        self._listen(0.0)
        if member.ready and self._runs(member):
            return _silence("no signal since an earlier bar")
        return _silence("the agent's process is not there")

    def tend(self) -> None:
        """Answer requests, restart what died or hangs."""
        self._listen(0.0)
        now = time.monotonic()
        for member in self._members.values():
            hung = member.silent_since is not None and now - member.silent_since > self._limits.hang
            if hung and member.process is not None and self._runs(member):
                self._note(member.name, "agent hangs", f"silent for {self._limits.hang:g} s; ended")
                member.process.kill()
                member.process.wait()
            if self._runs(member):
                continue
            if member.restart_at is None:
                pause = min(2.0 ** (member.starts - 1) - 1.0, LONGEST_PAUSE)
                member.ready, member.restart_at = False, now + pause
                code = member.process.returncode if member.process else None
                detail = f"exit code {code}; started anew in {pause:g} s"
                self._note(member.name, "agent died", detail)
            if now >= member.restart_at:
                self._start(member)

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        withdraw(self._home)
        for member in self._members.values():
            if member.process is not None and member.process.poll() is None:
                # One that hangs hears no request to end.
                member.process.terminate() if member.waited_for else member.process.kill()
        for member in self._members.values():
            if member.process is not None:
                try:
                    member.process.wait(timeout=PARTING_SECONDS)
                except subprocess.TimeoutExpired:
                    member.process.kill()
                    member.process.wait()
        self._hub.close()

    def _start(self, member: Member) -> None:
        member.token = secrets.token_hex(16)
        member.ready, member.silent_since, member.restart_at = False, None, None
        member.starts += 1
        environment = self._environment | {
            "RATCHET_HOME": str(self._home.root),
            "RATCHET_BUS": json.dumps(self._hub.addresses),
            "RATCHET_AGENT_TOKEN": member.token,
        }
        with (self._home.make(self._home.logs) / f"agent-{member.name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                [*self._command, member.name], env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @staticmethod
    def _runs(member: Member) -> bool:
        return member.process is not None and member.process.poll() is None

    def _listen(self, seconds: float, ask: Ask | None = None, numbers: int = 0) -> Answer | None:
        """Serve the bus once; return the answer to ``ask`` when it is among the signals."""
        found: Answer | None = None
        for message in self._hub.serve(seconds, self._reply):
            signal = self._accept(message)
            if signal is None or ask is None or signal.agent != ask.agent:
                continue
            try:
                signal.check(ask, numbers)
            except ExecutionError as error:
                self._refuse(signal.agent, str(error))
                continue
            self._members[signal.agent].answered = signal.bar_time
            found = signal.answer
        return found

    def _accept(self, message: bytes) -> Signal | None:
        """Return a signal that answers the newest question to its agent, in time."""
        try:
            signal = Signal.decode(message)
        except ExecutionError as error:
            self._refuse(_sender(message), str(error))
            return None
        member = self._members.get(signal.agent)
        if member is None or not secrets.compare_digest(
            signal.token.encode(), member.token.encode()
        ):
            self._refuse(signal.agent, "not signed by the process that was started for this agent")
            return None
        newest = member.asked.bar_time if member.asked else None
        if signal.bar_time == member.answered:
            self._refuse(signal.agent, f"doubled for {signal.bar_time.isoformat()}")
        elif newest is None or signal.bar_time > newest:
            self._refuse(signal.agent, f"for {signal.bar_time.isoformat()}, which nobody asked for")
        elif signal.bar_time < newest or member.silent_since is not None:
            self._refuse(signal.agent, f"late for {signal.bar_time.isoformat()}")
            if signal.bar_time == newest:  # it has caught up
                member.silent_since, member.answered = None, signal.bar_time
        else:
            return signal
        return None

    def _refuse(self, agent: str, why: str) -> None:
        member = self._members.get(agent)
        if member is None:
            return  # named nobody: nobody's event
        member.refused += 1
        if member.refused <= REFUSED_AT_MOST:
            self._note(agent, "signal refused", why)

    def _reply(self, request: Any) -> Mapping[str, Any]:
        """Answer an agent's request; raises what nonsense raises."""
        kind, name = request["kind"], request["agent"]
        if kind in ("pause", "resume"):
            return self._steered(kind, name, request)
        trader, member = self._traders[name], self._members[name]
        if kind == "vix":
            return of_series(trader.vix())
        if request["token"] != member.token:
            raise ValueError("another process was started for this agent")
        if kind == "ready":
            member.ready = True
            return {"ready": True}
        if kind != "brief":
            raise ValueError(f"unknown request {kind!r}")
        same = trader.signal is trader.traded
        return {
            "version": trader.version,
            "bundle_sha256": trader.bundle.sha256,
            "traded": of_history(trader.traded),
            "signal": None if same else of_history(trader.signal),
        }

    def _steered(self, kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["secret"] != self._secret:
            raise ValueError("not asked by the owner of this home")
        if name not in self._members:
            raise ValueError(f"no agent {name!r} trades here")
        self._steer(name, kind == "pause", str(request["by"]))
        return {"done": kind}


def gateway_of(home: Home, environment: Mapping[str, str] = os.environ) -> Gateway:
    """Return a gateway on the ports RATCHET_BUS_PORT names the first of."""
    named = environment.get("RATCHET_BUS_PORT", "")
    if named and not named.isdecimal():
        raise ConfigError(f"RATCHET_BUS_PORT={named}: expected the first of four port numbers")
    return Gateway(home, hub=Hub(int(named)) if named else Hub(), environment=environment)


def _silence(why: str) -> Answer:
    digest = hashlib.sha256(b"").hexdigest()
    return Answer(b"", digest, np.nan, np.nan, 0.0, (), why)


def _sender(message: bytes) -> str:
    """Return whom a message that is no signal names as its sender."""
    try:
        return str(json.loads(message)["agent"])
    except NONSENSE:
        return ""
