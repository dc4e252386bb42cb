"""An agent in a process of its own: ``python -m serving.agent_process AGENT``.

Owns its copy of the histories and its model; asks the gateway for both after a start and whenever
a bar was missed. Decides when asked, sends the signal, and ends with the gateway. Knows neither
orders nor brokers nor the ledger.
"""

import json
import os
import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd

from core.errors import RatchetError
from core.home import Home
from core.masking import confidential, guard, masked
from features.account import warm_up
from registry.bundle import Bundle
from serving.agent import Answer, TradingAgent
from serving.briefing import bars_of, history_of, series_of
from serving.bus import Line
from serving.following import Published, Shelf
from serving.history import History
from serving.pairing import Lone, Pairing
from serving.signals import Ask, Signal

IDLE_SECONDS = 0.5
BAR_SECONDS = 0.2  # bars and questions come by different sockets: how long one waits for the other


class AgentProcess:
    """One agent: listens, keeps up, answers."""

    def __init__(self, name: str, line: Line, shelf: Shelf, token: str) -> None:
        self.name = name
        self._line = line
        self._shelf = shelf
        self._token = token
        self._bundles: dict[str, Bundle] = {}  # by hash, the newest two
        self._parent = os.getppid()

    def run(self) -> None:
        """Answer until told to stop or the gateway is gone; raises what makes deciding impossible.

        Raises ``ServiceUnavailable`` when the gateway does not answer.
        """
        warm_up()
        self._brief()
        self._line.request({"kind": "ready", "agent": self.name, "token": self._token})
        while os.getppid() == self._parent:
            self._line.wait(IDLE_SECONDS)
            while (message := self._line.next(self._line.feedback)) is not None:
                if message["kind"] == "stop":
                    return
                if message["kind"] == "model":
                    self._load(Published(message["version"], message["bundle_sha256"]))
                elif message["kind"] == "ask":
                    self.asked(Ask.decode(message))
            self._hear()

    def asked(self, ask: Ask) -> None:
        """Decide and send the signal; a question that others have overtaken is left."""
        newest = self._traded.newest
        if newest is None or newest <= ask.bar_time:
            self._catch_up(ask)
        if self._traded.newest != ask.bar_time:
            return
        self.send(Signal(self.name, self._token, ask.bar_time, ask.version, ask.bundle_sha256,
                         self.decide(ask)))  # fmt: skip
        self._signal.prepare()
        self._traded.forget()

    def decide(self, ask: Ask) -> Answer:
        """Return the answer of the version asked for."""
        if self._trader.bundle.sha256 != ask.bundle_sha256:
            self._take_over(Published(ask.version, ask.bundle_sha256))
        return self._trader.decide_on(np.asarray([ask.account], np.float32))

    def send(self, signal: Signal) -> None:
        self._line.signal(signal.encode())

    def _catch_up(self, ask: Ask) -> None:
        """Have every bar up to the one asked about, from the feed or from a new briefing."""
        while not self._is_at(ask):
            message = self._line.next(self._line.bars, BAR_SECONDS)
            if message is None:
                break
            self._take(message)
        if not self._is_at(ask):
            self._brief()

    def _is_at(self, ask: Ask) -> bool:
        return self._traded.newest == self._signal.newest == ask.bar_time

    def _hear(self) -> None:
        while (message := self._line.next(self._line.bars)) is not None:
            self._take(message)

    def _take(self, message: Mapping[str, object]) -> None:
        for bar in bars_of(message):
            history = self._histories.get(bar.instrument)
            if history is None or (history.newest is not None and bar.time <= history.newest):
                continue
            for ready in self._pairing.put(bar):
                if isinstance(ready, Lone):
                    self._histories[ready.bar.instrument].append(ready.bar)
                    continue
                self._traded.append(ready.traded)
                if self._signal is not self._traded:
                    self._signal.append(ready.signal)
                self._trader.see()

    def _brief(self) -> None:
        """Ask for everything: histories and model."""
        content = self._line.request({"kind": "brief", "agent": self.name, "token": self._token})
        if "error" in content:
            raise RatchetError(f"{self.name}: the gateway refused to brief: {content['error']}")
        self._traded = history_of(content["traded"])
        same = content["signal"] is None
        self._signal = self._traded if same else history_of(content["signal"])
        self._histories: dict[object, History] = {
            one.instrument: one for one in (self._traded, self._signal)
        }
        self._pairing = Pairing(self._traded.instrument, self._signal.instrument)
        self._take_over(Published(content["version"], content["bundle_sha256"]))

    def _take_over(self, published: Published) -> None:
        """Let a version decide from the newest bar on."""
        bundle = self._load(published)
        self._trader = TradingAgent(
            self.name, published.version, bundle, self._signal, self._traded,
            self._vix if bundle.spec.uses_vix else lambda: None,
        )  # fmt: skip
        if not bundle.spec.look_back_rows:  # else it has built its rows from the table
            self._trader.see()

    def _load(self, published: Published) -> Bundle:
        known = self._bundles.pop(published.bundle_sha256, None)
        bundle = known or self._shelf.load(self.name, published)
        self._bundles[published.bundle_sha256] = bundle
        while len(self._bundles) > 2:
            del self._bundles[next(iter(self._bundles))]
        return bundle

    def _vix(self) -> pd.Series | None:
        return series_of(self._line.request({"kind": "vix", "agent": self.name}))


def run(name: str, shelf: Shelf, kind: type[AgentProcess] = AgentProcess) -> None:
    """Run an agent with what the gateway left in the environment."""
    line = Line(json.loads(os.environ["RATCHET_BUS"]), name)
    try:
        kind(name, line, shelf, os.environ["RATCHET_AGENT_TOKEN"]).run()
    finally:
        line.close()


def main() -> int:
    """Serve the agent named on the command line; return the exit code."""
    from serving.shelf import RegistryShelf

    guard()
    try:
        run(sys.argv[1], RegistryShelf(Home.from_environment()))
    except RatchetError as error:
        print(f"{sys.argv[1]}: {masked(str(error), confidential(os.environ))}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
