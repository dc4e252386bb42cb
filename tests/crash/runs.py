"""Runs: a task traded to its end, however often its process dies, and what came of it.

Owns one zygote (``crash.trader``), the market of each run, and the verdict: held against a run that
nobody interrupted, what is lost, doubled or unexplained.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any, Self

from fake_tws import in_thread
from ibkr_kit import audit, base_of

from core.errors import StorageError
from core.home import Home
from crash.script import CrashMarket
from serving.ledger import LedgerReader, rows

HERE = Path(__file__).parent.parent
KILLED = -9
BLIND = "sent before its intent was written"  # as ``ibkr_kit.audit`` says it


@dataclass(frozen=True, slots=True)
class Kill:
    """How one process ends: at a crossing of a boundary, or after a while."""

    boundary: str = ""
    crossing: int = 0
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    kills: tuple[Kill, ...] = ()  # of its first process, its second, …
    snapshot_seconds: float = 1e-6  # 1e-6: at every bar; 1e6: at the first
    planted: str = ""
    market_goes_on: bool = False  # while nobody trades; else it waits for the next process


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the broker's books and the ledger came to."""

    entries: Counter[tuple[str, float]]  # order reference and shares, at the broker
    fills: Counter[tuple[str, str, float, float]]  # leg, moment, shares, price, at the broker
    equity: float
    struck: tuple[str, ...]  # boundaries at which a process died; "random"
    crossings: tuple[tuple[str, ...], ...]  # of each process, in order
    wrong: tuple[str, ...]  # what the audit found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run lost, doubled, or cannot explain."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.unexplained)

    @property
    def clean_but_for_blind_orders(self) -> bool:
        """Whether only the fake broker's look into the ledger found something."""
        told = [one for one in self.unexplained if BLIND not in one]
        return not (self.lost or self.doubled or told)


class Bench:
    """Runs tasks one after the other; use as a context manager."""

    def __enter__(self) -> Self:
        environment = os.environ | {"PYTHONPATH": str(HERE), "OPENBLAS_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "crash.trader"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = Listener(("127.0.0.1", 0))
        self._market: CrashMarket | None = None
        threading.Thread(target=self._listen, name="market", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._zygote.stdin
        assert self._zygote.stdout
        self._zygote.stdin.close()
        self._zygote.wait(30)
        self._zygote.stdout.close()
        self._listener.close()

    def run(self, task: Task) -> Outcome:
        """Trade a task until its session is closed."""
        with tempfile.TemporaryDirectory(prefix="ratchet-crash-") as folder:
            root = Path(folder)
            home = Home(root / "home")
            home.root.mkdir()
            self._market = CrashMarket(home.root)
            with in_thread(self._market.tws) as self._market.remote:
                struck, crossings, problems = self._live(root, home, task)
            problems += _audited(home, self._market)
            return _outcome(home, self._market, struck, crossings, problems)

    def _live(
        self, root: Path, home: Home, task: Task
    ) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
        """Start process after process; return where they died, what they crossed, what failed."""
        struck: list[str] = []
        crossings: list[tuple[str, ...]] = []
        for number in range(len(task.kills) + 1):
            kill = task.kills[number] if number < len(task.kills) else Kill()
            code = self._trade(root, task, kill, recovering=number > 0)
            crossed = (root / "crossings").read_text().splitlines()
            (root / "crossings").write_text("")
            crossings.append(tuple(crossed))
            if code == KILLED:
                struck.append(kill.boundary or "random")
            elif code:
                return struck, crossings, [f"process {number}: {(root / 'error').read_text()}"]
            if code == 0 or _is_closed(home):
                return struck, crossings, []
            if task.market_goes_on and self._market:
                self._market.go_on(_bars_closed(home))
        return struck, crossings, ["the session was never closed"]

    def _trade(self, root: Path, task: Task, kill: Kill, recovering: bool) -> int:
        assert self._zygote.stdin
        assert self._zygote.stdout
        assert self._market
        order = {
            "root": str(root),
            "port": self._market.tws.port,
            "control": self._listener.address,
            "kill": [kill.boundary, kill.crossing] if kill.boundary else None,
            "after": kill.after_seconds,
            "recovering": recovering,
            "snapshot_seconds": task.snapshot_seconds,
            "planted": task.planted,
        }
        (root / "crossings").touch()
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        return int(self._zygote.stdout.readline())

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # closed: the bench is done
                return
            threading.Thread(target=self._serve, args=(connection, self._market)).start()

    @staticmethod
    def _serve(connection: Any, market: CrashMarket) -> None:
        """Play what one process asks for, until it is gone."""
        with connection:
            try:
                while True:
                    place, phase = connection.recv()
                    market.play(place, phase)
                    connection.send(True)
            except (EOFError, OSError):
                return


def _is_closed(home: Home) -> bool:
    try:
        with LedgerReader(home.ledger) as ledger:
            return any(event.kind == "closed" for event in ledger.rows(rows.SessionEvent))
    except StorageError:  # killed before there was one
        return False


def _bars_closed(home: Home) -> int:
    try:
        with LedgerReader(home.ledger) as ledger:
            return len(ledger.rows(rows.Equity))
    except StorageError:
        return 0


def _audited(home: Home, market: CrashMarket) -> list[str]:
    try:
        return audit(home.root, market.exchange)
    except StorageError as error:
        return [str(error)]


def _outcome(
    home: Home,
    market: CrashMarket,
    struck: list[str],
    crossings: list[tuple[str, ...]],
    problems: list[str],
) -> Outcome:
    exchange = market.exchange
    ours = [o.ticket for o in exchange.orders.values() if o.ticket.order_ref.startswith("ratchet-")]
    newest = {base_of(one.exec_id): one for one in exchange.executions.values()}
    with LedgerReader(home.ledger) as ledger:
        books = ledger.rows(rows.Equity)
        if len({book.session for book in books}) > 1:
            problems = [*problems, "more than one session"]
    return Outcome(
        entries=Counter((t.order_ref, t.quantity) for t in ours if "-entry-" in t.order_ref),
        fills=Counter(
            (_leg(one.order.ticket.order_ref), one.at.isoformat(), one.signed, one.price)
            for one in newest.values()
        ),
        equity=books[-1].equity if books else 0.0,
        struck=tuple(struck),
        crossings=tuple(crossings),
        wrong=tuple(problems),
    )


def _leg(order_ref: str) -> str:
    return next(leg for leg in ("entry", "stop", "target") if f"-{leg}" in order_ref)


def judge(outcome: Outcome, reference: Outcome, goes_on: bool = False) -> Verdict:
    """Hold a run against one that nobody interrupted.

    Where the market went on meanwhile the two may differ: then ledger and broker must agree.
    """
    entries, fills = outcome.entries, outcome.fills
    again = [(ref, count) for (ref, _), count in entries.items() if count > 1]
    if goes_on:
        return Verdict(
            lost=[one for one in outcome.wrong if "fate unknown" in one],
            doubled=[f"order {ref} {count} times" for ref, count in again],
            unexplained=[one for one in outcome.wrong if "fate unknown" not in one],
        )
    return Verdict(
        lost=[
            *(f"order {ref} {shares:,.0f}" for ref, shares in reference.entries - entries),
            *(f"fill {fill}" for fill in reference.fills - fills),
        ],
        doubled=[
            *(f"order {ref} {count} times" for ref, count in again),
            *(f"order {ref} {shares:,.0f}" for ref, shares in entries - reference.entries),
            *(f"fill {fill}" for fill in fills - reference.fills),
        ],
        unexplained=[
            *outcome.wrong,
            *_other(outcome.equity, reference.equity),
        ],
    )


def _other(equity: float, expected: float) -> list[str]:
    if abs(equity - expected) < 1e-6:
        return []
    return [f"equity {equity!r}, uninterrupted {expected!r}"]
