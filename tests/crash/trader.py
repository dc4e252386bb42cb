"""The process that is killed: a worker with the IBKR broker, its bars and its script.

    python -m crash.trader

Reads one task per line and trades it in a forked child: everything was imported once, and before
any thread. The parent of those children strikes after a while where the task says so. Knows the
market only by asking for its next step.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from multiprocessing.connection import Client
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pandas as pd
from ibkr_kit import FAST, Script

from core.errors import BrokerUnavailable
from core.home import Home
from crash.boundaries import HERE, BlindBroker, CrossingBroker, install
from crash.script import AGENT, FRAME, HISTORY_BARS, INSTRUMENT, WEIGHTS, settings
from features.account import warm_up
from serving.brokers.ibkr import Access, IbkrBroker
from serving.closing import Close
from serving.deciding import LocalDesk, Trader
from serving.feeds import Calm
from serving.following import Published
from serving.history import FeedBar, History, Instrument
from serving.ledger import LedgerReader, rows
from serving.worker import Worker

PATIENCE_SECONDS = 60.0  # only ever spent by a run that fails
SPEC = SimpleNamespace(spec=Script.bundle.spec, sha256="b" * 64, card=SimpleNamespace(to_json=dict))


class OneModel:
    """Implements ``serving.following.Shelf``."""

    def production(self, agent: str) -> Published:
        return Published("1", "b" * 64)

    def load(self, agent: str, published: Published) -> Any:
        return SPEC


class Desk(LocalDesk):
    """Seats the script, and tells the feed when a step has been lived through."""

    def __init__(self) -> None:
        self.passed = Event()

    def trader(
        self, name: str, version: str, bundle: Any, signal: History, traded: History, vix: Any
    ) -> Trader:
        script: Any = Script(traded, WEIGHTS)
        script.name, script.bundle = name, bundle
        return script  # type: ignore[no-any-return]

    def bars(self, bars: Sequence[FeedBar]) -> None:
        if not bars:  # heard, and the orders minded
            self.passed.set()

    def closed(self, close: Close) -> None:
        self.passed.set()


class SteppedFeed(Calm):
    """Plays the market step by step, each once the step before is in the books."""

    name = "steps"

    def __init__(self, home: Home, control: Any, broker: IbkrBroker, desk: Desk) -> None:
        self._ledger = home.ledger
        self._control, self._broker, self._desk = control, broker, desk

    def begin(self, instruments: Sequence[Instrument]) -> datetime:
        moment: datetime = FRAME.index[HISTORY_BARS - 1].to_pydatetime()
        return moment

    def history(self, instrument: Instrument, until: datetime) -> pd.DataFrame:
        return FRAME.loc[:until]

    def vix(self) -> None:
        return None

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        first = len(FRAME.loc[: after[INSTRUMENT]])
        yield from self._settled()
        HERE.phase = ""
        for place in range(first, len(FRAME)):
            for phase in (0, 1):
                self._control.send((place, phase))
                self._control.recv()
                yield from self._settled()
            moment = FRAME.index[place].to_pydatetime()
            values = tuple(float(value) for value in FRAME.iloc[place])
            yield from self._passed((FeedBar(INSTRUMENT, moment, values),))
        yield from self._settled()

    def _passed(self, bars: tuple[FeedBar, ...]) -> Iterator[tuple[FeedBar, ...]]:
        self._desk.passed.clear()
        yield bars
        if not self._desk.passed.wait(PATIENCE_SECONDS):
            raise TimeoutError("the worker did not live through a step")

    def _settled(self) -> Iterator[tuple[FeedBar, ...]]:
        """Let the worker hear all that happened, until no order waits for its fate."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                self._broker.ask()
            except BrokerUnavailable:
                self._broker.wait_for_news(0.01)
                continue
            yield from self._passed(())
            with LedgerReader(self._ledger) as ledger:
                if not ledger.rows(rows.Order, status="intended"):
                    return
        raise TimeoutError("an order waits for its fate")


def trade(task: dict[str, Any]) -> None:
    """Trade until the script is over."""
    root = Path(task["root"])
    log = os.open(root / "crossings", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kill = tuple(task["kill"]) if task["kill"] else None
    install(log, kill, task["recovering"], task["planted"])  # type: ignore[arg-type]
    home, desk = Home(root / "home"), Desk()
    kind = BlindBroker if task["planted"] == "resend" else CrossingBroker
    broker = kind(Access(port=task["port"], client_id=7), FAST)
    with Client(tuple(task["control"])) as control:
        feed = SteppedFeed(home, control, broker, desk)
        params = settings(task["snapshot_seconds"])
        Worker(
            home, params, [AGENT], feed, shelf=OneModel(), broker=broker, desk=desk, environment={}
        ).run()


def _child(task: dict[str, Any]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    code = 1
    try:
        trade(task)
        code = 0
    except BaseException:  # noqa: BLE001  (told to the parent as text)
        (Path(task["root"]) / "error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    """Serve tasks from the standard input until it ends."""
    warm_up()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if not child:
            _child(task)
        if task["after"] is not None:
            signal.sigtimedwait({signal.SIGCHLD}, task["after"])
            os.kill(child, signal.SIGKILL)  # not yet waited for, so it is still this child
        _, status = os.waitpid(child, 0)
        signal.sigtimedwait({signal.SIGCHLD}, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
