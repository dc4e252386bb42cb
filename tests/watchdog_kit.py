"""A home under a watchdog: gateways in processes of their own, and what a person is told."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import serving_kit as world
from ibkr_kit import FAST

from core.errors import SchemaMismatch, StorageError
from core.home import Home
from core.settings import Params
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker
from serving.ledger import LedgerReader, rows
from serving.metrics import Meters
from serving.switch import Policy
from serving.watch import Watch
from serving.watchdog import Limits, Watchdog

HERE = Path(__file__).parent
DEADLINE_SECONDS = 180.0  # only ever spent by a test that fails


class Told(Watch):
    """Remembers what a person is told."""

    def __init__(self, params: Params) -> None:
        super().__init__(params.alerts, Meters())
        self.kinds: list[str] = []

    def notice(self, kind: str, detail: str, agent: str = "") -> None:
        self.kinds.append(kind)
        super().notice(kind, detail, agent)

    def see(self, row: rows.Row) -> None:
        if isinstance(row, rows.RiskEvent):
            self.kinds.append(row.kind)
        super().see(row)


class Place:
    """A home, and gateways of it in processes of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, Home(root / "home")
        self.port = ""  # of a fake TWS; empty: on paper
        self.lease_seconds = "60"
        self.dogs: list[Watchdog] = []
        self.started: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        own = {"RATCHET_LEASE_SECONDS": self.lease_seconds, "PYTHONPATH": path}
        return dict(os.environ) | own | ({"IB_PORT": self.port} if self.port else {})

    def command(self, speed: str) -> list[str]:
        if not (self.root / "shelf").exists():
            world.shelf_with_both(self.root / "shelf", world.params())
        script = str(HERE / "standby_process.py")
        return [sys.executable, script, str(self.home.root), str(self.root / "shelf"), speed]

    def gateway(self, speed: str = "4", *more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*self.command(speed), *more], env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    def dog(
        self, command: list[str], policy: Policy = "protect", restart: bool = True, **limits: Any
    ) -> tuple[Watchdog, Told]:
        solo = {"symbol": "SOLO", "limits": {"stop_loss": 0.03}, "when_stopped": policy}
        params = world.params(agents={"solo": solo})
        watch = Told(params)
        made = Watchdog(
            self.home, params, command, self._broker, watch, self.environment,
            restart=restart, limits=Limits(**({"longest_pause": 0.01} | limits)),
        )  # fmt: skip
        self.dogs.append(made)
        return made, watch

    def _broker(self, session: rows.Session) -> Broker:
        if session.broker == "paper":
            return PaperBroker()
        return IbkrBroker(Access(port=int(self.port), client_id=7), FAST)

    def rows(self, kind: type[rows.RowType], **equals: Any) -> list[rows.RowType]:
        try:
            with LedgerReader(self.home.ledger) as ledger:
                return ledger.rows(kind, **equals)
        except (StorageError, SchemaMismatch):  # it is being made
            return []


def until(what: str, condition: Callable[[], bool], look: Callable[[], None] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        if look:
            look()
        time.sleep(0.02)


@contextmanager
def place_at(root: Path) -> Iterator[Place]:
    """Yield a place; whatever was started in it is ended."""
    made = Place(root)
    try:
        yield made
    finally:
        for dog in made.dogs:
            dog.close()
        for process in made.started:
            process.kill()
            process.communicate()
